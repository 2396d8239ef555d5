"""The two SQLite databases of a state folder: which revision they are of, and how they are copied whole.

Prefect and MLflow each number their schema by the chain of their Alembic migrations, and a database keeps
the number of the last one that was applied to it (``alembic_version``).
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from packaging.version import Version

from domains.contract import GroundworkError
from flows.home import Home

PACKAGES = ("groundwork", "prefect", "mlflow")
"""Whose versions decide what is in a state folder."""

SIDECARS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database; a copy made through it needs none of them."""

State = Literal["absent", "current", "older", "newer"]

_REVISION = re.compile(r"""^(revision|down_revision)\b[^=\n]*=\s*["'](\w+)["']""", re.MULTILINE)


@dataclass(frozen=True)
class Database:
    """One database, and where its package keeps the migrations."""

    title: str
    package: str
    file: Path
    migrations: str

    def revision(self) -> str | None:
        """The revision of its schema; None where it has none yet. Raises GroundworkError."""
        if not self.file.is_file():
            return None
        try:
            with closing(connect(self.file)) as connection:
                row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.Error as error:
            if "no such table" in str(error):
                return None  # a server will fill it
            raise GroundworkError(
                f"The database {self.file} cannot be read ({error}): see what `groundwork doctor` says."
            ) from error
        return str(row[0]) if row else None

    def known(self) -> tuple[frozenset[str], str]:
        """Every revision that the installed package knows, and the one that it reads and writes.

        Read from the text of the migrations: to import Prefect or MLflow would cost each start seconds.
        """
        package = find_spec(self.package)
        if package is None or not package.submodule_search_locations:
            raise GroundworkError(f"{self.package} is not installed: see what `groundwork doctor` says.")
        folder = Path(next(iter(package.submodule_search_locations))) / self.migrations
        found: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
        for script in folder.glob("*.py"):
            for key, revision in _REVISION.findall(script.read_text(encoding="utf-8")):
                found[key].add(revision)
        [newest] = found["revision"] - found["down_revision"]
        return frozenset(found["revision"]), newest

    def state(self) -> State:
        """How it stands to the installed package."""
        revision = self.revision()
        if revision is None:
            return "absent"
        known, newest = self.known()
        if revision == newest:
            return "current"
        return "older" if revision in known else "newer"

    def copy(self, to: Path) -> None:
        """Copy it as of one moment, while others write to it. Raises sqlite3.Error, OSError."""
        with closing(connect(self.file)) as source, closing(sqlite3.connect(to)) as target:
            source.backup(target)
            # One file, without sidecars: it may be moved before anybody opens it as a database.
            target.execute("PRAGMA journal_mode = DELETE")
        shutil.copymode(self.file, to)


def connect(file: Path) -> sqlite3.Connection:
    """Open a database that is there; plain ``connect`` would make an empty one."""
    return sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=30.0)


def databases(home: Home) -> tuple[Database, Database]:
    """Those of a state folder, whether or not they were made yet."""
    return (
        Database(
            "Prefect",
            "prefect",
            home.prefect / "prefect.db",
            "server/database/_migrations/versions/sqlite",
        ),
        Database("MLflow", "mlflow", home.mlflow / "mlflow.db", "store/db_migrations/versions"),
    )


# ----------------------------------------------------------------------------------------- versions


def installed_versions() -> dict[str, str]:
    """Version of each package that writes to a state folder."""
    return {package: version(package) for package in PACKAGES}


def record_versions(home: Home) -> None:
    """Note which versions have written to the state folder: a database keeps a revision, and no version."""
    _versions_file(home).write_text(json.dumps(installed_versions()))


def recorded_versions(home: Home) -> Mapping[str, str]:
    """The versions of the last start; empty where none is known."""
    try:
        told = json.loads(_versions_file(home).read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _versions_file(home: Home) -> Path:
    return home.root / "versions.json"


def too_new(home: Home, database: Database) -> GroundworkError:
    """What to say of a database that a newer package than the installed one has written."""
    here = version(database.package)
    told = recorded_versions(home).get(database.package)
    if told and Version(told) > Version(here):
        writer, wanted = f"{database.package} {told}", f'"{database.package}=={told}"'
    else:
        writer, wanted = f"a newer {database.package}", f'"{database.package}>{here}"'
    return GroundworkError(
        f"The {database.title} database {database.file} was written by {writer}, and {here} is installed, "
        f"which cannot read it. Install the newer one (pip install {wanted}), or restore a backup of before."
    )
