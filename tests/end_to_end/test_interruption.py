"""Runs that are cancelled or killed and go on, and services that are killed and come back."""

from __future__ import annotations

import os
import signal
import time

import pytest
from groundwork_up import LONGEST_DEATH, Groundwork, Stopped, eventually

from groundwork.running import wait_until_healthy

pytestmark = pytest.mark.slow

RETURN_PATIENCE = 60.0
"""Seconds within which a killed service must be healthy again."""


def test_cancelling_saves_a_checkpoint_and_ends_as_cancelled(running: Groundwork, cancelled: Stopped) -> None:
    assert running.state(cancelled.flow_run)["type"] == "CANCELLED"
    assert cancelled.status == "KILLED"
    assert cancelled.saved >= max(cancelled.steps) > 0


def test_resuming_continues_the_same_mlflow_run(
    running: Groundwork, cancelled: Stopped, killed: Stopped
) -> None:
    run = running.mlflow_run(killed.flow_run)
    named = "tags.mlflow.runName = 'finetune interrupted'"
    assert [it.info.run_id for it in running.mlflow.search_runs([run.info.experiment_id], named)] == [
        run.info.run_id
    ]
    assert killed.steps[: len(cancelled.steps)] == cancelled.steps
    assert len(killed.steps) > len(cancelled.steps)
    assert killed.steps == sorted(set(killed.steps))


def test_a_killed_run_shows_as_running_on_neither_side(running: Groundwork, killed: Stopped) -> None:
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
def test_killed_services_come_back_with_what_they_knew(
    running: Groundwork, killed: Stopped, undisturbed: str
) -> None:
    """All at once: each of them also comes back while those that it depends on are not there.

    That one that is killed takes no other with it is seen in tests/groundwork/test_launcher.py.
    """
    services = ("prefect", "mlflow", "runner", "api")
    before = {name: running.pid(name) for name in services}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    eventually(
        lambda: all(running.pid(name) not in (0, pid) for name, pid in before.items()), RETURN_PATIENCE
    )
    wait_until_healthy(running.home, RETURN_PATIENCE - (time.monotonic() - begun), running.launcher)

    assert running.state(killed.flow_run)["type"] == "CRASHED"
    assert running.mlflow.get_model_version_by_alias(undisturbed, "champion").version == "1"
    [answer] = running.api.predict(undisturbed, ["CCO"])
    assert answer["status"] == "ok"
