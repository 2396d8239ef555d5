"""Pixels as floats with NaN in their gaps, and as the short integers that they were made from.

Integers take half the room of floats, or a quarter. A store keeps them where it can, and makes of them, when
a sample is taken from it, the floats that any other way of reading gives, bit by bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from domains.contract import Sample

PIXELS, CODING, GAPS = "pixels", "coding", "gaps"
_NO_GAPS = np.zeros(0, np.uint8)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels of a window of a scene."""

    numbers: np.ndarray
    """float32 [..., bands, height, width] in the units of the bands, NaN = no data; or short integers
    [bands, height, width] as in the file."""
    coding: np.ndarray | None = None
    """Of integers, float32 [bands, 3]: a value = number × the first + the second; the third stands for no
    data (NaN = none does) and is one for all bands."""
    gaps: np.ndarray | None = None
    """Of integers, bool like ``numbers``: where else there are no data."""

    def cut(self, left: int, side: int) -> Pixels:
        """A copy of ``side`` columns from ``left`` on."""
        numbers = self.numbers[..., left : left + side].copy()
        gaps = None if self.gaps is None else self.gaps[..., left : left + side].copy()
        return Pixels(numbers, self.coding, gaps)

    def values(self) -> np.ndarray:
        """float32 like ``numbers``, in the units of the bands; NaN = no data."""
        if self.coding is None:
            return self.numbers
        values, coding = self.numbers.astype(np.float32), self.coding.tolist()
        for band, (scale, offset, _) in enumerate(coding):
            if scale != 1.0:
                values[band] *= scale
            if offset != 0.0:
                values[band] += offset
        filler = coding[0][2]
        if not math.isnan(filler) and np.count_nonzero(is_filler := self.numbers == int(filler)):
            values[is_filler] = np.nan
        if self.gaps is not None:
            values[self.gaps] = np.nan
        return values

    def packed(self) -> Sample:
        """Arrays of which ``unpacked`` makes the sample. What integers hold in their gaps means nothing."""
        if self.coding is None:
            return {PIXELS: self.numbers}
        gaps = _NO_GAPS if self.gaps is None or not self.gaps.any() else np.packbits(self.gaps)
        return {PIXELS: self.numbers, CODING: self.coding, GAPS: gaps}


def unpacked(arrays: Sample) -> Sample:
    """The sample that ``Pixels.packed`` has put away; what lies beside it stays as it is."""
    if CODING not in arrays:
        return arrays
    rest = dict(arrays)
    numbers, coding, bits = rest.pop(PIXELS), rest.pop(CODING), rest.pop(GAPS)
    gaps = np.unpackbits(bits, count=numbers.size).view(bool).reshape(numbers.shape) if len(bits) else None
    return {PIXELS: Pixels(numbers, coding, gaps).values(), **rest}
