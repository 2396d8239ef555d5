"""How good a map is, class by class, and how much of the ground each class covers.

Terms and estimators of Olofsson et al. 2014, Good practices for estimating area and assessing accuracy of
land change, Remote Sens. Environ. 148, 42.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from models.results import class_ious

LEVEL = 0.95
"""Of the intervals."""


@dataclass(frozen=True)
class ClassAccuracies:
    """One figure for each class, float64 [classes], NaN where there is nothing to judge by."""

    users: np.ndarray
    """User's accuracy: share of what is mapped as the class that is it (precision)."""
    producers: np.ndarray
    """Producer's accuracy: share of what is the class that is mapped as it (recall)."""
    iou: np.ndarray


def class_accuracies(confusion: np.ndarray) -> ClassAccuracies:
    """Of pixels by (truth, answer), [classes, classes]."""
    hits = np.diag(confusion).astype(np.float64)
    return ClassAccuracies(
        users=_share(hits, confusion.sum(0)),
        producers=_share(hits, confusion.sum(1)),
        iou=class_ious(confusion),
    )


@dataclass(frozen=True)
class AreaEstimate:
    """Shares of an area by class, float64 [classes] each."""

    mapped: np.ndarray
    """What the map says: its errors count as they are."""
    estimated: np.ndarray
    """What the map and the reference say together: without the map's bias."""
    error: np.ndarray
    """Standard error of ``estimated``; NaN where too little is known."""
    clusters: int

    @property
    def reach(self) -> np.ndarray:
        """Half of the 95% interval, by Student's t with one degree of freedom less than clusters."""
        return student.ppf((1 + LEVEL) / 2, max(self.clusters - 1, 1)) * self.error


def estimate_areas(
    confusions: np.ndarray, clusters: np.ndarray, mapped: np.ndarray | None = None
) -> AreaEstimate:
    """Error-adjusted shares of an area (eq. 9), with standard errors that know of clusters.

    ``confusions`` [n, classes, classes] are the reference pixels of n records by (truth, answer),
    ``clusters`` int [n] says which records are not independent of one another; ``mapped`` [classes] is the
    share of each class in the map of the whole area. Without it the area is what the clusters are a sample
    of, and its map is known no better than its truth: the estimates are the shares among the reference
    pixels. Raises ValueError where a class is mapped of which there is no reference pixel.

    The error is that of a ratio estimator over clusters, within each mapped class where ``mapped`` is known
    (Cochran 1977, Sampling Techniques, ch. 6 and 9): clusters are taken for a random sample of those that the
    area consists of, and pixels within one may be as alike as they like. Where each cluster is one pixel,
    drawn at random within its mapped class, it is eq. 10 of the paper. A mapped class that only one cluster
    holds leaves the spread between clusters unknown, and so the error of every class that was found there.
    """
    _, cluster = np.unique(clusters, return_inverse=True)
    counts = np.zeros((int(cluster.max()) + 1, *confusions.shape[1:]))
    np.add.at(counts, cluster, confusions)
    by_answer = counts.sum(1)  # [clusters, answers]
    total = by_answer.sum(0)
    weights = total / total.sum() if mapped is None else np.asarray(mapped, np.float64)
    if ((weights > 0) & (total == 0)).any():
        raise ValueError("a class is mapped where no pixel of it was looked at")
    # Share of each truth among what is mapped as a class, [truths, answers].
    truths = np.divide(counts.sum(0), total, out=np.zeros_like(counts[0]), where=total > 0)
    estimated = truths @ weights
    if mapped is None:
        pixels = by_answer.sum(1)
        off = counts.sum(2) - estimated * pixels[:, None]
        terms = off * np.sqrt(_spread((pixels > 0).sum())) / total.sum()
    else:
        scale = np.where(weights > 0, weights * np.sqrt(_spread((by_answer > 0).sum(0))), 0)
        off = (counts - truths * by_answer[:, None, :]) / np.maximum(total, 1)
        terms = np.where(truths[None] > 0, off * scale, 0.0).sum(2)
    return AreaEstimate(
        mapped=weights,
        estimated=estimated,
        error=np.sqrt((terms**2).sum(0)),
        clusters=len(counts),
    )


def _spread(clusters: np.ndarray) -> np.ndarray:
    """What squares over so many clusters are multiplied by for a variance; NaN where there is but one."""
    return np.divide(clusters, clusters - 1, out=np.full(clusters.shape, np.nan), where=clusters > 1)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
