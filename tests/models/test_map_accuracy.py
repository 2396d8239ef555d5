"""Accuracies and areas of a map: the worked example of the paper, and what clusters do to an interval."""

from __future__ import annotations

import numpy as np
import pytest

from models.map_accuracy import class_accuracies, estimate_areas

# Olofsson et al. 2014, tables 8 and 9: deforestation, forest gain, stable forest, stable non-forest. Sample
# counts by (map, reference), shares of the map, and an area of 10 million hectares.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED = np.array([0.020, 0.015, 0.320, 0.645])
HECTARES = 10_000_000


def one_by_one(counts: np.ndarray) -> np.ndarray:
    """Counts by (map, reference) as single pixels by (truth, answer), [n, classes, classes]."""
    return np.concatenate(
        [np.repeat(np.eye(counts.size)[[place]], number, 0) for place, number in enumerate(counts.T.ravel())]
    ).reshape(-1, *counts.shape)


def test_the_paper_s_example_comes_out() -> None:
    pixels = one_by_one(COUNTS)
    np.testing.assert_array_equal(pixels.sum(0), COUNTS.T)
    found = estimate_areas(pixels, np.arange(len(pixels)), MAPPED)
    assert found.estimated[0] * HECTARES == pytest.approx(235_086, abs=1)
    assert 1.96 * found.error[0] * HECTARES == pytest.approx(68_418, abs=1)
    assert found.reach[0] * HECTARES == pytest.approx(68_418, rel=0.003)  # t of 639 degrees, not the normal
    assert found.estimated.sum() == pytest.approx(1)
    users = class_accuracies(COUNTS.T).users
    np.testing.assert_allclose(users, [0.88, 0.73, 0.93, 0.96], atol=0.005)


def test_pixels_alike_within_their_cluster_say_no_more_than_one() -> None:
    pixels = one_by_one(COUNTS)
    alone = estimate_areas(pixels, np.arange(len(pixels)), MAPPED)
    ninefold = estimate_areas(9 * pixels, np.arange(len(pixels)), MAPPED)
    np.testing.assert_allclose(ninefold.error, alone.error)
    taken_apart = estimate_areas(np.repeat(pixels, 9, 0), np.arange(9 * len(pixels)), MAPPED)
    assert (taken_apart.error < 0.4 * alone.error).all()


@pytest.mark.parametrize(("wrong", "is_mapped"), [(0.15, True), (0.15, False), (0.02, False)])
def test_the_interval_holds_the_truth_as_often_as_it_says(wrong: float, is_mapped: bool) -> None:
    """Clusters of 50 pixels that are alike: drawn from a known world, 95% of the intervals hold its share.

    Without a map of the world they do, too, however good the map of the sample is.
    """
    random = np.random.default_rng(0)
    share, held, clusters = 0.3, 0, 40
    for _ in range(400):
        is_one = random.beta(0.3 * 4, 0.7 * 4, clusters)[:, None] > random.random((clusters, 50))
        answer = np.where(random.random(is_one.shape) < wrong, ~is_one, is_one)
        confusions = np.stack(
            [
                np.bincount(2 * t + a, minlength=4).reshape(2, 2)
                for t, a in zip(is_one * 1, answer * 1, strict=True)
            ]
        )
        ones = share * (1 - wrong) + (1 - share) * wrong  # in the map of the world
        mapped = np.array([1 - ones, ones]) if is_mapped else None
        found = estimate_areas(confusions, np.arange(clusters), mapped)
        held += abs(found.estimated[1] - share) <= found.reach[1]
    assert 0.91 <= held / 400 <= 0.985


def test_without_a_map_beyond_the_sample_the_estimate_is_the_reference() -> None:
    confusions = np.array([[[8, 2], [1, 9]], [[5, 0], [5, 10]], [[9, 1], [0, 0]]])
    found = estimate_areas(confusions, np.array([3, 3, 7]))
    total = confusions.sum(0)
    np.testing.assert_allclose(found.estimated, total.sum(1) / total.sum())
    np.testing.assert_allclose(found.mapped, total.sum(0) / total.sum())
    assert found.clusters == 2
    assert np.isfinite(found.error).all()


def test_what_one_cluster_alone_holds_has_no_interval() -> None:
    confusions = np.array([[[8, 0, 0], [1, 9, 0], [0, 0, 4]], [[5, 0, 0], [2, 3, 0], [0, 0, 0]]])
    mapped = confusions.sum((0, 1)) / confusions.sum()
    found = estimate_areas(confusions, np.arange(2), mapped)
    assert np.isfinite(found.error[:2]).all()
    assert np.isnan(found.error[2])
    assert np.isnan(found.reach[2])
    with pytest.raises(ValueError, match="no pixel of it"):
        estimate_areas(confusions[:, :2, :2] * [1, 0], np.arange(2), np.array([0.5, 0.5]))


def test_accuracies_by_hand() -> None:
    found = class_accuracies(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    np.testing.assert_allclose(found.users, [6 / 7, 3 / 5, np.nan])
    np.testing.assert_allclose(found.producers, [6 / 8, 3 / 4, np.nan])
    np.testing.assert_allclose(found.iou, [6 / 9, 3 / 6, np.nan])
