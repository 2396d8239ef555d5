"""Floors: what a model without a learned representation reaches on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from domains.contract import Target
from models.metrics import task_metrics

TREES = 200
MOST_FEATURES_TRIED = 200
"""Per split of a forest. Breiman's third of 2,048 fingerprint bits costs three times as much as these
and changes the error on melting points by less than 1%."""
NEIGHBOURS = 5


@dataclass(frozen=True)
class FloorResult:
    """Scores and row predictions of one floor; the estimator itself is not kept."""

    name: str
    metrics: dict[str, float]
    predicted: np.ndarray
    """float64 [n test rows, outputs]"""


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
            predictions.append(_fit_predict(estimator, target, features, known, truth, test, seed))
    predicted = np.concatenate(predictions, axis=1)
    return FloorResult(name, task_metrics(targets, labels[test], predicted), predicted)


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


def _fit_predict(
    estimator: str,
    target: Target,
    features: np.ndarray,
    known: np.ndarray,
    truth: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> np.ndarray:
    train_features, test_features = features[known], features[test]
    if estimator == "neighbours":
        scaler = StandardScaler().fit(train_features)
        train_features, test_features = scaler.transform(train_features), scaler.transform(test_features)
    if target.kind == "regression":
        regressor = (
            RandomForestRegressor(
                TREES, max_features=_features_tried(features.shape[1]), n_jobs=-1, random_state=seed
            )
            if estimator == "forest"
            else KNeighborsRegressor(NEIGHBOURS)
        )
        return regressor.fit(train_features, truth).predict(test_features)[:, None]
    classifier = (
        RandomForestClassifier(TREES, n_jobs=-1, random_state=seed)
        if estimator == "forest"
        else KNeighborsClassifier(NEIGHBOURS)
    )
    codes = truth.astype(int)
    probabilities = classifier.fit(train_features, codes).predict_proba(test_features)
    # A class that the training rows never show keeps probability zero.
    by_class = np.zeros((len(test), max(target.outputs, 2)))
    by_class[:, classifier.classes_] = probabilities
    return by_class[:, 1:2] if target.kind == "binary" else by_class
