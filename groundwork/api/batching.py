"""Greedy batches from a bounded queue: many small requests become few large calls of the model.

There is no timer: whatever waits when the model becomes free forms the next batch, so that an idle
service answers at once and a busy one fills its batches by itself. One event loop owns the queue and
one thread runs the model, hence no locks.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from domains.contract import GroundworkError, Sample

log = logging.getLogger(__name__)

Predict = Callable[[Sequence[Sample]], np.ndarray]
"""Samples -> float32 [n, outputs], one row per sample whatever its neighbours are."""


class QueueFull(GroundworkError):
    """The service has as much waiting work as it accepts; the same request will do later."""


@dataclass(eq=False)
class _Job:
    """Samples that were submitted together, and the future that their outputs complete."""

    outputs: list[np.ndarray | None]
    missing: int
    done: asyncio.Future[np.ndarray]


@dataclass(frozen=True, slots=True)
class _Item:
    sample: Sample
    tokens: int
    job: _Job
    position: int


@dataclass(eq=False)
class Turn:
    """One request's place in the queue. Leaving it drops whatever it still has waiting."""

    _batcher: Batcher
    _reserved: int
    _waiting: dict[int, deque[_Item]] = field(default_factory=dict)
    """Items by length bucket, oldest first; buckets in order of their oldest arrival."""

    async def predict(self, samples: Sequence[Sample], tokens: Sequence[int]) -> np.ndarray:
        """Outputs of ``samples`` (sizes in ``tokens``), float32 [n, outputs], in their order."""
        if not samples:
            raise ValueError("nothing to predict")
        job = _Job([None] * len(samples), len(samples), asyncio.get_running_loop().create_future())
        for position, (sample, size) in enumerate(zip(samples, tokens, strict=True)):
            self._waiting.setdefault(_bucket(size), deque()).append(_Item(sample, size, job, position))
        self._batcher._enqueue(self)
        return await job.done

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.clear()
        self._batcher._leave(self)


class Batcher:
    """Runs ``predict`` in one thread of its own, on batches of similar length.

    Requests take turns: a batch is led by the request that waited longest for one and filled with one
    item of each request in rotation, so that ten thousand inputs of one client delay another client's
    single input by a batch, not by ten thousand inputs.

    Args:
        predict: called in the batcher's thread, one call at a time.
        max_items: most samples in a batch.
        max_tokens: most tokens in a batch after padding to its longest sample.
        capacity: samples that admitted requests may hold here together; beyond it ``admit`` refuses.
        observe: told the size of every batch that was run.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        max_items: int = 32,
        max_tokens: int = 4096,
        capacity: int = 4096,
        observe: Callable[[int], None] = lambda items: None,
    ) -> None:
        self._predict = predict
        self._max_items = max_items
        self._max_tokens = max_tokens
        self._observe = observe
        self._turns: dict[
            Turn, None
        ] = {}  # an ordered set: those with something waiting, longest unserved first
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())
        self.capacity = capacity
        self.held = 0
        """Samples that admitted requests hold or have reserved."""

    def admit(self, items: int) -> Turn:
        """Reserve room for ``items`` samples at a time. Raises QueueFull when there is none."""
        # A request larger than the whole queue must still get in when nobody else is there.
        items = min(items, self.capacity)
        if self.held + items > self.capacity:
            raise QueueFull(f"the queue is full ({self.held} inputs are being answered); try again shortly")
        self.held += items
        return Turn(self, items)

    def close(self) -> None:
        """Stop the thread after the batch it is running; whoever waits is cancelled."""
        self._task.cancel()
        for turn in self._turns:
            for items in turn._waiting.values():
                for item in items:
                    item.job.done.cancel()
        self._turns.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _enqueue(self, turn: Turn) -> None:
        self._turns.setdefault(turn)
        self._wake.set()

    def _leave(self, turn: Turn) -> None:
        self.held -= turn._reserved
        self._turns.pop(turn, None)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._take()
            if not batch:
                self._wake.clear()
                continue
            samples = [item.sample for item in batch]
            try:
                outputs = await self._loop.run_in_executor(self._thread, self._attempt, samples)
            except asyncio.CancelledError:
                for item in batch:
                    item.job.done.cancel()
                raise
            self._observe(len(batch))
            for item, output in zip(batch, outputs, strict=True):
                _deliver(item, output)

    def _take(self) -> list[_Item]:
        """The next batch: items of the leading request's bucket, one of each request in rotation."""
        leader = next(iter(self._turns), None)
        if leader is None:
            return []
        bucket = next(iter(leader._waiting))
        batch: list[_Item] = []
        longest = 0
        rotation = deque(turn for turn in self._turns if bucket in turn._waiting)
        while rotation and len(batch) < self._max_items:
            turn = rotation.popleft()
            waiting = turn._waiting[bucket]
            longest = max(longest, waiting[0].tokens)
            if batch and longest * (len(batch) + 1) > self._max_tokens:
                break
            batch.append(waiting.popleft())
            if waiting:
                rotation.append(turn)
            else:
                del turn._waiting[bucket]
        del self._turns[leader]
        self._turns = {turn: None for turn in (*self._turns, leader) if turn._waiting}
        return batch

    def _attempt(self, samples: Sequence[Sample]) -> list[np.ndarray | Exception]:
        """Outputs of a batch; when it fails, halves are tried so that only the culprit's request fails."""
        try:
            return list(self._predict(samples))
        except Exception as error:
            if len(samples) == 1:
                log.exception("the model failed on one sample")
                return [error]
            middle = len(samples) // 2
            return self._attempt(samples[:middle]) + self._attempt(samples[middle:])


def _deliver(item: _Item, output: np.ndarray | Exception) -> None:
    job = item.job
    if job.done.done():  # its request was cancelled, or failed on another sample
        return
    if isinstance(output, Exception):
        job.done.set_exception(output)
        return
    job.outputs[item.position] = output
    job.missing -= 1
    if job.missing == 0:
        job.done.set_result(np.stack([row for row in job.outputs if row is not None]))


def _bucket(tokens: int) -> int:
    """One bucket an octave: narrower ones cut small batches into more calls than padding costs."""
    return tokens.bit_length()
