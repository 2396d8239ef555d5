"""A Groundwork as its users start it, and what they would do with it by hand."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mlflow
import psutil
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from flows.home import Home
from groundwork import Client
from groundwork.processes import MARKER
from groundwork.running import LaunchRecord, wait_until_healthy
from groundwork.services import Addresses

START_PATIENCE = 180.0
"""Seconds. Servers take 15 to 30 on two idle cores; tests may share them with anything."""
RUN_PATIENCE = 180.0
LONGEST_DEATH = 180.0
"""Seconds after which nothing may show a killed run as running, nor its training slot as taken."""
PHENOL, BROKEN = "c1ccccc1O", "c1ccccc1N("
UPLOADED = 70
"""Molecules of the table that the first version learns from."""
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class PatientTransport(httpx.HTTPTransport):
    """Waits out a server that is being restarted, or whose database is busy, as Prefect's own clients do."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + RUN_PATIENCE
        while True:
            response = super().handle_request(request)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                return response
            response.read()
            time.sleep(0.5)


class Groundwork:
    """A running ``groundwork up`` on a state folder of its own."""

    def __init__(self, home: Home, addresses: Addresses, launcher: subprocess.Popen[bytes]) -> None:
        self.home = home
        self.addresses = addresses
        self.launcher = launcher
        self.mlflow = MlflowClient(addresses.mlflow_url)
        self.api = Client(addresses.api_url)
        self.prefect = httpx.Client(
            base_url=f"{addresses.prefect_url}/api/", timeout=60, transport=PatientTransport(retries=3)
        )

    @property
    def environment(self) -> dict[str, str]:
        """Of commands and clients that users start themselves."""
        return {**os.environ, **self.home.environment(), **self.addresses.environment()}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``groundwork`` with arguments, in the folder of the state."""
        return self.python("-m", "groundwork", *arguments)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python in a fresh process."""
        return subprocess.run(
            [sys.executable, "-P", *arguments],
            env=self.environment,
            cwd=self.home.root,
            capture_output=True,
            text=True,
            timeout=RUN_PATIENCE,
        )

    # -------------------------------------------------------------------------------------- flow runs

    def submit(self, deployment: str, **parameters: Any) -> httpx.Response:
        """Ask Prefect for a run, as its form does."""
        found = self.prefect.get(f"deployments/name/{deployment}/{deployment}")
        found.raise_for_status()
        path = f"deployments/{found.json()['id']}/create_flow_run"
        return self.tell(path, {"parameters": parameters})

    def tell(self, path: str, told: Any) -> httpx.Response:
        """Post to Prefect; again while its SQLite is busy (503), as Prefect's own clients do."""

        def answer() -> httpx.Response | None:
            given = self.prefect.post(path, json=told)
            return None if given.status_code == httpx.codes.SERVICE_UNAVAILABLE else given

        given: httpx.Response = eventually(answer)
        return given

    def start(self, deployment: str, **parameters: Any) -> str:
        """Start a run; returns its id."""
        answer = self.submit(deployment, **parameters)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def state(self, flow_run: str) -> dict[str, Any]:
        return self.prefect.get(f"flow_runs/{flow_run}").json()["state"]

    def ended(self, flow_run: str) -> dict[str, Any]:
        """Wait for a run's end; returns its last state."""
        eventually(lambda: self.state(flow_run)["type"] in FINAL, RUN_PATIENCE)
        return self.state(flow_run)

    def complete(self, flow_run: str) -> None:
        """Wait for a run that must succeed."""
        state = self.ended(flow_run)
        assert state["type"] == "COMPLETED", state["message"]

    def cancel(self, flow_run: str) -> None:
        """What the button in the Prefect UI does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        answer = self.tell(f"flow_runs/{flow_run}/set_state", {"state": state})
        assert answer.json()["status"] == "ACCEPT", answer.text

    def artifacts(self, flow_run: str) -> dict[str, dict[str, Any]]:
        """Artifacts of a run by what they are: ``progress``, ``result``, ``figure``, ``mlflow-run``.

        The rest of a key is the run's or the model's own.
        """
        wanted = {"artifacts": {"flow_run_id": {"any_": [flow_run]}}}
        found = self.prefect.post("artifacts/filter", json=wanted).json()
        kinds = ("progress", "result", "figure", "predictions", "mlflow-run")
        return {kind: it for it in found for kind in kinds if it["key"].startswith(kind)}

    def said(self, flow_run: str) -> str:
        """The log of a run."""
        wanted = {"logs": {"flow_run_id": {"any_": [flow_run]}}, "sort": "TIMESTAMP_ASC"}
        return "\n".join(it["message"] for it in self.prefect.post("logs/filter", json=wanted).json())

    def percent(self, flow_run: str) -> float:
        """How much of its training a run has done."""
        progress = self.artifacts(flow_run).get("progress")
        # Encoding shows its progress first, and the steps of training are told apart by their words.
        training = progress is not None and str(progress["description"]).startswith("step")
        return float(progress["data"]) if progress is not None and training else 0.0

    def mlflow_run(self, flow_run: str) -> Run:
        """The MLflow run that a flow run wrote."""
        experiments = [it.experiment_id for it in self.mlflow.search_experiments()]
        tag = f"tags.`prefect.flow_run_id` = '{flow_run}'"
        [run] = self.mlflow.search_runs(experiments, tag)
        return run

    def steps(self, flow_run: str) -> list[int]:
        """The steps whose loss a run has reported."""
        found = self.mlflow.get_metric_history(self.mlflow_run(flow_run).info.run_id, "loss")
        return [it.step for it in found]

    def stopped(self, flow_run: str) -> Stopped:
        """What is to be seen of a run now that it has stopped in its training."""
        found = self.home.runs.glob("finetune-*/checkpoints/checkpoint-*/trainer_state.json")
        saved = max(int(state.parent.name.partition("-")[2]) for state in found)
        status = self.mlflow_run(flow_run).info.status
        return Stopped(flow_run, time.monotonic(), self.steps(flow_run), status, saved)

    def artifact(self, run: Run, path: str) -> Path:
        """One file of an MLflow run."""
        server = self.addresses.mlflow_url
        return Path(
            mlflow.artifacts.download_artifacts(
                run_id=run.info.run_id, artifact_path=path, tracking_uri=server
            )
        )

    # -------------------------------------------------------------------------------------- processes

    def pid(self, service: str) -> int:
        """Of the leading process of one of the four services; 0 while it is being restarted."""
        record = LaunchRecord.read(self.home)
        assert record is not None
        return next(child.pid for child in record.children if child.name == service)

    def processes(self) -> Iterator[psutil.Process]:
        """Everything that was started on the state folder."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                environment = process.environ()
                if MARKER in environment and environment.get("GROUNDWORK_HOME") == str(self.home.root):
                    yield process


