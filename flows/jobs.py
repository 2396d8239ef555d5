"""What a training flow works with: its rows, its settings, its folder and its MLflow run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from domains.abilities import ReadsForTask
from domains.contract import Domain, EncodingSpec, Reject, Source
from domains.store import Store
from flows.home import Home
from flows.journal import Journal
from flows.runs import RunFolder, run_folder
from flows.settings import DataSettings, FlowSettings, Kind
from flows.sources import dataset_name, open_source
from flows.tracking import TrackedRun, connect, tracked_run
from models.progress import Progress


@dataclass(frozen=True)
class Job:
    """What is to be done, on which rows. Opened before anything is written, so that typos cost nothing."""

    kind: Kind
    domain: Domain
    settings: FlowSettings
    home: Home
    journal: Journal
    source: Source
    name: str
    """Model name to register under."""

    @classmethod
    def prepare(cls, kind: Kind, domain: Domain, settings: FlowSettings, home: Home, journal: Journal) -> Job:
        """Open the rows that the settings name. Raises GroundworkError when that cannot be done."""
        connect(home)
        encoding = _asked_encoding(domain, settings)
        source = open_source(domain, settings.part(DataSettings), encoding, home, trusted=journal.trusted)
        for remark in (*source.remarks, *source.row_remarks):
            journal.say(remark)
        name = str(settings.model_dump()["name"]) or _default_name(source)
        return cls(kind, domain, settings, home, journal, source, name)

    @property
    def spec(self) -> EncodingSpec:
        """How its records become samples."""
        return self.source.encoding


@dataclass(frozen=True)
class TrainingRun:
    """A job under way."""

    job: Job
    folder: RunFolder
    tracked: TrackedRun
    resume: bool
    """Whether it continues from a checkpoint."""

    def report(self, progress: Progress) -> None:
        """Show and record what training reports."""
        shown = f"step {progress.step:,} of {progress.total_steps:,}"
        self.job.journal.progress(shown, progress.step / progress.total_steps)
        self.tracked.log_progress(progress)

    def log_rows(self, store: Store, rejects: list[Reject]) -> None:
        """Record which rows the run learns from, and which it could not use."""
        source = self.job.source
        self.tracked.log_dataset(source.name, source.origin, source.digest, asdict(store.counts))
        self.tracked.log_remarks(source.remarks, simulated=source.simulated)
        self.tracked.log_rejects(rejects)


def learns_computed(job: Job) -> bool:
    """Whether pretraining predicts what the domain computes of whole records."""
    computed = {target.name for target in job.domain.computed(job.spec)}
    return any(target.name in computed for target in job.domain.pretraining_targets(job.spec))


@contextmanager
def training_run(job: Job) -> Iterator[TrainingRun]:
    """Open the job's folder and its MLflow run, or continue both where the settings say ``resume``.

    Ends the MLflow run as the work ends, and drops the checkpoints once they are not needed. Raises
    GroundworkError where there is nothing to resume or the same job is under way.
    """
    resume = bool(job.settings.model_dump()["resume"])
    tags = {"flow": job.kind, "domain": job.domain.name, "dataset_digest": job.source.digest}
    name = f"{job.kind} {job.name}"
    with run_folder(job.home, job.kind, job.domain.name, job.settings, job.source.digest) as folder:
        continued = folder.mlflow_run if resume else None
        with tracked_run(job.home, job.domain.name, name, tags, job.journal, continued) as tracked:
            folder.remember(tracked.run_id)
            tracked.log_parameters(job.settings.model_dump(exclude={"pasted", "resume"}))
            yield TrainingRun(job, folder, tracked, resume)
        folder.finish()


def _asked_encoding(domain: Domain, settings: FlowSettings) -> EncodingSpec:
    encoding = settings.part(domain.encoding)
    task = settings.model_dump().get("task", "auto")
    if task == "auto" or not isinstance(domain, ReadsForTask):
        return encoding
    return domain.encoding_for(task, encoding)


def _default_name(source: Source) -> str:
    """The dataset's name without its suffix, as a model's name may be written."""
    stem = dataset_name(source.name).lower()
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-._") or "model"
