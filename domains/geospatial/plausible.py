"""Whether the numbers of a scene can be what its file says, as windows of it show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from domains.geospatial.bands import DISPLAY_BYTE, REFLECTANCE, REFLECTANCE_10000, unit_fault
from domains.geospatial.rasters import Header
from domains.geospatial.scenes import Scene

LOOKS = 3
"""Windows in which the numbers are looked at: one in each third across and down."""
LOOK = 128
"""Pixels on a side of such a window. It begins at a multiple of them, and so lies in one block of a tiled
file: all of a block is unpacked for any of its pixels."""
MOST_ZEROS = 0.01
"""Share of pixels that are 0 in all bands beyond which these are hardly measured."""


def looked_at(scene: Scene, header: Header) -> tuple[str, bool]:
    """Why windows of the scene cannot be in its units, or empty; and whether zeros seem to be no data."""
    is_surely_bytes = all(
        channel.dtype == "uint8" and band.unit == DISPLAY_BYTE and band.scale == 1.0
        for band, channel in zip(scene.bands, header.channels, strict=True)
    )
    if is_surely_bytes:
        return "", False
    rows, columns = _places(scene.height), _places(scene.width)
    apart = [(row, columns[(place + 1) % len(columns)]) for place, row in enumerate(rows)]
    looks = [_pixels(scene, place) for place in apart]
    if any(np.isnan(np.concatenate(looks, axis=1)).all(axis=1)):  # beyond the swath, maybe
        looks += [_pixels(scene, place) for place in product(rows, columns) if place not in apart]
    pixels = np.concatenate(looks, axis=1)
    fault = unit_fault(pixels, scene.bands, [channel.dtype for channel in header.channels])
    return fault, not fault and _has_silent_zeros(pixels, scene)


def _has_silent_zeros(pixels: np.ndarray, scene: Scene) -> bool:
    """No surface reflects nothing at all in several bands at once."""
    bands = scene.bands
    if len(bands) < 2 or any(
        band.unit not in (REFLECTANCE, REFLECTANCE_10000) or band.nodata is not None for band in bands
    ):
        return False
    stored_zero = np.array([[band.offset] for band in bands], np.float32)
    known = np.isfinite(pixels).all(axis=0)
    return bool(known.any()) and (pixels == stored_zero)[:, known].all(axis=0).mean() > MOST_ZEROS


def _pixels(scene: Scene, place: tuple[int, int]) -> np.ndarray:
    return scene.read(*place, LOOK, LOOK, scene.bands).reshape(len(scene.bands), -1)


def _places(size: int) -> Sequence[int]:
    return sorted({int(place) // LOOK * LOOK for place in np.linspace(0, max(size - LOOK, 0), LOOKS)})
