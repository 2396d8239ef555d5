"""A running Groundwork is saved, and goes on from a former version's databases in another folder."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from groundwork_up import Groundwork, groundwork_up

from domains.contract import load_domain
from flows.dispatch import run
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.settings import settings_class
from groundwork.databases import databases
from models.progress import Interrupted

pytestmark = pytest.mark.slow

CHECKPOINTS = "*/checkpoints/checkpoint-*/trainer_state.json"
INPUTS = ["CCO", "c1ccccc1O", "c1ccccc1N("]


@dataclass(frozen=True)
class Moved:
    """What was running, and what was made of its backup."""

    before: Groundwork
    after: Groundwork
    archive: Path
    answers: list[dict[str, Any]]
    interrupted: dict[str, Any]
    """Settings of the run that was interrupted before the backup."""


def downgrade(home: Home) -> None:
    """Take both databases back by one migration each, with what is in them."""
    import mlflow.store.db.utils as store
    from alembic import command

    prefect, _ = databases(home)
    url = f"sqlite+aiosqlite:///{prefect.file}"
    prefect_command = ("prefect", "server", "database", "downgrade", "--yes", "--revision", "-1")
    environment = {**os.environ, **home.environment(), "PREFECT_SERVER_DATABASE_CONNECTION_URL": url}
    subprocess.run([sys.executable, "-P", "-m", *prefect_command], env=environment, check=True)
    engine = store.create_sqlalchemy_engine(home.mlflow_database)
    config = store._get_alembic_config(home.mlflow_database)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "-1")
    engine.dispose()


class Impatient(ConsoleJournal):
    """Presses Ctrl-C once the training has done some steps."""

    def progress(self, description: str, fraction: float) -> None:
        if description.startswith("step") and fraction >= 0.2:
            os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def speaking_to(groundwork: Groundwork) -> Iterator[Callable[..., Any]]:
    """Fine-tune as the command does beside running services, but with small models in this process."""
    from models import baselines
    from models.molecules.graph_transformer import GraphTransformer

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    domain = load_domain("molecules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GraphTransformer.presets, "tiny", small)
        patch.setattr(baselines, "TREES", 20)
        for name, value in groundwork.addresses.environment().items():
            patch.setenv(name, value)
        # A process remembers where it has written the artifacts of a run: let this be a new one.
        patch.setattr(mlflow.tracking._tracking_service.utils, "_artifact_repos_cache", OrderedDict())
        previous = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(groundwork.addresses.mlflow_url)
        yield lambda journal, values: run(
            "finetune", domain, settings_class("finetune", "molecules")(**values), groundwork.home, journal
        )
        mlflow.set_tracking_uri(previous)


@pytest.fixture(scope="module")
def moved(
    running: Groundwork, undisturbed: str, table: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Moved]:
    folder = tmp_path_factory.mktemp("moved")
    file = folder / "logp.csv"
    file.write_text(table)
    interrupted: dict[str, Any] = {
        "dataset": str(file),
        "target": ["logp"],
        "foundation": "none",
        "name": "moved-later",
        "epochs": 4,
        "batch_size": 8,
    }
    with speaking_to(running) as tune, pytest.raises(Interrupted):
        tune(Impatient(), interrupted)
    answers = running.api.predict(undisturbed, INPUTS)
    variable = {"name": "moved", "value": "known"}
    assert running.prefect.post("variables/", json=variable).status_code == 201

    archive = folder / "saved.tar.gz"
    done = running.command("backup", str(archive))
    assert done.returncode == 0, done.stderr
    home = Home(folder / "another place")
    restored = subprocess.run(
        [sys.executable, "-P", "-m", "groundwork", "restore", str(archive)],
        env={**os.environ, "GROUNDWORK_HOME": str(home.root)},
        capture_output=True,
        text=True,
    )
    assert restored.returncode == 0, restored.stderr
    downgrade(home)
    assert [database.state() for database in databases(home)] == ["older", "older"]
    with groundwork_up(home.root) as after:
        yield Moved(running, after, archive, answers, interrupted)


def test_the_databases_were_upgraded_and_a_copy_of_each_is_kept(moved: Moved) -> None:
    home = moved.after.home
    assert [database.state() for database in databases(home)] == ["current", "current"]
    told = home.root.with_suffix(".log").read_text()
    for database in databases(home):
        [kept] = database.file.parent.glob(f"{database.file.name}.before-upgrade-*")
        assert f"it is kept in {kept}" in told


def test_the_champion_answers_as_before_from_its_own_folder(moved: Moved, undisturbed: str) -> None:
    assert [answer["status"] for answer in moved.answers] == ["ok", "ok", "rejected"]
    assert moved.after.api.predict(undisturbed, INPUTS) == moved.answers
    version = moved.after.mlflow.get_model_version_by_alias(undisturbed, "champion")
    run = moved.after.mlflow.get_run(version.run_id)
    assert run.info.artifact_uri.startswith(moved.after.home.mlflow_artifacts.as_uri())
    assert moved.after.artifact(run, "result.png").stat().st_size > 0
    assert moved.after.prefect.get("variables/name/moved").json()["value"] == "known"


def test_no_address_leads_back(moved: Moved) -> None:
    """Settings and messages of the past may name the former folder; nothing that is followed does."""
    former = str(moved.before.home.root)
    with closing(sqlite3.connect(moved.after.home.mlflow / "mlflow.db")) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        naming = {
            table
            for [table] in tables
            for row in connection.execute(f'SELECT * FROM "{table}"')  # noqa: S608
            if any(isinstance(value, str) and former in value for value in row)
        }
    assert naming <= {"params", "tags", "logged_model_params"}


def test_an_interrupted_run_goes_on_there(moved: Moved) -> None:
    checkpoints = set(moved.after.home.runs.glob(CHECKPOINTS))
    with speaking_to(moved.after) as tune:
        tune(ConsoleJournal(), {**moved.interrupted, "resume": True})
    assert set(moved.after.home.runs.glob(CHECKPOINTS)) < checkpoints
    version = moved.after.mlflow.get_model_version_by_alias("moved-later", "champion")
    run = moved.after.mlflow.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert moved.before.mlflow.get_run(version.run_id).info.status == "KILLED"
    assert run.info.start_time == moved.before.mlflow.get_run(version.run_id).info.start_time
    [answer] = moved.after.api.predict("moved-later", ["CCO"])
    assert answer["status"] == "ok"


def test_a_running_groundwork_is_not_restored_over(moved: Moved) -> None:
    done = moved.after.command("restore", str(moved.archive))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Groundwork already runs on" in done.stderr
