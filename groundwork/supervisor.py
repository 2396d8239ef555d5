"""Keeps a set of services alive: start, health, restart with back-off, and an orderly end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil
from rich.console import Console
from rich.live import Live
from rich.table import Table

from domains.contract import GroundworkError
from flows.home import Home
from groundwork.processes import end, new_launch_id, spawn
from groundwork.running import ChildRecord, LaunchRecord
from groundwork.services import Addresses, Service, forget_health, is_healthy

TICK = 0.2  # seconds between two looks at the children
START_LIMIT = 180.0  # seconds until every service must have been healthy
START_ATTEMPTS = 3  # deaths of a service during the start before it is given up
LONGEST_PAUSE = 30.0  # seconds between two attempts to bring a service back
STEADY_AFTER = 60.0  # seconds of health after which earlier deaths are forgotten


@dataclass
class _Child:
    service: Service
    process: subprocess.Popen[bytes] | None = None  # None while it waits for its next start
    started: float = 0.0  # seconds since the epoch
    healthy_since: float | None = None  # monotonic clock, as next_start
    next_start: float = 0.0
    deaths: int = 0  # since it was last steadily healthy
    restarts: int = 0

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """One ``groundwork up``. It has no threads: children are looked at in turn, signals only leave a note."""

    def __init__(
        self, home: Home, addresses: Addresses, services: Sequence[Service], console: Console
    ) -> None:
        self.home = home
        self.addresses = addresses
        self.children = [_Child(service) for service in services]
        self.console = console
        self.launch = new_launch_id()
        self.begun = time.monotonic()
        self.is_up = False  # every service has been healthy
        self.asked_to_stop = False
        self.interrupts = 0

    def run(self) -> int:
        """Start all, stay until a signal asks to stop, end all. Returns 0; GroundworkError: see ``up``."""
        with self._noting_signals():
            try:
                self._record()  # first of all: by the launch id, whatever is started can be found again
                self._bring_up()
                while not self.asked_to_stop:
                    self._look_after_all()
                    time.sleep(TICK)
            finally:
                self._end_all()
        return 0

    # ---------------------------------------------------------------------------------------- starting

    def _bring_up(self) -> None:
        live = Live(console=self.console, auto_refresh=False, transient=True)
        with live if self.console.is_terminal else nullcontext():
            while not (self.is_up or self.asked_to_stop):
                self._look_after_all()
                if self.console.is_terminal:
                    live.update(self._progress(), refresh=True)
                waits_for = [child.service.title for child in self.children if child.healthy_since is None]
                self.is_up = not waits_for
                if time.monotonic() - self.begun > START_LIMIT and waits_for:
                    raise GroundworkError(
                        f"Not healthy after {START_LIMIT:.0f} s: {', '.join(waits_for)}. "
                        f"The reason is in {self.home.logs}."
                    )
                time.sleep(TICK)
        if self.is_up:
            self._say(f"Groundwork is up after {time.monotonic() - self.begun:.1f} s, on {self.home.root}")
            for child in self.children:
                if child.service.url:
                    self._say(f"  {child.service.title:<15} {child.service.url}")
            self._say("Ctrl-C stops everything.")

    def _progress(self) -> Table:
        table = Table(box=None, show_header=False)
        for child in self.children:
            state = "[green]healthy[/]" if child.healthy_since else "[yellow]starting[/]"
            seconds = (child.healthy_since or time.monotonic()) - self.begun
            table.add_row(child.service.title, state, f"{seconds:.0f} s")
        return table

    # ------------------------------------------------------------------------------------ keeping alive

    def _look_after_all(self) -> None:
        for child in self.children:
            now = time.monotonic()
            if self.asked_to_stop:
                return
            if child.process is None:
                if now >= child.next_start:
                    self._start(child)
            elif not child.runs:
                self._bury(child, child.process.returncode)
            elif child.healthy_since is None:
                self._ask_for_health(child, child.process.pid)
            elif now - child.healthy_since > STEADY_AFTER:
                child.deaths = 0

    def _start(self, child: _Child) -> None:
        service = child.service
        forget_health(service.health)
        environment = {
            **os.environ,
            **self.home.environment(),
            **self.addresses.environment(),
            # As -P does for the child: what it starts must not find modules in the state folder.
            "PYTHONSAFEPATH": "1",
            **service.environment,
        }
        try:
            child.process = spawn(
                service.command,
                launch=self.launch,
                name=service.name,
                environment=environment,
                folder=self.home.root,
                log=self._log(service),
            )
        except OSError as error:  # a full disk, no more processes
            self._try_again_later(child, f"cannot be started ({error.strerror})")
            return
        child.started = time.time()
        self._record()

    def _ask_for_health(self, child: _Child, pid: int) -> None:
        if not is_healthy(child.service.health, pid):
            return
        child.healthy_since = time.monotonic()
        if self.is_up:
            self._say(f"{child.service.title} is healthy again.")
        elif not self.console.is_terminal:
            self._say(f"{child.service.title} is healthy after {child.healthy_since - self.begun:.1f} s.")

    def _bury(self, child: _Child, code: int) -> None:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        # What it had started still holds its port, or trains on where nobody could cancel it.
        grace = child.service.grace
        end(self.launch, [child.service.name], grace=grace, hurry=lambda: self.asked_to_stop)
        self._try_again_later(child, how)

    def _try_again_later(self, child: _Child, how: str) -> None:
        """Back-off: at once after the first death, then after 1, 2, 4, … seconds."""
        pause = min(LONGEST_PAUSE, 2.0 ** (child.deaths - 1)) if child.deaths else 0.0
        child.process, child.healthy_since = None, None
        child.next_start = time.monotonic() + pause
        child.deaths += 1
        child.restarts += 1
        self._record()
        title, log = child.service.title, self._log(child.service)
        if not self.is_up and child.deaths >= START_ATTEMPTS:
            self.home.require_space()  # the likelier cause, and a clearer message
            raise GroundworkError(
                f"The {title} does not start, it {how}: {_last_line(log)!r}. "
                f"Read {log}, and try `groundwork doctor`."
            )
        again = f"starts again in {pause:.0f} s" if pause else "starts again"
        self._say(f"{title} {how} and {again}; its log is {log}")

    # ------------------------------------------------------------------------------------------- ending

    def _end_all(self) -> None:
        """First the services that speak to the servers, so that they can still save and report."""
        if self.asked_to_stop:
            self._say("Stopping; Ctrl-C again stops without waiting.")
        for wave in (True, False):
            children = [child for child in self.children if child.service.speaks_to_servers is wave]
            # Only the leading process is told: it knows how to end what it has started. The flow runner
            # tells a run that it is being cancelled and then signals it; were the whole group signalled,
            # the run would not know, and count as crashed.
            for child in children:
                if child.process is not None and child.runs:
                    child.process.terminate()
            told = time.monotonic()
            while not self._hurried() and any(
                child.runs and time.monotonic() - told < child.service.grace for child in children
            ):
                time.sleep(TICK / 2)
            # What a service has left when it ended may be saving, too: it has the rest of the time.
            for child in children:
                rest = max(0.0, told + child.service.grace - time.monotonic())
                end(self.launch, [child.service.name], grace=rest, hurry=self._hurried)
        LaunchRecord.file(self.home).unlink(missing_ok=True)
        if self.asked_to_stop:
            self._say("Stopped.")

    def _hurried(self) -> bool:
        # Two Ctrl-C, not any two signals: a parent that is interrupted as well may pass on a SIGTERM.
        return self.interrupts > 1

    @contextmanager
    def _noting_signals(self) -> Iterator[None]:
        def note(number: int, _frame: FrameType | None) -> None:
            self.asked_to_stop = True
            self.interrupts += number == signal.SIGINT

        wanted = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # ignored under nohup
            wanted.append(signal.SIGHUP)
        before = {number: signal.signal(number, note) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # ------------------------------------------------------------------------------------------ telling

    def _record(self) -> None:
        record = LaunchRecord(
            launch=self.launch,
            pid=os.getpid(),
            created=psutil.Process().create_time(),
            addresses=self.addresses,
            children=tuple(
                ChildRecord(
                    name=child.service.name,
                    title=child.service.title,
                    pid=child.process.pid if child.process else 0,
                    port=child.service.port,
                    url=child.service.url,
                    health=child.service.health,
                    started=child.started,
                    restarts=child.restarts,
                )
                for child in self.children
            ),
        )
        try:
            record.write(self.home)
        except OSError as error:
            # A full disk is no reason to let go of the services: the earlier record still has the launch id.
            self._say(f"Cannot write {LaunchRecord.file(self.home)} ({error.strerror}).")

    def _log(self, service: Service) -> Path:
        return self.home.logs / f"{service.name}.log"

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _last_line(log: Path) -> str:
    """The end of a log, where a Python program says why it ended."""
    if not log.exists():
        return "it said nothing"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it said nothing")
