"""Floors: what a model without a learned representation reaches on the same rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from domains.contract import EstimatorName, Floor, Record, Target
from models.results import PixelResults, Results, SampleResults, Tally, pixel_tally
from models.threshold import Threshold
from models.unet import MOST_VALIDATION, DrawnImages, train_unet

Labelled = tuple[Record, np.ndarray]
"""A record and the labels of its pixels [pixels], NaN where there is none."""

TREES = 200
MOST_FEATURES_TRIED = 200
"""Per split of a forest. Breiman's third of 2,048 fingerprint bits costs three times as much as these
and changes the error on melting points by less than 1%."""
NEIGHBOURS = 5
STRENGTHS = np.logspace(-2, 4, 7)
"""Of a ridge regression's penalty, of which leave-one-out chooses."""
WEAKNESS = 1.0
"""C of a logistic regression on standardised features, and at most how many steps it takes."""
MOST_STEPS = 100
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
    estimator: EstimatorName,
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


def fit_pixel_floors(
    floors: Sequence[Floor],
    target: Target,
    sizes: tuple[int, int],
    train: Iterable[Labelled],
    val: Iterable[Labelled],
    test: Iterable[Labelled],
    *,
    epochs: int,
    seed: int,
) -> list[FloorResult]:
    """Fit every floor on pixels of the training records and score it on every pixel of the test records.

    ``sizes`` are how many records train and validate. Each side is read once for all floors. Networks pass
    over the training records at most ``epochs`` times and are left out where that is 0; the validation
    records tell them when to stop.
    """
    wanted = [floor for floor in floors if epochs or floor.estimator != "unet"]
    learners = [
        _Network(target, sizes, epochs, seed)
        if floor.estimator == "unet"
        else _DrawnPixels(floor.estimator, target, sizes[0], seed)
        for floor in wanted
    ]
    for record, labels in train:
        for floor, learner in zip(wanted, learners, strict=True):
            learner.learn_from(floor.features(record), labels)
    networks = [
        (floor, learner)
        for floor, learner in zip(wanted, learners, strict=True)
        if isinstance(learner, _Network)
    ]
    for record, labels in val if networks else ():
        for floor, network in networks:
            network.validate_by(floor.features(record), labels)
    answers: list[list[Tally]] = [[] for _ in wanted]
    for learner in learners:
        learner.fit()
    for record, labels in test:
        for floor, learner, sums in zip(wanted, learners, answers, strict=True):
            sums.append(pixel_tally(target, labels, learner.predict(floor.features(record))))
    return [
        FloorResult(floor.name, PixelResults.of(target, sums))
        for floor, sums in zip(wanted, answers, strict=True)
    ]


class _PixelLearner(Protocol):
    """Shown training records one by one, fitted once, then asked."""

    def learn_from(self, features: np.ndarray, labels: np.ndarray) -> None: ...

    def fit(self) -> None: ...

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Values or probabilities of one record, [pixels, outputs], NaN where it has no answer."""
        ...


class _DrawnPixels:
    """An estimator of single pixels: the same number is drawn of each record, ``MOST_PIXELS`` in all."""

    def __init__(self, estimator: EstimatorName, target: Target, records: int, seed: int) -> None:
        self.estimator, self.target, self.seed = estimator, target, seed
        self.random = np.random.default_rng(seed)
        self.quota = max(1, MOST_PIXELS // max(1, records))
        self.drawn: list[tuple[np.ndarray, np.ndarray]] = []

    def learn_from(self, features: np.ndarray, labels: np.ndarray) -> None:
        known = np.flatnonzero(np.isfinite(labels) & np.isfinite(features).all(1))
        chosen = self.random.permutation(known)[: self.quota]
        self.drawn.append((features[chosen], labels[chosen]))

    def fit(self) -> None:
        features, self.truth = map(np.concatenate, zip(*self.drawn, strict=True))
        self.drawn = []
        has_two = len(np.unique(self.truth)) > 1
        self.fitted = (
            _Fitted(self.estimator, self.target, features, self.truth, self.seed) if has_two else None
        )

    def predict(self, features: np.ndarray) -> np.ndarray:
        known = np.isfinite(features).all(1)
        predicted = np.full((len(features), self.target.outputs), np.nan)
        if known.any():
            predicted[known] = (
                self.fitted.predict(features[known])
                if self.fitted
                else _constant(self.target, self.truth, int(known.sum()))
            )
        return predicted


class _Network:
    """A U-Net, on the images of records; of more than fit into memory some are drawn."""

    def __init__(self, target: Target, sizes: tuple[int, int], epochs: int, seed: int) -> None:
        self.target, self.epochs, self.seed = target, epochs, seed
        self.training = DrawnImages(sizes[0], seed)
        self.validation = DrawnImages(sizes[1], seed, MOST_VALIDATION)

    def learn_from(self, features: np.ndarray, labels: np.ndarray) -> None:
        self.training.offer(features, labels)

    def validate_by(self, features: np.ndarray, labels: np.ndarray) -> None:
        self.validation.offer(features, labels)

    def fit(self) -> None:
        self.network = train_unet(
            self.target, self.training.images, self.validation.images, epochs=self.epochs, seed=self.seed
        )
        del self.training, self.validation

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.network.answer(features)


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
        self, estimator: EstimatorName, target: Target, features: np.ndarray, truth: np.ndarray, seed: int
    ) -> None:
        self.target = target
        needs_scale = estimator in ("neighbours", "linear")
        self.scaler = StandardScaler().fit(features.astype(np.float64)) if needs_scale else None
        is_number = target.kind == "regression"
        self.model = (_regressor if is_number else _classifier)(estimator, target, features.shape[1], seed)
        with warnings.catch_warnings():
            # A floor that would gain in the fourth digit by more steps is told enough by these.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.model.fit(self._scaled(features), truth if is_number else truth.astype(int))

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Features [n, f] -> values or probabilities [n, outputs]."""
        if self.target.kind == "regression":
            return self.model.predict(self._scaled(features))[:, None]
        # A class that the training rows never show keeps probability zero.
        by_class = np.zeros((len(features), max(self.target.outputs, 2)))
        by_class[:, self.model.classes_] = self.model.predict_proba(self._scaled(features))
        return by_class[:, 1:2] if self.target.kind == "binary" else by_class

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        # In double precision, or probabilities would sum to one but nearly.
        return features if self.scaler is None else self.scaler.transform(features.astype(np.float64))


def _regressor(estimator: EstimatorName, target: Target, features: int, seed: int) -> Any:
    if estimator == "forest":
        return RandomForestRegressor(
            TREES, max_features=_features_tried(features), n_jobs=-1, random_state=seed
        )
    if estimator == "neighbours":
        return KNeighborsRegressor(NEIGHBOURS)
    if estimator == "linear":
        return RidgeCV(STRENGTHS)
    raise ValueError(f"{estimator} does not answer {target.name!r}, a regression")


def _classifier(estimator: EstimatorName, target: Target, features: int, seed: int) -> Any:
    if estimator == "forest":
        return RandomForestClassifier(TREES, n_jobs=-1, random_state=seed)
    if estimator == "neighbours":
        return KNeighborsClassifier(NEIGHBOURS)
    if estimator == "linear":
        return LogisticRegression(C=WEAKNESS, max_iter=MOST_STEPS)
    if estimator == "threshold" and target.kind == "binary":
        return Threshold()
    raise ValueError(f"{estimator} does not answer {target.name!r}, {len(target.classes)} classes")
