"""Floors: what a model without a learned representation reaches on the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from domains.contract import Target
from models.results import PixelResults, Results, SampleResults, pixel_sums

TREES = 200
MOST_FEATURES_TRIED = 200
"""Per split of a forest. Breiman's third of 2,048 fingerprint bits costs three times as much as these
and changes the error on melting points by less than 1%."""
NEIGHBOURS = 5
MOST_PIXELS = 50_000
"""Training pixels of a per-pixel floor: neighbouring pixels say much the same."""


@dataclass(frozen=True)
class FloorResult:
    """Scores and row predictions of one floor; the estimator itself is not kept."""

    name: str
    results: Results

    @property
    def metrics(self) -> dict[str, float]:
        return self.results.metrics()


def fit_floor(
    name: str,
    estimator: Literal["forest", "neighbours"],
    targets: Sequence[Target],
    features: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> FloorResult:
    """Fit one estimator per target on the training rows and score it on the test rows.

    features [n, f], labels [n, targets] with NaN where not measured, train and test row indices.
    A target without two different labels among the training rows predicts what it has seen.
    """
    predictions = []
    for column, target in enumerate(targets):
        known = train[np.isfinite(labels[train, column])]
        truth = labels[known, column]
        if len(np.unique(truth)) < 2:
            predictions.append(_constant(target, truth, len(test)))
        else:
            fitted = _Fitted(estimator, target, features[known], truth, seed)
            predictions.append(fitted.predict(features[test]))
    predicted = np.concatenate(predictions, axis=1)
    return FloorResult(name, SampleResults(tuple(targets), labels[test], predicted))


def fit_pixel_floor(
    name: str,
    estimator: Literal["forest", "neighbours"],
    target: Target,
    train: Iterable[tuple[np.ndarray, np.ndarray]],
    train_size: int,
    test: Iterable[tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> FloorResult:
    """Fit an estimator on pixels of the training records and score it on every pixel of the test records.

    Each record is (features [pixels, f], labels [pixels]), NaN where there is none. The same number of
    pixels is drawn from each of the ``train_size`` training records, ``MOST_PIXELS`` in all.
    """
    random = np.random.default_rng(seed)
    quota = max(1, MOST_PIXELS // max(1, train_size))
    drawn, truths = [], []
    for features, labels in train:
        known = np.flatnonzero(np.isfinite(labels) & np.isfinite(features).all(1))
        chosen = random.permutation(known)[:quota]
        drawn.append(features[chosen])
        truths.append(labels[chosen])
    train_features, truth = np.concatenate(drawn), np.concatenate(truths)
    fitted = _Fitted(estimator, target, train_features, truth, seed) if len(np.unique(truth)) > 1 else None
    sums = []
    for features, labels in test:
        known = np.flatnonzero(np.isfinite(labels) & np.isfinite(features).all(1))
        predicted = np.full((len(labels), target.outputs), np.nan)
        if len(known):
            predicted[known] = (
                fitted.predict(features[known]) if fitted else _constant(target, truth, len(known))
            )
        sums.append(pixel_sums(target, labels, predicted))
    return FloorResult(name, PixelResults(target, np.stack(sums)))


def _features_tried(features: int) -> int:
    """A third of the features, Breiman's default for regression, but not more than are affordable."""
    return max(1, min(features // 3, MOST_FEATURES_TRIED))


def _constant(target: Target, truth: np.ndarray, rows: int) -> np.ndarray:
    predicted = np.zeros((rows, target.outputs))
    value = truth[0] if len(truth) else 0.0
    if target.kind == "multiclass":
        predicted[:, int(value)] = 1.0
    else:
        predicted[:] = value
    return predicted


class _Fitted:
    """An estimator of one target, fitted on features [n, f] and truths [n] without gaps."""

    def __init__(
        self, estimator: str, target: Target, features: np.ndarray, truth: np.ndarray, seed: int
    ) -> None:
        self.target = target
        self.scaler = StandardScaler().fit(features) if estimator == "neighbours" else None
        trees: dict[str, Any] = {"n_estimators": TREES, "n_jobs": -1, "random_state": seed}
        if target.kind == "regression":
            self.model: Any = (
                RandomForestRegressor(max_features=_features_tried(features.shape[1]), **trees)
                if estimator == "forest"
                else KNeighborsRegressor(NEIGHBOURS)
            )
        else:
            self.model = (
                RandomForestClassifier(**trees) if estimator == "forest" else KNeighborsClassifier(NEIGHBOURS)
            )
            truth = truth.astype(int)
        self.model.fit(self._scaled(features), truth)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Features [n, f] -> values or probabilities [n, outputs]."""
        if self.target.kind == "regression":
            return self.model.predict(self._scaled(features))[:, None]
        # A class that the training rows never show keeps probability zero.
        by_class = np.zeros((len(features), max(self.target.outputs, 2)))
        by_class[:, self.model.classes_] = self.model.predict_proba(self._scaled(features))
        return by_class[:, 1:2] if self.target.kind == "binary" else by_class

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        return features if self.scaler is None else self.scaler.transform(features)
