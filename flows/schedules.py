"""When deployments run by themselves, and what users have changed about it."""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Schedule

from domains.contract import GroundworkError
from flows.settings import Kind, ScheduleSettings, read_presets


def schedule_of(kind: Kind, domain_name: str) -> Schedule | None:
    """The schedule that a deployment is first registered with, from its YAML; retraining alone has one.

    Raises GroundworkError for a schedule or a time zone that there is not.
    """
    if kind != "retrain":
        return None
    try:
        asked = ScheduleSettings(**read_presets(kind, domain_name)[1])
        CronSchedule(cron=asked.schedule, timezone=asked.time_zone)  # refuses what there is not
    except ValueError as error:
        why = " ".join(str(error).split())[:200]
        raise GroundworkError(f"the schedule in {kind}-{domain_name}.yaml cannot be used: {why}") from error
    return Cron(asked.schedule, timezone=asked.time_zone)


async def keep_what_users_set(deployment: RunnerDeployment) -> None:
    """Let a deployment that is registered already keep its schedules and its pause.

    Registering anew would otherwise set both back: Prefect takes what it is not told for no schedule and
    no pause.
    """
    async with get_client() as client:
        try:
            known = await client.read_deployment_by_name(f"{deployment.flow_name}/{deployment.name}")
        except ObjectNotFound:
            return
    deployment.paused = known.paused
    deployment.schedules = [
        DeploymentScheduleUpdate(
            schedule=entry.schedule, active=entry.active, parameters=entry.parameters, slug=entry.slug
        )
        for entry in known.schedules
    ]
