"""Runs that are cancelled or killed and go on, and services that are killed and come back."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
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
LONGEST_DEATH = 180.0
"""Seconds after which nothing may show a killed run as running, nor its training slot as taken."""


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


@dataclass(frozen=True)
class Killed:
    """A run that was killed together with its runner, and when (monotonic clock)."""

    flow_run: str
    at: float

    def since(self) -> float:
        return time.monotonic() - self.at


@pytest.fixture(scope="module")
def to_be_killed(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "name": "killed", "batch_size": 8}


@pytest.fixture(scope="module")
def killed(running: Groundwork, to_be_killed: dict[str, Any]) -> Killed:
    """A run whose process was killed within an epoch of its training, and its runner with it."""
    run = running.start("finetune-molecules", **to_be_killed)
    checkpoints = "finetune-*/checkpoints/checkpoint-*/trainer_state.json"
    eventually(lambda: list(running.home.runs.glob(checkpoints)) and _percent(running, run) >= 20, 180)
    [own] = [it for it in running.processes() if it.environ().get("PREFECT__FLOW_RUN_ID") == run]
    os.kill(running.pid("runner"), signal.SIGKILL)
    own.kill()
    return Killed(run, time.monotonic())


def _slots_taken(running: Groundwork) -> int:
    return int(running.prefect.get("v2/concurrency_limits/groundwork-training").json()["active_slots"])


def _weights(running: Groundwork, name: str) -> dict[str, bytes]:
    """The files of weights of a name's champion."""
    model = running.mlflow.get_model_version_by_alias(name, "champion").source.rpartition("/")[2]
    found = running.home.mlflow_artifacts.glob(f"*/models/{model}/**/*.safetensors")
    return {it.name: it.read_bytes() for it in found}


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


# Its training slot is free after two minutes at the latest; these tests have something to do meanwhile.
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
