"""What a model or a floor answered on held-out records, in a form that figures and resampling need.

A bootstrap draws records again and again; so results keep what each record adds to a figure, and
``metrics`` takes the records that count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from domains.contract import Target
from models.metrics import task_metrics


class Results(Protocol):
    """Answers on n records."""

    def __len__(self) -> int: ...

    def metrics(self, rows: np.ndarray | None = None) -> dict[str, float]:
        """Figures on the records at ``rows``, int [m], repeated ones counted as often; on all by default."""
        ...


@dataclass(frozen=True)
class SampleResults:
    """Answers of a task of sample level."""

    targets: tuple[Target, ...]
    truth: np.ndarray
    """float64 [n, targets], NaN where not measured."""
    predicted: np.ndarray
    """[n, outputs of all targets side by side]"""

    def __len__(self) -> int:
        return len(self.truth)

    def metrics(self, rows: np.ndarray | None = None) -> dict[str, float]:
        chosen = slice(None) if rows is None else rows
        return task_metrics(self.targets, self.truth[chosen], self.predicted[chosen])


BINS = 20
"""Of equal width, by which the chances of pixels are counted: too many to be sorted."""


class Tally(NamedTuple):
    """What the pixels of one record add up to."""

    sums: np.ndarray
    """int64 [classes, classes] for classes, pixels by (truth, answer); float64 [5] for a regression: pixels,
    and the sums of |error|, error², truth and truth²."""
    chances: np.ndarray
    """float64 [BINS, 3], by how probable the answer said to be what it says: pixels, sum of those chances,
    and how many came true. Of two classes it is the chance of the second, else of the most probable."""


@dataclass(frozen=True)
class PixelResults:
    """Answers of a task of pixel level, as what each record's pixels add up to: see ``Tally``."""

    target: Target
    sums: np.ndarray
    """[n, ...]"""
    chances: np.ndarray
    """float64 [n, BINS, 3], all zeros for a regression."""

    @classmethod
    def of(cls, target: Target, tallies: Sequence[Tally]) -> PixelResults:
        """Of one tally for each record."""
        return cls(target, *(np.stack(parts) for parts in zip(*tallies, strict=True)))

    def __len__(self) -> int:
        return len(self.sums)

    def metrics(self, rows: np.ndarray | None = None) -> dict[str, float]:
        total = self.sums.sum(0) if rows is None else self.sums[rows].sum(0)
        return _regression(total) if self.target.kind == "regression" else _classes(self.target, total)

    @property
    def confusion(self) -> np.ndarray:
        """Pixels by (truth, answer), int64 [classes, classes]."""
        return self.sums.sum(0)

    def at(self, rows: np.ndarray) -> PixelResults:
        """The records at ``rows``, int [m]."""
        return PixelResults(self.target, self.sums[rows], self.chances[rows])


def pixel_tally(target: Target, truth: np.ndarray, predicted: np.ndarray) -> Tally:
    """What one record adds to ``PixelResults``: truth [pixels], predicted [pixels, outputs].

    Pixels without a truth or without an answer do not count.
    """
    counted = np.isfinite(truth) & np.isfinite(predicted).all(1)
    truth, predicted = truth[counted], predicted[counted]
    return Tally(_sums(target, truth, predicted), _chances(target, truth, predicted))


def _sums(target: Target, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    if target.kind == "regression":
        error = predicted[:, 0].astype(np.float64) - truth
        known = truth.astype(np.float64)
        return np.array([len(truth), np.abs(error).sum(), (error**2).sum(), known.sum(), (known**2).sum()])
    size = len(target.classes)
    places = truth.astype(np.int64) * size + pixel_classes(target, predicted)
    return np.bincount(places, minlength=size * size).reshape(size, size)


def _chances(target: Target, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    if target.kind == "regression":
        return np.zeros((BINS, 3))
    if target.kind == "binary":
        said, is_so = predicted[:, 0].astype(np.float64), truth == 1
    else:
        said, is_so = predicted.max(1).astype(np.float64), predicted.argmax(1) == truth
    places = (said * BINS).astype(np.int64).clip(0, BINS - 1)
    parts = [np.bincount(places, weights, BINS) for weights in (None, said, is_so)]
    return np.stack(parts, 1).astype(np.float64)


def pixel_classes(target: Target, predicted: np.ndarray) -> np.ndarray:
    """Probabilities [..., outputs] -> codes of the most probable classes, int64 [...]."""
    return (predicted[..., 0] >= 0.5).astype(np.int64) if target.kind == "binary" else predicted.argmax(-1)


def class_ious(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, [..., classes, classes] -> float64 [..., classes].

    NaN for a class in neither truth nor answer.
    """
    hits = np.einsum("...cc->...c", confusion).astype(np.float64)
    union = confusion.sum(-2) + confusion.sum(-1) - hits
    return np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)


def _classes(target: Target, confusion: np.ndarray) -> dict[str, float]:
    """mIoU over the classes that occur, overall accuracy, and the IoU of each class."""
    if not confusion.sum():
        return {}
    ious = class_ious(confusion)
    figures = {
        "miou": float(np.nanmean(ious)),
        "accuracy": float(np.trace(confusion) / confusion.sum()),
    }
    named = {f"iou_{_word(name)}": float(iou) for name, iou in zip(target.classes, ious, strict=True)}
    return figures | {name: iou for name, iou in named.items() if np.isfinite(iou)}


def _regression(sums: np.ndarray) -> dict[str, float]:
    pixels, absolute, squared, truth, truth_squared = sums
    if not pixels:
        return {}
    figures = {"mae": float(absolute / pixels), "rmse": float(np.sqrt(squared / pixels))}
    spread = truth_squared - truth**2 / pixels
    return figures | ({"r2": float(1 - squared / spread)} if spread > 0 else {})


def _word(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower() or "class"
