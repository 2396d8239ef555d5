"""The picture of a map: north up, and true to scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from scenes_to_map import (
    NORTH_UP,
)

from domains.geospatial.quick_look import north_up, pixel_metres


def test_the_quick_look_of_a_scene_upside_down_has_its_north_up(tmp_path: Path) -> None:
    picture = np.zeros((2, 3, 3))
    picture[0, 0] = 1  # the first row lies in the south
    (turned,), grid = north_up([picture], Affine(10, 0, 0, 0, 10, 0))
    assert turned.shape == picture.shape
    assert (turned[1, 0] == 1).all()
    assert (grid.a, grid.e, grid.f) == (10, -10, 20)


def test_the_scale_is_measured_on_the_ground() -> None:
    def metres(epsg: int, grid: Affine) -> tuple[float, float] | None:
        return pixel_metres(rasterio.crs.CRS.from_epsg(epsg).to_wkt(), grid, 2, 2)

    assert metres(32633, NORTH_UP) == pytest.approx((10, 10), rel=0.01)
    at_60_north = metres(4326, Affine(0.001, 0, 12, 0, -0.001, 60))
    assert at_60_north == pytest.approx((55.6, 111.2), rel=0.01)
    assert metres(3857, Affine(10, 0, 0, 0, -10, 8_399_738)) == pytest.approx((5, 5), rel=0.02)
    mars = rasterio.crs.CRS.from_string("+proj=eqc +a=3396190 +b=3396190 +units=m").to_wkt()
    assert pixel_metres(mars, NORTH_UP, 2, 2) == pytest.approx((10, 10))
    assert pixel_metres("", NORTH_UP, 2, 2) is None
