"""A map that is not finished yet: a hidden folder beside it, from which a killed run goes on."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from domains.contract import GroundworkError

KEPT_SECONDS = 7 * 24 * 3600
"""An unfinished map of another name that nobody went on with is thrown away after that."""

RECORD_SECONDS = 5.0
"""How often progress is recorded: what a kill may cost. Each time, all that was written goes to the disk."""

PROGRESS = "progress.npz"


@dataclass(frozen=True)
class Progress:
    """How far a map is."""

    section: int
    row: int
    """Rows of the section that are answered."""
    carried: np.ndarray
    """What ``RowBlend.carried`` gave then."""


class Unfinished:
    """The folder of one map in the making, held by one process at a time.

    It is named after the map and ``key``, the digest of all that decides the map's content: what another
    model or scene has begun is never gone on with, and is thrown away.
    """

    def __init__(self, path: Path, key: str) -> None:
        """Make the folder, or take over what a killed run left.

        Raises GroundworkError while another run has it.
        """
        _throw_away_stale(path, key)
        self.folder = path.parent / f".{path.name}-{key}"
        self.folder.mkdir(exist_ok=True)
        self._lock = FileLock(self.folder / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise GroundworkError(
                f"{path} is being made by another run: wait for it, or give the map another name"
            ) from error
        self.progress = self._read()
        self._recorded = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time to record progress."""
        return time.monotonic() - self._recorded >= RECORD_SECONDS

    def record(self, progress: Progress) -> None:
        """Note how far the map is, once all that was written of it is safe. All or nothing."""
        for file in self.folder.iterdir():
            _make_safe(file)
        partial = self.folder / f"{PROGRESS}.partial"
        with partial.open("wb") as stream:
            np.savez(stream, place=[progress.section, progress.row], carried=progress.carried)
            os.fsync(stream.fileno())
        os.replace(partial, self.folder / PROGRESS)
        self.progress = progress
        self._recorded = time.monotonic()

    def write_margin(self, section: int, row: int, totals: np.ndarray) -> None:
        """Keep rows of what tiles of ``section`` say of the next one's columns, float64 [rows, ...]."""
        file = self._margin(section)
        with file.open("r+b" if file.exists() else "w+b") as stream:
            stream.seek(row * totals[0].nbytes)
            stream.write(totals.tobytes())

    def read_margin(self, section: int, row: int, shape: tuple[int, int, int]) -> np.ndarray:
        """Rows that ``write_margin`` kept, float64 of ``shape``."""
        with self._margin(section).open("rb") as stream:
            stream.seek(row * shape[1] * shape[2] * 8)
            return np.frombuffer(stream.read(shape[0] * shape[1] * shape[2] * 8)).reshape(shape)

    def drop_margin(self, section: int) -> None:
        self._margin(section).unlink(missing_ok=True)

    def leave(self) -> None:
        """Let another run go on from here; with nothing recorded there is nothing to keep."""
        if self.progress is None:
            self.remove()
        else:
            self._lock.release()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def _margin(self, section: int) -> Path:
        return self.folder / f"margin-{section}.raw"

    def _read(self) -> Progress | None:
        with suppress(OSError, ValueError, KeyError, EOFError), np.load(self.folder / PROGRESS) as kept:
            section, row = kept["place"].tolist()
            return Progress(section, row, kept["carried"])
        return None


def _make_safe(file: Path) -> None:
    """Write what the system still holds in memory: a machine without power forgets it."""
    number = os.open(file, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _throw_away_stale(path: Path, key: str) -> None:
    """Remove what was begun under this name with another key, and what was given up, unless a run has it."""
    for folder in path.parent.glob(".*"):
        named = re.fullmatch(r"\.(.+\.tiff?)-([0-9a-f]{16})", folder.name, re.IGNORECASE)
        if named is None or not (folder / "lock").is_file() or named.group(2) == key:
            continue
        with suppress(OSError):
            is_old = time.time() - folder.stat().st_mtime > KEPT_SECONDS
            if named.group(1) == path.name or is_old:
                with suppress(Timeout), FileLock(folder / "lock", timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
