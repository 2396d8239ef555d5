"""``groundwork demo``: the whole thread on embedded data, through the running services."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from domains.contract import GroundworkError
from flows.home import Home
from flows.settings import CONFIGS, read_config
from groundwork.client import Client
from groundwork.execution import use_services
from groundwork.processes import port_holder
from groundwork.remote import FinishedRun, run_deployment
from groundwork.running import running, wait_until_healthy
from groundwork.services import Addresses, Ports

START_PATIENCE = 180.0
STOP_PATIENCE = 60.0

QUESTIONS = ["CC(=O)Oc1ccccc1C(=O)O", "c1ccccc1N("]
"""Aspirin, and a molecule with an open branch: one is answered, one is rejected with a reason."""


def demo(home: Home, console: Console) -> Path:
    """Pretrain, fine-tune, register and ask, by the deployments of a running Groundwork.

    Starts the services where none run on the state folder, and ends them again. Returns the path of
    ``demo/summary.json``. Raises GroundworkError when a step does not end as it should.
    """
    started = time.monotonic()
    with _services(home, console) as addresses:
        use_services(home)
        runs = [
            run_deployment(name, read_config(CONFIGS / f"demo/{name}.yaml"), addresses, console)
            for name in ("pretrain-molecules", "finetune-molecules")
        ]
        summary = _summary(addresses, runs)
    summary["seconds"] = round(time.monotonic() - started, 1)
    path = home.root / "demo" / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary, indent=2) + "\n")
    _show(summary, path, console)
    return path


@contextmanager
def _services(home: Home, console: Console) -> Iterator[Addresses]:
    addresses = running(home)
    if addresses is not None:
        console.print(f"using the Groundwork that runs on {home.root}")
        yield addresses
        return
    ports = _free_ports()
    command = [sys.executable, "-P", "-m", "groundwork", "up"]
    for name in ("prefect", "mlflow", "api"):
        command += [f"--{name}-port", str(getattr(ports, name))]
    home.logs.mkdir(parents=True, exist_ok=True)
    with (home.logs / "up.log").open("ab") as log:
        launcher = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **home.environment()})
    try:
        with console.status("starting Prefect, MLflow, the flow runner and the API"):
            yield wait_until_healthy(home, START_PATIENCE, launcher)
    finally:
        launcher.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            launcher.wait(STOP_PATIENCE)


def _free_ports() -> Ports:
    """The usual ports, or others where those are taken: a demo must not fail for a port."""
    taken: set[int] = set()

    def free(port: int) -> int:
        while port in taken or port_holder(port):
            port += 1
        taken.add(port)
        return port

    usual = Ports()
    return Ports(free(usual.prefect), free(usual.mlflow), free(usual.api))


def _summary(addresses: Addresses, runs: list[FinishedRun]) -> dict[str, Any]:
    from mlflow import MlflowClient

    from models import registry

    made = {run.flow_run_id for run in runs}
    versions = [
        version
        for name in registry.names()
        for version in registry.versions(name)
        if version.tags.get("flow_run_id") in made
    ]
    if len(versions) != len(runs):
        raise GroundworkError(
            f"{len(runs)} versions were to be registered, {len(versions)} are: see the runs in Prefect"
        )
    task = next(version for version in versions if version.tags["kind"] == "task")
    figures = MlflowClient().get_run(task.run_id).data.metrics
    with Client(addresses.api_url, api_key=os.environ.get("GROUNDWORK_API_KEY")) as client:
        answers = client.predict(task.name, QUESTIONS)
    if [answer["status"] for answer in answers] != ["ok", "rejected"]:
        raise GroundworkError(f"the API answered {answers}: one valid and one invalid molecule were asked")
    return {
        "molecules": {
            "test_mae": figures["test_mae"],
            "baseline_mae": figures["floor_ECFP4___random_forest_mae"],
            "descriptor_baseline_mae": figures["floor_descriptors___random_forest_mae"],
            "unit": task.tags["unit"],
            "split_id": task.tags["split_id"],
            "beats_floor": task.beats_floor,
        },
        "registered": [
            {
                "name": version.name,
                "version": version.version,
                "alias": ", ".join(version.aliases),
                "mlflow_run_id": version.run_id,
                "prefect_flow_run_id": version.tags["flow_run_id"],
                "dataset_digest": version.tags["dataset_digest"],
            }
            for version in versions
        ],
        "predictions": [
            {"input": question, **answer} for question, answer in zip(QUESTIONS, answers, strict=True)
        ],
    }


def _show(summary: dict[str, Any], path: Path, console: Console) -> None:
    molecules = summary["molecules"]
    console.print(
        f"melting points, scaffold split: test MAE {molecules['test_mae']:.1f} {molecules['unit']}; "
        f"ECFP + random forest {molecules['baseline_mae']:.1f}, "
        f"descriptors + random forest {molecules['descriptor_baseline_mae']:.1f}"
    )
    for version in summary["registered"]:
        console.print(f"registered {version['name']}/{version['version']} ({version['alias']})")
    for answer in summary["predictions"]:
        said = (
            answer["reason"]
            or f"{answer['predictions']['melting_point']['prediction']:.0f} {molecules['unit']}"
        )
        console.print(f"{answer['input']}: {said}", highlight=False)
    console.print(f"{path} after {summary['seconds']:.0f} s; `groundwork up` shows it all again")
    console.print("demo: ok")
