"""``groundwork doctor``: looks for what keeps Groundwork from working, and says what to do about it."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console

from domains.contract import GroundworkError
from flows.home import NEEDED_SPACE, Home
from groundwork.databases import Database, databases, too_new
from groundwork.processes import family, port_holder
from groundwork.rooms import HERE, ROOMS, found_at
from groundwork.running import LaunchRecord
from groundwork.services import Ports, default_services

ROOMY = 5 * 2**30  # bytes; a pretraining run with its checkpoints and stores fits


@dataclass(frozen=True)
class Finding:
    """What a check found. ``remedy`` is what to do; there is none when nothing is wrong."""

    check: str
    found: str
    remedy: str = ""


def doctor(home: Home, ports: Ports | None = None, console: Console | None = None) -> int:
    """Print every check. Returns 0 when nothing is wrong, 1 otherwise. Changes nothing."""
    console = console or Console()
    problems = 0
    for finding in examine(home, ports or Ports()):
        problems += bool(finding.remedy)
        mark, style = ("✗", "red") if finding.remedy else ("✓", "green")
        console.print(f"[{style}]{mark}[/] [bold]{finding.check:<13}[/]", end="")
        console.print(finding.found, markup=False, highlight=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"  → {finding.remedy}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{problems} problem(s) found." if problems else "Nothing is wrong.")
    return 1 if problems else 0


def examine(home: Home, ports: Ports) -> Iterator[Finding]:
    """All findings, the quickest checks first."""
    yield from _versions()
    yield from shadowing(Path.cwd())
    yield from _state_folder(home)
    yield from _databases(home)
    yield from _services(home, ports)
    yield _gpu()


# -------------------------------------------------------------------------------------------- versions


def _versions() -> Iterator[Finding]:
    try:
        ours = metadata.distribution("groundwork")
    except metadata.PackageNotFoundError:
        yield Finding(
            "installation",
            "Groundwork is not installed in this Python, so its services would not find it",
            "Install it from its folder: pip install -e . -c constraints.txt",
        )
        return
    supported = SpecifierSet(ours.metadata["Requires-Python"] or "")
    yield Finding(
        "Python",
        platform.python_version(),
        "" if platform.python_version() in supported else f"Use a Python {supported}.",
    )
    requirements = [Requirement(line) for line in ours.requires or ()]
    yield from package_versions(
        [wanted for wanted in requirements if wanted.marker is None or wanted.marker.evaluate({"extra": ""})]
    )


def package_versions(
    requirements: list[Requirement], installed: Callable[[str], str] = metadata.version
) -> Iterator[Finding]:
    """One finding for each package outside its supported range, or one for all of them."""
    all_well = True
    for wanted in requirements:
        try:
            version = installed(wanted.name)
        except metadata.PackageNotFoundError:
            version = ""
        if version and wanted.specifier.contains(version, prereleases=True):
            continue
        all_well = False
        found = f"{wanted.name} {version or 'is missing'}"
        if wanted.name == "fastapi" and version:
            found += ", with which the Prefect server does not start (though `prefect version` works)"
        yield Finding("packages", found, f'Run: pip install "{wanted.name}{wanted.specifier}"')
    if all_well:
        yield Finding("packages", f"all {len(requirements)} within their supported ranges")


# ------------------------------------------------------------------------------------------- shadowing


def shadowing(working_folder: Path, find: Callable[[str], Path | None] | None = None) -> Iterator[Finding]:
    """Folders and files named as one of ours that Python takes instead of ours, or would take."""
    find = find or found_at
    strays = []
    for name in ROOMS:
        found = find(name)
        if found is not None and found != HERE / name:
            strays.append(found)
            yield Finding(
                "imports",
                f"`import {name}` takes {found} instead of {HERE / name}",
                f"Rename {found}, or take its folder out of PYTHONPATH.",
            )
    for name in ROOMS:
        folder, module = working_folder.resolve() / name, working_folder.resolve() / f"{name}.py"
        # A folder without __init__.py is looked at last, after ours: it hides nothing.
        stray = module if module.is_file() else folder if (folder / "__init__.py").is_file() else None
        if stray is not None and stray != HERE / name and stray not in strays:
            strays.append(stray)
            yield Finding(
                "imports",
                f"{stray} hides ours for notebooks and `python -m` in this folder",
                "Rename it, or work in another folder. The `groundwork` command itself is not affected.",
            )
    if not strays:
        yield Finding("imports", f"nothing hides the packages in {HERE}")


# ---------------------------------------------------------------------------------------- state folder


def _state_folder(home: Home) -> Iterator[Finding]:
    exists = home.root.exists()
    folder = next(folder for folder in (home.root, *home.root.parents) if folder.exists())
    writable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    yield Finding(
        "state folder",
        f"{home.root}{'' if exists else ', not created yet'}{'' if writable else ' is not writable'}",
        "" if writable else "Set GROUNDWORK_HOME to a folder that you may write to.",
    )
    free = home.free_space()
    words = f"{free / 2**30:.1f} GB free"
    if free < NEEDED_SPACE:
        yield Finding("disk", words, f"Free some space: {NEEDED_SPACE // 2**20} MB are needed to start.")
    else:
        yield Finding("disk", words if free > ROOMY else f"{words}, little for long pretraining runs")


def _databases(home: Home) -> Iterator[Finding]:
    for known in databases(home):
        found = database(known.title, known.file)
        yield found
        if not found.remedy:
            yield from schema(home, known)


def schema(home: Home, database: Database) -> Iterator[Finding]:
    """Whether the installed package can read a database that is there and intact."""
    try:
        state, revision = database.state(), database.revision()
    except GroundworkError as error:
        yield Finding("schema", f"{database.title}: not known", str(error))
        return
    if state == "current":
        yield Finding("schema", f"{database.title}: {revision}, that of the installed version")
    elif state == "older":
        remedy = "Run `groundwork up`: it keeps a copy and upgrades the database."
        yield Finding("schema", f"{database.title}: {revision}, that of an older version", remedy)
    elif state == "newer":
        found = f"{database.title}: {revision}, that of a newer version"
        yield Finding("schema", found, str(too_new(home, database)))


def database(title: str, file: Path) -> Finding:
    """Whether a SQLite database can be read and is intact."""
    check = "database"
    if not file.exists():
        return Finding(check, f"{title}: not created yet")
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
            verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        verdict = str(error)
    size = file.stat().st_size / 2**20
    if verdict == "ok":
        return Finding(check, f"{title}: intact, {size:.1f} MB")
    return Finding(
        check,
        f"{title}: {file} is damaged ({verdict})",
        f'Stop Groundwork, keep a copy, and try: sqlite3 {file} ".recover" | sqlite3 {file}.recovered',
    )


# -------------------------------------------------------------------------------------------- services


def _services(home: Home, ports: Ports) -> Iterator[Finding]:
    record = LaunchRecord.read(home)
    if record and record.lives():
        taken = ", ".join(f"{child.title} on {child.port}" for child in record.children if child.port)
        yield Finding("services", f"running (process {record.pid}): {taken}")
        return
    if record and (left := family(record.launch)):
        pids = ", ".join(str(process.pid) for process in left)
        yield Finding(
            "services",
            f"an earlier start was killed and has left processes behind: {pids}",
            "Run `groundwork up`: it ends them first.",
        )
        return
    yield Finding("services", "not running")
    for service in default_services(home, ports):
        if service.port is None:
            continue
        holder = port_holder(service.port)
        yield Finding(
            "ports",
            f"{service.port} for the {service.title}: {f'taken by {holder}' if holder else 'free'}",
            f"Stop that program, or give another port: groundwork up --{service.name}-port N"
            if holder
            else "",
        )


def _gpu() -> Finding:
    try:
        import torch  # here: it takes seconds, and may be what is broken
    except Exception as error:  # a broken installation raises about anything, and to say so is the purpose
        return Finding("GPU", f"torch cannot be imported: {error}", "Install it again: pip install torch")
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        names = ", ".join(f"{device.name} ({device.total_memory / 2**30:.0f} GB)" for device in devices)
        return Finding("GPU", f"{names}, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        return Finding("GPU", "Apple GPU through MPS")
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    return Finding(
        "GPU", f"none seen by torch {torch.__version__} ({build}); models run on {os.cpu_count()} CPU cores"
    )
