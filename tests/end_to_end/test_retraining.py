"""A model that is kept alive: retrained by its schedule, promoted, refused, rolled back while it serves."""

from __future__ import annotations

import csv
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from groundwork_up import PHENOL, Groundwork, eventually

pytestmark = pytest.mark.slow

NAME, DEPLOYMENT = "logp", "retrain-molecules"
DATASET = "measured-logp"
SECONDS = 10
"""Between two runs of the schedule."""
PATIENCE = 240.0


@pytest.fixture(scope="module")
def rows(table: str) -> list[tuple[str, str]]:
    return [(row["smiles"], row["logp"]) for row in csv.DictReader(io.StringIO(table))]


def upload(running: Groundwork, folder: Path, rows: list[tuple[str, str]]) -> None:
    """As a colleague does every week, under the same name."""
    file = folder / "logp.csv"
    file.write_text("smiles,logp\n" + "".join(f"{smiles},{cell}\n" for smiles, cell in rows))
    running.api.upload(file, DATASET)


def decisions(running: Groundwork) -> list[dict[str, Any]]:
    """What the API tells of the model, newest first."""
    url = f"{running.addresses.api_url}/v1/models/{NAME}"
    return httpx.get(url, timeout=60).raise_for_status().json()["history"]


class Schedule:
    """A schedule of seconds on the deployment, set and switched as its page in Prefect does."""

    def __init__(self, running: Groundwork) -> None:
        self.running = running
        found = running.prefect.get(f"deployments/name/{DEPLOYMENT}/{DEPLOYMENT}").json()
        self.deployment, [self.nightly] = found["id"], found["schedules"]
        self.address = f"deployments/{self.deployment}/schedules"
        often = {"schedule": {"interval": SECONDS}, "active": False, "parameters": {"model": [NAME]}}
        [made] = running.prefect.post(self.address, json=[often]).raise_for_status().json()
        self.id = made["id"]

    def switch(self, *, on: bool, schedule: str = "") -> None:
        address = f"{self.address}/{schedule or self.id}"
        self.running.prefect.patch(address, json={"active": on}).raise_for_status()
        # Prefect looks every minute for schedules, and every five seconds where a deployment has changed.
        self.running.prefect.patch(f"deployments/{self.deployment}", json={"paused": False})

    def begun(self) -> int:
        """How many of its runs were begun."""
        begun = {"any_": ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CRASHED"]}
        wanted = {
            "deployments": {"id": {"any_": [self.deployment]}},
            "flow_runs": {"state": {"type": begun}},
        }
        return int(self.running.prefect.post("flow_runs/count", json=wanted).json())

    def decided(self, action: str) -> dict[str, Any]:
        """Let the schedule fire, and wait for the decision that comes of it."""
        known, begun = [entry["at"] for entry in decisions(self.running)], self.begun()
        self.switch(on=True)
        # One run is enough: those that come due while it starts would only fight it over the cores.
        eventually(lambda: self.begun() > begun, PATIENCE)
        self.switch(on=False)

        def made() -> dict[str, Any] | None:
            fresh = {entry["action"]: entry for entry in decisions(self.running) if entry["at"] not in known}
            assert fresh.keys() <= {action, "unchanged"}, fresh
            return fresh.get(action)

        return eventually(made, PATIENCE)


def artifact(running: Groundwork, flow_run: str, key: str) -> dict[str, Any] | None:
    """What a run shows under a key, as soon as it does."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [flow_run]}, "key": {"any_": [key]}}}
    return next(iter(running.prefect.post("artifacts/filter", json=wanted).json()), None)


@pytest.fixture(scope="module")
def schedule(running: Groundwork, first: str) -> Iterator[Schedule]:
    made = Schedule(running)
    made.switch(on=False, schedule=made.nightly["id"])
    yield made
    for known in running.prefect.get(f"deployments/{made.deployment}").json()["schedules"]:
        made.switch(on=False, schedule=known["id"])  # the runner's start has given them new names


@pytest.fixture(scope="module")
def unchanged(schedule: Schedule) -> dict[str, Any]:
    return schedule.decided("unchanged")


@pytest.fixture(scope="module")
def promoted(
    running: Groundwork, schedule: Schedule, unchanged: Any, laboratory: Path, rows: list[tuple[str, str]]
) -> dict[str, Any]:
    upload(running, laboratory, rows)
    return schedule.decided("promoted")


@pytest.fixture(scope="module")
def refused(
    running: Groundwork, schedule: Schedule, promoted: Any, laboratory: Path, rows: list[tuple[str, str]]
) -> dict[str, Any]:
    smiles, cells = zip(*rows, strict=True)
    shuffled = np.random.default_rng(0).permutation(cells)
    upload(running, laboratory, list(zip(smiles, shuffled, strict=True)))
    return schedule.decided("refused")


@pytest.fixture(scope="module")
def rolled_back(running: Groundwork, refused: Any) -> dict[str, Any]:
    """What a client saw who asked all the time while the former version was brought back."""
    answered: list[tuple[float, int, int]] = []
    stop = threading.Event()

    def ask() -> None:
        url = f"{running.addresses.api_url}/v1/models/{NAME}/predict"
        with httpx.Client(timeout=60) as client:
            while not stop.is_set():
                answer = client.post(url, json={"inputs": [PHENOL]})
                version = answer.json()["model"]["version"] if answer.status_code == 200 else 0
                answered.append((time.time(), answer.status_code, version))

    client = threading.Thread(target=ask)
    client.start()
    try:
        eventually(lambda: answered and answered[-1][2] == 2)
        command = running.command("rollback", NAME, "--reason", "the new rows are of another laboratory")
        eventually(lambda: answered[-1][2] == 1, 30)
    finally:
        stop.set()
        client.join()
    return {"command": command, "answered": answered}


def test_nothing_has_changed_and_the_run_says_so(running: Groundwork, unchanged: dict[str, Any]) -> None:
    why = f"neither data, configuration nor code has changed since {NAME}/1"
    assert unchanged["reason"] == why
    assert eventually(lambda: why in running.said(unchanged["flow_run"]))
    run = running.prefect.get(f"flow_runs/{unchanged['flow_run']}").json()
    assert run["auto_scheduled"]
    assert run["state"]["type"] in ("RUNNING", "COMPLETED")


def test_better_data_are_promoted(running: Groundwork, promoted: dict[str, Any]) -> None:
    assert (promoted["version"], promoted["champion_before"]) == (2, 1)
    assert promoted["values"]["challenger"] < promoted["values"]["champion"]
    assert f"of {NAME}/1 on the same 14 rows: better by" in promoted["reason"]
    shown = eventually(lambda: artifact(running, promoted["flow_run"], f"promotion-{NAME}"))
    assert httpx.get(shown["data"], timeout=60).content.startswith(b"\x89PNG")
    table = eventually(lambda: artifact(running, promoted["flow_run"], "retraining-molecules"))
    assert f"{NAME}/2" in table["data"]


def test_a_better_version_is_served_without_a_restart(running: Groundwork, promoted: dict[str, Any]) -> None:
    def answer(**which: int) -> dict[str, Any]:
        url = f"{running.addresses.api_url}/v1/models/{NAME}/predict"
        return httpx.post(url, json={"inputs": [PHENOL], **which}, timeout=60).raise_for_status().json()

    eventually(lambda: answer()["model"]["version"] == 2, 30)
    assert answer(version=1)["model"]["version"] == 1
    up = httpx.get(f"{running.addresses.api_url}/healthz", timeout=60).json()["uptime_seconds"]
    assert up > time.time() - datetime.fromisoformat(promoted["at"]).timestamp()


def test_worse_data_are_refused(running: Groundwork, refused: dict[str, Any]) -> None:
    assert (refused["version"], refused["champion_before"]) == (3, 2)
    assert "worse by" in refused["reason"]
    assert running.mlflow.get_model_version_by_alias(NAME, "champion").version == "2"
    assert running.mlflow.get_model_version_by_alias(NAME, "challenger").version == "3"


def test_the_former_version_serves_within_seconds_and_no_request_fails(rolled_back: dict[str, Any]) -> None:
    assert rolled_back["command"].returncode == 0, rolled_back["command"].stderr
    assert f"{NAME}/1 is the champion of {NAME}" in rolled_back["command"].stdout
    assert {status for _, status, _ in rolled_back["answered"]} == {200}
    assert [version for _, _, version in rolled_back["answered"]] == sorted(
        (version for _, _, version in rolled_back["answered"]), reverse=True
    )


def test_it_took_less_than_five_seconds(running: Groundwork, rolled_back: dict[str, Any]) -> None:
    told = next(entry for entry in decisions(running) if entry["action"] == "rolled back")
    moved = datetime.fromisoformat(told["at"]).timestamp()
    served = next(at for at, _, version in rolled_back["answered"] if version == 1)
    assert served - moved < 5


def test_the_history_shows_all_of_it(running: Groundwork, rolled_back: dict[str, Any]) -> None:
    done = running.command("history", NAME)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if f"{NAME}/" in line]
    for action in ("first", "unchanged", "promoted", "refused", "rolled back"):
        assert any(f" {action} " in line for line in told), done.stdout
    assert "the new rows are of another laboratory" in " ".join(done.stdout.split())


def test_it_is_set_to_run_at_night(schedule: Schedule) -> None:
    told = schedule.nightly["schedule"]
    assert (told["cron"], told["timezone"], schedule.nightly["active"]) == ("0 2 * * *", "UTC", True)


def test_what_users_set_survives_the_next_start(
    running: Groundwork, schedule: Schedule, rolled_back: Any
) -> None:
    address = f"deployments/{schedule.deployment}"
    running.prefect.patch(address, json={"paused": True}).raise_for_status()
    before = running.prefect.get(address).json()
    os.kill(running.pid("runner"), signal.SIGTERM)  # the launcher starts it again
    after = eventually(lambda: registered_anew(running, before), PATIENCE)
    assert after["paused"]
    kept = [
        {(str(entry["schedule"]), entry["active"], str(entry["parameters"])) for entry in told["schedules"]}
        for told in (before, after)
    ]
    assert len(kept[0]) == 2
    assert kept[0] == kept[1]
    running.prefect.patch(address, json={"paused": False}).raise_for_status()


def registered_anew(running: Groundwork, before: dict[str, Any]) -> dict[str, Any] | None:
    after = running.prefect.get(f"deployments/{before['id']}").json()
    return after if after["updated"] > before["updated"] else None
