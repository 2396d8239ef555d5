"""What a backup looks like: a compressed tar of a state folder, told of at its head and proven at its end.

manifest.json   versions, date, where the folder was: read before anything is unpacked
state/…         the files
digests.json    SHA-256 of each file: last, since files are read once and only then known
"""

from __future__ import annotations

import errno
import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from domains.contract import GroundworkError

MANIFEST, DIGESTS, STATE = "manifest.json", "digests.json", "state/"

FORMAT = 1
"""Raised when an older Groundwork could no longer restore what is written."""


class Manifest(BaseModel):
    """The head of a backup."""

    format: int
    made: str
    """Date and time, ISO 8601 with the zone."""
    versions: dict[str, str]
    """Of groundwork, prefect and mlflow."""
    revisions: dict[str, str]
    """Schema of each database, by the package that owns it."""
    root: str
    """The state folder, as it was called where the backup was made."""
    files: int
    bytes: int
    """Of all files when the backup began, uncompressed."""


class Digested:
    """A file that is being read, with the SHA-256 of what was read; at most ``size`` bytes of it.

    One that has become shorter meanwhile is filled up with zeros, because its place in the archive is
    already measured.
    """

    def __init__(self, file: IO[bytes], size: int, progress: Any) -> None:
        self._file = file
        self._left = size
        self._hash = hashlib.sha256()
        self._progress = progress
        self.filled = False
        """Whether it had become shorter."""

    def read(self, count: int = -1) -> bytes:
        """As a file does."""
        count = self._left if count < 0 else min(count, self._left)
        data = self._file.read(count)
        if len(data) < count:
            self.filled = True
            data += bytes(count - len(data))
        self._left -= count
        self._hash.update(data)
        self._progress(count)
        return data

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def progress_bar(console: Console, title: str, total: int) -> Iterator[Any]:
    """Show how many of ``total`` bytes are done; yields the function to call with each further number."""
    columns = (TextColumn(title), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Say which disk is full, when one is."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
            raise
        raise GroundworkError(
            f"The disk that holds {folder} is full, and nothing was kept there: free some space, or choose "
            "a folder on another disk."
        ) from error
