"""The state folder: where everything that outlives a process is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from domains.contract import GroundworkError

NEEDED_SPACE = 256 * 2**20
"""Bytes to start with: two young databases, logs and a first small model."""

ALMOST_NOTHING = 4 * 2**20
"""Bytes left on a disk so full that what has just failed has failed for that."""

# Offline and private: no telemetry leaves the machine, and MLflow's job workers (2.7 GB) stay off.
PRIVACY = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Prefect keeps the exception of a failed run, by default as a pickle.
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
}

# Threads of a matrix product that wait by spinning starve one another as soon as anything else runs,
# and servers always do: on two cores with a third busy process, training is ten times faster when they
# soon go to sleep, and it loses nothing when it is alone. (Read by GNU's OpenMP, which torch uses.)
THREADS = {"GOMP_SPINCOUNT": "1000"}

# Children of children too: nothing in the folder where they start may hide a package.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}


LIVENESS = {
    # A flow run says that it lives as often as Prefect lets it: see flows/heartbeats.py.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # By default a server that is restarted forgets who holds a training slot, which then stays taken.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}


@dataclass(frozen=True)
class Home:
    """Paths under ``GROUNDWORK_HOME`` (default ``var/`` in the working folder)."""

    root: Path

    @classmethod
    def current(cls) -> Home:
        return cls(Path(os.environ.get("GROUNDWORK_HOME", "var")).expanduser().resolve())

    @property
    def datasets(self) -> Path:
        """Uploaded datasets, one file each.

        Not plainly ``datasets``: Prefect imports flows with the working folder on the path, and
        transformers would take the folder for the package of that name.
        """
        return self.root / "uploaded-datasets"

    @property
    def inbox(self) -> Path:
        """Files dropped here can be named in a form."""
        return self.root / "inbox"

    @property
    def stores(self) -> Path:
        """Encoded samples, addressed by content."""
        return self.root / "stores"

    @property
    def runs(self) -> Path:
        """One folder per training run: checkpoints, and what resuming needs."""
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        """What domains make once and can make again, such as simulated scenes."""
        return self.root / "cache"

    @property
    def locks(self) -> Path:
        """One file per flow run under way, locked by its process for as long as that lives."""
        return self.root / "locks"

    @property
    def outputs(self) -> Path:
        """Prediction files written by flows that were given no output path."""
        return self.root / "outputs"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def prefect(self) -> Path:
        return self.root / "prefect"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    @property
    def mlflow_database(self) -> str:
        return f"sqlite:///{self.mlflow / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.mlflow / "artifacts"

    def create(self) -> Home:
        """Make every folder of the state."""
        for folder in (
            self.datasets,
            self.inbox,
            self.stores,
            self.runs,
            self.locks,
            self.outputs,
            self.logs,
            self.prefect,
            self.mlflow_artifacts,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        return self

    def free_space(self) -> int:
        """Bytes left on the disk of the state folder, which need not exist yet."""
        folder = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        return shutil.disk_usage(folder).free

    def require_space(self) -> None:
        """Raise GroundworkError that names the folder and the space needed when the disk is nearly full."""
        if self.free_space() < NEEDED_SPACE:
            raise self.disk_full()

    def disk_full(self) -> GroundworkError:
        """What to say of a full disk."""
        free, needed = self.free_space() // 2**20, NEEDED_SPACE // 2**20
        return GroundworkError(
            f"The disk that holds {self.root} is full: {free} MB free, at least {needed} MB needed. "
            "Free some space, or set GROUNDWORK_HOME to a folder on another disk."
        )

    @contextmanager
    def full_disk_explained(self) -> Iterator[None]:
        """Say of a failure on a full disk that the disk is full.

        Databases, safetensors and torch each have an error of their own for it, none of which says so.
        """
        try:
            yield
        except Exception as error:
            if isinstance(error, GroundworkError) or self.free_space() > ALMOST_NOTHING:
                raise
            raise self.disk_full() from error

    def environment(self) -> dict[str, str]:
        """Environment of every child process and of in-process work on this state folder."""
        return {
            **PRIVACY,
            **THREADS,
            **SAFE_PATH,
            **LIVENESS,
            "GROUNDWORK_HOME": str(self.root),
            "GROUNDWORK_CACHE": str(self.cache),
            "PREFECT_HOME": str(self.prefect),
        }
