"""Small scenes on disk, each where it is put."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

PIXEL = 20
"""Metres."""
APART = 20_000
"""Metres between the corners of scenes in two columns: no two of them share a block of chips."""


def write_scene(path: Path, pixels: np.ndarray, names: Sequence[str] = (), column: int = 0) -> Path:
    """A GeoTIFF of pixels [bands, h, w] in UTM zone 32, whose bands have these names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype,
        crs="EPSG:32632", transform=from_origin(500_000 + APART * column, 5_000_000, PIXEL, PIXEL),
    ) as file:  # fmt: skip
        file.write(pixels)
        if names:
            file.descriptions = tuple(names)
    return path
