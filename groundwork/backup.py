"""``groundwork backup``: the state folder in one file, written while the services run.

Databases first, then files: whatever a row names was written before the row, so that each file that a
restored registry names is there. What can be made again stays out: encoded stores, logs, locks and the notes
of running processes.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from rich.console import Console

from domains.contract import GroundworkError
from flows.home import Home
from groundwork.archive import (
    DIGESTS,
    FORMAT,
    MANIFEST,
    STATE,
    Digested,
    Manifest,
    full_disk_named,
    progress_bar,
)
from groundwork.database_upgrade import KEPT
from groundwork.databases import SIDECARS, Database, databases, installed_versions

PASSES = 5
"""Looks at a folder in which files come and go, such as the checkpoints of a training run."""

COMPRESSION = 1  # zlib's quickest; weights hardly become smaller with any

CHECKPOINT_DONE = "trainer_state.json"
"""The trainer writes it last: a checkpoint without it is still being written, or being deleted."""

REMADE = {
    *("stores", "cache", "logs", "locks"),
    *("groundwork.lock", "services.json", "services.json.new", "runner.json"),
}
"""In the state folder itself."""
REMADE_SUFFIXES = (".lock", ".upgrading")
REMADE_FILES = {"lock", "memo_store.toml"}


def backup(home: Home, file: Path | None = None, console: Console | None = None) -> Path:
    """Write the state folder into ``file``, by default one named with the date in the working folder.

    Readable by its owner alone, as it holds what the state folder holds. Returns its path. Raises
    GroundworkError when there is nothing to save, when the file is there already or would lie within the
    state folder, and when the disk is full; nothing is left behind then.
    """
    console = console or Console(stderr=True)
    file = (file or Path(f"groundwork-{datetime.now():%Y-%m-%d-%H%M%S}.tar.gz")).expanduser().resolve()
    present = [database for database in databases(home) if database.revision() is not None]
    _check(home, file, present)
    try:
        with (
            full_disk_named(file.parent),
            tempfile.TemporaryDirectory(prefix=f".{file.name}-", dir=file.parent) as folder,
        ):
            draft = Path(folder) / "archive"
            files, changed = _write(home, present, Path(folder), draft, console)
            draft.replace(file)
    except PermissionError as error:
        raise GroundworkError(
            f"The backup cannot be written: {error.filename} is not yours to read or to write in."
        ) from error
    except sqlite3.Error as error:
        raise GroundworkError(
            f"A database cannot be read ({error}): see what `groundwork doctor` says."
        ) from error
    _say(console, f"Saved {files} files in {file} ({file.stat().st_size / 2**20:.1f} MB).")
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        _say(console, f"Being written meanwhile, perhaps incomplete there: {', '.join(changed[:3])}{more}.")
    return file


def _check(home: Home, file: Path, present: list[Database]) -> None:
    if not present:
        raise GroundworkError(
            f"There is nothing to back up: {home.root} holds no database. Set GROUNDWORK_HOME to the state "
            "folder; what lives in Postgres is saved with pg_dump."
        )
    if file.is_relative_to(home.root):
        raise GroundworkError(f"A backup inside of {home.root} would be lost with it: name a file elsewhere.")
    if file.exists():
        raise GroundworkError(f"{file} is there already: name another file.")
    if not file.parent.is_dir():
        raise GroundworkError(f"There is no folder {file.parent}: make it first, or name another one.")


def _write(
    home: Home, present: list[Database], staging: Path, draft: Path, console: Console
) -> tuple[int, list[str]]:
    """Number of files written, and the names of those that changed while they were read."""
    copies: dict[str, Path] = {}
    for database in present:
        copy = staging / database.file.name
        database.copy(copy)
        copies[_name(home, database.file)] = copy
    found = dict(state_files(home))
    sizes = [_size(path) for path in (*copies.values(), *found.values())]
    manifest = Manifest(
        format=FORMAT,
        made=datetime.now().astimezone().isoformat(timespec="seconds"),
        versions=installed_versions(),
        revisions={database.package: database.revision() or "" for database in present},
        root=str(home.root),
        files=len(sizes),
        bytes=sum(sizes),
    )
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with (
        os.fdopen(descriptor, "wb") as raw,
        progress_bar(console, "Saving", manifest.bytes) as progress,
    ):
        with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=COMPRESSION) as tar:
            writer = _Writer(tar, progress)
            writer.add_text(MANIFEST, manifest.model_dump_json(indent=2))
            for name, copy in copies.items():
                writer.add(name, copy)
            # Checkpoints are replaced by newer ones: where a file has gone meanwhile, look for others.
            for _ in range(PASSES):
                gone = [name for name, path in found.items() if not writer.add(name, path)]
                found = {name: path for name, path in state_files(home) if name not in writer.digests}
                if not gone:
                    break
            writer.add_text(DIGESTS, json.dumps(writer.digests))
        raw.flush()
        os.fsync(raw.fileno())
    return len(writer.digests), writer.changed


def state_files(home: Home) -> Iterator[tuple[str, Path]]:
    """What is saved as it lies there, by its path below the state folder: all but databases and what can be
    made again. Links are followed: a folder may lie on a larger disk.
    """
    ours = {_name(home, it.file) + end for it in databases(home) for end in ("", *SIDECARS)}
    seen: set[str] = set()
    for folder, folders, names in os.walk(home.root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        if Path(folder) == home.root:
            folders[:] = [it for it in folders if it not in REMADE]
            names = [it for it in names if it not in REMADE]
        folders.sort()
        if Path(folder).parent.name == "checkpoints" and CHECKPOINT_DONE not in names:
            continue
        for it in sorted(names):
            path = Path(folder) / it
            name = _name(home, path)
            remade = it in REMADE_FILES or it.endswith(REMADE_SUFFIXES) or KEPT in it
            if not remade and name not in ours and path.is_file():
                yield name, path


def _name(home: Home, path: Path) -> str:
    return path.relative_to(home.root).as_posix()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@dataclass
class _Writer:
    tar: tarfile.TarFile
    progress: Callable[[int], None]
    digests: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)

    def add(self, name: str, path: Path) -> bool:
        """Put a file into the archive; False when it has gone."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return False
        with file:
            before = os.fstat(file.fileno())
            member = tarfile.TarInfo(STATE + name)
            member.size, member.mtime = before.st_size, int(before.st_mtime)
            member.mode = stat.S_IMODE(before.st_mode)
            content = Digested(file, before.st_size, self.progress)
            self.tar.addfile(member, content)
            after = os.fstat(file.fileno())
        self.digests[name] = content.sha256
        if content.filled or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            self.changed.append(name)
        return True

    def add_text(self, name: str, text: str) -> None:
        member = tarfile.TarInfo(name)
        data = text.encode()
        member.size = len(data)
        self.tar.addfile(member, io.BytesIO(data))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
