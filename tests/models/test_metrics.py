"""Figures of merit on rows whose answer can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import LOGP, PHASE, TOXIC

from models.metrics import better, primary_metric, target_metrics, task_metrics


def test_regression_by_hand() -> None:
    figures = target_metrics(LOGP, np.array([1.0, 3.0, np.nan]), np.array([[2.0], [3.0], [99.0]]))
    assert figures == pytest.approx({"mae": 0.5, "rmse": 0.5**0.5, "r2": 1 - 1 / 2})


def test_no_r2_where_the_truth_does_not_vary() -> None:
    assert target_metrics(LOGP, np.array([2.0, 2.0]), np.array([[1.0], [3.0]])) == {"mae": 1.0, "rmse": 1.0}


def test_binary_by_hand() -> None:
    truth, predicted = np.array([0, 1, 1, 0, np.nan]), np.array([[0.1], [0.9], [0.4], [0.3], [0.9]])
    assert target_metrics(TOXIC, truth, predicted) == pytest.approx(
        {"accuracy": 0.75, "f1": 2 / 3, "auroc": 1.0, "auprc": 1.0}
    )
    reversed_ranks = target_metrics(TOXIC, truth, 1 - predicted)
    assert reversed_ranks["auroc"] == pytest.approx(0)


def test_one_class_among_the_rows_has_no_ranking() -> None:
    assert target_metrics(TOXIC, np.array([1.0, 1.0]), np.array([[0.9], [0.2]])) == pytest.approx(
        {"accuracy": 0.5, "f1": 2 / 3}
    )


def test_multiclass_by_hand() -> None:
    chances = np.array([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    figures = target_metrics(PHASE, np.array([0.0, 1.0]), chances)
    assert figures["accuracy"] == 0.5
    assert figures["log_loss"] == pytest.approx(-(np.log(0.5) + np.log(0.3)) / 2)


def test_nothing_measured_has_no_figure() -> None:
    assert target_metrics(LOGP, np.array([np.nan]), np.array([[1.0]])) == {}


def test_a_task_averages_over_the_targets_that_can_be_scored() -> None:
    truth = np.array([[1.0, 2.0, np.nan], [3.0, 2.0, np.nan]])
    predicted = np.array([[2.0, 5.0, 0.0], [4.0, 5.0, 0.0]])
    figures = task_metrics([LOGP, LOGP, LOGP], truth, predicted)
    assert figures["mae"] == pytest.approx((1 + 3) / 2)
    assert figures["r2"] == pytest.approx(0)


def test_outputs_of_a_mixed_task_lie_side_by_side() -> None:
    truth = np.array([[2.0, 1.0, 7.0], [0.0, 0.0, 9.0]])
    predicted = np.array([[0.1, 0.1, 0.8, 0.9, 7.0], [0.8, 0.1, 0.1, 0.2, 9.0]])
    figures = task_metrics([PHASE, TOXIC, LOGP], truth, predicted)
    assert (figures["accuracy"], figures["auroc"], figures["mae"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("target", "metric", "good", "bad"),
    [(LOGP, "mae", 0.1, 0.2), (TOXIC, "auroc", 0.9, 0.8), (PHASE, "accuracy", 0.9, 0.8)],
)
def test_what_decides_and_which_way(target, metric: str, good: float, bad: float) -> None:
    assert primary_metric([target, LOGP]) == metric
    assert better(metric, good, bad)
    assert not better(metric, bad, good)
    assert not better(metric, good, good)
