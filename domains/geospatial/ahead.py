"""Chips that are read one after the other share their reads: a row of them costs one, not one each."""

from __future__ import annotations

import threading

import numpy as np

from domains.contract import GroundworkError
from domains.geospatial.bands import BandSpec
from domains.geospatial.pixels import Pixels
from domains.geospatial.scenes import Scene

MOST_AHEAD = 1 << 24
"""Bytes of pixels, as floats, that are read at once."""


class _Strip(threading.local):
    """What this thread has read ahead, and which chip it expects next."""

    def __init__(self) -> None:
        self.scene: Scene | None = None
        self.expected: tuple[int, ...] = ()
        """Row, column and side of that chip."""
        self.of: tuple[object, ...] = ()
        """Row, side and bands of ``pixels``."""
        self.left = 0
        self.pixels = Pixels(np.empty(0, np.float32))


_strip = _Strip()


def read_chip(scene: Scene, row: int, column: int, side: int, bands: tuple[BandSpec, ...]) -> Pixels:
    """Pixels [..., side, side] as ``Scene.pixels`` gives them; the arrays are the caller's.

    A chip that follows the last one in the order of ``chips.references`` is read with those to its right, and
    these are taken from there only if they are asked for at once, before anything may have changed.
    """
    strip = _strip
    in_turn = strip.scene is scene and strip.expected == (row, column, side)
    strip.expected = (*_next(scene, row, column, side), side)
    if not in_turn:
        strip.scene, strip.of = scene, ()
        return scene.pixels(row, column, side, side, bands)
    of, left = (row, side, bands), column - strip.left
    if of != strip.of or not 0 <= left < strip.pixels.numbers.shape[-1]:
        try:
            layers = len(bands) * (1 if scene.before is None else 2)
            ahead = scene.pixels(row, column, side, _across(scene, column, side, layers), bands)
        except GroundworkError:  # one of them is damaged, but maybe not this one
            strip.expected = ()
            return scene.pixels(row, column, side, side, bands)
        strip.of, strip.left, strip.pixels, left = of, column, ahead, 0
    return strip.pixels.cut(left, side)


def _next(scene: Scene, row: int, column: int, side: int) -> tuple[int, int]:
    return (row, column + side) if column + side < scene.width else (row + side, 0)


def _across(scene: Scene, column: int, side: int, layers: int) -> int:
    """Pixels to read at once: whole chips, to the end of the row if there is room."""
    most = max(1, MOST_AHEAD // (layers * side * side * 4))
    return side * min(most, -(-(scene.width - column) // side))
