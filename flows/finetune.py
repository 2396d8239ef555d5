"""Tune an encoder to a task with a little labelled data, and register what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from domains.contract import SplitSpec
from domains.splits import CannotExtend
from flows import class_table, heldout, leakage, recipes
from flows.asked import check_targets, choose_targets, chosen_split
from flows.calibration import calibration_figure
from flows.evaluation import Evaluation, evaluate, prediction_table
from flows.figures import promotion_figure, result_figure, worst_errors_page
from flows.ingest import ingest
from flows.jobs import Job, TrainingRun, learns_computed, training_run
from flows.labelled import LabelledData, describe_task, label
from flows.promotion import Decision, decide_task
from flows.registration import lineage, register_version
from flows.settings import PromotionSettings, TaskSettings
from flows.stacking import is_wanted, stack
from flows.temperatures import set_temperatures
from flows.tune import computed_features, tune
from flows.warm_start import WarmStart
from models.gaussian_process import GaussianProcess
from models.predictor import Predictor, VersionContract
from models.registry import FOLDER, Version
from models.settings import FloorSettings, TrainingSettings, TuningSettings
from models.training import TrainingResult
from models.tuning import TaskModel

PROMOTION_FIGURE = "promotion.png"


def finetune(job: Job, after: WarmStart | None = None) -> Version:
    """Encode, train, evaluate beside the floors, register; returns the new version.

    Begins with the weights and on the split of ``after`` where there is one. Raises GroundworkError for rows,
    targets or a foundation that cannot be used.
    """
    settings, journal = job.settings, job.journal
    # Before the rows are encoded, which takes long: a wrong column is told at once.
    targets = choose_targets(job.source, settings.part(TaskSettings))
    check_targets(job.domain, job.source, settings.part(TaskSettings), targets)
    split = _split(job)
    with training_run(job) as run:
        data, weights = journal.step("encode", lambda: _labelled(job, targets, split, after))
        run.log_rows(data.store, data.rejects)
        recipes.keep(run.tracked, job)
        heldout.keep(run.tracked, data)
        run.tracked.log_parameters({"split_id": data.split.id, "targets": ",".join(targets)})
        models, result, foundation = journal.step("train", lambda: tune(run, data, after, weights))
        with TemporaryDirectory() as temporary:
            saved = Path(temporary) / FOLDER
            journal.step("calibrate", lambda: set_temperatures(run, data, models))
            process = journal.step("compare", lambda: stack(run, data, models, foundation))
            contract = _contract(run, data, models, process, foundation)
            predictor = Predictor.save(saved, contract, *(model.cpu() for model in models), process=process)
            seed = settings.part(TrainingSettings).seed
            epochs = settings.part(FloorSettings).floor_epochs
            evaluation = journal.step(
                "evaluate",
                lambda: evaluate(job.source, data, predictor, seed=seed, floor_epochs=epochs),
            )
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


def _split(job: Job) -> SplitSpec:
    settings = job.settings
    told, seed = settings.model_dump(), settings.part(TrainingSettings).seed
    task = settings.part(TaskSettings)
    return chosen_split(job.domain, job.source, task, told["split"], seed, told.get("buffer", 0.0))


def _labelled(
    job: Job, targets: Sequence[str], split: SplitSpec, after: WarmStart | None
) -> tuple[LabelledData, WarmStart | None]:
    """The labelled rows, and whose weights may be gone on from: of ``after``, if its split holds on.

    Otherwise rows that it has learnt from may be held out now.
    """
    domain, source, journal, settings = job.domain, job.source, job.journal, job.settings
    labels = [name for name in targets if name in source.pixel_targets]
    tuning = settings.part(TuningSettings)
    compares = is_wanted(tuning, pixels=bool(labels))
    describe = (
        compares
        or bool(computed_features(job, pixels=bool(labels)))
        or (learns_computed(job) and tuning.adapt_epochs > 0)
    )
    store = ingest(
        domain, source, job.spec, job.home, journal, describe=describe, keep=targets, labels=labels
    )
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
    distances = leakage.leakage_table(data.store.rows, data.places, sides)
    if distances is not None:
        journal.say(leakage.said(distances, domain.noun))
    return data, weights


def _contract(
    run: TrainingRun,
    data: LabelledData,
    models: Sequence[TaskModel],
    process: GaussianProcess | None,
    foundation: str,
) -> VersionContract:
    job = run.job
    return VersionContract(
        kind="task",
        domain=job.domain.name,
        encoding=job.spec.model_dump(mode="json"),
        encoding_digest=job.spec.digest,
        task=data.task,
        linear_head=models[0].linear_head,
        computed=models[0].computed is not None,
        members=len(models),
        gaussian_process=process is not None,
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
    by_class = class_table.class_table(data, evaluation)
    if by_class is not None:
        tracked.log_table("classes.csv", by_class)
    distances = leakage.leakage_table(data.store.rows, data.places, data.split)
    if distances is not None:
        noun = run.job.domain.noun
        tracked.log_table("leakage.csv", distances)
        tracked.log_figure(
            "leakage.png", leakage.leakage_figure(distances, noun, leakage.said(distances, noun))
        )
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
    by_class = class_table.class_table(data, evaluation)
    if by_class is not None:
        accuracy = evaluation.metrics["accuracy"]
        journal.table(
            f"classes-{version.name}",
            f"{version.reference}: test area by class, overall accuracy {accuracy:.3f}",
            class_table.shown(by_class),
        )
    journal.figure(
        f"figure-{version.name}", f"{version.reference}: test rows", run.tracked.artifact_url("result.png")
    )
    journal.say(f"{version.reference}: {version.tags.get('promotion', '')}")
