"""A short training of a small model, in the test's process or in one of its own that is killed.

usage: training_run.py FOLDER SIGNAL STEP
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_models import LOGP, samples_of, task_model

from models.progress import Interrupted, Progress
from models.settings import TrainingSettings
from models.training import train
from models.tuning import TaskModel

SMILES = [
    chain * length + end
    for chain in ("C", "CC(C)", "CCO")
    for length in range(1, 9)
    for end in ("O", "N", "c1ccccc1")
]
"""72 molecules in 9 batches of 8: epochs end at steps that are multiples of 9."""
SETTINGS = TrainingSettings(epochs=4, batch_size=8, learning_rate=5e-3, seed=3)


def train_small_model(
    folder: Path, report: Callable[[Progress], None], *, resume: bool = False, **changes: Any
) -> TaskModel:
    """Train a model with dropout: on one thread it is bit by bit the same wherever it runs."""
    model = task_model(LOGP)
    samples = samples_of(SMILES)
    labels = np.array([[len(sample["atoms"]) / 3] for sample in samples], np.float32)
    model.fit_scaling(labels)

    def collate(items: Sequence[Any]) -> dict[str, Any]:
        chosen, values = zip(*items, strict=True)
        return {"batch": model.encoder.collate(chosen), "labels": torch.from_numpy(np.stack(values))}

    items = list(zip(samples, labels, strict=True))
    train(
        model, items, items[:16], collate=collate, lengths=[len(s["atoms"]) for s in samples],
        settings=SETTINGS.model_copy(update=changes), folder=folder, resume=resume, report=report,
    )  # fmt: skip
    return model


def signal_at(signum: int, step: int) -> Callable[[Progress], None]:
    """Sends this process a signal as soon as it reports that step."""

    def report(progress: Progress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signum)

    return report


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        train_small_model(Path(sys.argv[1]), signal_at(int(sys.argv[2]), int(sys.argv[3])))
    except Interrupted as stopped:
        sys.exit(f"Interrupted: {stopped}")
