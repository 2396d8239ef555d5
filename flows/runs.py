"""The folder of a training run: what resuming needs, addressed by what the run does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from domains.contract import GroundworkError
from flows.home import Home
from flows.settings import FlowSettings
from models.checkpoints import last_checkpoint


class RunFolder:
    """Checkpoints and the MLflow run id of one set of settings on one set of rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = path / "run.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def holds_checkpoint(self) -> bool:
        """Whether any of the run's trainings has come far enough to be resumed."""
        return any(last_checkpoint(it.parent) for it in self.checkpoints.rglob("checkpoint-*"))

    @property
    def mlflow_run(self) -> str | None:
        """The unfinished MLflow run, or None."""
        try:
            return str(json.loads(self._state.read_text())["mlflow_run"])
        except (OSError, ValueError, KeyError):
            return None

    def remember(self, mlflow_run: str) -> None:
        """Note which MLflow run this folder belongs to, so that resuming continues it."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._state.write_text(json.dumps({"mlflow_run": mlflow_run}))

    def finish(self) -> None:
        """Drop what only an unfinished run needs."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        self._state.unlink(missing_ok=True)


@contextmanager
def run_folder(
    home: Home, kind: str, domain: str, settings: FlowSettings, dataset: str
) -> Iterator[RunFolder]:
    """The folder of a run, held by one process at a time.

    Raises GroundworkError when the same run is under way, or when ``settings.resume`` asks for a run
    that was not interrupted.
    """
    path = home.runs / f"{kind}-{domain}-{settings.digest}-{dataset}"
    path.mkdir(parents=True, exist_ok=True)
    home.require_space()
    lock = FileLock(path / "lock", timeout=0)
    try:
        with home.full_disk_explained(), lock:
            folder = RunFolder(path)
            if getattr(settings, "resume", False):
                if folder.mlflow_run is None:
                    raise GroundworkError(
                        "there is no interrupted run of exactly these settings and rows: run without resume"
                    )
                if not folder.holds_checkpoint:
                    raise GroundworkError(
                        "the interrupted run had not written a checkpoint yet: run without resume"
                    )
            else:
                shutil.rmtree(folder.checkpoints, ignore_errors=True)
            yield folder
    except Timeout as error:
        raise GroundworkError(
            "a run of exactly these settings is under way: wait for it, or cancel it"
        ) from error
