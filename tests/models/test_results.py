"""Figures from what each record adds: they must be those of all pixels together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import accuracy_score, jaccard_score, mean_absolute_error, r2_score

from domains.contract import Target
from models.baselines import fit_pixel_floor
from models.results import PixelResults, SampleResults, class_ious, pixel_sums

COVER = Target(
    name="mask",
    kind="multiclass",
    classes=("water", "forest", "Built-up area"),
    level="pixel",
    values=(0, 1, 5),
)
BURNT = Target(name="mask", kind="binary", classes=("0", "1"), level="pixel", values=(0, 1))
BIOMASS = Target(name="mask", kind="regression", unit="t/ha", level="pixel")


def probabilities(codes: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[codes]


@given(st.data())
def test_classes_are_scored_as_all_pixels_together(data: st.DataObject) -> None:
    codes = st.integers(0, 2)
    shape = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9)))
    truth = data.draw(arrays.arrays(np.int64, shape, elements=codes))
    predicted = data.draw(arrays.arrays(np.int64, shape, elements=codes))
    results = PixelResults(
        COVER,
        np.stack(
            [
                pixel_sums(COVER, t.astype(float), probabilities(p, 3))
                for t, p in zip(truth, predicted, strict=True)
            ]
        ),
    )
    figures = results.metrics()
    present = np.union1d(truth, predicted)
    expected = jaccard_score(truth.ravel(), predicted.ravel(), labels=present, average="macro")
    assert figures["miou"] == pytest.approx(expected)
    assert figures["accuracy"] == pytest.approx(accuracy_score(truth.ravel(), predicted.ravel()))
    assert results.confusion.sum() == truth.size


def test_pixels_without_truth_or_answer_do_not_count() -> None:
    truth = np.array([0, 1, np.nan, 1])
    predicted = np.array([[0.1], [0.9], [0.9], [np.nan]])
    assert pixel_sums(BURNT, truth, predicted).tolist() == [[1, 0], [0, 1]]


def test_classes_are_named_in_figures_and_absent_ones_left_out() -> None:
    sums = np.zeros((1, 3, 3), np.int64)
    sums[0, 2, 2], sums[0, 0, 2] = 3, 1
    figures = PixelResults(COVER, sums).metrics()
    assert figures == pytest.approx(
        {"miou": 0.375, "accuracy": 0.75, "iou_water": 0.0, "iou_built_up_area": 0.75}
    )
    assert np.isnan(class_ious(sums[0])[1])
    assert PixelResults(COVER, np.zeros((2, 3, 3), np.int64)).metrics() == {}


def test_regression_is_scored_as_all_pixels_together() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(50, 20, (5, 40))
    predicted = truth + random.normal(0, 5, truth.shape)
    truth[0, :7] = np.nan
    results = PixelResults(
        BIOMASS, np.stack([pixel_sums(BIOMASS, t, p[:, None]) for t, p in zip(truth, predicted, strict=True)])
    )
    known = np.isfinite(truth)
    figures = results.metrics()
    assert figures["mae"] == pytest.approx(mean_absolute_error(truth[known], predicted[known]))
    assert figures["r2"] == pytest.approx(r2_score(truth[known], predicted[known]))
    again = np.array([1, 1, 3])
    some = results.metrics(again)
    assert some["mae"] == pytest.approx(mean_absolute_error(truth[again].ravel(), predicted[again].ravel()))


def test_rows_of_sample_results_can_be_drawn_again() -> None:
    target = Target(name="logp", kind="regression")
    results = SampleResults((target,), np.array([[1.0], [2.0], [4.0]]), np.array([[1.0], [3.0], [1.0]]))
    assert len(results) == 3
    assert results.metrics()["mae"] == pytest.approx(4 / 3)
    assert results.metrics(np.array([1, 1, 0]))["mae"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("estimator", ["forest", "neighbours"])
def test_a_pixel_floor_learns_from_pixels_and_skips_those_without_data(estimator: str) -> None:
    random = np.random.default_rng(1)

    def chips(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        made = []
        for _ in range(count):
            codes = random.integers(0, 3, 100)
            features = codes[:, None] + random.normal(0, 0.1, (100, 2))
            features[:5] = np.nan
            truth = codes.astype(float)
            truth[5:9] = np.nan
            made.append((features, truth))
        return made

    floor = fit_pixel_floor("bands", estimator, COVER, chips(6), 6, chips(3), seed=0)  # type: ignore[arg-type]
    assert isinstance(floor.results, PixelResults)
    assert floor.results.confusion.sum() == 3 * 91
    assert floor.metrics["miou"] > 0.95


def test_a_pixel_floor_that_saw_one_class_predicts_it() -> None:
    chip = (np.zeros((4, 1)), np.ones(4))
    floor = fit_pixel_floor(
        "bands", "forest", BURNT, [chip], 1, [(np.zeros((4, 1)), np.array([0, 1, 1, 1.0]))], 0
    )
    assert floor.metrics["accuracy"] == 0.75
