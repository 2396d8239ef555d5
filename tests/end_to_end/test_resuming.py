"""A killed run gives its training slot back in time, and goes on as if nothing had happened.

Nothing can train until the slot is free. This module comes after test_restoring.py, which fine-tunes as a
terminal does, without a slot: most of the wait is over by then.
"""

from __future__ import annotations

from typing import Any

import pytest
from groundwork_up import LONGEST_DEATH, Groundwork, Killed, eventually

pytestmark = pytest.mark.slow


def _slots_taken(running: Groundwork) -> int:
    return int(running.prefect.get("v2/concurrency_limits/groundwork-training").json()["active_slots"])


def _weights(running: Groundwork, name: str) -> dict[str, bytes]:
    """The files of weights of a name's champion."""
    model = running.mlflow.get_model_version_by_alias(name, "champion").source.rpartition("/")[2]
    found = running.home.mlflow_artifacts.glob(f"*/models/{model}/**/*.safetensors")
    return {it.name: it.read_bytes() for it in found}


@pytest.fixture(scope="module")
def undisturbed(running: Groundwork, to_be_killed: dict[str, Any], killed: Killed, table: str) -> str:
    """The name of what the same settings and rows come to in a terminal, which waits for no training slot."""
    file = running.home.root / "undisturbed.csv"
    file.write_text(table)
    options = [f"--set={key}={to_be_killed[key]}" for key in ("foundation", "epochs", "batch_size")]
    done = running.command(
        "finetune", "molecules", str(file), "--target=logp", "--name=undisturbed", *options
    )
    assert done.returncode == 0, done.stderr
    return "undisturbed"


def test_a_killed_run_gives_its_training_slot_back(
    running: Groundwork, killed: Killed, undisturbed: str
) -> None:
    eventually(lambda: _slots_taken(running) == 0, LONGEST_DEATH - killed.since())
    print(f"the training slot is free after {killed.since():.0f} s")


def test_a_killed_run_that_is_resumed_equals_an_undisturbed_one(
    running: Groundwork, to_be_killed: dict[str, Any], killed: Killed, undisturbed: str
) -> None:
    dead = running.mlflow_run(killed.flow_run)
    run = running.start("finetune-molecules", **to_be_killed, resume=True)
    running.complete(run)
    resumed = running.mlflow_run(run)
    assert resumed.info.run_id == dead.info.run_id
    assert resumed.info.status == "FINISHED"
    assert "failure" not in resumed.data.tags
    weights = _weights(running, "killed")
    assert weights.keys() == {"model.safetensors", "head.safetensors"}
    assert weights == _weights(running, undisturbed)
