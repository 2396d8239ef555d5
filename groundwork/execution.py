"""Running a flow: in this process, or by the deployment of a running Groundwork."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from domains.contract import GroundworkError, load_domain
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.settings import FlowSettings, Kind
from groundwork.client import Client
from groundwork.running import running
from groundwork.services import Addresses

POLL = 2.0


def use_services(home: Home) -> Addresses | None:
    """Point this process at the servers of a running Groundwork, or at the state folder itself."""
    addresses = running(home)
    if addresses is not None:
        os.environ.update(addresses.environment())
    from flows.tracking import connect

    # Migrations of a new database are of no interest on a terminal, and what fails is raised as well.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    connect(home)
    return addresses


def run_flow(kind: Kind, domain_name: str, settings: FlowSettings, remote: bool) -> None:
    """Run one flow with settings that were checked. Raises GroundworkError."""
    home = Home.current()
    addresses = use_services(home)
    if remote:
        if addresses is None:
            raise GroundworkError("--remote needs a running Groundwork: start it with `groundwork up`")
        _run_remotely(kind, domain_name, settings, addresses)
        return
    journal = ConsoleJournal()
    domain = load_domain(domain_name)
    if kind == "pretrain":
        from flows.pretrain import pretrain

        pretrain(domain, settings, home, journal)
    elif kind == "finetune":
        from flows.finetune import finetune

        finetune(domain, settings, home, journal)
    else:
        from flows.predict import predict

        predict(settings, home, journal)


def _run_remotely(kind: Kind, domain_name: str, settings: FlowSettings, addresses: Addresses) -> None:
    """Hand the run to its deployment, wait for it, and fail as it fails."""
    if kind == "predict":
        from models.registry import resolve

        domain_name = resolve(str(settings.model_dump()["model"])).tags["domain"]
    parameters = settings.model_dump(mode="json")
    parameters["dataset"] = _uploaded(parameters["dataset"], domain_name, addresses)
    state = asyncio.run(_run_deployment(f"{kind}-{domain_name}", parameters, addresses))
    if not state.is_completed():
        raise GroundworkError(
            f"the flow run ended as {state.name}: {(state.message or 'see its page').strip()}"
        )


def _uploaded(dataset: str, domain: str, addresses: Addresses) -> str:
    """A local file goes to the service first: a deployment reads no path of the caller's."""
    path = Path(dataset).expanduser()
    if not dataset or dataset in load_domain(domain).embedded() or not path.is_file():
        return dataset
    name = path.name.partition(".")[0].lower().replace(" ", "-")
    Client(addresses.api_url, api_key=os.environ.get("GROUNDWORK_API_KEY")).upload(path, name, domain=domain)
    return name


async def _run_deployment(name: str, parameters: dict[str, Any], addresses: Addresses) -> Any:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    console = Console(stderr=True)
    async with get_client() as client:
        try:
            deployment = await client.read_deployment_by_name(f"{name}/{name}")
        except ObjectNotFound as error:
            raise GroundworkError(
                f"no deployment {name} is registered: is the flow runner healthy?"
            ) from error
        run = await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        console.print(f"flow run {run.name}: {addresses.prefect_url}/runs/flow-run/{run.id}")
        shown = ""
        while True:
            state = (await client.read_flow_run(run.id)).state
            if state is not None and state.name != shown:
                shown = str(state.name)
                console.print(f"{time.strftime('%H:%M:%S')} {shown}")
            if state is not None and state.is_final():
                return state
            await asyncio.sleep(POLL)
