"""Runs that are cancelled and go on, and services that are killed and come back."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from groundwork_up import Groundwork, eventually

from groundwork.running import wait_until_healthy

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "target": ["logp"],
    "name": "interrupted",
    "foundation": "none",
    "epochs": 8,
    "batch_size": 2,
}
RETURN_PATIENCE = 60.0
"""Seconds within which a killed service must be healthy again."""


@pytest.fixture(scope="module")
def settings(table: str) -> dict[str, Any]:
    return {**SETTINGS, "pasted": table}


@pytest.fixture(scope="module")
def cancelled(running: Groundwork, settings: dict[str, Any]) -> tuple[str, list[int]]:
    """A run cancelled in the middle of its training: its id, and the steps it had reported by then."""
    run = running.start("finetune-molecules", **settings)
    eventually(lambda: _percent(running, run) >= 5, 180)
    running.cancel(run)
    running.ended(run)
    return run, _steps(running, run)


@pytest.fixture(scope="module")
def resumed(running: Groundwork, settings: dict[str, Any], cancelled: tuple[str, list[int]]) -> str:
    run = running.start("finetune-molecules", **settings, resume=True)
    running.complete(run)
    return run


def _percent(running: Groundwork, run: str) -> float:
    progress = running.artifacts(run).get("progress")
    # Encoding shows its progress first, and the steps of training are told apart by their words.
    training = progress is not None and str(progress["description"]).startswith("step")
    return float(progress["data"]) if progress is not None and training else 0.0


def _steps(running: Groundwork, run: str) -> list[int]:
    found = running.mlflow.get_metric_history(running.mlflow_run(run).info.run_id, "loss")
    return [it.step for it in found]


def test_cancelling_saves_a_checkpoint_and_ends_as_cancelled(
    running: Groundwork, cancelled: tuple[str, list[int]]
) -> None:
    run, steps = cancelled
    assert running.state(run)["type"] == "CANCELLED"
    stopped = running.mlflow_run(run)
    assert stopped.info.status == "KILLED"
    [checkpoint] = running.home.runs.glob("finetune-*/checkpoints/checkpoint-*/trainer_state.json")
    assert int(checkpoint.parent.name.partition("-")[2]) >= max(steps) > 0


def test_resuming_continues_the_same_mlflow_run(
    running: Groundwork, cancelled: tuple[str, list[int]], resumed: str, molecules: list[str]
) -> None:
    _, before = cancelled
    run = running.mlflow_run(resumed)
    assert run.info.status == "FINISHED"
    assert {it.run_id for it in running.mlflow.search_model_versions("name = 'interrupted'")} == {
        run.info.run_id
    }
    assert (
        len(
            running.mlflow.search_runs(
                [run.info.experiment_id], "tags.mlflow.runName = 'finetune interrupted'"
            )
        )
        == 1
    )
    steps = _steps(running, resumed)
    assert steps[: len(before)] == before
    assert steps == sorted(set(steps))
    per_epoch = -(-int(0.8 * len(molecules)) // SETTINGS["batch_size"])
    assert steps[-1] > (SETTINGS["epochs"] - 1) * per_epoch
    assert run.data.metrics["training_steps"] == pytest.approx(SETTINGS["epochs"] * per_epoch, rel=0.05)


@pytest.mark.parametrize("service", ["prefect", "mlflow", "runner", "api"])
def test_a_killed_service_comes_back_with_what_it_knew(
    running: Groundwork, resumed: str, service: str
) -> None:
    before = running.pid(service)
    others = {name: running.pid(name) for name in {"prefect", "mlflow", "runner", "api"} - {service}}
    os.kill(before, signal.SIGKILL)
    killed = time.monotonic()
    eventually(lambda: running.pid(service) not in (0, before), RETURN_PATIENCE)
    wait_until_healthy(running.home, RETURN_PATIENCE - (time.monotonic() - killed), running.launcher)
    assert {name: running.pid(name) for name in others} == others

    assert running.state(resumed)["type"] == "COMPLETED"
    version = running.mlflow.get_model_version_by_alias("interrupted", "champion")
    assert version.tags["flow_run_id"] == resumed
    [answer] = running.api.predict("interrupted", ["CCO"])
    assert answer["status"] == "ok"
