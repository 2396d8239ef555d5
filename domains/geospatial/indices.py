"""Spectral indices: one number for a pixel, of two bands that what is looked for tells apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from domains.contract import Record
from domains.geospatial.bands import BandSpec

WINDOWS = {
    "green": (525.0, 600.0),
    "red": (620.0, 690.0),
    "near infrared": (790.0, 900.0),
    "shortwave infrared 2": (2080.0, 2300.0),
}
"""Nanometres within which the centre of a band lies: those of Sentinel-2, Landsat, HLS, MODIS and NAIP do.
The last red edge of Sentinel-2 (B7, at 783) does not."""

RATIOS = {
    "NBR": ("near infrared", "shortwave infrared 2"),
    "NDVI": ("near infrared", "red"),
    "NDWI": ("green", "near infrared"),
}
"""Normalised burn ratio (López García & Caselles 1991, Geocarto Int. 6, 31), vegetation index (Rouse et al.
1974) and water index (McFeeters 1996, Int. J. Remote Sens. 17, 1425)."""


@dataclass(frozen=True)
class Index:
    """The normalised difference (first − second) / (first + second) of two bands at each pixel of a record.

    Of records of several dates it is that of the last; ``is_change`` takes the first date's less the last's,
    which is dNBR for the NBR (Key & Benson 2006, FIREMON, RMRS-GTR-164).
    """

    name: str
    first: int
    second: int
    is_change: bool = False

    def __call__(self, record: Record) -> np.ndarray:
        """float32 [pixels, 1]: NaN where no band has data, 0 where only one of the two has."""
        pixels = np.asarray(record.value.pixels)
        dates = pixels if pixels.ndim == 4 else pixels[None]
        values = self._at(dates[0]) - self._at(dates[-1]) if self.is_change else self._at(dates[-1])
        has_data = np.isfinite(pixels).reshape(-1, values.size).any(0)
        return np.where(has_data, np.nan_to_num(values), np.float32("nan")).astype(np.float32)[:, None]

    def _at(self, date: np.ndarray) -> np.ndarray:
        first, second = date[self.first].ravel(), date[self.second].ravel()
        total = first + second
        # Of reflectances both are positive; what sums to nothing, or less, has no ratio.
        return np.divide(first - second, total, out=np.full(total.shape, np.nan, np.float32), where=total > 0)


def indices_of(bands: Sequence[BandSpec], dates: int = 1) -> list[Index]:
    """The indices that ``bands`` allow: of two in one unit, at wavelengths that an index is made for."""
    found = []
    for name, (first, second) in RATIOS.items():
        pairs = product(_places(bands, first), _places(bands, second))
        chosen = next((pair for pair in pairs if bands[pair[0]].unit == bands[pair[1]].unit), None)
        if chosen is not None:
            found += [Index(f"d{name}", *chosen, is_change=True)] * (dates > 1) + [Index(name, *chosen)]
    return found


def _places(bands: Sequence[BandSpec], window: str) -> list[int]:
    low, high = WINDOWS[window]
    return [
        place
        for place, band in enumerate(bands)
        if band.wavelength is not None and low <= band.wavelength <= high
    ]
