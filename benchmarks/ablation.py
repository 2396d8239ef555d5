"""What ablations of pretraining share: an arm that is pretrained, and a table of what is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

from domains.contract import Sample
from models.pretraining import PretrainingModel
from models.progress import Progress
from models.settings import TrainingSettings
from models.training import train

WATCHED = 512
"""Samples whose loss is watched. It chooses nothing: there is one epoch, or the last is best."""


def pretrain(model: PretrainingModel, corpus: Sequence[Sample], settings: TrainingSettings) -> None:
    """Pretrain a model in place on the whole of ``corpus``."""
    model.fit_scaling(corpus[:20_000])
    encoder = model.encoder

    def collate(samples: Sequence[Sample]) -> dict[str, Any]:
        return {"batch": encoder.collate(samples)}

    with TemporaryDirectory() as folder:
        train(
            model,
            corpus,
            corpus[:WATCHED],
            collate=collate,
            lengths=[encoder.tokens(sample) for sample in corpus],
            settings=settings,
            folder=Path(folder),
            resume=False,
            report=say_nothing,
        )


def say_nothing(progress: Progress) -> None:
    """There is a line for each arm."""


def summary(lines: Mapping[str, Sequence[Mapping[str, Any]]], figures: Sequence[str]) -> dict[str, Any]:
    """By arm: means over the seeds, and of what is lost beside ``all`` its p-value (paired t-test)."""
    told: dict[str, Any] = {}
    for arm, of_seeds in lines.items():
        told[arm] = {}
        for figure in figures:
            values = [line[figure] for line in of_seeds]
            told[arm][figure] = round(float(np.mean(values)), 4)
            if arm != "all" and "all" in lines and len(values) > 1:
                whole = [line[figure] for line in lines["all"]]
                told[arm][f"{figure}_lost"] = round(float(np.mean(whole) - np.mean(values)), 4)
                told[arm][f"{figure}_p"] = round(float(ttest_rel(whole, values).pvalue), 4)
    return told
