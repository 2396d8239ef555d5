"""What looks alive in Prefect and MLflow and is dead, and the reverse, on real servers."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
import pytest
from filelock import FileLock, Timeout
from groundwork_up import Groundwork, eventually
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from domains.contract import GroundworkError
from flows import zombies
from flows.heartbeats import CANCELLING, SILENCE, SILENT
from flows.tracking import FAILURE_TAG, FLOW_RUN_TAG, FLOW_RUN_URL_TAG
from flows.zombies import Zombies

pytestmark = pytest.mark.slow

FLOW = "predict-molecules"


@pytest.fixture(autouse=True)
def speaking_to_the_servers(running: Groundwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As the flow runner does."""
    addresses = running.addresses
    monkeypatch.setenv("MLFLOW_TRACKING_URI", addresses.mlflow_url)
    before = mlflow.get_tracking_uri()
    urls = {PREFECT_API_URL: f"{addresses.prefect_url}/api", PREFECT_UI_URL: addresses.prefect_url}
    with temporary_settings(urls):
        yield
    mlflow.set_tracking_uri(before)


def post(running: Groundwork, path: str, told: Any) -> Any:
    """What Prefect answers."""
    answer = running.tell(path, told).raise_for_status()
    return answer.json() if answer.content else None


def begun(running: Groundwork, state: str = "RUNNING", flow: str = FLOW) -> str:
    """A flow run in a state, as it is in the books: no process belongs to it."""
    made = {"flow_id": post(running, "flows/", {"name": flow})["id"], "state": {"type": state}}
    if flow == FLOW:
        made["deployment_id"] = running.prefect.get(f"deployments/name/{FLOW}/{FLOW}").json()["id"]
    return str(post(running, "flow_runs/", made)["id"])


def set_state(running: Groundwork, run: str, state: str, message: str = "") -> None:
    told = {"state": {"type": state, "message": message}, "force": True}
    assert post(running, f"flow_runs/{run}/set_state", told)["status"] == "ACCEPT"


def twin(running: Groundwork, run: str, prefect_url: str = "") -> str:
    """A running MLflow run that says it belongs to a flow run."""
    page = f"{prefect_url or running.addresses.prefect_url}/runs/flow-run/{run}"
    made = running.mlflow.create_run("0", tags={FLOW_RUN_TAG: run, FLOW_RUN_URL_TAG: page})
    return str(made.info.run_id)


def lock_of(running: Groundwork, run: str, machine: str = "") -> Path:
    lock = running.home.locks / f"{run}@{machine or platform.node()}"
    lock.touch()
    return lock


@contextmanager
def process_of(running: Groundwork, run: str) -> Iterator[None]:
    """This process runs a flow run, and is not seen to end."""
    zombies.claim(running.home, run)
    yield
    zombies._held.pop(running.home.locks / f"{run}@{platform.node()}").release()


def test_what_a_killed_runner_has_left_is_ended(running: Groundwork) -> None:
    killed, cancelling = begun(running), begun(running)
    set_state(running, cancelling, "CANCELLING")
    locks = [lock_of(running, run) for run in (killed, cancelling)]
    twins = [twin(running, run) for run in (killed, cancelling)]

    sweeper = Zombies(running.home, {})
    sweeper.sweep()
    assert running.state(killed)["type"] == "CRASHED"
    assert "`resume`" in running.state(killed)["message"]
    assert running.state(cancelling)["type"] == "CANCELLED"
    for run_id, state in zip(twins, ("Crashed", "Cancelled"), strict=True):
        run = running.mlflow.get_run(run_id)
        assert run.info.status == "FAILED"
        assert state in run.data.tags[FAILURE_TAG]

    sweeper.sweep()
    assert not any(lock.exists() for lock in locks)


def test_what_lives_here_or_may_live_elsewhere_is_left_alone(running: Groundwork) -> None:
    here, elsewhere, untold = begun(running), begun(running), begun(running)
    lock_of(running, elsewhere, "another-machine")
    with process_of(running, here):
        twins = [twin(running, run) for run in (here, elsewhere, untold)]
        sweeper = Zombies(running.home, {})
        # Of the runner's own: it is the runner that reports how its processes end.
        own = begun(running)
        lock_of(running, own)
        sweeper.sweep()
        for run in (here, elsewhere, untold, own):
            assert running.state(run)["type"] == "RUNNING"
        assert {running.mlflow.get_run(run_id).info.status for run_id in twins} == {"RUNNING"}
    sweeper.sweep()
    assert running.state(here)["type"] == "CRASHED"


