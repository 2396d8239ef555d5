"""Scenes and masks small enough to send, as bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

BANDS = ("B2", "B3", "B8A")
"""Names that only one sensor has."""


def tiff(names: Sequence[str] = BANDS, seed: int = 0, side: int = 40) -> bytes:
    """A GeoTIFF of reflectance × 10000 with a place."""
    pixels = np.random.default_rng(seed).integers(100, 4000, (len(names), side, side)).astype("uint16")
    return _written(pixels, names)


def mask(seed: int = 0, side: int = 40) -> bytes:
    """Labels 0 and 1."""
    return _written(np.random.default_rng(seed).integers(0, 2, (1, side, side)).astype("uint8"), ())


def _written(pixels: np.ndarray, names: Sequence[str]) -> bytes:
    count, height, width = pixels.shape
    placed = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_000_000, 20, 20)}
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype, **placed
        ) as file:
            file.write(pixels)
            if names:
                file.descriptions = tuple(names)
        return bytes(memory.read())


def zipped(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def labelled(seed: int = 0, names: Sequence[str] = BANDS) -> dict[str, bytes]:
    """Two scenes with their masks."""
    return {
        "scars/images/a.tif": tiff(names, seed),
        "scars/images/b.tif": tiff(names, seed + 1),
        "scars/masks/a.tif": mask(seed),
        "scars/masks/b.tif": mask(seed + 1),
    }
