"""Tune an encoder to a task with a little labelled data, and register what comes of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from domains.contract import Domain, EncodingSpec, GroundworkError, Row, Source, SplitSpec
from flows.evaluation import Evaluation, evaluate, prediction_table
from flows.figures import result_figure, worst_errors_page
from flows.home import Home
from flows.ingest import ingest
from flows.journal import Journal
from flows.labelled import LabelledData, choose_targets, describe_task, label
from flows.promotion import decide_task
from flows.registration import lineage, register_saved
from flows.runs import RunFolder, run_folder
from flows.settings import DataSettings, FlowSettings, TaskSettings, foundation_name
from flows.sources import dataset_name, open_source
from flows.tracking import TrackedRun, connect, tracked_run
from models.encoder import Encoder, create_encoder, parameter_count
from models.predictor import Predictor, VersionContract
from models.registry import FOLDER, Version, champion, load
from models.training import Progress, TrainingResult, TrainingSettings, train
from models.tuning import LEARNING_RATES, TaskModel, TuningSettings, merge, prepare


def finetune(domain: Domain, settings: FlowSettings, home: Home, journal: Journal) -> Version:
    """Encode, train, evaluate beside the floors, register; returns the new version.

    Raises GroundworkError for rows, targets or a foundation that cannot be used.
    """
    connect(home)
    spec = settings.part(domain.encoding)
    source = open_source(domain, settings.part(DataSettings), home, trusted=journal.trusted)
    targets = choose_targets(source, settings.part(TaskSettings))
    name = str(getattr(settings, "name")) or _default_name(source)  # noqa: B009 - composed at run time
    with (
        run_folder(home, "finetune", domain.name, settings, source.digest) as folder,
        tracked_run(
            home,
            domain.name,
            f"finetune {name}",
            {"flow": "finetune", "domain": domain.name, "dataset_digest": source.digest},
            journal,
            folder.mlflow_run if getattr(settings, "resume", False) else None,
        ) as run,
    ):
        return _run(domain, settings, home, journal, spec, source, targets, name, folder, run)


def _default_name(source: Source) -> str:
    """The dataset's name without its suffix, as a model's name may be written."""
    stem = dataset_name(source.name).lower()
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-._") or "model"


def _run(
    domain: Domain,
    settings: FlowSettings,
    home: Home,
    journal: Journal,
    spec: EncodingSpec,
    source: Source,
    targets: Sequence[str],
    name: str,
    folder: RunFolder,
    run: TrackedRun,
) -> Version:
    resume = folder.mlflow_run == run.run_id
    folder.remember(run.run_id)
    run.log_parameters(settings.model_dump(exclude={"pasted", "resume"}))
    data = journal.step("encode", lambda: _labelled(domain, settings, home, journal, spec, source, targets))
    run.log_dataset(source.name, source.origin, source.digest, asdict(data.store.counts))
    run.log_rejects(data.rejects)
    run.log_parameters({"split_id": data.split.id, "targets": ",".join(targets)})

    encoder, foundation = _encoder(domain, settings, spec)
    model, result = journal.step(
        "train", lambda: _train(encoder, settings, data, folder, run, journal, resume)
    )
    run.log_parameters({"foundation_version": foundation})
    with TemporaryDirectory() as temporary:
        contract = VersionContract(
            kind="task",
            domain=domain.name,
            encoding=spec.model_dump(mode="json"),
            encoding_digest=spec.digest,
            task=data.task,
            linear_head=model.linear_head,
            split_id=data.split.id,
            lineage=lineage(source, data.store, foundation, run, journal),
        )
        saved = Path(temporary) / FOLDER
        predictor = Predictor.save(saved, contract, model.cpu())
        raw = _raw_rows(source, data)
        seed = settings.part(TrainingSettings).seed
        evaluation = journal.step("evaluate", lambda: evaluate(domain, data, predictor, raw, seed))
        _log_evaluation(domain, data, evaluation, predictor, result, name, run)

        def register() -> Version:
            decision = decide_task(name, data.task, evaluation, data.labels[data.split.test], raw)
            return register_saved(name, saved, predictor, run, decision, _result_tags(evaluation))

        version = journal.step("register", register)
    folder.finish()
    _show(version, data, evaluation, run, journal)
    return version


def _labelled(
    domain: Domain,
    settings: FlowSettings,
    home: Home,
    journal: Journal,
    spec: EncodingSpec,
    source: Source,
    targets: Sequence[str],
) -> LabelledData:
    store = ingest(domain, source, spec, home, journal, keep=targets)
    split = SplitSpec(
        method=str(getattr(settings, "split")),  # noqa: B009
        seed=settings.part(TrainingSettings).seed,
    )
    task = describe_task(domain, source, store, settings.part(TaskSettings), targets, split)
    data = label(domain, source, store, spec, task)
    sides = data.split
    journal.say(
        f"{len(data.records):,} labelled rows: {len(sides.train):,} train, {len(sides.val):,} validation, "
        f"{len(sides.test):,} test ({split.method} split {sides.id})"
    )
    return data


def _encoder(domain: Domain, settings: FlowSettings, spec: EncodingSpec) -> tuple[Encoder, str]:
    """The encoder to start from, and its reference."""
    wanted = settings.part(TaskSettings).foundation
    if wanted == "auto":
        holder = champion(foundation_name(domain.name))
        wanted = holder.reference if holder is not None else "none"
    if wanted == "none":
        torch.manual_seed(settings.part(TrainingSettings).seed)
        return create_encoder(domain.name, str(getattr(settings, "size"))), "none"  # noqa: B009
    version, predictor = load(wanted)
    if predictor.contract.domain != domain.name:
        raise GroundworkError(
            f"{version.reference} knows {predictor.contract.domain}, not {domain.name}: "
            "choose another foundation"
        )
    if predictor.contract.encoding_digest != spec.digest:
        raise GroundworkError(
            f"{version.reference} was pretrained with other encoding settings "
            f"({predictor.contract.encoding}): use the same here, or another foundation"
        )
    return predictor.encoder, version.reference


class _Collator:
    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __call__(self, items: Sequence[tuple[Any, np.ndarray]]) -> dict[str, Any]:
        samples, labels = zip(*items, strict=True)
        return {
            "labels": torch.from_numpy(np.stack(labels)).float(),
            "batch": self.encoder.collate(samples),
        }


class _Labelled(Sequence[Any]):
    """Samples paired with their labels."""

    def __init__(self, data: LabelledData, side: np.ndarray) -> None:
        self.samples = data.store.subset(side)
        self.labels = data.labels[side]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Any:
        return self.samples[index], self.labels[index]


def _train(
    encoder: Encoder,
    settings: FlowSettings,
    data: LabelledData,
    folder: RunFolder,
    run: TrackedRun,
    journal: Journal,
    resume: bool,
) -> tuple[TaskModel, TrainingResult]:
    tuning = settings.part(TuningSettings)
    training = settings.part(TrainingSettings)
    training = training.model_copy(
        update={"learning_rate": training.learning_rate or LEARNING_RATES[tuning.mode]}
    )
    torch.manual_seed(training.seed)
    model = TaskModel(
        encoder, data.task.targets, linear_head=tuning.mode == "probe", dropout=tuning.head_dropout
    )
    model.fit_scaling(data.labels[data.split.train])
    prepare(model, tuning.mode, tuning.lora_rank)
    journal.say(
        f"{tuning.mode}: {parameter_count(model, trainable_only=True):,} of "
        f"{parameter_count(model):,} parameters learn"
    )

    def report(progress: Progress) -> None:
        journal.progress(
            f"step {progress.step:,} of {progress.total_steps:,}", progress.step / progress.total_steps
        )
        run.log_progress(progress)

    with journal.training_slot():
        result = train(
            model,
            _Labelled(data, data.split.train),
            _Labelled(data, data.split.val),
            collate=_Collator(encoder),
            lengths=data.store.tokens[data.split.train],
            settings=training,
            folder=folder.checkpoints,
            resume=resume,
            report=report,
            patience=tuning.patience,
        )
    merge(model)
    return model, result


def _raw_rows(source: Source, data: LabelledData) -> list[Row]:
    """The test rows as the source wrote them, in the order of the split."""
    wanted = data.store.rows[data.split.test]
    by_index = {row.index: row for row in source.stream() if row.index in set(wanted.tolist())}
    return [by_index[int(index)] for index in wanted]


def _log_evaluation(
    domain: Domain,
    data: LabelledData,
    evaluation: Evaluation,
    predictor: Predictor,
    result: TrainingResult,
    name: str,
    run: TrackedRun,
) -> None:
    figures = {f"test_{key}": value for key, value in evaluation.metrics.items()}
    for floor in evaluation.floors:
        label = "".join(letter if letter.isalnum() else "_" for letter in floor.name)
        figures.update({f"floor_{label}_{key}": value for key, value in floor.metrics.items()})
    costs = {key: value for key, value in asdict(result).items() if not isinstance(value, str)}
    figures.update({f"training_{key}": float(value) for key, value in costs.items()})
    run.log_metrics(figures, result.steps)
    run.log_table("test_predictions.parquet", prediction_table(data, evaluation, predictor))
    run.log_figure("result.png", result_figure(data, evaluation, f"{name}: test rows"))
    run.log_text("worst_errors.html", worst_errors_page(domain, data, evaluation, name))


def _result_tags(evaluation: Evaluation) -> dict[str, str]:
    floor = evaluation.best_floor
    return {
        "metric": evaluation.metric,
        "value": f"{evaluation.value:.6g}",
        "floor": floor.name if floor else "none",
        "floor_value": f"{floor.metrics[evaluation.metric]:.6g}" if floor else "",
        "beats_floor": str(evaluation.beats_floor).lower(),
    }


def _show(
    version: Version, data: LabelledData, evaluation: Evaluation, run: TrackedRun, journal: Journal
) -> None:
    unit = data.task.targets[0].unit
    title = (
        f"{version.reference} ({', '.join(version.aliases) or 'no alias'}), "
        f"beats_floor={str(evaluation.beats_floor).lower()}: {data.task.split.method} split, "
        f"{len(data.split.test):,} test rows"
    )
    journal.table(f"result-{version.name}", title, evaluation.rows(version.reference, unit))
    journal.figure(
        f"figure-{version.name}", f"{version.reference}: test rows", run.artifact_url("result.png")
    )
    journal.say(f"{version.reference}: {version.tags.get('promotion', '')}")
