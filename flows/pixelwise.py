"""The pixelwise model beside a network: what it learns from, and how far it is believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from domains.shards import label_array
from flows.jobs import TrainingRun
from flows.labelled import LabelledData
from flows.stacking import believed
from models.encoder import Encoder
from models.pixelwise import MOST_PIXELS
from models.predictor import encoder_of
from models.targets import pixel_labels
from models.tuning import TaskModel

MOST_CHIPS = 1024
"""Training samples whose pixels are drawn from."""
WEIGHTS = np.linspace(0, 1, 21)
BEFOREHAND = np.full(len(WEIGHTS), 1 / len(WEIGHTS))
"""Chance of each weight."""


def fit_pixelwise(model: TaskModel, data: LabelledData, seed: int) -> None:
    """Let the pixelwise model of ``model`` learn from pixels of training samples, drawn by ``seed``.

    It has no share in the answers before ``weigh_pixelwise``.
    """
    if model.pixelwise is None:
        return
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(data.split.train)[:MOST_CHIPS])
    samples, target = data.store.subset(chosen), data.task.targets[0]
    encoder = encoder_of(model)
    contrasts, truths = [], []
    for place in range(len(chosen)):
        sample = samples[place]
        found = encoder.contrasts(encoder.collate([sample]))[0].flatten(1).T.numpy()
        truth = pixel_labels(target, sample[label_array(target.name)]).ravel()
        known = np.flatnonzero(np.isfinite(truth) & np.isfinite(found).any(1))
        drawn = random.permutation(known)[: -(-MOST_PIXELS // len(chosen))]
        contrasts.append(np.nan_to_num(found[drawn]))
        truths.append(truth[drawn])
    scaled = np.concatenate(truths)
    if target.kind == "regression":
        scaled = (scaled - float(model.mean[0])) / float(model.scale[0])
    model.pixelwise.fit(target, np.concatenate(contrasts), scaled)


def weigh_pixelwise(run: TrainingRun, data: LabelledData, models: Sequence[TaskModel]) -> None:
    """Give the pixelwise model of each of ``models`` its share, by the validation samples."""
    shares = []
    for number, model in enumerate(models, start=1):
        if model.pixelwise is None or not model.pixelwise.weight.any():
            continue
        share = share_by(model.cpu().eval(), data)
        model.pixelwise.share.fill_(share)
        shares.append(share)
        run.tracked.log_metrics({"pixelwise_weight": share}, number)
    if shares:
        run.job.journal.say(f"a pixelwise model answers beside it, with a weight of {np.mean(shares):.2f}")


def share_by(model: TaskModel, data: LabelledData) -> float:
    """The mean of the posterior of its weight, by validation samples; each is one observation."""
    target, samples = data.task.targets[0], data.store.subset(data.split.val)
    encoder: Encoder = encoder_of(model)
    assert model.pixelwise is not None  # noqa: S101 - narrows the type
    losses = []
    with torch.inference_mode():
        for place in range(len(samples)):
            sample = samples[place]
            features = encoder.dense(encoder.collate([sample]))
            truth = torch.tensor(pixel_labels(target, sample[label_array(target.name)]), dtype=torch.float32)
            truth = truth.reshape(-1, 1).masked_fill(~features.valid.reshape(-1, 1), torch.nan)
            if truth.isfinite().any():
                tuned, alone = model.head(features)[0], model.pixelwise(features.contrasts)[0]
                mixed = [model.loss(torch.lerp(tuned, alone, weight), truth) for weight in WEIGHTS.tolist()]
                losses.append([float(loss) for loss in mixed])
    if not losses:
        return float(BEFOREHAND @ WEIGHTS)
    total = np.sum(losses, 0)
    if target.kind == "regression":
        # The noise is not known: its own maximum is taken, which gives the profile likelihood.
        total = 0.5 * len(losses) * np.log(np.maximum(total, 1e-12))
    return believed(-total, WEIGHTS, BEFOREHAND)
