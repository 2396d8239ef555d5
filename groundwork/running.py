"""What is running on a state folder: written by the launcher, read by every other command."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Column, Table

from domains.contract import GroundworkError
from flows.home import Home
from groundwork.processes import family, memory_of
from groundwork.services import Addresses, is_healthy


@dataclass(frozen=True)
class ChildRecord:
    """One service as it runs; ``pid`` is that of its leading process, 0 while it waits for a restart."""

    name: str
    title: str
    pid: int
    port: int | None
    url: str
    health: str
    started: float  # seconds since the epoch
    restarts: int


@dataclass(frozen=True)
class LaunchRecord:
    """One ``groundwork up``. ``created`` tells the launcher from a later process with the same pid."""

    launch: str
    pid: int
    created: float  # seconds since the epoch
    addresses: Addresses
    children: tuple[ChildRecord, ...]

    @staticmethod
    def file(home: Home) -> Path:
        return home.root / "services.json"

    @classmethod
    def read(cls, home: Home) -> LaunchRecord | None:
        """The latest record, whether or not its launcher still lives."""
        try:
            told = json.loads(cls.file(home).read_text())
            addresses = Addresses(**told.pop("addresses"))
            children = tuple(ChildRecord(**child) for child in told.pop("children"))
            return cls(**told, addresses=addresses, children=children)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, home: Home) -> None:
        draft = self.file(home).with_suffix(".json.new")
        draft.write_text(json.dumps(dataclasses.asdict(self), indent=2))
        draft.replace(self.file(home))  # at once, so that no reader ever sees half of it

    def lives(self) -> bool:
        """Whether the launcher that wrote this is still there."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.created) < 2
        except psutil.Error:
            return False


def running(home: Home) -> Addresses | None:
    """Where the servers of a living ``groundwork up`` on this state folder answer; None without one."""
    record = LaunchRecord.read(home)
    return record.addresses if record and record.lives() else None


def wait_until_healthy(
    home: Home, timeout: float = 180.0, launcher: subprocess.Popen[bytes] | None = None
) -> Addresses:
    """Wait for a ``groundwork up`` that was started elsewhere, until each of its services is healthy.

    Raises GroundworkError after ``timeout`` seconds, or as soon as the ``launcher`` process has ended.
    """
    deadline = time.monotonic() + timeout
    waits_for = ["groundwork up"]
    while time.monotonic() < deadline:
        if launcher is not None and launcher.poll() is not None:
            raise GroundworkError(
                f"`groundwork up` ended with exit code {launcher.returncode}: see what it printed."
            )
        record = LaunchRecord.read(home)
        if record and record.lives():
            waits_for = [child.title for child in record.children if not is_healthy(child.health, child.pid)]
            if not waits_for:
                return record.addresses
        time.sleep(0.3)
    names = ", ".join(waits_for)
    raise GroundworkError(f"Not healthy after {timeout:.0f} s: {names}. The reason is in {home.logs}.")


def status(home: Home, console: Console | None = None) -> int:
    """Print each service with its health. Returns 0: all are well, 1: one is not, 3: nothing is running."""
    console = console or Console()
    record = LaunchRecord.read(home)
    if record is None or not record.lives():
        console.print(
            f"Not running on {home.root}. Start it with: groundwork up", soft_wrap=True, markup=False
        )
        return 3
    address = Column("address", overflow="fold")  # whole, for it is there to be opened
    columns = ("service", "health", "pid", "port", address, "up for", "restarts", "memory")
    table = Table(*columns, box=None, pad_edge=False)
    all_well = True
    for child in record.children:
        well = is_healthy(child.health, child.pid)
        all_well = all_well and well
        table.add_row(
            child.title,
            "[green]healthy[/]" if well else "[red]not answering[/]" if child.pid else "[red]restarting[/]",
            str(child.pid or "–"),
            str(child.port or "–"),
            child.url or "–",
            duration(time.time() - child.started) if child.pid else "–",
            str(child.restarts),
            f"{memory_of(family(record.launch, [child.name])) / 2**20:.0f} MB",
        )
    console.print(table)
    if not all_well:
        console.print(f"The reason is in the logs: {home.logs}", soft_wrap=True, markup=False)
    return 0 if all_well else 1


def duration(seconds: float) -> str:
    """A time span in the two largest units that matter to a reader."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
