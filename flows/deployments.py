"""Prefect deployments, one for each flow of each domain, and the process that serves them.

``python -m flows.deployments`` is the flow runner: it registers the deployments, then runs each flow
run in a process of its own, which loads its flow from here by name.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect import Flow, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.deployments.runner import EntrypointType
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.states import Cancelled, State
from rich.console import Console

from domains.contract import GroundworkError, domain_names, load_domain
from flows.dispatch import run
from flows.heartbeats import send_heartbeats, watch
from flows.home import Home
from flows.journal import TRAINING_SLOT, PrefectJournal
from flows.schedules import keep_what_users_set, schedule_of
from flows.settings import KINDS, Kind, settings_class, signature
from flows.zombies import Zombies, claim
from models.progress import Interrupted

if TYPE_CHECKING:
    from flows.predict import PredictedFile
    from flows.retrain import Outcome
    from models.registry import Version

RUNS_AT_ONCE = 4
POLL = 2.0
"""Seconds between looks for new runs: somebody who pressed a button waits for it."""
SERVER_PATIENCE = 120.0

_DESCRIPTIONS: dict[Kind, str] = {
    "pretrain": "Learn from unlabelled {domain} and register a foundation that tasks can start from.",
    "finetune": "Learn a task from labelled {domain} and register a version, shown beside its floors.",
    "retrain": "Train models of {domain} again where something has changed, and promote what is better.",
    "predict": "Answer a dataset of {domain} with a registered version: one row out for each row in.",
}


def build_flow(kind: Kind, domain_name: str) -> Flow[..., dict[str, Any]]:
    """The flow of one kind for one domain; its parameters are the settings of that kind."""
    model = settings_class(kind, domain_name)

    def body(**parameters: Any) -> dict[str, Any] | State[Any]:
        settings = model(**parameters)
        journal, home, domain = PrefectJournal(), Home.current(), load_domain(domain_name)
        claim(home, journal.flow_run_id)
        _outlive_the_runner()
        try:
            return _described(run(kind, domain, settings, home, journal), journal)
        except Interrupted as stopped:
            # The checkpoint is written. Training handles signals itself, so Prefect could not tell this
            # process why it sent one, and would take the run for crashed: ask the server.
            if _is_cancelling(journal.flow_run_id):
                return Cancelled(message="The checkpoint is saved: run again with resume to go on.")
            signal.raise_signal(signal.Signals(stopped.signum))
            raise
        finally:
            send_heartbeats()

    body.__name__ = f"{kind}_{domain_name}"
    body.__qualname__ = body.__name__
    body.__module__ = "flows.deployments"
    body.__doc__ = _DESCRIPTIONS[kind].format(domain=domain_name)
    body.__signature__ = signature(model)  # type: ignore[attr-defined]
    decorate: Any = flow(name=f"{kind}-{domain_name}", description=body.__doc__)
    built: Flow[..., dict[str, Any]] = decorate(body)
    return built


def __getattr__(name: str) -> Flow[..., dict[str, Any]]:
    """Flows by the name that a deployment's entry point gives: ``finetune_molecules``."""
    kind, _, domain_name = name.partition("_")
    if kind in KINDS and domain_name in domain_names():
        return build_flow(kind, domain_name)
    raise AttributeError(name)


def _described(made: Version | PredictedFile | list[Outcome], journal: PrefectJournal) -> dict[str, Any]:
    """What a flow made, as Prefect keeps it."""
    from models.registry import Version  # the flow has imported it by now; the runner does without

    if isinstance(made, list):
        return {"models": [vars(outcome) for outcome in made]}
    if not isinstance(made, Version):
        name, reference = made.version.name, made.version.reference
        journal.table(f"predictions-{name}", f"Predictions of {reference}", [made.described()])
        return made.described()
    return {"name": made.name, "version": made.version, "aliases": list(made.aliases)}


def _is_cancelling(flow_run_id: str) -> bool:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run_id)).state
    return state is not None and state.is_cancelling()


def _outlive_the_runner() -> None:
    """Let this process end in order when the runner was killed.

    Its output is a pipe to the runner. Without a reader, rich would exit at the next word, and a run that
    is stopped would not get to say that it was.
    """

    def fall_silent(console: Console) -> None:
        with open(os.devnull, "w") as nowhere:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(nowhere.fileno(), stream.fileno())

    Console.on_broken_pipe = fall_silent  # type: ignore[assignment, method-assign]


class _Runner(Runner):
    """Prefect's runner, ended in order: its own handler makes a coroutine that nobody awaits."""

    def handle_sigterm(self, *_: Any) -> None:
        self._ending = asyncio.get_running_loop().create_task(self.astop())


async def serve() -> None:
    """Register every deployment, say so in the state folder, and run what is scheduled."""
    home = Home.current()
    await _ensure_training_slot()
    runner = _Runner(name="groundwork", limit=RUNS_AT_ONCE, query_seconds=POLL, pause_on_shutdown=False)
    served: dict[str, UUID] = {}
    for domain_name in domain_names():
        for kind in KINDS:
            deployment = await build_flow(kind, domain_name).ato_deployment(
                # As the flow: lists of deployments show this name first.
                name=f"{kind}-{domain_name}",
                tags=[domain_name, kind],
                entrypoint_type=EntrypointType.MODULE_PATH,
                schedule=schedule_of(kind, domain_name),
            )
            await keep_what_users_set(deployment)
            served[deployment.name] = await runner.aadd_deployment(deployment)
    await watch(list(served))
    Zombies(home, served).start()
    (home.root / "runner.json").write_text(json.dumps({"pid": os.getpid()}))
    await runner.start()


async def _ensure_training_slot() -> None:
    async with get_client() as client:
        try:
            await client.read_global_concurrency_limit_by_name(TRAINING_SLOT)
        except ObjectNotFound:
            await client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name=TRAINING_SLOT, limit=1, active=True)
            )


def _wait_for_server() -> None:
    """The runner may be started before its server answers."""
    health = f"{os.environ['PREFECT_API_URL'].rstrip('/')}/health"
    deadline = time.monotonic() + SERVER_PATIENCE
    while True:
        try:
            if httpx.get(health, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise GroundworkError(
                f"the Prefect server at {health} does not answer: is `groundwork up` running?"
            )
        time.sleep(0.25)


if __name__ == "__main__":
    # Entry points name this module, not __main__: serve from the importable one.
    from flows import deployments

    if "PREFECT_API_URL" not in os.environ:
        sys.exit("PREFECT_API_URL is not set: start the runner with `groundwork up`")
    deployments._wait_for_server()
    asyncio.run(deployments.serve())
