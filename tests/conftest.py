"""What all tests share: a private environment, real molecules, and a state folder with its own MLflow."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows.home import PRIVACY, THREADS, Home

# Before torch, MLflow or Prefect are imported: each reads its part once. Nothing of the user's own
# installation may be seen or changed.
os.environ.update({**PRIVACY, **THREADS})
for name in (
    "GROUNDWORK_HOME",
    "GROUNDWORK_ROOTS",
    "GROUNDWORK_HOSTS",
    "MLFLOW_TRACKING_URI",
    "PREFECT_API_URL",
):
    os.environ.pop(name, None)


def pytest_configure(config: pytest.Config) -> None:
    """Give Prefect, which makes its folder as soon as it is imported, one that goes away."""
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    os.environ["PREFECT_HOME"] = folder.name
    config.add_cleanup(folder.cleanup)


@pytest.fixture(scope="module", autouse=True)
def spared_collector() -> None:
    """Spare the garbage collector what was imported: each training collects, and looked at all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def molecules() -> list[str]:
    """SMILES of 140 real compounds, drawn evenly from the embedded corpus."""
    from domains.contract import Record, load_domain

    domain = load_domain("molecules")
    spec = domain.encoding()
    chosen = [row for row in domain.embedded()[domain.corpus](spec).stream() if row.index % 300 == 0][:160]
    records = [domain.read(row, spec) for row in chosen]
    return [record.identity for record in records if isinstance(record, Record)][:140]


@pytest.fixture(scope="session", autouse=True)
def hasty_sqlite() -> None:
    """No test outlives a power cut: let SQLite in this process not wait until the disk has written."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")
    def hurry(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes seconds, copying them none."""
    import mlflow

    home = Home(tmp_path_factory.mktemp("template")).create()
    with _tracking(home):
        mlflow.MlflowClient().search_experiments()
    return home.mlflow / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path, mlflow_template: Path) -> Iterator[Home]:
    """An empty state folder, with MLflow pointed at its database."""
    with _state_folder(tmp_path / "home", mlflow_template) as made:
        yield made


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Iterator[Home]:
    """A state folder that the tests of one module share, because filling it takes seconds."""
    with _state_folder(tmp_path_factory.mktemp("home"), mlflow_template) as made:
        yield made


@contextmanager
def _state_folder(root: Path, template: Path) -> Iterator[Home]:
    home = Home(root).create()
    shutil.copy(template, home.mlflow / "mlflow.db")
    with _tracking(home):
        yield home


@contextmanager
def _tracking(home: Home) -> Iterator[None]:
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        # MLflow writes the address into the environment too; undoing the patch takes it out again.
        patch.setenv("MLFLOW_TRACKING_URI", home.mlflow_database)
        patch.setenv("GROUNDWORK_HOME", str(home.root))
        previous = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(home.mlflow_database)
        yield
        mlflow.set_tracking_uri(previous)
