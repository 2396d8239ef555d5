"""A killed run gives its training slot back in time, and goes on as if nothing had happened.

Nothing can train until the slot is free. This module comes after test_restoring.py, which fine-tunes as a
terminal does, without a slot: most of the wait is over by then.
"""

from __future__ import annotations

from typing import Any

import pytest
from groundwork_up import LONGEST_DEATH, Groundwork, Stopped, eventually

pytestmark = pytest.mark.slow


def _slots_taken(running: Groundwork) -> int:
    return int(running.prefect.get("v2/concurrency_limits/groundwork-training").json()["active_slots"])


def _weights(running: Groundwork, name: str) -> dict[str, bytes]:
    """The files of weights of a name's champion."""
    model = running.mlflow.get_model_version_by_alias(name, "champion").source.rpartition("/")[2]
    found = running.home.mlflow_artifacts.glob(f"*/models/{model}/**/*.safetensors")
    return {"/".join(it.parts[-2:]): it.read_bytes() for it in found}


def test_a_killed_run_gives_its_training_slot_back(
    running: Groundwork, killed: Stopped, undisturbed: str
) -> None:
    eventually(lambda: _slots_taken(running) == 0, LONGEST_DEATH - killed.since())
    print(f"the training slot is free after {killed.since():.0f} s")


def test_a_killed_run_that_is_resumed_equals_an_undisturbed_one(
    running: Groundwork,
    interrupted: dict[str, Any],
    killed: Stopped,
    undisturbed: str,
    molecules: list[str],
) -> None:
    dead = running.mlflow_run(killed.flow_run)
    run = running.start("finetune-molecules", **interrupted, resume=True)
    running.complete(run)
    resumed = running.mlflow_run(run)
    assert resumed.info.run_id == dead.info.run_id
    assert resumed.info.status == "FINISHED"
    assert "failure" not in resumed.data.tags
    versions = running.mlflow.search_model_versions("name = 'interrupted'")
    assert [it.run_id for it in versions] == [resumed.info.run_id]
    steps = running.steps(run)
    assert steps[: len(killed.steps)] == killed.steps
    epochs, per_epoch = interrupted["epochs"], -(-int(0.8 * len(molecules)) // interrupted["batch_size"])
    assert steps[-1] > (epochs - 1) * per_epoch
    assert resumed.data.metrics["training_steps"] == pytest.approx(epochs * per_epoch, rel=0.05)
    weights = _weights(running, "interrupted")
    assert weights.keys() == {
        "encoder/model.safetensors",
        "version/head.safetensors",
        "gaussian_process/gaussian_process.safetensors",
    }
    assert weights == _weights(running, undisturbed)
