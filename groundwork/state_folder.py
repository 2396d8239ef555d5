"""The state folder must be writable, have space, and belong to one launcher at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from domains.contract import GroundworkError
from flows.home import Home

NEEDED_SPACE = 256 * 2**20  # bytes; two young databases, logs and a first small model


def prepare(home: Home) -> None:
    """Make the folders. Raises GroundworkError when that fails or too little space is left on the disk."""
    try:
        home.create()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(home) from error
        raise GroundworkError(
            f"Cannot write to the state folder {home.root} ({error.strerror}): "
            "set GROUNDWORK_HOME to a folder that you may write to."
        ) from error
    check_space(home)


def check_space(home: Home) -> None:
    """Raises GroundworkError that names the folder and the space needed when the disk is nearly full."""
    if free_space(home) < NEEDED_SPACE:
        raise _disk_full(home)


def free_space(home: Home) -> int:
    """Bytes left on the disk of the state folder, which need not exist yet."""
    folder = next(folder for folder in (home.root, *home.root.parents) if folder.exists())
    return shutil.disk_usage(folder).free


def _disk_full(home: Home) -> GroundworkError:
    free, needed = free_space(home) // 2**20, NEEDED_SPACE // 2**20
    return GroundworkError(
        f"The disk that holds {home.root} is full: {free} MB free, at least {needed} MB needed. "
        "Free some space, or set GROUNDWORK_HOME to a folder on another disk."
    )


@contextmanager
def exclusive(home: Home) -> Iterator[None]:
    """Hold the state folder's lock. Raises GroundworkError when another process holds it.

    The system lets go of the lock when this process ends, however it ends.
    """
    with (home.root / "groundwork.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise GroundworkError(
                f"Groundwork already runs on {home.root} (process {holder}): look at it with `groundwork "
                "status`, stop it with Ctrl-C where it runs, or set GROUNDWORK_HOME to another folder."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
