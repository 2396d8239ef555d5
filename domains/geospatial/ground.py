"""How large pixels are on the ground."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from rasterio import Affine

from domains.contract import GroundworkError

NODES = 9
"""Pixels along each side of an area that are measured; between them, sizes change smoothly."""


def pixel_areas(crs: str, transform: Affine, row: int, column: int, height: int, width: int) -> np.ndarray:
    """Areas in m² of the pixels of a window on the ellipsoid of ``crs`` (WKT), float64 [height, width].

    Pixels are measured in Lambert's azimuthal equal-area projection (Snyder 1987, page 182) about the middle
    of the window, where every CRS shows its true areas: degrees, and projections that stretch. Raises
    GroundworkError for a CRS that says no place on a body.
    """
    rows, columns = (row + _nodes(height)), (column + _nodes(width))
    known = CRS.from_wkt(crs)
    if known.geodetic_crs is None or known.ellipsoid is None:
        raise GroundworkError("its CRS says no place on the Earth: areas cannot be told")
    try:
        x, y = _coordinates(transform, column + width / 2, row + height / 2)
        to_degrees = Transformer.from_crs(known, known.geodetic_crs, always_xy=True)
        middle = to_degrees.transform(x, y, errcheck=True)
        equal_area = CRS.from_dict({
            "proj": "laea", "lon_0": middle[0], "lat_0": middle[1],
            "a": known.ellipsoid.semi_major_metre, "b": known.ellipsoid.semi_minor_metre,
        })  # fmt: skip
        project = Transformer.from_crs(known, equal_area, always_xy=True)
        grid_columns, grid_rows = np.meshgrid(columns, rows)

        def measured(right: float, down: float) -> np.ndarray:
            x, y = _coordinates(transform, grid_columns + right, grid_rows + down)
            return np.array(project.transform(x, y, errcheck=True))

        across = measured(0.5, 0) - measured(-0.5, 0)
        along = measured(0, 0.5) - measured(0, -0.5)
    except ProjError as error:
        raise GroundworkError("a part of it lies outside of its CRS: areas cannot be told") from error
    areas = np.abs(across[0] * along[1] - across[1] * along[0])
    by_row = np.array([np.interp(column + np.arange(width) + 0.5, columns, line) for line in areas])
    return np.array([np.interp(row + np.arange(height) + 0.5, rows, line) for line in by_row.T]).T


def _nodes(length: int) -> np.ndarray:
    """Middles of pixels, from the first to the last of ``length``."""
    return np.linspace(0.5, length - 0.5, min(NODES, length))


def _coordinates(grid: Affine, column: np.ndarray | float, row: np.ndarray | float) -> tuple[Any, Any]:
    return grid.a * column + grid.b * row + grid.c, grid.d * column + grid.e * row + grid.f
