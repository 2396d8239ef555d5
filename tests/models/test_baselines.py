"""Floors learn what can be learnt from features, and survive labels that have nothing to teach."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import LOGP, PHASE, TOXIC

from domains.contract import Target
from models import baselines
from models.baselines import fit_floor

ROWS = 120
TRAIN, TEST = np.arange(90), np.arange(90, ROWS)
FEATURES = np.random.default_rng(0).normal(size=(ROWS, 4))


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "TREES", 30)


def fit(estimator, targets: list[Target], labels: np.ndarray, seed: int = 0) -> baselines.FloorResult:
    return fit_floor("floor", estimator, targets, FEATURES, labels, TRAIN, TEST, seed)


@pytest.mark.parametrize("estimator", ["forest", "neighbours"])
def test_each_kind_of_target_beats_chance(estimator: str) -> None:
    value = FEATURES[:, :1] * 2
    labels = np.concatenate([value, value > 0, np.digitize(value, [-1, 1])], axis=1)
    floor = fit(estimator, [LOGP, TOXIC, PHASE], labels)
    assert floor.results.predicted.shape == (len(TEST), 5)
    assert floor.metrics["r2"] > 0.3
    assert floor.metrics["auroc"] > 0.8
    assert floor.metrics["accuracy"] > 0.6
    np.testing.assert_allclose(floor.results.predicted[:, 2:].sum(1), 1)
    assert ((floor.results.predicted[:, 1] >= 0) & (floor.results.predicted[:, 1] <= 1)).all()


def test_scale_of_a_feature_does_not_matter_to_neighbours() -> None:
    labels = FEATURES[:, :1] * 2
    known = fit("neighbours", [LOGP], labels)
    scaled = FEATURES * [1, 1000, 0.001, 1]
    other = fit_floor("floor", "neighbours", [LOGP], scaled, labels, TRAIN, TEST, 0)
    np.testing.assert_allclose(known.results.predicted, other.results.predicted)


def test_gaps_are_left_out_of_training() -> None:
    labels = FEATURES[:, :1].copy()
    poisoned = labels.copy()
    labels[:30] = np.nan
    without = fit_floor("floor", "forest", [LOGP], FEATURES, poisoned, TRAIN[30:], TEST, 0)
    np.testing.assert_allclose(fit("forest", [LOGP], labels).results.predicted, without.results.predicted)


def test_test_labels_teach_nothing() -> None:
    labels = FEATURES[:, :1].copy()
    before = fit("forest", [LOGP], labels).results.predicted
    labels[TEST] = 1e6
    np.testing.assert_allclose(fit("forest", [LOGP], labels).results.predicted, before)


def test_the_seed_decides() -> None:
    labels = FEATURES[:, :1]
    one, again, other = (fit("forest", [LOGP], labels, seed).results.predicted for seed in (1, 1, 2))
    np.testing.assert_allclose(one, again)
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [(LOGP, 3.5, [3.5]), (TOXIC, 1.0, [1.0]), (TOXIC, 0.0, [0.0]), (PHASE, 2.0, [0, 0, 1])],
)
def test_one_label_among_the_training_rows_is_all_it_knows(
    target: Target, value: float, expected: list[float]
) -> None:
    labels = np.full((ROWS, 1), value)
    assert fit("forest", [target], labels).results.predicted.tolist() == [expected] * len(TEST)


def test_no_label_at_all_is_no_crash() -> None:
    labels = np.concatenate([FEATURES[:, :1], np.full((ROWS, 1), np.nan)], axis=1)
    floor = fit("forest", [LOGP, LOGP], labels)
    assert np.isfinite(floor.results.predicted).all()
    assert floor.metrics["r2"] > 0.3


def test_a_class_missing_from_training_has_no_chance() -> None:
    labels = (FEATURES[:, :1] > 0).astype(float)
    labels[TEST[:3]] = 2
    floor = fit("forest", [PHASE], labels)
    assert floor.results.predicted.shape == (len(TEST), 3)
    assert not floor.results.predicted[:, 2].any()
