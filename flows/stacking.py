"""How far a Gaussian process is believed beside the tuned networks: stacked generalisation.

Wolpert, Neural Networks 1992, 5, 241. The weight of each target is the mean of its posterior, given the
validation rows. Beforehand the process has the larger part: the networks' epoch was chosen by these rows,
where they look better than they are, and the process will have learnt from them too when it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from domains.contract import GroundworkError, Target
from flows.jobs import TrainingRun
from flows.labelled import LabelledData
from flows.starting_point import foundation_encoder
from models.encoder import Batch, Encoder
from models.gaussian_process import BATCH, GaussianProcess, extended, fit
from models.predictor import encoder_of
from models.settings import TrainingSettings, TuningSettings
from models.targets import is_pixel_task
from models.tuning import TaskModel

WEIGHTS = np.linspace(0, 1, 101)
BEFOREHAND = WEIGHTS / WEIGHTS.sum()
"""Chance of each weight: two to one for the process, on average."""
BELIEF = 0.1
"""Each validation row counts as a tenth of one, for the same reasons."""
LEAST_CHANCE = 1e-4
"""A class is never given less by what is weighed: one row would decide all."""


def is_wanted(tuning: TuningSettings, *, pixels: bool) -> bool:
    """Whether a Gaussian process is to stand beside what is tuned; not where pixels are answered."""
    return tuning.gaussian_process and tuning.mode != "probe" and not pixels


def stack(
    run: TrainingRun, data: LabelledData, models: Sequence[TaskModel], foundation: str
) -> GaussianProcess | None:
    """A Gaussian process with the weight that it deserves beside ``models``.

    It compares embeddings of the foundation as it was before tuning, where there is one, and what the domain
    computes of a record; None where there is neither, or where it is not wanted.
    """
    job = run.job
    targets = data.task.targets
    if not is_wanted(job.settings.part(TuningSettings), pixels=is_pixel_task(targets)):
        return None
    parts = tuple(job.domain.computed(job.spec))
    encoder = foundation_encoder(job, data, foundation)
    if encoder is None and not parts:
        return None
    seed = job.settings.part(TrainingSettings).seed
    exact = np.where(data.signs == 0, data.labels, np.nan)
    sides = data.split
    network: Encoder = models[0].encoder  # type: ignore[assignment]  # merged by now
    train, both = sides.train, np.sort(np.concatenate([sides.train, sides.val]))
    try:
        learnt = fit(targets, parts, encoder, data.store.subset(train), exact[train], network.collate, seed)
        answered = _answers(data, sides.val, models, learnt)
        process = extended(learnt, data.store.subset(both), exact[both], network.collate, seed)
    except torch.linalg.LinAlgError as error:
        raise GroundworkError("no Gaussian process fits these rows: use --no-gaussian-process") from error
    _weigh(run, process, exact[sides.val], answered)
    return process


def _weigh(
    run: TrainingRun, process: GaussianProcess, truth: np.ndarray, answered: tuple[np.ndarray, np.ndarray]
) -> None:
    """Give the process its weight for each target, by ``truth`` [n, targets] and what both answered to it."""
    for place, (target, columns) in enumerate(zip(process.targets, process.columns(), strict=True)):
        weight = weight_of(target, truth[:, place], *(answers[:, columns] for answers in answered))
        process.get_buffer("weight")[place] = weight
        run.tracked.log_metrics({f"gaussian_process_weight_{place}": weight}, 0)
    mean = float(process.get_buffer("weight").mean())
    run.job.journal.say(f"a Gaussian process answers beside it, with a weight of {mean:.2f}")


def _answers(
    data: LabelledData, side: np.ndarray, models: Sequence[TaskModel], process: GaussianProcess
) -> tuple[np.ndarray, np.ndarray]:
    """What the networks (their mean) and the process answer, both [n, outputs]."""
    for model in models:
        model.cpu().eval()

    def both(batch: Batch) -> torch.Tensor:
        tuned = torch.stack([model.outputs(model(batch)["logits"]) for model in models]).mean(0)
        return torch.stack([tuned, process(batch)], 1)

    tuned, compared = answered(data.store.subset(side), encoder_of(models[0]), both).unbind(1)
    return tuned.numpy(), compared.numpy()


def answered(
    samples: Sequence[Any], encoder: Encoder, answer: Callable[[Batch], torch.Tensor]
) -> torch.Tensor:
    """What ``answer`` makes of samples [n, ...], asked for a batch at a time."""
    answers = []
    with torch.inference_mode():
        for start in range(0, len(samples), BATCH):
            chosen = [samples[place] for place in range(start, min(start + BATCH, len(samples)))]
            answers.append(answer(encoder.collate(chosen)))
    return torch.cat(answers)


def weight_of(target: Target, truth: np.ndarray, tuned: np.ndarray, compared: np.ndarray) -> float:
    """Posterior mean of the process's weight, by the likelihood of ``truth`` [n], NaN where unknown."""
    known = np.isfinite(truth)
    if not known.any():
        return float(BEFOREHAND @ WEIGHTS)
    truth, tuned, compared = truth[known], tuned[known], compared[known]
    likelihoods = []
    for weight in WEIGHTS:
        mixed = (1 - weight) * tuned + weight * compared
        if target.kind == "regression":
            # The noise is not known either: its own maximum is taken, which gives the profile likelihood.
            squared = max(float(np.mean((mixed[:, 0] - truth) ** 2)), 1e-12)
            likelihoods.append(-0.5 * len(truth) * np.log(squared))
        else:
            chances = mixed if target.kind == "multiclass" else np.hstack([1 - mixed, mixed])
            right = chances[np.arange(len(truth)), truth.astype(int)]
            likelihoods.append(float(np.log(np.maximum(right, LEAST_CHANCE)).sum()))
    posterior = BEFOREHAND * np.exp(BELIEF * (np.array(likelihoods) - max(likelihoods)))
    return float(posterior @ WEIGHTS / posterior.sum())
