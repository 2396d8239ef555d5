"""Where chips lie, and how far from one another, in whatever reference system they come."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform

from domains.geospatial.chips import Chip
from domains.geospatial.placing import place_of
from domains.places import nearest

SIDE = 16


def chip(crs: str, place: Affine, column: int = 0, row: int = 0) -> Chip:
    moved = place * Affine.translation(column * SIDE, row * SIDE)
    wkt = rasterio.crs.CRS.from_string(crs).to_wkt() if crs else ""
    return Chip(np.zeros((1, SIDE, SIDE), np.float32), "", 0, 0, wkt, tuple(moved)[:6])


def metres(one: Chip, other: Chip) -> float:
    return float(nearest([place_of(one)], [place_of(other)])[0][0])


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3035", "EPSG:2154"])
def test_chips_of_a_grid_in_metres(crs: str) -> None:
    x, y = transform("EPSG:4326", crs, [8.0], [48.0])
    grid = from_origin(x[0], y[0], 10, 10)
    for column, row, apart in [(0, 0, 0), (1, 0, 0), (1, 1, 0), (3, 0, 320), (0, -2, 160)]:
        found = metres(chip(crs, grid), chip(crs, grid, column, row))
        assert found == pytest.approx(apart, rel=0.002, abs=0.02)


def test_a_turned_grid_keeps_its_distances() -> None:
    grid = from_origin(500_000, 5_000_000, 10, 10) * Affine.rotation(30)
    assert metres(chip("EPSG:32632", grid), chip("EPSG:32632", grid, 1, 1)) == pytest.approx(0, abs=0.02)
    assert metres(chip("EPSG:32632", grid), chip("EPSG:32632", grid, 3)) == pytest.approx(320, rel=0.002)


def test_a_degree_of_longitude_is_short_in_the_north() -> None:
    """At 60° N half of that at the equator: 0.001° are 55.8 m on WGS 84."""
    grid = from_origin(20, 60, 0.001, 0.001)
    east = metres(chip("EPSG:4326", grid), chip("EPSG:4326", grid, 2))
    north = metres(chip("EPSG:4326", grid), chip("EPSG:4326", grid, 0, -2))
    assert (east, north) == (pytest.approx(16 * 55.8, rel=0.003), pytest.approx(16 * 111.4, rel=0.003))


def test_the_date_line_parts_nothing() -> None:
    west, east = from_origin(180 - 16e-4, 10, 1e-4, 1e-4), from_origin(-180, 10, 1e-4, 1e-4)
    assert metres(chip("EPSG:4326", west), chip("EPSG:4326", east)) == pytest.approx(0, abs=0.02)
    beyond = from_origin(180 + 16e-4, 10, 1e-4, 1e-4)
    assert metres(chip("EPSG:4326", west), chip("EPSG:4326", beyond)) == pytest.approx(175.4, rel=0.01)
    assert metres(chip("EPSG:4326", beyond), chip("EPSG:4326", east, 1)) == pytest.approx(0, abs=0.02)


def test_scenes_of_two_reference_systems_are_compared_on_the_ground() -> None:
    utm = from_origin(500_000, 5_000_000, 10, 10)
    [longitude], [latitude] = transform("EPSG:32632", "EPSG:4326", [500_000 + 480], [5_000_000 - 80])
    degrees = from_origin(longitude, latitude, 1e-4, 1e-4)
    assert metres(chip("EPSG:32632", utm), chip("EPSG:4326", degrees)) == pytest.approx(320, rel=0.01)


def test_what_has_no_place_on_the_earth_lies_nowhere() -> None:
    assert place_of(chip("", Affine.identity())) is None
    assert place_of(chip("EPSG:32632", from_origin(1e12, 1e12, 10, 10))) is None
