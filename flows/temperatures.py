"""The temperatures of tuned networks: classes are learnt from smoothed labels, which makes them modest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from flows.labelled import LabelledData
from models.predictor import BATCH, encoder_of
from models.targets import is_pixel_task
from models.temperature import temperature_of
from models.tuning import TaskModel


def set_temperatures(data: LabelledData, models: Sequence[TaskModel]) -> dict[int, float]:
    """Make each model as sure of its classes as validation rows speak for; the mean, by place of a target.

    Only for targets of several classes of whole samples.
    """
    targets = data.task.targets
    if is_pixel_task(targets) or not any(target.kind == "multiclass" for target in targets):
        return {}
    found: dict[int, list[float]] = {}
    for model in models:
        logits, labels = _logits(model.cpu().eval(), data), torch.from_numpy(data.labels[data.split.val])
        for place, (target, columns) in enumerate(model.slices()):
            if target.kind == "multiclass":
                known = torch.isfinite(labels[:, place])
                temperature = temperature_of(logits[known][:, columns], labels[known, place])
                model.scale[columns] = 1 / temperature
                found.setdefault(place, []).append(temperature)
    return {place: float(np.mean(temperatures)) for place, temperatures in found.items()}


def _logits(model: TaskModel, data: LabelledData) -> torch.Tensor:
    """Raw outputs [n, outputs] of the validation rows."""
    samples, encoder = data.store.subset(data.split.val), encoder_of(model)
    answered = []
    with torch.inference_mode():
        for start in range(0, len(samples), BATCH):
            chosen = [samples[place] for place in range(start, min(start + BATCH, len(samples)))]
            answered.append(model(encoder.collate(chosen))["logits"])
    return torch.cat(answered)
