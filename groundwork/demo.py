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
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:  # importing it imports torch, which a demo that cannot start need not wait for
    from models.registry import Version

START_PATIENCE = 180.0
STOP_PATIENCE = 60.0


def demo(home: Home, console: Console) -> Path:
    """Pretrain, fine-tune, register and ask, by the deployments of a running Groundwork.

    Starts the services where none run on the state folder, and ends them again. Returns the path of
    ``demo/summary.json``. Raises GroundworkError when a step does not end as it should.
    """
    started = time.monotonic()
    with _services(home, console) as addresses:
        use_services(home)
        summary: dict[str, Any] = {"registered": [], "predictions": []}
        for domain, plan in read_config(CONFIGS / "demo/demo.yaml").items():
            runs = [
                run_deployment(name, read_config(CONFIGS / f"demo/{name}.yaml"), addresses, console)
                for name in plan["runs"]
            ]
            versions = _registered_by(runs)
            task = next((version for version in versions if version.tags["kind"] == "task"), None)
            if task is None:
                raise GroundworkError(f"no version of {domain} was registered: see the runs in Prefect")
            summary[domain] = _figures(task)
            summary["registered"] += [_entry(version) for version in versions]
            summary["predictions"] += _ask(task, plan.get("questions", []), addresses)
            summary |= _map_of(runs)
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


def _registered_by(runs: list[FinishedRun]) -> list[Version]:
    from models import registry

    made = {run.flow_run_id for run in runs}
    listed = (version for name in registry.names() for version in registry.versions(name))
    return [version for version in listed if version.tags.get("flow_run_id") in made]


def _figures(version: Version) -> dict[str, Any]:
    """How a version did on its test rows, beside the best of its floors."""
    tags = version.tags
    return {
        f"test_{tags['metric']}": float(tags["value"]),
        f"baseline_{tags['metric']}": float(tags["floor_value"]),
        "baseline": tags["floor"],
        "unit": tags.get("unit", ""),
        "split_id": tags["split_id"],
        "beats_floor": version.beats_floor,
        "simulated": tags.get("simulated") == "true",
    }


def _entry(version: Version) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "alias": ", ".join(version.aliases),
        "mlflow_run_id": version.run_id,
        "prefect_flow_run_id": version.tags["flow_run_id"],
        "dataset_digest": version.tags["dataset_digest"],
    }


def _ask(version: Version, questions: list[dict[str, str]], addresses: Addresses) -> list[dict[str, Any]]:
    """The API's answers; one that is neither answered nor rejected as it should be fails the demo."""
    if not questions:
        return []
    inputs = [question["input"] for question in questions]
    with Client(addresses.api_url, api_key=os.environ.get("GROUNDWORK_API_KEY")) as client:
        answers = client.predict(version.name, inputs)
    if [answer["status"] for answer in answers] != [question["status"] for question in questions]:
        raise GroundworkError(f"the API answered {answers}, where the demo asked {questions}")
    return [
        {"input": asked, "unit": version.tags.get("unit", ""), **answer}
        for asked, answer in zip(inputs, answers, strict=True)
    ]


def _map_of(runs: list[FinishedRun]) -> dict[str, Any]:
    """What the run that drew a map says of it."""
    drawn = [row for run in runs for _, rows in run.tables for row in rows if "map" in row]
    return {"map": {"path": drawn[0].pop("map"), **drawn[0]}} if drawn else {}


def _show(summary: dict[str, Any], path: Path, console: Console) -> None:
    for domain in read_config(CONFIGS / "demo/demo.yaml"):
        figures = summary[domain]
        metric = next(name for name in figures if name.startswith("test_")).removeprefix("test_")
        console.print(
            f"{domain}: test {metric} {figures[f'test_{metric}']:.4g} {figures['unit']}".rstrip()
            + f"; best floor {figures[f'baseline_{metric}']:.4g} ({figures['baseline']})"
            + ("; simulated data" if figures["simulated"] else "")
        )
    for version in summary["registered"]:
        console.print(f"registered {version['name']}/{version['version']} ({version['alias']})")
    for answer in summary["predictions"]:
        said = answer["reason"] or ", ".join(
            f"{target} {found['prediction']:.0f} {answer['unit']}"
            for target, found in answer["predictions"].items()
        )
        console.print(f"{answer['input']}: {said}", highlight=False)
    if "map" in summary:
        console.print(f"map: {summary['map']['path']}", highlight=False)
    console.print(f"{path} after {summary['seconds']:.0f} s; `groundwork up` shows it all again")
    console.print("demo: ok")
