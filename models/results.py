"""What a model or a floor answered on held-out records, in a form that figures and resampling need.

A bootstrap draws records again and again; so results keep what each record adds to a figure, and
``metrics`` takes the records that count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

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


@dataclass(frozen=True)
class PixelResults:
    """Answers of a task of pixel level, as what each record's pixels add up to.

    ``sums`` is int64 [n, classes, classes] for classes, pixels by (truth, answer); float64 [n, 5] for a
    regression: pixels, and the sums of |error|, error², truth and truth².
    """

    target: Target
    sums: np.ndarray

    def __len__(self) -> int:
        return len(self.sums)

    def metrics(self, rows: np.ndarray | None = None) -> dict[str, float]:
        total = self.sums.sum(0) if rows is None else self.sums[rows].sum(0)
        return _regression(total) if self.target.kind == "regression" else _classes(self.target, total)

    @property
    def confusion(self) -> np.ndarray:
        """Pixels by (truth, answer), int64 [classes, classes]."""
        return self.sums.sum(0)


def pixel_sums(target: Target, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """What one record adds to ``PixelResults.sums``: truth [pixels], predicted [pixels, outputs].

    Pixels without a truth or without an answer do not count.
    """
    counted = np.isfinite(truth) & np.isfinite(predicted).all(1)
    truth, predicted = truth[counted], predicted[counted]
    if target.kind == "regression":
        error = predicted[:, 0].astype(np.float64) - truth
        known = truth.astype(np.float64)
        return np.array([len(truth), np.abs(error).sum(), (error**2).sum(), known.sum(), (known**2).sum()])
    size = len(target.classes)
    places = truth.astype(np.int64) * size + pixel_classes(target, predicted)
    return np.bincount(places, minlength=size * size).reshape(size, size)


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
