"""A scene: one raster and what its numbers mean, read in windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from domains.contract import GroundworkError, RejectedLabel
from domains.geospatial.bands import BandSpec, places_of
from domains.geospatial.opened import open_raster
from domains.geospatial.pixels import Pixels
from domains.geospatial.rasters import SHORT_INTEGERS, Stored, explained, integer_of


@dataclass(frozen=True)
class LabelRaster:
    """The raster of labels of a scene, pixel upon pixel."""

    path: str
    name: str
    nodata: float | None = None
    """What stands for no label, besides what the raster itself declares."""
    values: tuple[float, ...] = ()
    """The values of the declared classes; empty where none are declared."""
    scale: float = 1.0
    offset: float = 0.0
    """A label = stored × scale + offset, unless it is that of a declared class."""

    def read(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """Labels of a window, float32 [height, width]; NaN where there is none, and outside.

        Raises RejectedLabel for a value that no declared class has, and for a raster that cannot be read.
        """
        try:
            labels = _window(self.path, self.name, [0], row, column, height, width).floats()[0]
        except GroundworkError as error:
            raise RejectedLabel(str(error)) from error
        if self.nodata is not None:
            labels[labels == self.nodata] = np.nan
        if self.values:
            known = np.isin(labels, self.values) | np.isnan(labels)
            if not known.all():
                odd = sorted(set(labels[~known].tolist()))
                raise RejectedLabel(
                    f"{self.name} holds {', '.join(f'{value:g}' for value in odd[:5])}, where the declared "
                    f"classes are {', '.join(f'{value:g}' for value in self.values[:20])}"
                )
        elif (self.scale, self.offset) != (1.0, 0.0):
            labels = labels.astype(np.float64) * self.scale + self.offset
        return labels.astype(np.float32)


class Labels(Protocol):
    """What a scene's pixels are labelled with, however that is written down."""

    def read(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """As ``LabelRaster.read``."""
        ...


@dataclass(frozen=True)
class Scene:
    """One raster. Cheap to pickle: it opens its file anew in each process and thread."""

    path: str
    """What ``opened.open_raster`` opens."""
    name: str
    """Path within the dataset, as users know it."""
    height: int
    width: int
    crs: str
    """WKT; empty where there is no location."""
    transform: tuple[float, ...]
    """Affine a, b, c, d, e, f from (column, row) to coordinates; the identity where there is no location."""
    bands: tuple[BandSpec, ...]
    """As found in this file, in file order."""
    label: Labels | None = None
    before: Scene | None = None
    """The same grid on an earlier date, where the scene is a pair."""
    time: str = ""
    """When it was taken, in ISO 8601; empty where nothing says so."""
    kept_as: str = ""
    """The short type of integers in which a store keeps its chips; empty = floats."""

    def read(self, row: int, column: int, height: int, width: int, bands: Sequence[BandSpec]) -> np.ndarray:
        """Pixels of a window, float32 [bands, height, width], in the units and the order of ``bands``.

        Of a pair as ``both_dates``. NaN where there are no data, and outside the scene.
        Raises GroundworkError that names both sides where the scene has other bands, and for a file that
        cannot be read.
        """
        return self.pixels(row, column, height, width, bands).values()

    def pixels(self, row: int, column: int, height: int, width: int, bands: Sequence[BandSpec]) -> Pixels:
        """As ``read``, in integers where the file holds short ones and the scene is no pair."""
        now = self._pixels(row, column, height, width, bands)
        if self.before is None:
            return now
        return Pixels(both_dates(self.before.read(row, column, height, width, bands), now.values()))

    def _pixels(self, row: int, column: int, height: int, width: int, bands: Sequence[BandSpec]) -> Pixels:
        with explained(self.name):
            places = places_of(tuple(bands), self.bands)
        stored = _window(self.path, self.name, places, row, column, height, width)
        own = [self.bands[place] for place in places]
        if stored.numbers.dtype.name in SHORT_INTEGERS:
            return _integers(stored, own)
        values = stored.floats()
        for of_band, band in zip(values, own, strict=True):
            if band.nodata is not None:
                of_band[of_band == band.nodata] = np.nan
            if band.scale != 1.0:
                of_band *= band.scale
            if band.offset != 0.0:
                of_band += band.offset
        if values.dtype == np.float32:
            return Pixels(values)
        with np.errstate(over="ignore"):
            pixels = values.astype(np.float32)
        pixels[np.isinf(pixels)] = np.nan  # a filler beyond the range of float32
        return Pixels(pixels)


def _integers(stored: Stored, bands: Sequence[BandSpec]) -> Pixels:
    numbers, gaps, filler = stored
    dtype = numbers.dtype.name
    declared = [integer_of(band.nodata, dtype) for band in bands]
    if filler is None and len(set(declared)) == 1:
        filler = declared[0]
    for place, nodata in enumerate(declared):
        if nodata not in (None, filler):
            gaps = np.zeros(numbers.shape, bool) if gaps is None else gaps
            gaps[place] |= numbers[place] == nodata
    code = np.nan if filler is None else filler
    coding = np.array([[band.scale, band.offset, code] for band in bands], np.float32)
    return Pixels(numbers, coding, gaps)


def both_dates(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Two images of one place, float32 [bands, h, w] each, as one of [2, bands, h, w].

    A pixel that one date did not see is missing on both: nothing can be said of a change there.
    """
    dates = np.stack([before, after])
    dates[:, :, np.isnan(dates).all(axis=1).any(axis=0)] = np.nan
    return dates


def _window(
    path: str, name: str, channels: Sequence[int], row: int, column: int, height: int, width: int
) -> Stored:
    """A window that may reach beyond the raster, where there are gaps."""
    with explained(name):
        raster = open_raster(path)
        top, bottom = max(row, 0), min(row + height, raster.header.height)
        left, right = max(column, 0), min(column + width, raster.header.width)
        shape = len(channels), height, width
        if top >= bottom or left >= right:
            return Stored(np.zeros(shape, raster.header.integers or np.float32), np.ones(shape, bool))
        inside = raster.window(channels, top, left, bottom - top, right - left)
        if inside.numbers.shape == shape:
            return inside
        numbers, gaps = np.zeros(shape, inside.numbers.dtype), np.ones(shape, bool)
        within = np.s_[:, top - row : bottom - row, left - column : right - column]
        numbers[within], gaps[within] = inside.numbers, False if inside.gaps is None else inside.gaps
        return Stored(numbers, gaps, inside.filler)
