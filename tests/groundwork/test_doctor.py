"""The doctor finds what is broken, and says what to do about it."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
from importlib import metadata
from io import StringIO
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from flows.home import Home
from groundwork.doctor import Finding, database, doctor, examine, package_versions, shadowing
from groundwork.services import Ports


def problems(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.remedy]


@pytest.fixture
def ports() -> Ports:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    numbers = [it.getsockname()[1] for it in sockets]
    for it in sockets:
        it.close()
    return Ports(*numbers)


def test_a_sound_folder_has_no_problems_and_is_not_touched(tmp_path: Path, ports: Ports) -> None:
    home = Home(tmp_path / "state")
    output = StringIO()
    code = doctor(home, ports, Console(file=output, width=200))
    printed = output.getvalue()
    assert code == 0, printed
    assert not home.root.exists()
    for check in ("Python", "packages", "imports", "state folder", "disk", "database", "ports", "GPU"):
        assert check in printed
    assert printed.endswith("Nothing is wrong.\n")


def test_a_taken_port_and_a_damaged_database_are_problems(tmp_path: Path, ports: Ports) -> None:
    home = Home(tmp_path / "state").create()
    (home.mlflow / "mlflow.db").write_bytes(b"this is no database" * 100)
    with socket.create_server(("127.0.0.1", ports.prefect)):
        found = problems(list(examine(home, ports)))
        output = StringIO()
        assert doctor(home, ports, Console(file=output, width=200)) == 1
    assert [finding.check for finding in found] == ["database", "ports"]
    assert "mlflow.db" in found[0].found
    assert str(ports.prefect) in found[1].found
    assert "--prefect-port" in found[1].remedy
    assert found[0].remedy in output.getvalue()
    assert "2 problem(s)" in output.getvalue()


def test_databases_are_read_and_never_created(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    assert "not created yet" in database("MLflow", file).found
    assert not file.exists()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER)")
        connection.executemany("INSERT INTO runs VALUES (?)", [(number,) for number in range(5000)])
    connection.close()
    assert "intact" in database("MLflow", file).found
    content = bytearray(file.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    file.write_bytes(content)
    assert "damaged" in database("MLflow", file).found


def test_versions_outside_their_range_are_named_with_the_command_that_mends_them() -> None:
    installed = {"prefect": "3.8.9", "fastapi": "0.160.0"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    wanted = [Requirement(it) for it in ("prefect>=3.8.8,<3.9", "fastapi>=0.139,<0.151", "rdkit>=2025.3")]
    fastapi, rdkit = package_versions(wanted, version)
    assert "the Prefect server does not start" in fastapi.found
    assert fastapi.remedy.startswith('Run: pip install "fastapi')
    assert "<0.151" in fastapi.remedy
    assert rdkit.found == "rdkit is missing"
    (sound,) = package_versions(wanted[:1], version)
    assert not sound.remedy


def test_only_a_folder_that_python_would_take_is_said_to_hide_ours(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert problems(list(shadowing(tmp_path))) == []
    (tmp_path / "models" / "__init__.py").touch()
    (tmp_path / "flows.py").touch()
    found = problems(list(shadowing(tmp_path)))
    assert len(found) == 2
    assert str(tmp_path / "models") in found[0].found
    assert str(tmp_path / "flows.py") in found[1].found
    assert problems(list(shadowing(Path(__file__).parents[2]))) == []


def test_a_package_that_is_imported_in_place_of_ours_is_found(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    examine_imports = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from pathlib import Path; from groundwork.doctor import shadowing\n"
        "for finding in shadowing(Path('/')): print(finding.found, '→', finding.remedy)"
    )
    told = subprocess.run(
        [sys.executable, "-c", examine_imports],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=True,
        text=True,
    )
    assert told.stdout.count("→") == 1
    assert f"`import models` takes {tmp_path / 'models'}" in told.stdout
    assert f"Rename {tmp_path / 'models'}" in told.stdout


def test_a_stray_folder_that_hides_ours_is_named_by_the_command(tmp_path: Path) -> None:
    for room in ("flows", "domains"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-m", "groundwork", "doctor"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "hides Groundwork's own: rename it" in line
    assert str(tmp_path) in line
