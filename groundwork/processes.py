"""Child processes that can be found again: by who started them, even when that one has died."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from groundwork.services import LOOPBACK

# Every descendant of a child carries this variable in its environment: "<launch id>:<service>". A launch
# id is random, so a process that carries it is ours for certain; a bare pid may be a stranger's by now.
MARKER = "GROUNDWORK_CHILD"

LARGE_LOG = 10 * 2**20  # bytes
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def new_launch_id() -> str:
    return os.urandom(16).hex()


def spawn(
    command: Collection[str],
    *,
    launch: str,
    name: str,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in ``folder`` as the leader of its own session, its output appended to ``log``.

    On Linux it gets SIGTERM when the calling thread dies, however that one dies. Elsewhere, and for what
    the command itself has started, the next launch ends what is left (``family``, ``end``).
    """
    if log.exists() and log.stat().st_size > LARGE_LOG:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            cwd=folder,
            env={**environment, MARKER: f"{launch}:{name}"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the launcher alone, which ends its children in order
            preexec_fn=_die_with(os.getpid()),
        )


def _die_with(parent: int) -> Callable[[], None]:
    def before_exec() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    return before_exec


def family(launch: str, names: Collection[str] | None = None) -> list[psutil.Process]:
    """Living processes that descend from a launch, or from the named services of it."""
    found = []
    for process in psutil.process_iter():
        try:
            of_launch, _, name = process.environ().get(MARKER, "").partition(":")
            ours = of_launch == launch and (names is None or name in names)
            if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # another user's, or gone in the meantime
    return found


def end(
    launch: str,
    names: Collection[str] | None = None,
    *,
    grace: float,
    hurry: Callable[[], bool] = lambda: False,
) -> int:
    """End what descends from a launch: SIGTERM, then SIGKILL after ``grace`` seconds, or once ``hurry()``.

    Returns how many processes there were.
    """
    members = family(launch, names)
    for process in members:
        _send(process, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while members and family(launch, names) and time.monotonic() < deadline and not hurry():
        time.sleep(0.1)
    for _ in range(50):  # again and again: a process may have started another one meanwhile
        left = family(launch, names) if members else []
        if not left:
            break
        for process in left:
            _send(process, signal.SIGKILL)
        time.sleep(0.1)
    return len(members)


def _send(process: psutil.Process, which: signal.Signals) -> None:
    with suppress(psutil.Error):  # gone in the meantime
        process.send_signal(which)


def port_holder(port: int) -> str | None:
    """Who listens on a loopback port, in words; None when it is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections that linger after a stop are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except PermissionError:
            return "the system, which keeps ports below 1024 for the administrator"
        except OSError:
            return _listener(port)
    return None


def _listener(port: int) -> str:
    with suppress(psutil.Error):  # not every system tells an ordinary user
        for connection in psutil.net_connections("tcp"):
            pid, address = connection.pid, connection.laddr
            if pid and address and address.port == port and connection.status == psutil.CONN_LISTEN:
                return f"{psutil.Process(pid).name()} (process {pid})"
    return "another process"


def memory_of(processes: Collection[psutil.Process]) -> int:
    """Bytes that would be free if these processes ended; pages shared among them are not counted."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return total
