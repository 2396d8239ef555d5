"""Work shared out among processes, with results in the order of the jobs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from domains.contract import GroundworkError

Result = TypeVar("Result")

JOBS_AHEAD = 2
"""Jobs that wait for each worker: keeps them busy, and bounds the memory that waits with them."""


def usable_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_workers(
    workers: int, work: Callable[..., Result], jobs: Iterator[tuple[Any, ...]]
) -> Iterator[Result]:
    """``work(*job)`` for each job, in processes that start without this one's memory; here with one worker.

    Raises what the work raises, and GroundworkError for a worker that died.
    """
    if workers <= 1:
        yield from (work(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    waiting: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(workers, context, _start) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(work, *job))
                while len(waiting) > JOBS_AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise GroundworkError(
                "a worker process died, often for want of memory: run again to go on there"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it ends the workers in order
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
