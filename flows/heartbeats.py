"""Prefect's own watch over silent flow runs: what a dead process cannot say, its silence says.

A flow run tells Prefect every 30 s that it lives (``PREFECT_FLOWS_HEARTBEAT_FREQUENCY``). Automations on
the Prefect server end the state of one that no longer does, wherever it ran: in the runner, in a container
that was removed, on a node that lost its power. After Prefect's recipe "detect zombie flows".
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from threading import Thread
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.events.worker import EventsWorker

SILENCE = timedelta(seconds=90)
"""Three heartbeats: one that is late on a busy machine, or lost while the server restarts, kills nothing."""

CANCELLING = timedelta(seconds=120)
"""Longer than a run that saves its checkpoint is given before it is killed."""

HOW_TO_RESUME = "Run again with the same settings and `resume` to go on from the last checkpoint."
SILENT = f"The run fell silent: its process was killed, or its machine is gone. {HOW_TO_RESUME}"
CANCELLED = f"The run was cancelled, and ended without a word. {HOW_TO_RESUME}"

_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}


LAST_WORDS = 10.0
"""Seconds that a flow whose work is done waits for its heartbeats to be sent; a server may be gone."""


def send_heartbeats() -> None:
    """Send what heartbeats of this process wait to be sent: to be called before its flow run ends.

    They are sent beside the work, and late on a busy machine. One that arrives after the end of its run is
    taken for a sign of life, and what follows for silence: Prefect would be asked to crash a run that is
    over, and warn that it is in a terminal state already.
    """
    sending = Thread(target=EventsWorker.instance().wait_until_empty, daemon=True)
    sending.start()
    sending.join(LAST_WORDS)


async def watch(flow_names: Sequence[str]) -> None:
    """Make the Prefect server end the runs of these flows that fell silent; may be repeated.

    Only ours: flows that somebody else serves from the same server may be silent for longer.
    """
    async with get_client() as client:
        for wanted in _automations(flow_names):
            known = await client.read_automations_by_name(wanted.name)
            for twice in known[1:]:
                await client.delete_automation(twice.id)
            if not known:
                await client.create_automation(wanted)
            elif not _same(known[0], wanted):
                # An update forgets the heartbeats that it had seen, so none is made without need.
                changed = wanted.model_copy(update={"enabled": known[0].enabled})
                await client.update_automation(known[0].id, changed)


def _same(known: AutomationCore, wanted: AutomationCore) -> bool:
    described = {"description", "trigger", "actions"}
    return known.model_dump(include=described) == wanted.model_dump(include=described)


def _automations(flow_names: Sequence[str]) -> list[AutomationCore]:
    crash = AutomationCore(
        name="Groundwork: crash silent flow runs",
        description="A flow run that sends no heartbeat any more is marked as crashed.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *_ENDS},
            within=SILENCE,
            **_each_run_of(flow_names),
        ),
        actions=[ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=SILENT, force=False)],
    )
    # Prefect lets a run that is being cancelled become nothing but cancelled.
    cancel = AutomationCore(
        name="Groundwork: end flow runs that stay Cancelling",
        description="A flow run that does not report its end after it was cancelled is marked as cancelled.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={"prefect.flow-run.Cancelling"},
            expect=_ENDS,
            within=CANCELLING,
            **_each_run_of(flow_names),
        ),
        actions=[
            ChangeFlowRunState(name="Cancelled", state=StateType.CANCELLED, message=CANCELLED, force=False)
        ],
    )
    return [crash, cancel]


def _each_run_of(flow_names: Sequence[str]) -> dict[str, Any]:
    return {
        "match": ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        "match_related": ResourceSpecification(
            {"prefect.resource.role": ["flow"], "prefect.resource.name": list(flow_names)}
        ),
        "for_each": {"prefect.resource.id"},
        "threshold": 1,
    }
