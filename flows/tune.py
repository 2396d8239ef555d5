"""What a fine-tuning trains: one model, or the members of an ensemble one after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from domains.contract import TargetSpec
from domains.shards import label_array
from flows.jobs import Job, TrainingRun
from flows.labelled import LabelledData
from flows.starting_point import starting_point
from flows.tuning_plan import TuningPlan, plan_tuning
from flows.warm_start import WarmStart
from models.encoder import Encoder, parameter_count
from models.probe import solve
from models.progress import Progress
from models.settings import TrainingSettings, TuningSettings
from models.targets import is_pixel_task, pixel_labels
from models.training import TrainingResult, train
from models.tuning import TaskModel, layer_rates, merge, prepare


def tune(
    run: TrainingRun, data: LabelledData, after: WarmStart | None, weights: WarmStart | None
) -> tuple[list[TaskModel], TrainingResult, str]:
    """The tuned models, what all of them cost together, and the reference of their foundation."""
    job = run.job
    tuning = job.settings.part(TuningSettings)
    members = tuning.members if tuning.mode == "ensemble" else 1
    foundation = ""
    models: list[TaskModel] = []
    results: list[TrainingResult] = []
    # Once for all that is trained here: there is one slot, and who holds it would wait for itself.
    with job.journal.training_slot():
        for member in range(members):
            encoder, foundation = starting_point(run, data, after, weights, member, foundation)
            model = _prepared(job, encoder, data, weights, member)
            plan = plan_tuning(
                job.settings.part(TrainingSettings),
                tuning,
                records=len(data.split.train),
                level=data.task.targets[0].level,
                has_foundation=foundation != "none",
                varies=encoder.varies,
                member=member,
            )
            if member == 0:
                _record(run, model, plan, foundation, weights)
            checkpoints = run.folder.checkpoints
            finished = None
            if members > 1:
                checkpoints = checkpoints / f"member-{member + 1}"
                finished = _Finished(checkpoints)
            result = finished.load(model) if finished is not None and run.resume else None
            if result is None:
                report = _share(run.report, member, members)
                result = _trained(run, model, data, plan, checkpoints, report)
                if finished is not None:
                    finished.keep(model, result)
            merge(model)
            models.append(model)
            results.append(result)
    return models, _together(results), foundation


def _record(
    run: TrainingRun, model: TaskModel, plan: TuningPlan, foundation: str, weights: WarmStart | None
) -> None:
    """Say what learns, from where, and what was chosen where the settings left it open."""
    tuning, training = run.job.settings.part(TuningSettings), plan.training
    begun = weights.version.reference if weights else ""
    run.tracked.log_parameters({"foundation_version": foundation, "warm_start": begun, **plan.parameters})
    learn = (
        f"{tuning.mode}: {parameter_count(model, trainable_only=True):,} of {parameter_count(model):,} "
        "parameters learn"
    )
    if tuning.mode != "probe" or model.answers_pixels:  # else it is solved
        learn += f", {training.epochs} epochs in batches of {training.batch_size}"
    run.job.journal.say(learn + (f", {tuning.members} times" * (tuning.mode == "ensemble")))


def _prepared(
    job: Job, encoder: Encoder, data: LabelledData, weights: WarmStart | None, member: int
) -> TaskModel:
    """A model with a head for the task, and what is to learn in it chosen."""
    tuning = job.settings.part(TuningSettings)
    torch.manual_seed(job.settings.part(TrainingSettings).seed + member)
    model = TaskModel(
        encoder,
        data.task.targets,
        linear_head=tuning.mode == "probe",
        dropout=tuning.head_dropout,
        computed=computed_features(job, pixels=is_pixel_task(data.task.targets)),
    )
    if weights is None or not weights.hand_on_head(model, member):
        model.fit_scaling(_scaling_labels(data))
        if model.computed is not None:
            model.computed.fit(data.store.subset(data.split.train))
    prepare(model, tuning.mode, tuning.lora_rank)
    return model


def _trained(
    run: TrainingRun,
    model: TaskModel,
    data: LabelledData,
    plan: TuningPlan,
    folder: Path,
    report: Callable[[Progress], None],
) -> TrainingResult:
    encoder: Any = model.encoder
    known, asked = _Labelled(data, data.split.train), _Labelled(data, data.split.val)
    collate = _Collator(encoder)
    if run.job.settings.part(TuningSettings).mode == "probe" and not model.answers_pixels:
        batch = plan.training.batch_size
        return solve(model, known, asked, collate=collate, batch_size=batch, report=report)
    return train(
        model,
        known,
        asked,
        collate=collate,
        lengths=data.store.tokens[data.split.train],
        settings=plan.training,
        folder=folder,
        resume=run.resume,
        report=report,
        patience=plan.patience,
        rates=None if plan.layer_decay == 1 else layer_rates(model, plan.layer_decay),
        keeps=plan.keeps,
    )


def _share(report: Callable[[Progress], None], member: int, members: int) -> Callable[[Progress], None]:
    """One member's progress as a part of the whole."""

    def told(progress: Progress) -> None:
        before, total = member * progress.total_steps, members * progress.total_steps
        report(replace(progress, step=before + progress.step, total_steps=total))

    return told


class _Finished:
    """A member that is trained, for a run that is resumed while another one is being trained."""

    def __init__(self, path: Path) -> None:
        self.weights = path.with_suffix(".safetensors")
        self.result = path.with_suffix(".json")

    def keep(self, model: TaskModel, result: TrainingResult) -> None:
        save_file({name: it.contiguous() for name, it in model.state_dict().items()}, self.weights)
        # Last, and whole or not at all: it says that the weights are complete.
        partial = self.result.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(result)))
        partial.rename(self.result)

    def load(self, model: TaskModel) -> TrainingResult | None:
        """Give the model its trained weights; None where its training has not ended."""
        if not self.result.is_file():
            return None
        model.load_state_dict(load_file(self.weights))
        return TrainingResult(**json.loads(self.result.read_text()))


def _together(results: Sequence[TrainingResult]) -> TrainingResult:
    seconds = sum(result.seconds for result in results)
    samples = sum(result.samples_per_second * result.seconds for result in results)
    return TrainingResult(
        steps=sum(result.steps for result in results),
        seconds=seconds,
        best_loss=float(np.mean([result.best_loss for result in results])),
        samples_per_second=samples / seconds if seconds else 0.0,
        trainable_parameters=sum(result.trainable_parameters for result in results),
        device=results[0].device,
    )


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


def computed_features(job: Job, *, pixels: bool) -> tuple[TargetSpec, ...]:
    """What the head sees beside the embedding; a probe tells what the embedding alone is worth.

    Heads of pixel level look at pixels instead.
    """
    tuning = job.settings.part(TuningSettings)
    wanted = tuning.computed_features and tuning.mode != "probe" and not pixels
    return tuple(job.domain.computed(job.spec)) if wanted else ()


def _scaling_labels(data: LabelledData) -> np.ndarray:
    """Training labels that targets are scaled by: all of them, or the pixels of some samples."""
    train = data.split.train
    if data.task.targets[0].level == "sample":
        labels, measured = data.labels[train], data.signs[train] == 0
        # What is only bounded does not tell the spread, unless there is nothing else.
        return np.where(measured | ~measured.any(axis=0), labels, np.nan)
    return np.concatenate(list(data.pixel_labels(train[:: max(1, len(train) // 200)])))[:, None]
