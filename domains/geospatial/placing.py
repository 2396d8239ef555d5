"""Where a chip lies on the Earth."""

from __future__ import annotations

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform as convert

from domains.abilities import Place
from domains.contract import GroundworkError
from domains.geospatial.chips import Chip
from domains.geospatial.rasters import EARTH_RADIUS, explained, parsed_crs

LONGITUDE_LATITUDE = CRS.from_epsg(4326)
FLATTENING = 1 / 298.257223563
"""Of WGS 84."""


def place_of(chip: Chip) -> Place | None:
    """The corners of a chip in metres from the middle of the Earth; None where it has no location."""
    if not chip.crs:
        return None
    a, b, c, d, e, f = chip.transform
    side = chip.pixels.shape[-1]
    columns, rows = np.array([0, side, side, 0]), np.array([0, 0, side, side])
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    found = _in_degrees(chip, x, y)
    return None if found is None else _geocentric(*map(np.radians, found))


def middle_of(chip: Chip) -> tuple[float, float] | None:
    """Longitude and latitude in degrees of the middle of a chip; None where it has no location."""
    if not chip.crs:
        return None
    a, b, c, d, e, f = chip.transform
    half = chip.pixels.shape[-1] / 2
    found = _in_degrees(chip, np.array([c + (a + b) * half]), np.array([f + (d + e) * half]))
    return None if found is None else (float(found[0][0]), float(found[1][0]))


def _in_degrees(chip: Chip, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Longitudes and latitudes of coordinates of a chip [n]; None where its system does not reach them."""
    try:
        with explained(chip.scene):
            found = convert(parsed_crs(chip.crs), LONGITUDE_LATITUDE, x.tolist(), y.tolist())
    except GroundworkError:
        return None
    longitudes, latitudes = map(np.array, found)
    return (longitudes, latitudes) if np.isfinite([longitudes, latitudes]).all() else None


def _geocentric(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Radians [n] on the ellipsoid of WGS 84 -> metres [n, 3] (EPSG:4978)."""
    squared = FLATTENING * (2 - FLATTENING)
    normal = EARTH_RADIUS / np.sqrt(1 - squared * np.sin(latitude) ** 2)
    return np.stack(
        [
            normal * np.cos(latitude) * np.cos(longitude),
            normal * np.cos(latitude) * np.sin(longitude),
            normal * (1 - squared) * np.sin(latitude),
        ],
        axis=-1,
    )
