"""Tune an encoder to a task with a little labelled data, and register what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from domains.contract import GroundworkError, SplitSpec, TargetSpec
from domains.shards import label_array
from domains.splits import CannotExtend
from flows import heldout, recipes
from flows.evaluation import Evaluation, evaluate, prediction_table
from flows.figures import calibration_figure, promotion_figure, result_figure, worst_errors_page
from flows.ingest import ingest
from flows.jobs import Job, TrainingRun, training_run
from flows.labelled import LabelledData, choose_targets, chosen_method, describe_task, label
from flows.promotion import Decision, decide_task
from flows.registration import lineage, register_version
from flows.settings import PromotionSettings, TaskSettings, foundation_name
from flows.warm_start import WarmStart
from models.encoder import Encoder, create_encoder, parameter_count, sample_targets
from models.predictor import Predictor, VersionContract
from models.registry import FOLDER, Version, champion, load
from models.settings import SizeSettings, TrainingSettings, TuningSettings
from models.shipped import is_shipped, load_shipped, shipped_for
from models.targets import pixel_labels
from models.training import TrainingResult, train
from models.tuning import LEARNING_RATES, TaskModel, merge, prepare

PROMOTION_FIGURE = "promotion.png"


def finetune(job: Job, after: WarmStart | None = None) -> Version:
    """Encode, train, evaluate beside the floors, register; returns the new version.

    Begins with the weights and on the split of ``after`` where there is one. Raises GroundworkError for rows,
    targets or a foundation that cannot be used.
    """
    settings, journal = job.settings, job.journal
    targets = choose_targets(job.source, settings.part(TaskSettings))
    with training_run(job) as run:
        data, weights = journal.step("encode", lambda: _labelled(job, targets, after))
        run.log_rows(data.store, data.rejects)
        recipes.keep(run.tracked, job)
        heldout.keep(run.tracked, data)
        run.tracked.log_parameters({"split_id": data.split.id, "targets": ",".join(targets)})
        encoder, foundation = _encoder(job, data, after, weights)
        begun = {"foundation_version": foundation, "warm_start": weights.version.reference if weights else ""}
        run.tracked.log_parameters(begun)
        model, result = journal.step("train", lambda: _train(run, encoder, data, weights))
        with TemporaryDirectory() as temporary:
            saved = Path(temporary) / FOLDER
            predictor = Predictor.save(saved, _contract(run, data, model, foundation), model.cpu())
            seed = settings.part(TrainingSettings).seed
            evaluation = journal.step("evaluate", lambda: evaluate(job.source, data, predictor, seed))
            _log_evaluation(run, data, evaluation, predictor, result)

            def register() -> tuple[Version, Decision]:
                confidence = settings.part(PromotionSettings).confidence
                decision = decide_task(
                    job.name, job.source, data, evaluation, confidence=confidence, seed=seed
                )
                _log_decision(run, decision)
                tags = {**_result_tags(evaluation), recipes.FINGERPRINT: str(recipes.Fingerprint.of(job))}
                if weights is not None:
                    tags["warm_start"] = weights.version.reference
                made = register_version(job.name, saved, predictor, run.tracked, decision.promotion, tags)
                return made, decision

            version, decision = journal.step("register", register)
    _show(run, version, data, evaluation)
    if decision.comparison is not None:
        journal.figure(
            f"promotion-{version.name}",
            f"{version.reference} beside the champion: {decision.promotion.reason}",
            run.tracked.artifact_url(PROMOTION_FIGURE),
        )
    return version


def _labelled(
    job: Job, targets: Sequence[str], after: WarmStart | None
) -> tuple[LabelledData, WarmStart | None]:
    """The labelled rows, and whose weights may be gone on from: of ``after``, if its split holds on.

    Otherwise rows that it has learnt from may be held out now.
    """
    domain, source, journal, settings = job.domain, job.source, job.journal, job.settings
    labels = [name for name in targets if name in source.pixel_targets]
    describe = bool(_computed(job))
    store = ingest(
        domain, source, job.spec, job.home, journal, describe=describe, keep=targets, labels=labels
    )
    method = chosen_method(domain, source, str(settings.model_dump()["split"]))
    split = SplitSpec(method=method, seed=settings.part(TrainingSettings).seed)
    task = describe_task(domain, source, store, settings.part(TaskSettings), targets, split)
    weights = after
    try:
        known = after.sides(task.split) if after is not None else None
        data = label(domain, source, store, job.spec, task, known)
    except CannotExtend as error:
        assert after is not None  # noqa: S101 - narrows the type: there was a split to carry over
        journal.say(
            f"the split of {after.version.reference} cannot be carried over ({error}): "
            f"a fresh split, and a start from {after.foundation}"
        )
        data, weights = label(domain, source, store, job.spec, task), None
    sides = data.split
    journal.say(
        f"{len(data.identities):,} labelled {domain.noun}s: {len(sides.train):,} train, "
        f"{len(sides.val):,} validation, {len(sides.test):,} test ({split.method} split {sides.id})"
    )
    if data.remark:
        journal.say(data.remark)
    return data, weights


def _encoder(
    job: Job, data: LabelledData, after: WarmStart | None, weights: WarmStart | None
) -> tuple[Encoder, str]:
    """The encoder to start from, ready for these samples, and the reference of its foundation."""
    if weights is not None:
        encoder, origin, foundation = weights.predictor.encoder, weights.version.reference, weights.foundation
    else:
        wanted = job.settings.part(TaskSettings).foundation if after is None else after.foundation
        encoder, foundation = _foundation(job, wanted)
        origin = foundation
        if wanted == "auto" and foundation != "none" and (misfit := _misfit(encoder, job, data)):
            job.journal.say(f"{foundation} cannot be used here ({misfit}): the encoder starts from nothing")
            encoder, foundation = _foundation(job, "none")
    if misfit := _misfit(encoder, job, data):
        raise GroundworkError(f"{origin} cannot be used here: {misfit}")
    encoder.discard_decoder()
    return encoder, foundation


def _misfit(encoder: Encoder, job: Job, data: LabelledData) -> str:
    """Make an encoder ready for the samples; why that cannot be done, or nothing."""
    try:
        encoder.fit_input(job.spec, data.store.subset(data.split.train))
    except GroundworkError as error:
        return str(error)
    return ""


def _foundation(job: Job, wanted: str) -> tuple[Encoder, str]:
    """The encoder that is wanted, and its name: of a version, of one that is shipped, or ``none``."""
    domain, settings = job.domain, job.settings
    if wanted == "auto":
        holder = champion(foundation_name(domain.name))
        wanted = holder.reference if holder is not None else shipped_for(domain.name) or "none"
    if wanted == "none":
        torch.manual_seed(settings.part(TrainingSettings).seed)
        return create_encoder(domain.name, settings.part(SizeSettings).size, job.spec), "none"
    if is_shipped(wanted) and champion(wanted) is None:
        predictor, reference = load_shipped(wanted), wanted
    else:
        version, predictor = load(wanted)
        reference = version.reference
    if predictor.contract.domain != domain.name:
        raise GroundworkError(
            f"{reference} knows {predictor.contract.domain}, not {domain.name}: choose another foundation"
        )
    return predictor.encoder, reference


class _Collator:
    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __call__(self, items: Sequence[tuple[Any, np.ndarray, np.ndarray]]) -> dict[str, Any]:
        samples, labels, signs = zip(*items, strict=True)
        return {
            "labels": torch.from_numpy(np.stack(labels)).float(),
            "signs": torch.from_numpy(np.stack(signs)),
            "batch": self.encoder.collate(samples),
        }


class _Labelled(Sequence[Any]):
    """Samples, labels [targets] or [pixels], and the signs [targets] or [] of labels that are bounds."""

    def __init__(self, data: LabelledData, side: np.ndarray) -> None:
        self.samples = data.store.subset(side)
        self.labels = data.labels[side]
        self.signs = data.signs[side]
        self.target = data.task.targets[0]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Any:
        sample = self.samples[index]
        if self.target.level == "pixel":
            return sample, pixel_labels(self.target, sample[label_array(self.target.name)]), self.signs[index]
        return sample, self.labels[index], self.signs[index]


def _train(
    run: TrainingRun, encoder: Encoder, data: LabelledData, weights: WarmStart | None
) -> tuple[TaskModel, TrainingResult]:
    journal = run.job.journal
    tuning = run.job.settings.part(TuningSettings)
    training = run.job.settings.part(TrainingSettings)
    training = training.model_copy(
        update={"learning_rate": training.learning_rate or LEARNING_RATES[tuning.mode]}
    )
    torch.manual_seed(training.seed)
    model = TaskModel(
        encoder,
        data.task.targets,
        linear_head=tuning.mode == "probe",
        dropout=tuning.head_dropout,
        computed=_computed(run.job),
    )
    if weights is None or not weights.hand_on_head(model):
        model.fit_scaling(_scaling_labels(data))
        if model.computed is not None:
            model.computed.fit(data.store.subset(data.split.train))
    prepare(model, tuning.mode, tuning.lora_rank)
    journal.say(
        f"{tuning.mode}: {parameter_count(model, trainable_only=True):,} of "
        f"{parameter_count(model):,} parameters learn"
    )

    with journal.training_slot():
        result = train(
            model,
            _Labelled(data, data.split.train),
            _Labelled(data, data.split.val),
            collate=_Collator(encoder),
            lengths=data.store.tokens[data.split.train],
            settings=training,
            folder=run.folder.checkpoints,
            resume=run.resume,
            report=run.report,
            patience=tuning.patience,
        )
    merge(model)
    return model, result


def _computed(job: Job) -> tuple[TargetSpec, ...]:
    """What the head sees beside the embedding."""
    wanted = job.settings.part(TuningSettings).computed_features
    return sample_targets(job.domain, job.spec) if wanted else ()


def _scaling_labels(data: LabelledData) -> np.ndarray:
    """Training labels that targets are scaled by: all of them, or the pixels of some samples."""
    train = data.split.train
    if data.task.targets[0].level == "sample":
        labels, measured = data.labels[train], data.signs[train] == 0
        # What is only bounded does not tell the spread, unless there is nothing else.
        return np.where(measured | ~measured.any(axis=0), labels, np.nan)
    return np.concatenate(list(data.pixel_labels(train[:: max(1, len(train) // 200)])))[:, None]


def _contract(run: TrainingRun, data: LabelledData, model: TaskModel, foundation: str) -> VersionContract:
    job = run.job
    return VersionContract(
        kind="task",
        domain=job.domain.name,
        encoding=job.spec.model_dump(mode="json"),
        encoding_digest=job.spec.digest,
        task=data.task,
        linear_head=model.linear_head,
        computed=model.computed is not None,
        split_id=data.split.id,
        lineage=lineage(run, data.store, foundation),
    )


def _log_evaluation(
    run: TrainingRun,
    data: LabelledData,
    evaluation: Evaluation,
    predictor: Predictor,
    result: TrainingResult,
) -> None:
    tracked, name = run.tracked, run.job.name
    figures = {f"test_{key}": value for key, value in evaluation.metrics.items()}
    for floor in evaluation.floors:
        label = "".join(letter if letter.isalnum() else "_" for letter in floor.name)
        figures.update({f"floor_{label}_{key}": value for key, value in floor.metrics.items()})
    costs = {key: value for key, value in asdict(result).items() if not isinstance(value, str)}
    figures.update({f"training_{key}": float(value) for key, value in costs.items()})
    tracked.log_metrics(figures, result.steps)
    tracked.log_table("test_predictions.parquet", prediction_table(data, evaluation, predictor))
    title = f"{name}: test rows" + (" of simulated data" if run.job.source.simulated else "")
    tracked.log_figure("result.png", result_figure(data, evaluation, title))
    calibration = calibration_figure(data, evaluation, title)
    if calibration is not None:
        tracked.log_figure("calibration.png", calibration)
    tracked.log_text("worst_errors.html", worst_errors_page(run.job, data, evaluation, title, predictor))


def _log_decision(run: TrainingRun, decision: Decision) -> None:
    if decision.comparison is not None:
        title = f"{run.job.name}: {'promoted' if decision.promotion.promoted else 'refused'}"
        figure = promotion_figure(decision.comparison, decision.floor, title)
        run.tracked.log_figure(PROMOTION_FIGURE, figure)


def _result_tags(evaluation: Evaluation) -> dict[str, str]:
    floor = evaluation.best_floor
    return {
        "metric": evaluation.metric,
        "value": f"{evaluation.value:.6g}",
        "floor": floor.name if floor else "none",
        "floor_value": f"{floor.metrics[evaluation.metric]:.6g}" if floor else "",
        "beats_floor": str(evaluation.beats_floor).lower(),
    }


def _show(run: TrainingRun, version: Version, data: LabelledData, evaluation: Evaluation) -> None:
    journal = run.job.journal
    unit = data.task.targets[0].unit
    title = (
        f"{version.reference} ({', '.join(version.aliases) or 'no alias'}), "
        f"beats_floor={str(evaluation.beats_floor).lower()}: {data.task.split.method} split, "
        f"{len(data.split.test):,} test rows"
    )
    journal.table(f"result-{version.name}", title, evaluation.rows(version.reference, unit))
    journal.figure(
        f"figure-{version.name}", f"{version.reference}: test rows", run.tracked.artifact_url("result.png")
    )
    journal.say(f"{version.reference}: {version.tags.get('promotion', '')}")
