"""Brings databases that older versions wrote to the schema of the installed ones, before anything starts.

Prefect's server would do so by itself; MLflow's does where the newer schema has more tables, and refuses to
start where it has more columns. Neither keeps what was there before, and a migration that is killed half-way
may not start again. So it is done here, on a copy, which takes the place of the database in one transaction.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from rich.console import Console

from domains.contract import GroundworkError
from flows.home import Home
from groundwork.databases import SIDECARS, Database, databases, record_versions, too_new
from groundwork.processes import new_launch_id, spawn

KEPT = ".before-upgrade-"
"""In the name of a copy of a database as it was."""


def bring_up_to_date(home: Home, console: Console) -> None:
    """Upgrade the databases that are of an older schema; keep a copy of each, and say where.

    Nothing else may be running on the state folder. Raises GroundworkError, and leaves both databases as
    they were, when one was written by a newer version or cannot be upgraded.
    """
    states = {database: database.state() for database in databases(home)}
    for database, state in states.items():
        if state == "newer":
            raise too_new(home, database)
    older = [database for database, state in states.items() if state == "older"]
    if older:
        _require_space(home, older)
        drafts = {database: _draft(database) for database in older}
        try:
            # All of them, before the first takes its place: the versions before read both as they were.
            for database, draft in drafts.items():
                _upgrade(home, database, draft, console)
            for database, draft in drafts.items():
                _replace(database, draft, console)
        finally:
            for draft in drafts.values():
                _discard(draft.file)
    record_versions(home)


def _draft(database: Database) -> Database:
    return replace(database, file=database.file.with_name(f"{database.file.name}.upgrading"))


def _require_space(home: Home, older: Sequence[Database]) -> None:
    # The kept copy, the one that is upgraded, and the change itself.
    needed = 3 * sum(database.file.stat().st_size for database in older)
    if home.free_space() < needed:
        raise GroundworkError(
            f"The databases must be upgraded, for which {needed // 2**20 + 1} MB are needed on the disk that "
            f"holds {home.root}: free some space."
        )


def _upgrade(home: Home, database: Database, draft: Database, console: Console) -> None:
    """Make an upgraded copy of a database."""
    size = database.file.stat().st_size / 2**20
    log = home.logs / "upgrade.log"
    reason = ""
    with console.status(f"Upgrading the {database.title} database, {size:.0f} MB"):
        _discard(draft.file)
        try:
            database.copy(draft.file)
            upgraded = _migrate(home, draft, log) == 0 and draft.state() == "current"
        except (sqlite3.Error, OSError) as error:
            upgraded, reason = False, f" ({error})"
    if not upgraded:
        raise GroundworkError(
            f"The {database.title} database cannot be upgraded{reason}, and nothing was changed; {log} says "
            "why. Until it is mended, install the former versions again."
        )


def _replace(database: Database, draft: Database, console: Console) -> None:
    """Keep a database as it was, and let the draft take its place."""
    before, after = database.revision(), draft.revision()
    kept = database.file.with_name(f"{database.file.name}{KEPT}{datetime.now():%Y-%m-%d-%H%M%S}")
    try:
        database.copy(kept)
        draft.copy(database.file)  # one transaction: killed within it, the database is still as it was
    except (sqlite3.Error, OSError) as error:
        raise GroundworkError(
            f"The upgraded {database.title} database cannot take its place ({error}): it is as it was."
        ) from error
    console.print(
        f"Upgraded the {database.title} database ({before} → {after}); as it was, it is kept in {kept}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _migrate(home: Home, database: Database, log: Path) -> int:
    """Let the package itself do it, in a process of its own that ends with this one; its exit code."""
    python = (sys.executable, "-P", "-m")
    url = f"sqlite+aiosqlite:///{database.file}"
    commands = {
        "prefect": (*python, "prefect", "server", "database", "upgrade", "--yes"),
        "mlflow": (*python, "mlflow", "db", "upgrade", f"sqlite:///{database.file}"),
    }
    process = spawn(
        commands[database.package],
        launch=new_launch_id(),
        name="upgrade",
        environment={
            **os.environ,
            **home.environment(),
            # Its older and its newer name, either of which may be set around us.
            "PREFECT_API_DATABASE_CONNECTION_URL": url,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": url,
        },
        folder=home.root,
        log=log,
    )
    try:
        return process.wait()
    finally:
        process.kill()


def _discard(draft: Path) -> None:
    for end in ("", *SIDECARS):
        draft.with_name(draft.name + end).unlink(missing_ok=True)
