"""The state folder must be writable, have space, and belong to one launcher at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from domains.contract import GroundworkError
from flows.home import Home


def prepare(home: Home) -> None:
    """Make the folders. Raises GroundworkError when that fails or too little space is left on the disk."""
    try:
        home.create()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise home.disk_full() from error
        raise GroundworkError(
            f"Cannot write to the state folder {home.root} ({error.strerror}): "
            "set GROUNDWORK_HOME to a folder that you may write to."
        ) from error
    home.require_space()


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
