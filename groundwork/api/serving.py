"""Which versions are in memory, and how a new one takes over without a restart.

Versions are loaded when they are first asked for: memory belongs to what is used, and the service is
up before MLflow is. Every reference in use (``esol@champion``, ``esol/3``) is then asked of the
registry every two seconds. When it names another version, that one is loaded and checked on its golden
input beside the running one, and takes over only if the check passes; the old one is let go once the
last request on it has been answered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from domains.contract import GroundworkError, Reject, Row
from groundwork.api.batching import Batcher
from groundwork.api.metrics import Metrics
from groundwork.api.registry import NotRegistered, Registry

if TYPE_CHECKING:
    from models.history import Entry
    from models.predictor import Predictor
    from models.registry import Version

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_AT_ONCE = 32
"""Inputs that are read and encoded in one go; other requests get the thread in between."""
BYTES_AT_ONCE = 8 * 2**20
"""Of their samples: an image of a few bytes may unpack to megabytes, whatever the size of the request."""
CHUNKS_HELD = 128
"""Times ``inputs_at_once`` that all requests together may hold: at most about 1 GiB."""
MAX_REFERENCES = 16
"""References kept in memory; the least recently used goes first."""
RETRY_FAILED_SECONDS = 60.0
"""A version that failed is tried again after this: it never changes, but disks and networks do."""


class RegistryUnreachable(GroundworkError):
    """MLflow does not answer."""


class CannotServe(GroundworkError):
    """The version exists but could not be loaded, or failed its check."""


@dataclass(eq=False)
class Loaded:
    """A version in memory with its queue."""

    version: Version
    predictor: Predictor
    batcher: Batcher
    inputs_at_once: int = MOST_AT_ONCE
    """Inputs that are read and encoded in one go."""
    users: int = 0
    """Requests that are on it now."""
    retired: bool = False

    @property
    def identity(self) -> tuple[str, int, str]:
        return _identity(self.version)


@dataclass(frozen=True)
class Failure:
    """A version that a reference names and that was not put to work."""

    identity: tuple[str, int, str]
    reason: str
    at: float


class Serving:
    """The loaded versions by reference. Lives on one event loop; slow work is done in threads."""

    def __init__(
        self,
        registry: Registry,
        metrics: Metrics,
        *,
        poll_seconds: float = 2.0,
    ) -> None:
        self._registry = registry
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._live: OrderedDict[str, Loaded] = OrderedDict()  # least recently used first
        self._loading: dict[tuple[str, int, str], asyncio.Task[Loaded]] = {}
        self._failed: dict[str, Failure] = {}
        self._asking = ThreadPoolExecutor(4, thread_name_prefix="registry")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._poller: asyncio.Task[None] | None = None
        self.mlflow_reachable: bool | None = None

    def start(self) -> None:
        """Begin to follow the registry."""
        self._poller = asyncio.create_task(self._follow())

    def close(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
        for task in self._loading.values():
            task.cancel()
        for loaded in set(self._live.values()):
            loaded.batcher.close()
        self._live.clear()
        for pool in (self._asking, self._loader):
            pool.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def use(self, reference: str) -> AsyncIterator[Loaded]:
        """The version that ``reference`` names now, kept until the block ends.

        Raises NotRegistered, RegistryUnreachable or CannotServe.
        """
        loaded = self._live.get(reference) or await self._bring(reference, await self._resolve(reference))
        if reference in self._live:
            self._live.move_to_end(reference)
        loaded.users += 1
        try:
            yield loaded
        finally:
            loaded.users -= 1
            self._close_when_drained(loaded)

    async def catalogue(self, name: str | None = None) -> list[tuple[str, list[Version]]]:
        """Registered names (or the one asked for) with their versions, newest first."""

        def ask() -> list[tuple[str, list[Version]]]:
            names = self._registry.names() if name is None else [name]
            return [(each, self._registry.versions(each)) for each in names]

        return await self._ask(ask)

    async def history(self, name: str) -> list[Entry]:
        """Decisions on a name, newest first."""
        return await self._ask(lambda: self._registry.history(name))

    def is_loaded(self, version: Version) -> bool:
        return any(loaded.identity == _identity(version) for loaded in self._live.values())

    def state(self) -> dict[str, list[dict[str, Any]]]:
        """What is served and what failed, for the health page."""
        return {
            "serving": [
                {
                    "reference": reference,
                    "name": loaded.version.name,
                    "version": loaded.version.version,
                    "run_id": loaded.version.run_id,
                    "beats_floor": loaded.version.beats_floor,
                    "requests": loaded.users,
                    "queue": {"held": loaded.batcher.held, "capacity": loaded.batcher.capacity},
                }
                for reference, loaded in self._live.items()
            ],
            "failed": [
                {
                    "reference": reference,
                    "name": failure.identity[0],
                    "version": failure.identity[1],
                    "reason": failure.reason,
                }
                for reference, failure in self._failed.items()
            ],
        }

    async def _follow(self) -> None:
        # The first look imports torch, and the services that start beside this one need the processor.
        await asyncio.sleep(5 * self._poll_seconds)
        while True:
            try:
                if not self._live:
                    await self._ask(self._registry.names)  # only to know whether MLflow answers
                for reference in [*self._live, *(set(self._failed) - set(self._live))]:
                    await self._refresh(reference)
            except RegistryUnreachable as error:
                log.warning("%s; the loaded versions go on answering", error)
            except Exception:
                log.exception("following the registry failed; it is tried again")
            await asyncio.sleep(self._poll_seconds)

    async def _refresh(self, reference: str) -> None:
        """Let the version that ``reference`` names now take over, if it is another one and works."""
        try:
            version = await self._resolve(reference)
        except NotRegistered:
            log.info("%s is no longer registered and no longer served", reference)
            self._failed.pop(reference, None)
            self._replace(reference, None)
            return
        current = self._live.get(reference)
        if current is None:  # it failed when it was asked for; the next request tries again
            if self._failed[reference].identity != _identity(version):
                del self._failed[reference]
            return
        if current.identity == _identity(version):
            current.version = version  # its aliases and tags may have changed
            self._failed.pop(reference, None)
            return
        try:
            await self._bring(reference, version)
        except CannotServe as error:
            log.debug("%s keeps version %d: %s", reference, current.version.version, error)

    async def _resolve(self, reference: str) -> Version:
        return await self._ask(lambda: self._registry.resolve(reference))

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._asking, question)
        except NotRegistered:
            self._note_mlflow(True)
            raise
        except Exception as error:
            self._note_mlflow(False)
            raise RegistryUnreachable(f"MLflow does not answer ({_one_line(error)})") from error
        self._note_mlflow(True)
        return answer

    def _note_mlflow(self, reachable: bool) -> None:
        self.mlflow_reachable = reachable
        self._metrics.mlflow_up.set(reachable)

    async def _bring(self, reference: str, version: Version) -> Loaded:
        """Load ``version``, unless it is loaded, and let it answer for ``reference``."""
        identity = _identity(version)
        failure = self._failed.get(reference)
        if failure and failure.identity == identity and time.monotonic() - failure.at < RETRY_FAILED_SECONDS:
            raise CannotServe(failure.reason)
        loaded = next((each for each in self._live.values() if each.identity == identity), None)
        if loaded is None:
            task = self._loading.get(identity)
            if task is None:
                task = asyncio.create_task(self._load_checked(version))
                self._loading[identity] = task
                task.add_done_callback(lambda done: self._loading.pop(identity, None))
            try:
                # Shielded: the request that asked first may leave, and others wait for the same version.
                loaded = await asyncio.shield(task)
            except CannotServe as error:
                self._failed[reference] = Failure(identity, str(error), time.monotonic())
                raise
        self._failed.pop(reference, None)
        self._replace(reference, loaded)
        return loaded

    async def _load_checked(self, version: Version) -> Loaded:
        name, number = version.name, version.version

        def prepare() -> tuple[Predictor, int]:
            predictor = self._registry.load(version)
            predictor.check_golden()  # the whole path once, which warms it too
            return predictor, _inputs_at_once(predictor)

        started = time.perf_counter()
        try:
            predictor, at_once = await asyncio.get_running_loop().run_in_executor(self._loader, prepare)
        except Exception as error:
            self._metrics.failed_checks.labels(name).inc()
            if not isinstance(error, GroundworkError):
                log.exception("loading %s version %d failed", name, number)
            reason = f"{name} version {number} cannot be served: {_one_line(error)}"
            log.error("%s", reason)
            raise CannotServe(reason) from error
        log.info("%s version %d loaded and checked in %.1f s", name, number, time.perf_counter() - started)
        observe = self._metrics.batch_items.labels(name).observe
        batcher = Batcher(
            predictor.predict,
            max_items=_batch_items(predictor),
            capacity=CHUNKS_HELD * at_once,
            observe=observe,
        )
        self._metrics.queue_held.labels(name).set_function(lambda: batcher.held)
        return Loaded(version, predictor, batcher, at_once)

    def _replace(self, reference: str, loaded: Loaded | None) -> None:
        """Swap in one step, then let go of what no reference names any more."""
        previous = self._live.pop(reference, None)
        dropped = [] if previous is None else [(reference, previous)]
        if loaded is not None:
            self._live[reference] = loaded
            self._metrics.serving.labels(reference, str(loaded.version.version)).set(1)
        while len(self._live) > MAX_REFERENCES:
            dropped.append(self._live.popitem(last=False))
        for old_reference, old in dropped:
            if old is loaded:
                continue
            self._metrics.serving.remove(old_reference, str(old.version.version))
            if old not in self._live.values():
                old.retired = True
                self._close_when_drained(old)

    def _close_when_drained(self, loaded: Loaded) -> None:
        if loaded.retired and loaded.users == 0:
            loaded.batcher.close()
            log.info("%s version %d let go", loaded.version.name, loaded.version.version)


def _identity(version: Version) -> tuple[str, int, str]:
    """With the run, because a name that was deleted and registered anew counts from 1 again."""
    return version.name, version.version, version.run_id


def _batch_items(predictor: Predictor) -> int:
    """A CPU gains nothing beyond some tens of samples, and longer batches keep others waiting."""
    return 32 if predictor.device.type == "cpu" else 256


def _inputs_at_once(predictor: Predictor) -> int:
    """As many as memory is set aside for, by the size of an example's sample."""
    example = predictor.read(Row(0, predictor.examples[0]))
    if isinstance(example, Reject):
        raise GroundworkError(f"its own example cannot be read: {example.reason}")
    size = sum(array.nbytes for array in predictor.encode(example).values())
    return max(1, min(MOST_AT_ONCE, BYTES_AT_ONCE // max(size, 1)))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
