"""Temperatures of tuned networks: whatever they were learnt by, they are as sure as they are right."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flows.jobs import TrainingRun
from flows.labelled import LabelledData
from flows.stacking import answered
from models.predictor import encoder_of
from models.targets import is_pixel_task
from models.temperature import temperature_of
from models.tuning import TaskModel


def set_temperatures(run: TrainingRun, data: LabelledData, models: Sequence[TaskModel]) -> None:
    """Give all models one temperature for each target of several classes, by the validation rows.

    Answers about pixels stay as they are.
    """
    targets = data.task.targets
    if is_pixel_task(targets) or not any(target.kind == "multiclass" for target in targets):
        return
    for model in models:
        model.cpu().eval()
    side = data.split.val
    logits = answered(
        data.store.subset(side),
        encoder_of(models[0]),
        lambda batch: torch.stack([model(batch)["logits"] for model in models], 1),
    )
    for place, (target, columns) in enumerate(models[0].slices()):
        if target.kind == "multiclass":
            labels = torch.from_numpy(data.labels[side, place])
            known = torch.isfinite(labels)
            temperature = temperature_of(logits[known][..., columns], labels[known])
            for model in models:
                model.scale[columns] = 1 / temperature
            run.tracked.log_metrics({f"temperature_{place}": temperature})
