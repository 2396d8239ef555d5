"""One MLflow run for each training run: opened, continued, described and closed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from domains.contract import GroundworkError, Reject
from flows.home import Home
from flows.journal import Journal
from models.progress import Interrupted, Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_REJECTS_KEPT = 100_000
"""Rows of a run's table of rejects; the counts are always of all."""

FLOW_RUN_TAG = "prefect.flow_run_id"
FLOW_RUN_URL_TAG = "prefect.flow_run_url"
FAILURE_TAG = "failure"


@dataclass(frozen=True)
class TrackedRun:
    """An open MLflow run."""

    run_id: str
    experiment_id: str
    client: MlflowClient
    """One for all that is recorded: making one takes longer than most of what it is asked for."""

    @property
    def url(self) -> str:
        """Its page in the MLflow UI, or what to ask the command line where no server runs."""
        server = _address_for_browsers()
        if server.startswith("http"):
            return f"{server}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"{self.run_id} (start `groundwork up` to see it)"

    def artifact_url(self, path: str) -> str:
        """Where a browser finds one of its artifacts."""
        server = _address_for_browsers()
        if server.startswith("http"):
            return f"{server}/get-artifact?path={path}&run_uuid={self.run_id}"
        run = self.client.get_run(self.run_id)
        return f"{run.info.artifact_uri}/{path}"

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Record settings; a resumed run has them already and they are the same."""
        known = self.client.get_run(self.run_id).data.params
        fresh = [
            Param(key, str(value)[:6000])
            for key, value in parameters.items()
            if key not in known and value != ""
        ]
        self.client.log_batch(self.run_id, params=fresh)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record figures in one request: one at a time, MLflow takes 18 a second."""
        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run_id, metrics=[Metric(name, float(value), now, step) for name, value in metrics.items()]
        )

    def log_progress(self, progress: Progress) -> None:
        """Record what training reports."""
        self.log_metrics(progress.metrics, progress.step)

    def log_dataset(
        self, name: str, origin: str, digest: str, counts: Mapping[str, int], context: str = "training"
    ) -> None:
        """Record the rows a run learns from: digest, source, rows and rejects."""
        described = Dataset(
            name=name,
            digest=digest,
            source_type="file" if Path(origin).is_absolute() else "package",
            source=json.dumps({"uri": origin}),
            profile=json.dumps(dict(counts)),
        )
        self.client.log_inputs(
            self.run_id, datasets=[DatasetInput(described, [InputTag("mlflow.data.context", context)])]
        )
        self.log_parameters({f"dataset_{key}": value for key, value in counts.items()})

    def log_remarks(self, remarks: Sequence[str], *, simulated: bool) -> None:
        """Keep what is to be known of the rows, and whether they are simulated."""
        tags = [RunTag("simulated", "true")] if simulated else []
        if remarks:
            tags.append(RunTag("remarks", " ".join(remarks)[:5000]))
        if tags:
            self.client.log_batch(self.run_id, tags=tags)

    def log_table(self, path: str, table: pd.DataFrame) -> None:
        """Keep a table as an artifact, Parquet or CSV by its suffix."""
        with TemporaryDirectory() as folder:
            file = Path(folder) / Path(path).name
            if file.suffix == ".parquet":
                table.to_parquet(file, index=False)
            else:
                table.to_csv(file, index=False)
            self.client.log_artifact(self.run_id, str(file), str(Path(path).parent).strip("."))

    def log_rejects(self, rejects: Sequence[Reject]) -> None:
        """Keep every row that could not be used, with its reason."""
        if rejects:
            kept = rejects[:MOST_REJECTS_KEPT]
            rows = [(reject.row, reject.reason, reject.original) for reject in kept]
            self.log_table("rejects.csv", pd.DataFrame(rows, columns=["row", "reason", "original"]))

    def log_text(self, path: str, text: str) -> None:
        """Keep a text or a page as an artifact."""
        self.client.log_text(self.run_id, text, path)

    def log_picture(self, path: str, png: bytes) -> None:
        """Keep a picture as an artifact."""
        with TemporaryDirectory() as folder:
            file = Path(folder) / Path(path).name
            file.write_bytes(png)
            self.client.log_artifact(self.run_id, str(file), str(Path(path).parent).strip("."))

    def log_figure(self, path: str, figure: Figure) -> None:
        """Keep a figure as an artifact."""
        self.client.log_figure(self.run_id, figure, path)


