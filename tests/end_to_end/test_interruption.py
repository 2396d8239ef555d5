"""Runs that are cancelled or killed and go on, and services that are killed and come back."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from groundwork_up import LONGEST_DEATH, Groundwork, Killed, eventually

from groundwork.running import wait_until_healthy

pytestmark = pytest.mark.slow

RETURN_PATIENCE = 60.0
"""Seconds within which a killed service must be healthy again."""


@pytest.fixture(scope="module")
def cancelled(running: Groundwork, interrupted: dict[str, Any]) -> tuple[str, list[int]]:
    """A run cancelled in the middle of its training: its id, and the steps it had reported by then."""
    run = running.start("finetune-molecules", **interrupted)
    eventually(lambda: running.percent(run) >= 5, 180)
    running.cancel(run)
    running.ended(run)
    return run, _steps(running, run)


@pytest.fixture(scope="module")
def resumed(running: Groundwork, interrupted: dict[str, Any], cancelled: tuple[str, list[int]]) -> str:
    run = running.start("finetune-molecules", **interrupted, resume=True)
    running.complete(run)
    return run


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
    running: Groundwork,
    interrupted: dict[str, Any],
    cancelled: tuple[str, list[int]],
    resumed: str,
    molecules: list[str],
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
    per_epoch = -(-int(0.8 * len(molecules)) // interrupted["batch_size"])
    assert steps[-1] > (interrupted["epochs"] - 1) * per_epoch
    assert run.data.metrics["training_steps"] == pytest.approx(interrupted["epochs"] * per_epoch, rel=0.05)


def test_a_killed_run_shows_as_running_on_neither_side(running: Groundwork, killed: Killed) -> None:
    def ended() -> bool:
        state, run = running.state(killed.flow_run), running.mlflow_run(killed.flow_run)
        return state["type"] != "RUNNING" and run.info.status != "RUNNING"

    eventually(ended, LONGEST_DEATH)
    print(f"neither Prefect nor MLflow shows it as running after {killed.since():.0f} s")
    state, run = running.state(killed.flow_run), running.mlflow_run(killed.flow_run)
    assert state["type"] == "CRASHED"
    assert "`resume`" in state["message"]
    assert run.info.status == "FAILED"
    assert state["message"] in run.data.tags["failure"]
    wanted = {
        "flow_runs": {"id": {"any_": [killed.flow_run]}},
        "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}},
    }
    assert running.prefect.post("task_runs/filter", json=wanted).json() == []


# That its training slot is free after two minutes is seen in test_resuming.py: until then, nothing trains.
def test_killed_services_come_back_with_what_they_knew(running: Groundwork, resumed: str) -> None:
    """All at once: each of them also comes back while those that it depends on are not there."""
    services = ("prefect", "mlflow", "runner", "api")
    before = {name: running.pid(name) for name in services}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    eventually(
        lambda: all(running.pid(name) not in (0, pid) for name, pid in before.items()), RETURN_PATIENCE
    )
    wait_until_healthy(running.home, RETURN_PATIENCE - (time.monotonic() - killed), running.launcher)

    assert running.state(resumed)["type"] == "COMPLETED"
    version = running.mlflow.get_model_version_by_alias("interrupted", "champion")
    assert version.tags["flow_run_id"] == resumed
    [answer] = running.api.predict("interrupted", ["CCO"])
    assert answer["status"] == "ok"


def test_a_killed_service_takes_no_other_with_it(running: Groundwork, resumed: str) -> None:
    before = running.pid("api")
    others = {name: running.pid(name) for name in ("prefect", "mlflow", "runner")}
    os.kill(before, signal.SIGKILL)
    eventually(lambda: running.pid("api") not in (0, before), RETURN_PATIENCE)
    wait_until_healthy(running.home, RETURN_PATIENCE, running.launcher)
    assert {name: running.pid(name) for name in others} == others
    [answer] = running.api.predict("interrupted", ["CCO"])
    assert answer["status"] == "ok"
