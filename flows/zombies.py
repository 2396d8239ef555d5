"""Runs that are dead while Prefect or MLflow shows them Running: found, and ended.

Silence gives a dead flow run away wherever it ran (flows/heartbeats.py), after a minute or two. On its own
machine the flow runner knows at once, because each flow run holds a lock that dies with its process. And
MLflow knows nothing of either: its run is ended here once its flow run has ended.
"""

from __future__ import annotations

import atexit
import logging
import platform
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from uuid import UUID

import psutil
from filelock import FileLock, Timeout
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import Cancelled, Crashed, Running
from prefect.utilities.urls import url_for

from domains.contract import GroundworkError
from flows.heartbeats import CANCELLED, HOW_TO_RESUME, SILENCE, SILENT
from flows.home import Home
from flows.tracking import FAILURE_TAG, FLOW_RUN_TAG, FLOW_RUN_URL_TAG, connect

logger = logging.getLogger("groundwork.zombies")

LOOK_EVERY = 30.0  # seconds
PAGE = 200
"""Flow runs that Prefect gives at once."""

KILLED = f"The process of the run was killed, and the flow runner with it. {HOW_TO_RESUME}"
NEVER_BEGAN = f"The flow runner was killed before the run began. {HOW_TO_RESUME}"

_held: dict[Path, FileLock] = {}


def claim(home: Home, flow_run_id: str) -> None:
    """Say that this process runs a flow run, for as long as it lives.

    Not only until the flow's end: its last state is reported after that. Raises GroundworkError when
    another process runs it.
    """
    path = home.locks / f"{flow_run_id}@{platform.node()}"
    if path in _held:
        return  # tried again after a failure
    home.locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=1, thread_local=False)  # a sweep holds it for a moment
    try:
        lock.acquire()
    except Timeout as error:
        raise GroundworkError(
            f"the flow run {flow_run_id} is under way in another process: wait for it, or cancel it"
        ) from error
    _held[path] = lock
    atexit.register(path.unlink, missing_ok=True)


class Zombies:
    """What the flow runner on the state folder ``home`` does about dead runs.

    ``served`` are its deployments by name, which is that of the flow, too. Make it before the first run
    is started: whatever holds no lock by then is of a former runner, and nobody else will say that it
    has ended.
    """

    def __init__(self, home: Home, served: Mapping[str, UUID]) -> None:
        self.home = home
        self.served = served
        home.locks.mkdir(parents=True, exist_ok=True)
        # A lock of another machine may not be seen from here, if the folder is shared over a network.
        self.inherited = set(home.locks.glob(f"*@{platform.node()}"))

    def start(self) -> None:
        """Sweep now and every ``LOOK_EVERY`` seconds, beside everything else, until the process ends."""
        Thread(target=self._run, name="zombies", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.sweep()
            except Exception:  # a server that is being restarted; it must not end the watch
                logger.warning("could not look for dead runs, trying again", exc_info=True)
            time.sleep(LOOK_EVERY)

    def sweep(self) -> None:
        """End in Prefect and MLflow what is dead. Raises what the clients of the two raise."""
        with get_client(sync_client=True) as prefect:
            alive = self._look_at_locks(prefect)
            self._end_what_never_began(prefect)
            self._end_task_runs(prefect, alive)
            connect(self.home)
            _end_mlflow_runs(prefect, alive)

    def _look_at_locks(self, prefect: SyncPrefectClient) -> set[UUID]:
        """End the flow runs whose process has died; returns those whose process lives."""
        # The locks first: what is dead by now will not change its state any more.
        locks = {path: _is_held(path) for path in self.home.locks.glob("*@*")}
        states = _states(prefect, {_flow_run(path) for path in locks})
        for path, held in locks.items():
            flow_run, state = _flow_run(path), states.get(_flow_run(path))
            if held:
                if state is not None and state.is_crashed() and state.message == SILENT:
                    self._revive(prefect, path)
            elif state is None or state.is_final():
                path.unlink(missing_ok=True)
            elif path in self.inherited and state.is_cancelling():
                _end(prefect, flow_run, Cancelled(message=CANCELLED))
            elif path in self.inherited and state.is_running():
                _end(prefect, flow_run, Crashed(message=KILLED))
        return {_flow_run(path) for path, held in locks.items() if held}

    def _revive(self, prefect: SyncPrefectClient, path: Path) -> None:
        """Take back that a run has crashed: a computer that was asleep is silent, too."""
        logger.warning("flow run %s was silent, but lives", _flow_run(path))
        prefect.set_flow_run_state(_flow_run(path), Running(message="The run was silent for a while."))
        # Should it have ended at this very moment, this is what ends it again.
        self.inherited.add(path)

    def _end_what_never_began(self, prefect: SyncPrefectClient) -> None:
        """End runs that a former runner had taken and not started: they have neither lock nor heartbeat."""
        wanted = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=list(self.served.values())),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING])),
        )
        for run in prefect.read_flow_runs(flow_run_filter=wanted):
            waited = datetime.now(UTC) - run.state.timestamp if run.state else SILENCE
            if waited > SILENCE and not _has_process(run.id):
                _end(prefect, run.id, Crashed(message=NEVER_BEGAN))

    def _end_task_runs(self, prefect: SyncPrefectClient, alive: Collection[UUID]) -> None:
        """End the steps of dead flow runs: Prefect leaves them as they were."""
        dead = FlowRunFilterStateType(any_=[StateType.CRASHED, StateType.CANCELLED])
        running = TaskRunFilterStateType(any_=[StateType.RUNNING])
        for task in prefect.read_task_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=list(self.served))),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=dead)),
            task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=running)),
        ):
            if task.flow_run_id not in alive:
                state: State[None] = Crashed(message="The flow run ended without it.")
                prefect.set_task_run_state(task.id, state, force=True)


