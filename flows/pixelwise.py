"""The pixelwise model beside a network: what it learns from, and how far it is believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from domains.contract import Target
from domains.shards import label_array
from flows.jobs import TrainingRun
from flows.labelled import LabelledData
from flows.stacking import believed
from models.encoder import Encoder
from models.pixelwise import MOST_PIXELS
from models.predictor import encoder_of
from models.settings import TrainingSettings
from models.targets import pixel_labels
from models.tuning import TaskModel

MOST_CHIPS = 1024
"""Samples of a side whose pixels are drawn from."""
MOST_OF_A_CHIP = 4096
"""Pixels of a validation sample that are asked for."""
WEIGHTS = np.linspace(0, 1, 21)
BEFOREHAND = np.full(len(WEIGHTS), 1 / len(WEIGHTS))
"""Chance of each weight."""
BELIEF = 0.1
"""Each validation sample counts as a tenth of one: chips of a scene say much the same."""


def fit_pixelwise(model: TaskModel, data: LabelledData, seed: int) -> None:
    """Let the pixelwise model of ``model`` learn from pixels of training samples, drawn by ``seed``.

    It has no share in the answers before ``weigh_pixelwise``.
    """
    if model.pixelwise is None:
        return
    random = np.random.default_rng(seed)
    samples, encoder = _drawn(data, data.split.train, random), encoder_of(model)
    most = -(-MOST_PIXELS // len(samples))
    contrasts, codes = [], []
    for place in range(len(samples)):
        sample = samples[place]
        found = encoder.contrasts(encoder.collate([sample]))[0].flatten(1).T.numpy()
        truth = _codes(data.task.targets[0], sample)
        known = np.flatnonzero(np.isfinite(truth) & np.isfinite(found).any(1))
        drawn = random.permutation(known)[:most]
        contrasts.append(found[drawn])
        codes.append(truth[drawn])
    model.pixelwise.fit(np.concatenate(contrasts), np.concatenate(codes))


def weigh_pixelwise(run: TrainingRun, data: LabelledData, models: Sequence[TaskModel]) -> None:
    """Give the pixelwise model of each of ``models`` its share, by the validation samples."""
    seed, shares = run.job.settings.part(TrainingSettings).seed, []
    for number, model in enumerate(models, start=1):
        if model.pixelwise is None or not model.pixelwise.weight.any():
            continue
        share = share_by(model.cpu().eval(), data, seed)
        model.pixelwise.share.fill_(share)
        shares.append(share)
        run.tracked.log_metrics({"pixelwise_weight": share}, number)
    if shares:
        run.job.journal.say(f"a pixelwise model answers beside it, with a weight of {np.mean(shares):.2f}")


def share_by(model: TaskModel, data: LabelledData, seed: int) -> float:
    """The mean of the posterior of its weight, by validation samples; each is one observation."""
    random = np.random.default_rng(seed)
    samples, target = _drawn(data, data.split.val, random), data.task.targets[0]
    encoder: Encoder = encoder_of(model)
    assert model.pixelwise is not None  # noqa: S101 - narrows the type
    total = np.zeros(len(WEIGHTS))
    with torch.inference_mode():
        for place in range(len(samples)):
            sample = samples[place]
            features = encoder.dense(encoder.collate([sample]))
            codes = _codes(target, sample)
            known = np.flatnonzero(np.isfinite(codes) & features.valid.flatten().numpy())
            if not len(known):
                continue
            drawn = random.permutation(known)[:MOST_OF_A_CHIP]
            tuned, alone = model.head(features)[0, drawn], model.pixelwise(features.contrasts)[0, drawn]
            truth = torch.from_numpy(codes[drawn])[:, None]
            total += [float(model.loss(torch.lerp(tuned, alone, it), truth)) for it in WEIGHTS.tolist()]
    return believed(-total, WEIGHTS, BEFOREHAND, BELIEF)


def _drawn(data: LabelledData, side: np.ndarray, random: np.random.Generator) -> Sequence[Any]:
    return data.store.subset(np.sort(random.permutation(side)[:MOST_CHIPS]))


def _codes(target: Target, sample: Any) -> np.ndarray:
    """Of the classes of a sample's pixels, float32 [pixels], NaN where not labelled."""
    return pixel_labels(target, sample[label_array(target.name)]).astype(np.float32).ravel()