def test_a_run_that_was_only_silent_goes_on(running: Groundwork) -> None:
    run = begun(running)
    twin_id = twin(running, run)
    with process_of(running, run):
        sweeper = Zombies(running.home, {})
        set_state(running, run, "CRASHED", SILENT)
        sweeper.sweep()
        assert running.state(run)["type"] == "RUNNING"
        assert running.mlflow.get_run(twin_id).info.status == "RUNNING"
        set_state(running, run, "CRASHED", "by somebody else, for another reason")
        sweeper.sweep()
        assert running.state(run)["type"] == "CRASHED"


def test_a_run_that_never_began_is_ended(running: Groundwork, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(running, "PENDING")
    deployment = running.prefect.get(f"flow_runs/{run}").json()["deployment_id"]
    sweeper = Zombies(running.home, {FLOW: deployment})
    sweeper.sweep()
    assert running.state(run)["type"] == "PENDING"
    monkeypatch.setattr(zombies, "SILENCE", timedelta(0))
    sweeper.sweep()
    assert running.state(run)["type"] == "CRASHED"


def test_an_mlflow_run_ends_with_its_flow_run(running: Groundwork) -> None:
    deleted, unknown = begun(running), str(uuid4())
    twins = [twin(running, deleted), twin(running, unknown, "http://prefect.example.org:4200")]
    nobodys = running.mlflow.create_run("0").info.run_id
    running.prefect.delete(f"flow_runs/{deleted}").raise_for_status()
    Zombies(running.home, {}).sweep()
    ended = running.mlflow.get_run(twins[0])
    assert ended.info.status == "FAILED"
    assert "deleted" in ended.data.tags[FAILURE_TAG]
    for run_id in (twins[1], nobodys):
        assert running.mlflow.get_run(run_id).info.status == "RUNNING"
        running.mlflow.set_terminated(run_id)


def test_the_server_itself_ends_a_run_that_fell_silent(running: Groundwork) -> None:
    silent, not_ours = begun(running), begun(running, flow="of-somebody-else")
    # Only told of as being cancelled: that it is would be news, and the patience with it would begin anew.
    cancelling = begun(running)
    hear(running, silent, "prefect.flow-run.heartbeat", FLOW)
    hear(running, not_ours, "prefect.flow-run.heartbeat", "of-somebody-else")
    hear(running, cancelling, "prefect.flow-run.Cancelling", FLOW, CANCELLING)
    ours = post(running, "automations/filter", {})
    assert len({it["name"] for it in ours}) == len(ours) == 2  # though the runner has started more than once

    looks = itertools.count()

    def ended() -> bool:
        # The server looks again when an automation is switched on; else up to 90 s later.
        if next(looks) % 10 == 0:
            for automation in ours:
                running.prefect.patch(f"automations/{automation['id']}", json={"enabled": True})
        return {running.state(run)["type"] for run in (silent, cancelling)} == {"CRASHED", "CANCELLED"}

    eventually(ended)
    assert running.state(silent)["message"] == SILENT
    assert running.state(not_ours)["type"] == "RUNNING"


def hear(running: Groundwork, run: str, event: str, flow: str, patience: timedelta = SILENCE) -> None:
    """Let the server hear something of a run, that was said a little longer ago than silence may last."""
    related = {"prefect.resource.id": f"prefect.flow.{uuid4()}", "prefect.resource.role": "flow"}
    said: dict[str, Any] = {
        "id": str(uuid4()),
        "event": event,
        "occurred": (datetime.now(UTC) - patience - timedelta(seconds=1)).isoformat(),
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "related": [{**related, "prefect.resource.name": flow}],
    }
    post(running, "events", [said])


def test_no_two_processes_run_the_same_flow_run(running: Groundwork) -> None:
    run = str(uuid4())
    with FileLock(lock_of(running, run)), pytest.raises(GroundworkError, match="under way"):
        zombies.claim(running.home, run)
    with process_of(running, run), pytest.raises(Timeout):
        FileLock(lock_of(running, run), timeout=0).acquire()
