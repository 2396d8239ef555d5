"""Distances between outlines, worked out by hand on a ball as large as the Earth."""

from __future__ import annotations

import numpy as np
import pytest

from domains.abilities import Place
from domains.places import nearest

RADIUS = 6_371_000.0


def square(east: float, north: float, side: float = 100.0, turned: float = 0.0) -> Place:
    """Corners of a square whose middle is ``east`` and ``north`` metres from 30° E on the equator."""
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side / 2
    cosine, sine = np.cos(turned), np.sin(turned)
    flat = half @ np.array([[cosine, sine], [-sine, cosine]]) + [east, north]
    longitude, latitude = np.radians(30) + flat[:, 0] / RADIUS, flat[:, 1] / RADIUS
    return RADIUS * np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], -1
    )


def metres(one: Place, *others: Place) -> float:
    return float(nearest([one], others)[0][0])


@pytest.mark.parametrize(
    ("east", "north", "expected"),
    [
        (100, 0, 0),
        (100, 100, 0),
        (0, 0, 0),
        (30, 40, 0),
        (200, 0, 100),
        (200, -200, 2**0.5 * 100),
        (150, 60, 50),
    ],
)
def test_the_gap_between_squares(east: float, north: float, expected: float) -> None:
    assert metres(square(0, 0), square(east, north)) == pytest.approx(expected, abs=0.02)


def test_squares_that_overlap_in_any_way_touch() -> None:
    assert metres(square(0, 0), square(0, 0, 20)) == 0
    assert metres(square(0, 0, 20), square(10, 5, 100)) == 0
    assert metres(square(0, 0), square(0, 0, turned=np.pi / 4)) == 0
    assert metres(square(0, 0), square(120.72, 0, turned=np.pi / 4)) == pytest.approx(0, abs=0.05)
    assert metres(square(0, 0), square(130, 0, turned=np.pi / 4)) == pytest.approx(9.29, abs=0.05)


def test_far_away_and_on_the_other_side_of_the_earth() -> None:
    assert metres(square(0, 0), square(50_100, 0)) == pytest.approx(50_000, rel=1e-4)
    assert metres(square(0, 0), square(np.pi * RADIUS, 0)) == pytest.approx(2 * RADIUS, rel=1e-4)


def test_a_large_neighbour_is_nearer_than_a_small_one_whose_middle_is() -> None:
    distances, which = nearest([square(0, 0)], [square(300, 0, 10), square(-500, 0, 800)])
    assert (distances[0], which[0]) == (pytest.approx(50, abs=0.1), 1)


def test_what_lies_nowhere_has_no_distance() -> None:
    distances, which = nearest([None, square(0, 0)], [None, None, square(300, 0)])
    assert np.isnan(distances[0])
    assert (distances[1], which.tolist()) == (pytest.approx(200, abs=0.02), [-1, 2])
    assert np.isnan(nearest([square(0, 0)], [None])[0]).all()
    assert nearest([], [])[0].shape == (0,)
