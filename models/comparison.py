"""Whether one model is better than another, or only luckier: a paired bootstrap over held-out records.

Both models answer the same records; records are drawn with replacement, and each draw gives one difference
of their figures (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 8 and 13). Records of one
group (a scaffold, a block of a scene) are drawn together, for they are not independent of one another.

A draw is a count for each record, and every figure that decides is computed for many draws at once from
what each record adds to it: two thousand calls of an AUROC would take minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.metrics import HIGHER_IS_BETTER
from models.results import PixelResults, Results, SampleResults, class_ious

RESAMPLES = 2000
LEVEL = 0.95
"""Share of the draws that the reported interval holds."""
FEWEST_GROUPS = 5
"""With fewer, drawing groups says nothing; records are drawn one by one then."""
CELLS = 2_000_000
"""Counts that are in memory at once."""


@dataclass(frozen=True)
class Comparison:
    """A challenger beside a champion on the same records."""

    metric: str
    records: int
    drawn: int
    """How many groups (or records) a draw takes."""
    challenger: float
    champion: float
    differences: np.ndarray
    """By how much the challenger is better, float64 [draws]; draws without a figure are left out."""

    @property
    def gain(self) -> float:
        """By how much the challenger is better on the records themselves."""
        sign = 1 if HIGHER_IS_BETTER[self.metric] else -1
        return sign * (self.challenger - self.champion)

    @property
    def probability(self) -> float:
        """Share of the draws in which the challenger is better; ties count half. 0 without a draw."""
        if not len(self.differences):
            return 0.0
        return float(np.mean(self.differences > 0) + np.mean(self.differences == 0) / 2)

    @property
    def interval(self) -> tuple[float, float]:
        """Percentile interval of the gain; NaN without a draw."""
        if not len(self.differences):
            return (float("nan"), float("nan"))
        low, high = np.quantile(self.differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return (float(low), float(high))


def compare(
    metric: str,
    challenger: Results,
    champion: Results,
    groups: np.ndarray,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two results on the same n records by ``metric``; ``groups`` int64 [n]."""
    if not len(challenger) == len(champion) == len(groups):
        raise ValueError(f"{len(challenger)}, {len(champion)} and {len(groups)} records do not compare")
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    if count < FEWEST_GROUPS:
        group, count = np.arange(len(groups)), len(groups)
    random = np.random.default_rng(seed)
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    at_once = max(1, CELLS // len(groups))
    differences = []
    for start in range(0, resamples, at_once):
        draws = min(at_once, resamples - start)
        counts = _draw(random, draws, count)[:, group]
        figures = [resampled(metric, results, counts) for results in (challenger, champion)]
        differences.append(sign * (figures[0] - figures[1]))
    drawn = np.concatenate(differences)
    return Comparison(
        metric=metric,
        records=len(groups),
        drawn=count,
        challenger=challenger.metrics().get(metric, float("nan")),
        champion=champion.metrics().get(metric, float("nan")),
        differences=drawn[np.isfinite(drawn)],
    )


def _draw(random: np.random.Generator, draws: int, count: int) -> np.ndarray:
    """How often each of ``count`` things is drawn, float64 [draws, count]."""
    places = random.integers(0, count, (draws, count)) + count * np.arange(draws)[:, None]
    return np.bincount(places.ravel(), minlength=draws * count).reshape(draws, count).astype(float)


def resampled(metric: str, results: Results, counts: np.ndarray) -> np.ndarray:
    """The figure on each draw, float64 [draws]; NaN where it has none.

    ``counts`` float64 [draws, n] says how often each record was drawn. Equals ``results.metrics`` on the
    repeated records, for every metric that decides.
    """
    if isinstance(results, PixelResults):
        return _pixel_figure(metric, results, counts)
    if isinstance(results, SampleResults):
        return _sample_figure(metric, results, counts)
    raise TypeError(f"{type(results).__name__} cannot be resampled")


def _sample_figure(metric: str, results: SampleResults, counts: np.ndarray) -> np.ndarray:
    """The mean over the targets that have the figure, as ``models.metrics.task_metrics``."""
    figures = []
    start = 0
    for column, target in enumerate(results.targets):
        truth, predicted = results.truth[:, column], results.predicted[:, start : start + target.outputs]
        start += target.outputs
        if metric not in _FIGURES[target.kind]:
            continue
        measured = np.isfinite(truth)
        if measured.any():
            figures.append(
                _FIGURES[target.kind][metric](truth[measured], predicted[measured], counts[:, measured])
            )
    if not figures:
        return np.full(len(counts), np.nan)
    stacked = np.stack(figures)
    known = np.isfinite(stacked)
    return _ratio(np.where(known, stacked, 0).sum(0), known.sum(0))


def _mae(truth: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _ratio(counts @ np.abs(predicted[:, 0] - truth), counts.sum(1))


def _binary_accuracy(truth: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _ratio(counts @ ((predicted[:, 0] >= 0.5) == (truth > 0.5)), counts.sum(1))


def _class_accuracy(truth: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _ratio(counts @ (predicted.argmax(1) == truth), counts.sum(1))


def _auroc(truth: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Share of the pairs (positive, negative) that are in order; ties count half (Mann & Whitney 1947)."""
    scores = predicted[:, 0]
    order = np.argsort(scores, kind="stable")
    positive = truth[order] > 0.5
    counts = counts[:, order]
    ties = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    positives = np.add.reduceat(np.where(positive, counts, 0), ties, axis=1)
    negatives = np.add.reduceat(np.where(positive, 0, counts), ties, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return _ratio((positives * below).sum(1), positives.sum(1) * negatives.sum(1))


_FIGURES = {
    "regression": {"mae": _mae},
    "binary": {"auroc": _auroc, "accuracy": _binary_accuracy},
    "multiclass": {"accuracy": _class_accuracy},
}


def _pixel_figure(metric: str, results: PixelResults, counts: np.ndarray) -> np.ndarray:
    sums = results.sums.astype(float)
    total = (counts @ sums.reshape(len(sums), -1)).reshape(len(counts), *sums.shape[1:])
    if metric == "mae":
        return _ratio(total[:, 1], total[:, 0])
    if metric == "accuracy":
        return _ratio(np.einsum("dcc->d", total), total.sum((1, 2)))
    ious = class_ious(total)
    return _ratio(np.nan_to_num(ious).sum(1), np.isfinite(ious).sum(1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
