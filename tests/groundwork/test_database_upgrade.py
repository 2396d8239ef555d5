"""Databases of real former schemas are brought up to date, with what is in them, or left as they were."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console

from domains.contract import GroundworkError
from flows.home import Home
from groundwork.database_upgrade import bring_up_to_date
from groundwork.databases import databases, record_versions
from groundwork.doctor import schema
from groundwork.execution import use_services

FORMER_MLFLOW = "7d34483879f0"
"""Twelve migrations before the schema of MLflow 3.17."""


def stamp(file: Path, revision: str) -> None:
    """Let a database say that it is of another revision."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])


def console() -> Console:
    return Console(file=io.StringIO(), width=400)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def former(tmp_path: Path) -> Home:
    """A state folder whose MLflow database a former MLflow has made; it holds an experiment."""
    import mlflow.store.db.utils as store
    from alembic import command

    home = Home(tmp_path / "former state").create()
    engine = store.create_sqlalchemy_engine(home.mlflow_database)
    store.InitialBase.metadata.create_all(engine)
    config = store._get_alembic_config(home.mlflow_database)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, FORMER_MLFLOW)
    engine.dispose()
    with closing(sqlite3.connect(home.mlflow / "mlflow.db")) as connection, connection:
        connection.execute(
            "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'of old', 'active')"
        )
    return home


def test_the_newest_revision_is_that_of_the_packages() -> None:
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_latest_schema_revision

    prefect, mlflow = databases(Home(Path("nowhere")))
    assert mlflow.known()[1] == _get_latest_schema_revision()
    [package] = find_spec("prefect").submodule_search_locations or []  # type: ignore[union-attr]
    scripts = Path(package, "server/database/_migrations")
    directory = ScriptDirectory(str(scripts), version_locations=[str(scripts / "versions" / "sqlite")])
    assert [prefect.known()[1]] == directory.get_heads()
    assert prefect.known()[0] == {it.revision for it in directory.walk_revisions()}


@pytest.mark.slow
def test_a_command_upgrades_a_former_database_with_what_is_in_it_and_keeps_it_as_it_was(
    former: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow as mlflow_package
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_package.get_tracking_uri())
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # whatever the command sets is undone afterwards
    monkeypatch.setenv("COLUMNS", "400")

    _, mlflow = databases(former)
    assert mlflow.state() == "older"
    mlflow.file.chmod(0o600)
    before = mlflow.file.read_bytes()
    assert use_services(former) is None
    output = capsys.readouterr().err
    assert mlflow.state() == "current"
    experiment = MlflowClient(former.mlflow_database).get_experiment("7")
    assert experiment.name == "of old"

    [kept] = mlflow.file.parent.glob("mlflow.db.*")
    assert output.count("\n") == 1
    assert f"Upgraded the MLflow database ({FORMER_MLFLOW} → {mlflow.known()[1]})" in output
    assert str(kept) in output
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (FORMER_MLFLOW,)
    assert len(kept.read_bytes()) == len(before)
    assert {path.stat().st_mode & 0o777 for path in (kept, mlflow.file)} == {0o600}

    bring_up_to_date(former, console())
    assert list(mlflow.file.parent.glob("mlflow.db.*")) == [kept]


@pytest.mark.slow
def test_a_database_that_cannot_be_upgraded_stays_as_it_was(former: Home) -> None:
    _, mlflow = databases(former)
    with closing(sqlite3.connect(mlflow.file)) as connection, connection:
        connection.execute("DROP TABLE jobs")
    before = mlflow.file.read_bytes()
    with pytest.raises(GroundworkError, match="cannot be upgraded, and nothing was changed") as refused:
        bring_up_to_date(former, console())
    log = former.logs / "upgrade.log"
    assert str(log) in str(refused.value)
    assert "no such table" in log.read_text()
    assert mlflow.file.read_bytes() == before
    assert [path.name for path in mlflow.file.parent.glob("*.db*")] == ["mlflow.db"]


def test_a_newer_database_names_who_wrote_it_and_what_to_do(home: Home) -> None:
    record_versions(home)
    stamp(home.mlflow / "mlflow.db", "feedfacecafe")
    [finding] = schema(home, databases(home)[1])
    assert finding.found == "MLflow: feedfacecafe, that of a newer version"
    here = version("mlflow")
    with pytest.raises(GroundworkError, match="was written by a newer mlflow") as refused:
        bring_up_to_date(home, console())
    assert finding.remedy == str(refused.value)
    assert f'(pip install "mlflow>{here}")' in str(refused.value)
    (home.root / "versions.json").write_text(json.dumps({"mlflow": "99.1.0"}))
    before = (home.mlflow / "mlflow.db").read_bytes()
    with pytest.raises(GroundworkError, match=r"was written by mlflow 99\.1\.0, and") as refused:
        bring_up_to_date(home, console())
    assert '(pip install "mlflow==99.1.0")' in str(refused.value)
    assert (home.mlflow / "mlflow.db").read_bytes() == before
    assert json.loads((home.root / "versions.json").read_text()) == {"mlflow": "99.1.0"}


def test_up_says_so_in_one_line_and_starts_nothing(home: Home) -> None:
    stamp(home.mlflow / "mlflow.db", "feedfacecafe")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        free = [str(it.getsockname()[1]) for it in sockets]
    options = zip(("--prefect-port", "--mlflow-port", "--api-port"), free, strict=True)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "groundwork", "up", *(it for option in options for it in option)],
        env={**os.environ, "GROUNDWORK_HOME": str(home.root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "was written by a newer mlflow" in done.stderr
    assert list(home.logs.iterdir()) == []


def test_the_doctor_tells_an_older_schema_from_the_installed_one(home: Home) -> None:
    _, mlflow = databases(home)
    [finding] = schema(home, mlflow)
    assert (finding.found, finding.remedy) == (
        f"MLflow: {mlflow.known()[1]}, that of the installed version",
        "",
    )
    stamp(mlflow.file, FORMER_MLFLOW)
    [finding] = schema(home, mlflow)
    assert finding.found == f"MLflow: {FORMER_MLFLOW}, that of an older version"
    assert "groundwork up" in finding.remedy


def test_a_sound_or_empty_folder_is_left_alone(home: Home, tmp_path: Path) -> None:
    output = console()
    bring_up_to_date(home, output)
    bring_up_to_date(Home(tmp_path / "young").create(), output)
    assert said(output) == ""
    assert [path.name for path in home.mlflow.glob("*.db*")] == ["mlflow.db"]


def test_a_file_that_is_no_database_is_named(home: Home) -> None:
    (home.prefect / "prefect.db").write_bytes(b"no database" * 1000)
    with pytest.raises(GroundworkError, match=r"prefect\.db cannot be read \(file is not a database\)"):
        bring_up_to_date(home, console())
