"""Which chips must stay together when some are held out: neighbours on the ground, scenes, duplicates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from domains.contract import GroundworkError, Record
from domains.geospatial.chips import Chip
from domains.geospatial.rasters import parsed_crs

SPLIT_METHODS = ("blocks", "scene", "random")
BLOCK = 8
"""Chips on a side of a block."""


def group_records(records: Iterable[Record], method: str) -> np.ndarray:
    """Group of each record, int64 [n].

    ``blocks`` are squares of 8 chips on a side on the ground, in the scene's CRS and counted from its origin,
    so that scenes which overlap share them: chips that lie side by side look alike, and a random split of
    them flatters (Roberts et al. 2017, Ecography 40, 913). A scene without location is a group by itself.
    ``scene`` groups the chips of a scene; ``random`` only what is equal. Raises GroundworkError for another
    method, and for ``blocks`` where no record has a location.
    """
    if method not in SPLIT_METHODS:
        raise GroundworkError(
            f"chips cannot be grouped by {method!r}: choose one of {', '.join(SPLIT_METHODS)}"
        )
    numbers: dict[object, int] = {}
    sizes: dict[str, float] = {}
    groups, has_location = [], False
    for record in records:
        chip: Chip = record.value
        has_location = has_location or bool(chip.crs)
        if method == "random":
            key: object = record.identity
        elif method == "blocks" and chip.crs:
            key = _block_of(chip, sizes)
        else:
            key = chip.scene
        groups.append(numbers.setdefault(key, len(numbers)))
    if method == "blocks" and groups and not has_location:
        raise GroundworkError(
            "no scene has a location, so there are no blocks on the ground: split by scene or at random"
        )
    return np.array(groups, np.int64)


def _block_of(chip: Chip, sizes: dict[str, float]) -> tuple[str, int, int]:
    """Block that the middle of the chip lies in. The first chip of a CRS sets the size of its blocks."""
    a, b, c, d, e, f = chip.transform
    side = chip.pixels.shape[-1]
    name, is_geographic = _crs(chip.crs)
    size = sizes.setdefault(name, BLOCK * side * math.sqrt(abs(a * e - b * d)))
    x, y = c + (a + b) * side / 2, f + (d + e) * side / 2
    if is_geographic:  # 181° and −179° are one place
        x = (x + 180) % 360 - 180
    return name, math.floor(x / size), math.floor(y / size)


@lru_cache(maxsize=64)
def _crs(wkt: str) -> tuple[str, bool]:
    """A name that equal systems share however they are written, and whether it counts in degrees."""
    crs = parsed_crs(wkt)
    code = crs.to_epsg()
    return (f"EPSG:{code}" if code else wkt), crs.is_geographic
