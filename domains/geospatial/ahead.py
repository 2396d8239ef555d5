"""Chips that are read one after the other share their reads: a row of them costs one, not one each."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from domains.contract import GroundworkError
from domains.geospatial.bands import BandSpec
from domains.geospatial.opened import open_raster
from domains.geospatial.rasters import Raster
from domains.geospatial.scenes import Scene

MOST_AHEAD = 1 << 24
"""Bytes of pixels that are read at once."""


class _Strip(threading.local):
    """What this thread has read ahead, and which chip it expects next."""

    def __init__(self) -> None:
        self.raster: Raster | None = None
        """As it was open: a file that has changed is opened anew, and its old pixels are not used."""
        self.key: tuple[object, ...] = ()
        self.left = 0
        self.pixels = np.empty((0, 0, 0), np.float32)
        self.expected: tuple[str, int, int, int] | None = None


_strip = _Strip()


def read_chip(scene: Scene, row: int, column: int, side: int, bands: tuple[BandSpec, ...]) -> np.ndarray:
    """Pixels float32 [bands, side, side] as ``Scene.read`` gives them, the array is the caller's.

    A chip that follows the last one in the order of ``chips.references`` is read with those to its right.
    """
    in_turn = _strip.expected == (scene.path, row, column, side)
    _strip.expected = (scene.path, *_next(scene, row, column, side), side)
    key = (scene.path, scene.bands, row, side, bands)
    if not _is_kept(scene, key, column):
        ahead = _ahead(scene, column, side, len(bands)) if in_turn else side
        if ahead == side:
            return scene.read(row, column, side, side, bands)
        try:
            pixels = scene.read(row, column, side, ahead, bands)
        except GroundworkError:  # one of them is damaged, but maybe not this one
            _strip.expected = None
            return scene.read(row, column, side, side, bands)
        _strip.raster, _strip.key, _strip.left, _strip.pixels = open_raster(scene.path), key, column, pixels
    left = column - _strip.left
    return _strip.pixels[:, :, left : left + side].copy()


def _is_kept(scene: Scene, key: Sequence[object], column: int) -> bool:
    if key != _strip.key or not 0 <= column - _strip.left < _strip.pixels.shape[2]:
        return False
    try:
        return open_raster(scene.path) is _strip.raster
    except Exception:
        return False  # which reading it will explain


def _next(scene: Scene, row: int, column: int, side: int) -> tuple[int, int]:
    return (row, column + side) if column + side < scene.width else (row + side, 0)


def _ahead(scene: Scene, column: int, side: int, bands: int) -> int:
    """Pixels across to read at once: whole chips, to the end of the row if there is room."""
    most = max(1, MOST_AHEAD // (bands * side * side * 4))
    return side * min(most, -(-(scene.width - column) // side))
