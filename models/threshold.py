"""The simplest classifier there is: one number, one cut."""

from __future__ import annotations

import numpy as np


class Threshold:
    """Parts two classes by a cut through one feature; fits and answers as estimators of scikit-learn do.

    Direction and cut are those with the largest mean intersection over union of the two classes on what it
    is fitted on, the figure that segmentations are judged by; of equal ones the lowest cut.
    """

    classes_ = np.array([0, 1])

    def fit(self, features: np.ndarray, truth: np.ndarray) -> Threshold:
        """features [n, 1], truth 0 or 1 [n], both of which occur. Raises ValueError for several features."""
        if features.shape[1] != 1:
            raise ValueError(f"a threshold cuts one feature, not {features.shape[1]}")
        order = np.argsort(features[:, 0], kind="stable")
        values, is_one = features[order, 0].astype(np.float64), truth[order].astype(bool)
        # Cut k has the first k values below it; equal values are on one side.
        cuts = np.flatnonzero(np.r_[True, np.diff(values) > 0, True])
        ones_below = np.r_[0, np.cumsum(is_one)][cuts]
        zeros_below = cuts - ones_below
        ones, zeros = int(is_one.sum()), int((~is_one).sum())
        above = _mean_iou(zeros_below, zeros - zeros_below, ones - ones_below, ones_below)
        below = _mean_iou(zeros - zeros_below, zeros_below, ones_below, ones - ones_below)
        self.is_above = bool(above.max() >= below.max())
        best = int(cuts[np.argmax(above if self.is_above else below)])
        ends = np.r_[-np.inf, values, np.inf]
        self.cut = float(np.mean(ends[best : best + 2]))
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """[n, 2]: 0 or 1, since a cut knows no doubt."""
        is_one = (features[:, 0] > self.cut) == self.is_above
        return np.stack([~is_one, is_one], 1).astype(np.float64)


def _mean_iou(
    true_zeros: np.ndarray, false_ones: np.ndarray, true_ones: np.ndarray, false_zeros: np.ndarray
) -> np.ndarray:
    errors = false_ones + false_zeros
    return (true_zeros / (true_zeros + errors) + true_ones / (true_ones + errors)) / 2
