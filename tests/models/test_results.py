"""Figures from what each record adds: they must be those of all pixels together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import accuracy_score, jaccard_score, mean_absolute_error, r2_score

from domains.contract import Target
from models.results import BINS, PixelResults, SampleResults, Tally, class_ious, pixel_tally

COVER = Target(
    name="mask",
    kind="multiclass",
    classes=("water", "forest", "Built-up area"),
    level="pixel",
    values=(0, 1, 5),
)
BURNT = Target(name="mask", kind="binary", classes=("0", "1"), level="pixel", values=(0, 1))
BIOMASS = Target(name="mask", kind="regression", unit="t/ha", level="pixel")


def only_sums(target: Target, sums: np.ndarray) -> PixelResults:
    return PixelResults.of(target, [Tally(each, np.zeros((BINS, 3))) for each in sums])


def probabilities(codes: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[codes]


@given(st.data())
def test_classes_are_scored_as_all_pixels_together(data: st.DataObject) -> None:
    codes = st.integers(0, 2)
    shape = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9)))
    truth = data.draw(arrays.arrays(np.int64, shape, elements=codes))
    predicted = data.draw(arrays.arrays(np.int64, shape, elements=codes))
    results = PixelResults.of(
        COVER,
        [
            pixel_tally(COVER, t.astype(float), probabilities(p, 3))
            for t, p in zip(truth, predicted, strict=True)
        ],
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
    assert pixel_tally(BURNT, truth, predicted).sums.tolist() == [[1, 0], [0, 1]]


def test_classes_are_named_in_figures_and_absent_ones_left_out() -> None:
    sums = np.zeros((1, 3, 3), np.int64)
    sums[0, 2, 2], sums[0, 0, 2] = 3, 1
    figures = only_sums(COVER, sums).metrics()
    assert figures == pytest.approx(
        {"miou": 0.375, "accuracy": 0.75, "iou_water": 0.0, "iou_built_up_area": 0.75}
    )
    assert np.isnan(class_ious(sums[0])[1])
    assert only_sums(COVER, np.zeros((2, 3, 3), np.int64)).metrics() == {}


def test_regression_is_scored_as_all_pixels_together() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(50, 20, (5, 40))
    predicted = truth + random.normal(0, 5, truth.shape)
    truth[0, :7] = np.nan
    results = PixelResults.of(
        BIOMASS, [pixel_tally(BIOMASS, t, p[:, None]) for t, p in zip(truth, predicted, strict=True)]
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


def test_chances_are_counted_by_how_probable_an_answer_is() -> None:
    random = np.random.default_rng(0)
    chance = random.random(20_000).astype(np.float32)
    truth = (random.random(20_000) < chance).astype(float)
    truth[:5] = np.nan
    results = PixelResults.of(BURNT, [pixel_tally(BURNT, truth, chance[:, None])] * 2)
    pixels, said, so = results.chances.sum(0).T
    assert pixels.sum() == 2 * 19_995
    np.testing.assert_allclose(said / pixels, (np.arange(BINS) + 0.5) / BINS, atol=0.01)
    np.testing.assert_allclose(so / pixels, said / pixels, atol=0.06)
    assert results.at(np.array([1])).chances.sum() == results.chances.sum() / 2

    phases = random.dirichlet([1, 1, 1], 300)
    tally = pixel_tally(COVER, phases.argmax(1).astype(float), phases)
    assert tally.chances[:, 0].sum() == tally.chances[:, 2].sum() == 300  # the most probable is right
    assert not tally.chances[: BINS // 3, 0].any()