def _flow_run(lock: Path) -> UUID:
    return UUID(lock.name.partition("@")[0])


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def _has_process(flow_run: UUID) -> bool:
    """Whether a process of this machine was started for a flow run."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT__FLOW_RUN_ID") == str(flow_run):
                return True
        except (psutil.Error, OSError):
            continue  # another user's, or gone in the meantime
    return False


def _states(prefect: SyncPrefectClient, flow_runs: Iterable[UUID]) -> dict[UUID, State]:
    """States of those of the flow runs that Prefect knows."""
    wanted, found = list(flow_runs), {}
    for start in range(0, len(wanted), PAGE):
        page = FlowRunFilter(id=FlowRunFilterId(any_=wanted[start : start + PAGE]))
        for run in prefect.read_flow_runs(flow_run_filter=page, limit=PAGE):
            if run.state is not None:
                found[run.id] = run.state
    return found


def _end(prefect: SyncPrefectClient, flow_run: UUID, state: State) -> None:
    # Without force: Prefect refuses it if the run has ended by itself in the meantime.
    if prefect.set_flow_run_state(flow_run, state).status == SetStateStatus.ACCEPT:
        logger.warning("flow run %s: %s", flow_run, state.message)


# ------------------------------------------------------------------------------------------------- MLflow


def _end_mlflow_runs(prefect: SyncPrefectClient, alive: Collection[UUID]) -> None:
    """End as failed the MLflow runs that run while their flow run has ended or is gone."""
    client = MlflowClient()
    twins = {run.info.run_id: run for run in _running(client)}
    flow_runs = {UUID(run.data.tags[FLOW_RUN_TAG]) for run in twins.values()}
    states = _states(prefect, flow_runs - set(alive))
    for run in twins.values():
        flow_run = UUID(run.data.tags[FLOW_RUN_TAG])
        state = states.get(flow_run)
        if flow_run in alive or (state is not None and not state.is_final()):
            continue
        if state is not None:
            why = f"the Prefect flow run is {state.name}: {state.message or 'it gave no reason'}"
        elif run.data.tags.get(FLOW_RUN_URL_TAG) == url_for("flow-run", obj_id=flow_run):
            why = "the Prefect flow run was deleted"
        else:
            continue  # of another Prefect server, which shares this MLflow
        _end_mlflow_run(client, run, why)


def _running(client: MlflowClient) -> Iterable[Run]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    token: str | None = None
    while experiments:
        page = client.search_runs(
            experiments,
            f"attributes.status = 'RUNNING' and tags.`{FLOW_RUN_TAG}` LIKE '%-%'",
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _end_mlflow_run(client: MlflowClient, seen: Run, why: str) -> None:
    """End one, unless it has ended or was resumed since it was seen."""
    run_id, owner = seen.info.run_id, seen.data.tags[FLOW_RUN_TAG]
    now = client.get_run(run_id)
    if now.info.status != "RUNNING" or now.data.tags.get(FLOW_RUN_TAG) != owner:
        return
    client.set_tag(run_id, FAILURE_TAG, why[:500])
    client.set_terminated(run_id, "FAILED")
    logger.warning("MLflow run %s: %s", run_id, why)