@dataclass(frozen=True)
class Stopped:
    """A run that was stopped in its training, and what was to be seen of it then."""

    flow_run: str
    at: float
    """On the monotonic clock."""
    steps: list[int]
    """Whose losses MLflow knew."""
    status: str
    """Of its MLflow run."""
    saved: int
    """The step of its newest checkpoint."""

    def since(self) -> float:
        return time.monotonic() - self.at


@contextlib.contextmanager
def groundwork_up(root: Path) -> Iterator[Groundwork]:
    """``groundwork up`` on free ports, ended as a service manager would end it."""
    home = Home(root)
    ports = _free_ports(3)
    options = [
        it
        for name, port in zip(("prefect", "mlflow", "api"), ports, strict=True)
        for it in (f"--{name}-port", str(port))
    ]
    log = root.with_suffix(".log")
    with log.open("wb") as output:
        launcher = subprocess.Popen(
            [sys.executable, "-P", "-m", "groundwork", "up", *options],
            env={**os.environ, "GROUNDWORK_HOME": str(home.root)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = None
    try:
        running = Groundwork(home, wait_until_healthy(home, START_PATIENCE, launcher), launcher)
        yield running
    finally:
        launcher.send_signal(signal.SIGTERM)
        try:
            launcher.wait(60)
        finally:
            launcher.kill()
            leftovers = list(running.processes()) if running else []
            for process in leftovers:
                process.kill()
    assert launcher.returncode == 0, log.read_text()
    assert not leftovers


def eventually(what: Callable[[], Any], timeout: float = 60.0) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(httpx.TransportError):
            if found := what():
                return found
        assert time.monotonic() < deadline, f"it did not happen within {timeout:.0f} s"
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [it.getsockname()[1] for it in sockets]
