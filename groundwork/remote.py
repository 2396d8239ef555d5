"""Handing a run to its deployment: start it, show how far it is, and give back how it ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.exceptions import ObjectNotFound
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from domains.contract import GroundworkError
from groundwork.services import Addresses

POLL = 1.0


@dataclass(frozen=True)
class FinishedRun:
    """A flow run that completed, with the tables it shows."""

    deployment: str
    flow_run_id: str
    tables: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)
    """(title, rows) of each."""


def run_deployment(
    deployment: str, parameters: Mapping[str, Any], addresses: Addresses, console: Console
) -> FinishedRun:
    """Run a deployment to its end. Raises GroundworkError when it does not complete."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console,
    )
    with bar:
        return asyncio.run(_follow(deployment, dict(parameters), addresses, bar))


async def _follow(
    deployment: str, parameters: dict[str, Any], addresses: Addresses, bar: Progress
) -> FinishedRun:
    async with get_client() as client:
        try:
            found = await client.read_deployment_by_name(f"{deployment}/{deployment}")
        except ObjectNotFound as error:
            raise GroundworkError(
                f"no deployment {deployment} is registered: is the flow runner well?"
            ) from error
        run = await client.create_flow_run_from_deployment(found.id, parameters=parameters)
        page = f"{addresses.prefect_url}/runs/flow-run/{run.id}"
        bar.console.print(f"{deployment}: {page}", highlight=False, soft_wrap=True)
        task = bar.add_task(deployment, total=100.0, detail="")
        while True:
            state = (await client.read_flow_run(run.id)).state
            for artifact in await _artifacts(client, run.id, "progress"):
                detail = artifact.description or ""
                # Each step counts to 100, at which the bar would take the whole run for done.
                bar.update(task, completed=min(float(str(artifact.data)), 99.0), detail=detail)
            if state is not None and state.is_final():
                break
            await asyncio.sleep(POLL)
        if not state.is_completed():
            why = " ".join((state.message or "").split()) or "no reason is given"
            raise GroundworkError(f"{deployment} ended as {state.name} ({why}): see {page}")
        bar.update(task, completed=100.0, detail="")
        tables = [
            (artifact.description or "", json.loads(str(artifact.data)))
            for artifact in await _artifacts(client, run.id, "table")
        ]
    return FinishedRun(deployment, str(run.id), tables)


async def _artifacts(client: PrefectClient, flow_run: UUID, kind: str) -> list[Any]:
    return await client.read_artifacts(
        artifact_filter=ArtifactFilter(
            type=ArtifactFilterType(any_=[kind]), flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run])
        )
    )
