"""``groundwork demo``: the whole thread on embedded data, through the running services."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from domains.contract import GroundworkError
from flows.home import Home
from flows.settings import CONFIGS, read_config
from groundwork.client import Client
from groundwork.execution import use_services
from groundwork.processes import port_holder
from groundwork.running import running, wait_until_healthy
from groundwork.services import Addresses, Ports

START_PATIENCE = 180.0
STOP_PATIENCE = 60.0
POLL = 1.0

QUESTIONS = ["CC(=O)Oc1ccccc1C(=O)O", "c1ccccc1N("]
"""Aspirin, and a molecule with an open branch: one is answered, one is rejected with a reason."""


@dataclass(frozen=True)
class DemoRun:
    """A flow run that completed, and what it returned to MLflow."""

    deployment: str
    flow_run_id: str


def demo(home: Home, console: Console) -> Path:
    """Pretrain, fine-tune, register and ask, by the deployments of a running Groundwork.

    Starts the services where none run on the state folder, and ends them again. Returns the path of
    ``demo/summary.json``. Raises GroundworkError when a step does not end as it should.
    """
    started = time.monotonic()
    with _services(home, console) as addresses:
        use_services(home)
        runs = [
            _run(
                addresses,
                console,
                "pretrain-molecules",
                read_config(CONFIGS / "demo/pretrain-molecules.yaml"),
            ),
            _run(
                addresses,
                console,
                "finetune-molecules",
                read_config(CONFIGS / "demo/finetune-molecules.yaml"),
            ),
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


def _run(addresses: Addresses, console: Console, deployment: str, parameters: dict[str, Any]) -> DemoRun:
    bar = Progress(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console,
    )
    with bar:
        return asyncio.run(_follow(addresses, bar, deployment, parameters))


async def _follow(
    addresses: Addresses, bar: Progress, deployment: str, parameters: dict[str, Any]
) -> DemoRun:
    task = bar.add_task(deployment, total=100.0, detail="")
    async with get_client() as client:
        found = await client.read_deployment_by_name(f"{deployment}/{deployment}")
        run = await client.create_flow_run_from_deployment(found.id, parameters=parameters)
        page = f"{addresses.prefect_url}/runs/flow-run/{run.id}"
        bar.update(task, detail=page)
        while True:
            state = (await client.read_flow_run(run.id)).state
            progress = await client.read_artifacts(
                artifact_filter=ArtifactFilter(
                    type=ArtifactFilterType(any_=["progress"]),
                    flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]),
                )
            )
            if progress:
                bar.update(task, completed=float(str(progress[0].data)))
            if state is not None and state.is_final():
                break
            await asyncio.sleep(POLL)
    if not state.is_completed():
        raise GroundworkError(f"{deployment} ended as {state.name} ({state.message}): see {page}")
    bar.update(task, completed=100.0)
    return DemoRun(deployment, str(run.id))


def _summary(addresses: Addresses, runs: list[DemoRun]) -> dict[str, Any]:
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
