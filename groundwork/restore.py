"""``groundwork restore``: a backup becomes a state folder, under another name or on another machine too.

It is unpacked beside the folder and takes its name when all of it has been checked. Nothing of the archive
is trusted: only plain files are made, below the new folder, and each must have the digest that was noted.

MLflow keeps whole addresses of artifacts in its database; those below the former state folder are changed to
the new one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO

from packaging.version import Version
from rich.console import Console

from domains.contract import GroundworkError
from flows.home import NEEDED_SPACE, Home
from groundwork.archive import DIGESTS, FORMAT, MANIFEST, STATE, Manifest, full_disk_named, progress_bar
from groundwork.databases import connect, databases, installed_versions
from groundwork.state_folder import exclusive

LARGEST_MANIFEST = 2**20
LARGEST_DIGESTS = 2**28  # about a million files
BLOCK = 2**20

# Table and column of every address below the state folder: as a URI, and as a path within JSON.
MLFLOW_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
MLFLOW_PATHS = (("datasets", "dataset_source"),)
PREFECT_PATHS = (("artifact", "data"), ("flow_run_state", "data"), ("task_run_state", "data"))

DAMAGE = (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError)
"""What reading a broken archive raises; ValueError: JSON, settings and versions that are none."""


class _Damaged(Exception):
    """The archive is not as it was written."""


def restore(home: Home, file: Path, console: Console | None = None) -> None:
    """Make the state folder ``home`` from a backup; it must be empty or absent.

    Raises GroundworkError when Groundwork runs on the folder or something is in it, when ``file`` is
    damaged, no backup, or made with newer versions than the installed ones, and when the disk is full;
    nothing is changed then.
    """
    console = console or Console(stderr=True)
    file = file.expanduser().resolve()
    if not file.is_file():
        raise GroundworkError(f"There is no file {file}: name one that `groundwork backup` has written.")
    _require_empty(home)
    parent = home.root.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with (
            full_disk_named(parent),
            tempfile.TemporaryDirectory(prefix=f".{home.root.name}-restoring-", dir=parent) as folder,
        ):
            draft = Home(Path(folder) / "state")
            draft.root.mkdir()
            manifest = _unpack(file, draft, console)
            _move_addresses(draft, Path(manifest.root), home.root)
            draft.create()
            _take_place(draft, home)
    except PermissionError as error:
        raise GroundworkError(
            f"Cannot write to {error.filename}: set GROUNDWORK_HOME to a folder that you may write to."
        ) from error
    console.print(
        f"Restored {manifest.files} files of {manifest.made} into {home.root}; start it with: groundwork up",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _require_empty(home: Home) -> None:
    if not home.root.exists():
        return
    if (home.root / "groundwork.lock").exists():
        with exclusive(home):
            pass
    if not home.root.is_dir() or any(not it.is_dir() or it.is_symlink() for it in home.root.rglob("*")):
        raise GroundworkError(
            f"{home.root} is not empty, and nothing is overwritten: rename it, "
            "or set GROUNDWORK_HOME to a new folder."
        )


def _take_place(draft: Home, home: Home) -> None:
    try:
        if home.root.exists():
            for folder in sorted(home.root.rglob("*"), reverse=True):  # empty ones, the innermost first
                folder.rmdir()
            home.root.rmdir()
        draft.root.rename(home.root)
    except OSError as error:
        raise GroundworkError(
            f"{home.root} cannot be replaced ({error.strerror}): set GROUNDWORK_HOME to a new folder, "
            "not to one on which a disk is mounted."
        ) from error


# ----------------------------------------------------------------------------------------- unpacking


def _unpack(file: Path, draft: Home, console: Console) -> Manifest:
    manifest = None
    try:
        with gzip.open(file) as raw, tarfile.open(fileobj=raw, mode="r|") as tar:
            manifest = _manifest(tar)
            _check_versions(manifest, draft)
            _check_space(manifest, draft)
            with progress_bar(console, "Restoring", manifest.bytes) as progress:
                _unpack_files(tar, draft.root, progress)
            while raw.read(BLOCK):
                pass  # to its very end, where its length and checksum are
    except (_Damaged, *DAMAGE) as error:
        if manifest is None:
            raise GroundworkError(
                f"{file} was not written by `groundwork backup`: name one that was."
            ) from error
        reason = str(error) or "it ends too early"
        raise GroundworkError(
            f"{file} is damaged ({reason}), and nothing was restored: use another backup."
        ) from error
    return manifest


def _manifest(tar: tarfile.TarFile) -> Manifest:
    """The head of a backup. Raises _Damaged or one of DAMAGE where there is none."""
    first = tar.next()
    if first is None or first.name != MANIFEST or first.size > LARGEST_MANIFEST:
        raise _Damaged("no manifest")
    manifest = Manifest.model_validate_json(_content(tar, first).read())
    for version in manifest.versions.values():
        Version(version)
    return manifest


def _check_versions(manifest: Manifest, draft: Home) -> None:
    here = installed_versions()
    newer = {
        package: told
        for package, told in manifest.versions.items()
        if package in here and Version(told) > Version(here[package])
    }
    for database in databases(draft):
        revision = manifest.revisions.get(database.package)
        if revision is not None and revision not in database.known()[0]:
            newer.setdefault(database.package, f"of schema {revision}")
    if newer or manifest.format > FORMAT:
        told = ", ".join(f"{package} {version}" for package, version in newer.items()) or "a newer groundwork"
        ours = ", ".join(f"{package} {here[package]}" for package in newer or ["groundwork"])
        raise GroundworkError(
            f"The backup was made with {told}, newer than what is installed ({ours}): install those versions "
            "or later ones, then restore."
        )


def _check_space(manifest: Manifest, draft: Home) -> None:
    needed = manifest.bytes + NEEDED_SPACE
    if draft.free_space() < needed:
        raise GroundworkError(
            f"The backup needs {needed // 2**20} MB on the disk that holds {draft.root.parent.parent}, and "
            f"{draft.free_space() // 2**20} MB are free: free some space, or set GROUNDWORK_HOME to a folder "
            "on another disk."
        )


def _unpack_files(tar: tarfile.TarFile, root: Path, progress: Callable[[int], None]) -> None:
    found: dict[str, str] = {}
    promised: dict[str, str] | None = None
    while (member := tar.next()) is not None:
        if promised is not None:
            raise _Damaged("something follows its end")
        if member.name == DIGESTS:
            if member.size > LARGEST_DIGESTS:
                raise _Damaged("its list of digests is too long")
            promised = json.loads(_content(tar, member).read())
            continue
        path = PurePosixPath(member.name)
        if not member.isreg() or path.parts[:1] != (STATE.strip("/"),) or ".." in path.parts:
            raise _Damaged(f"{member.name!r} does not belong into it")
        name = str(PurePosixPath(*path.parts[1:]))
        found[name] = _unpack_file(tar, member, root / name, progress)
    if promised is None:
        raise _Damaged("it ends too early")
    if found != promised:
        differing = next(name for name in {**found, **promised} if found.get(name) != promised.get(name))
        raise _Damaged(f"{differing} is not as it was saved")


def _unpack_file(
    tar: tarfile.TarFile, member: tarfile.TarInfo, to: Path, progress: Callable[[int], None]
) -> str:
    digest = hashlib.sha256()
    source = _content(tar, member)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        file = to.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise _Damaged(f"{member.name} is in it twice") from error
    with file:
        # Before the content: what only its owner may read is never open to others.
        to.chmod(stat.S_IMODE(member.mode) & 0o755 | stat.S_IRUSR | stat.S_IWUSR)
        while block := source.read(BLOCK):
            digest.update(block)
            file.write(block)
            progress(len(block))
    return digest.hexdigest()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    if content is None:
        raise _Damaged(f"{member.name!r} does not belong into it")
    return content


# ----------------------------------------------------------------------------------------- addresses


def _move_addresses(draft: Home, before: Path, after: Path) -> None:
    """Let the databases name the files where they are now."""
    prefect, mlflow = databases(draft)
    try:
        if mlflow.file.exists():
            with closing(connect(mlflow.file)) as connection, connection:
                for table, column in _present(connection, MLFLOW_ADDRESSES):
                    _move_start(connection, table, column, before.as_uri(), after.as_uri())
                for table, column in _present(connection, MLFLOW_PATHS):
                    _move_quoted(connection, table, column, before, after)
        if prefect.file.exists():
            with closing(connect(prefect.file)) as connection, connection:
                for table, column in _present(connection, PREFECT_PATHS):
                    _move_quoted(connection, table, column, before, after)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise
        raise GroundworkError(
            f"A database in the backup cannot be read ({error}): use another backup."
        ) from error


def _present(connection: sqlite3.Connection, columns: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Those of the columns that the database has: its schema may be an older one."""
    return [
        (table, column)
        for table, column in columns
        if any(row[1] == column for row in connection.execute(f"PRAGMA table_info({table})"))
    ]


def _move_start(connection: sqlite3.Connection, table: str, column: str, before: str, after: str) -> None:
    """Change the beginning of an address; one that only begins alike (``/var`` in ``/variance``) stays."""
    connection.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608  # names of ours
        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
        (after, len(before) + 1, before, len(before) + 1, before + "/"),
    )


def _move_quoted(connection: sqlite3.Connection, table: str, column: str, before: Path, after: Path) -> None:
    """Change the beginning of paths that are JSON strings."""
    for ascii_only in (True, False):  # MLflow's JSON escapes other letters, Prefect's does not
        was, becomes = (json.dumps(f"{path}/", ensure_ascii=ascii_only)[:-1] for path in (before, after))
        connection.execute(
            f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE instr({column}, ?)",  # noqa: S608
            (was, becomes, was),
        )
