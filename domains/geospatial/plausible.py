"""Whether the numbers of a scene can be what its file says, as windows of it show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from domains.geospatial.bands import DISPLAY_BYTE, REFLECTANCE, REFLECTANCE_10000, BandSpec, unit_fault
from domains.geospatial.rasters import Header
from domains.geospatial.scenes import Scene

LOOKS = 3
"""Windows in which the numbers are looked at: one in each third across and down."""
LOOK = 128
"""Pixels on a side of such a window. It begins at a multiple of them, and so lies in one block of a tiled
file: all of a block is unpacked for any of its pixels."""
TILE = 512
"""Pixels on a side of the one window of a large scene in tiles. Most of its pixels cost nothing, so that few
blocks say most. It lies in the corner, where undeclared fillers lie if there are any."""
MOST_GAPS = 0.5
"""Share of pixels without data in a band, or that may be filled without a word, beyond which more windows are
looked at."""
MOST_ZEROS = 0.01
"""Share of pixels that are 0 in all bands beyond which these are hardly measured."""


def looked_at(scene: Scene, header: Header, used: Sequence[BandSpec]) -> tuple[str, bool]:
    """Why windows of the scene cannot be in the units of the bands that are ``used``, or empty.

    And whether zeros in them seem to be no data. ``used`` are some of the scene's own.
    """
    dtypes = [header.channels[scene.bands.index(band)].dtype for band in used]
    is_surely_bytes = all(
        dtype == "uint8" and band.unit == DISPLAY_BYTE and band.scale == 1.0
        for band, dtype in zip(used, dtypes, strict=True)
    )
    if is_surely_bytes:
        return "", False
    side = TILE if header.has_tiles and min(scene.height, scene.width) > LOOKS * TILE else LOOK
    rows, columns = _places(scene.height, side), _places(scene.width, side)
    first = [(row, columns[(place + 1) % len(columns)]) for place, row in enumerate(rows)]
    if side == TILE:
        first = [(0, 0)]
    looks = [_pixels(scene, place, side, used) for place in first]
    if _mostly_nothing(np.concatenate(looks, axis=1), used):  # beyond the swath, maybe
        looks += [_pixels(scene, place, side, used) for place in product(rows, columns) if place not in first]
    pixels = np.concatenate(looks, axis=1)
    fault = unit_fault(pixels, used, dtypes)
    return fault, not fault and _has_silent_zeros(pixels, used)


def _mostly_nothing(pixels: np.ndarray, bands: Sequence[BandSpec]) -> bool:
    is_nothing = np.isnan(pixels) | (pixels == _stored_zeros(bands)).all(axis=0)
    return bool((is_nothing.mean(axis=1) > MOST_GAPS).any())


def _stored_zeros(bands: Sequence[BandSpec]) -> np.ndarray:
    """What a zero in the file is in the units of each band, [bands, 1]."""
    return np.array([[band.offset] for band in bands], np.float32)


def _has_silent_zeros(pixels: np.ndarray, bands: Sequence[BandSpec]) -> bool:
    """No surface reflects nothing at all in several bands at once."""
    if len(bands) < 2 or any(
        band.unit not in (REFLECTANCE, REFLECTANCE_10000) or band.nodata is not None for band in bands
    ):
        return False
    known = np.isfinite(pixels).all(axis=0)
    return bool(known.any()) and (pixels == _stored_zeros(bands))[:, known].all(axis=0).mean() > MOST_ZEROS


def _pixels(scene: Scene, place: tuple[int, int], side: int, bands: Sequence[BandSpec]) -> np.ndarray:
    """LOOK² pixels of each band, evenly from a window of ``side`` pixels."""
    window = scene.read(*place, side, side, bands)
    return window[:, :: side // LOOK, :: side // LOOK].reshape(len(bands), -1)


def _places(size: int, side: int) -> Sequence[int]:
    return sorted({int(place) // side * side for place in np.linspace(0, max(size - side, 0), LOOKS)})
