"""From chips to samples: THE encode path, of training and serving, of rows and of the tiles of a map."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from domains.contract import Sample
from domains.geospatial.bands import RasterEncoding
from domains.geospatial.chips import Chip
from domains.geospatial.pixels import PIXELS
from domains.geospatial.placing import middle_of


def sample_of(chip: Chip, spec: RasterEncoding) -> Sample:
    """``pixels`` float32 [bands, chip, chip], or [2, bands, chip, chip]; NaN where there is no data.

    Where ``spec`` asks for whereabouts, also ``place`` float32 [2], longitude and latitude of the middle in
    degrees, and ``day`` float32 [dates], days of the year from 1 on; NaN where they are not known.
    """
    return {PIXELS: chip.pixels, **_whereabouts(chip, spec)}


def packed_sample_of(chip: Chip, spec: RasterEncoding) -> Sample:
    """What ``pixels.unpacked`` makes the same sample of: integers as in the file where these are kept."""
    pixels = {PIXELS: chip.pixels} if chip.packed is None else chip.packed.packed()
    return {**pixels, **_whereabouts(chip, spec)}


def _whereabouts(chip: Chip, spec: RasterEncoding) -> Sample:
    if not spec.whereabouts:
        return {}
    return {
        "place": np.array(middle_of(chip) or (np.nan, np.nan), np.float32),
        "day": _days(chip.times or ("",) * len(chip.dates)),
    }


def _days(times: Sequence[str]) -> np.ndarray:
    return np.array([_day(time) for time in times], np.float32)


def _day(time: str) -> float:
    """Day of the year of a time in ISO 8601, from 1 on; NaN where it tells none, as a year does not."""
    try:
        return float(datetime.fromisoformat(time).timetuple().tm_yday)
    except ValueError:
        return float("nan")