def _address_for_browsers() -> str:
    """Behind Docker or a proxy, users reach MLflow elsewhere than this code does."""
    return (os.environ.get("GROUNDWORK_MLFLOW_URL") or mlflow.get_tracking_uri()).rstrip("/")


def connect(home: Home) -> None:
    """Point MLflow at the server of the environment, or at the state folder's own database."""
    home.create()
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or home.mlflow_database)


@contextmanager
def tracked_run(
    home: Home, experiment: str, name: str, tags: Mapping[str, str], journal: Journal, resume: str | None
) -> Iterator[TrackedRun]:
    """An MLflow run that ends as its work ends: finished, failed, or killed by a request to stop.

    ``resume`` is the id of a run to continue. Flow run and MLflow run link to one another.
    """
    connect(home)
    client = MlflowClient()
    links = _links(journal)
    if resume is None:
        everything = {**tags, **_code_tags(), **links}
        within = _experiment(client, home, experiment)
        run_id = client.create_run(within, run_name=name, tags=everything).info.run_id
    else:
        run_id = _reopen(client, resume, links)
    opened = TrackedRun(run_id, client.get_run(run_id).info.experiment_id, client)
    journal.link("mlflow-run", "MLflow run", opened.url)
    try:
        yield opened
    except (Interrupted, KeyboardInterrupt):
        client.set_terminated(run_id, "KILLED")
        raise
    except BaseException as error:
        client.set_tag(run_id, FAILURE_TAG, str(error)[:500])
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def _links(journal: Journal) -> dict[str, str]:
    """Tags that lead to the flow run; none where work is done in a terminal."""
    if not journal.flow_run_id:
        return {}
    return {
        FLOW_RUN_TAG: journal.flow_run_id,
        FLOW_RUN_URL_TAG: journal.flow_run_url,
        "mlflow.note.content": f"Prefect flow run: [{journal.flow_run_url}]({journal.flow_run_url})",
    }


def _reopen(client: MlflowClient, run_id: str, links: Mapping[str, str]) -> str:
    try:
        known = client.get_run(run_id).data.tags
        # Whose it is now comes before that it runs: else it could be ended for its former flow run's death.
        for tag in (FLOW_RUN_TAG, FLOW_RUN_URL_TAG, FAILURE_TAG):
            if tag in known and tag not in links:
                client.delete_tag(run_id, tag)
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in links.items()])
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        raise GroundworkError(
            f"the MLflow run {run_id} to resume is gone: run without resume to start anew"
        ) from error
    return run_id


def _experiment(client: MlflowClient, home: Home, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # Without a server the client writes artifacts itself, to where the server would look for them.
    local = mlflow.get_tracking_uri().startswith("sqlite")
    location = (home.mlflow_artifacts / name).as_uri() if local else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        made = client.get_experiment_by_name(name)
        if made is None:
            raise
        return str(made.experiment_id)  # by another run, in between


def code_version() -> str:
    """Commit of the code that runs, with ``+changes`` where the tree differs; else its version."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        # An installed copy may lie inside somebody else's repository: ours tracks this file.
        git("ls-files", "--error-unmatch", __file__)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return f"groundwork {version('groundwork')}"


def _code_tags() -> dict[str, str]:
    code = code_version()
    tags = {"code": code, "mlflow.source.name": "groundwork", "mlflow.source.type": "PROJECT"}
    if not code.startswith("groundwork "):
        tags["mlflow.source.git.commit"] = code.partition("+")[0]
    return tags
