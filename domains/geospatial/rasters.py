"""What every kind of raster file tells of itself, and how its pixels are asked for."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError

from domains.contract import GroundworkError

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
LARGEST_RASTER = 10**10
"""Pixels, 100,000 on a side: a file of a few bytes can claim any size."""
MOST_BANDS = 1000
LONGEST_TEXT = 80
"""Characters of a band's description or unit that are kept."""
EARTH_RADIUS = 6_378_137.0
SHORT_INTEGERS = frozenset({"uint8", "int8", "uint16", "int16"})
"""Types whose every number is a float32."""


@dataclass(frozen=True)
class Channel:
    """One band as its file describes it."""

    description: str
    dtype: str
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    nodata: float | None = None
    wavelength: float | None = None
    """Nanometres."""
    is_palette: bool = False
    """Whether its numbers are the entries of a colour table."""


@dataclass(frozen=True)
class Header:
    """Size, place and bands of a raster."""

    height: int
    width: int
    channels: tuple[Channel, ...]
    crs: str = ""
    """WKT; empty where the raster has no location, and then ``transform`` is the identity."""
    transform: tuple[float, ...] = IDENTITY
    """Affine from (column, row) to coordinates: a, b, c, d, e, f."""
    is_simulated: bool = False
    """Whether the file says that a program made it up."""
    has_control_points: bool = False
    """Whether only ground control points or rational polynomials say where it lies."""
    time: str = ""
    """When it was taken, in ISO 8601, as its tags say."""
    block_row_bytes: int = 0
    """Of all bands, unpacked: what must be kept to read row by row and unpack nothing twice; 0 = unknown."""
    has_tiles: bool = False
    """Whether its blocks are narrower than the raster."""
    integers: str = ""
    """The short type of integers that every window comes in; empty where there is no one such type."""

    def __post_init__(self) -> None:
        if self.height * self.width > LARGEST_RASTER:
            raise GroundworkError(f"{self.width} × {self.height} pixels; at most {LARGEST_RASTER:,} are read")
        if len(self.channels) > MOST_BANDS:
            raise GroundworkError(f"{len(self.channels)} bands; at most {MOST_BANDS} are read")
        for channel in self.channels:
            if channel.dtype.startswith("complex"):
                raise GroundworkError("complex numbers are not read: save amplitude, power or dB")
        a, b, _, d, e, _ = self.transform
        if not all(map(math.isfinite, self.transform)) or a * e == b * d:
            raise GroundworkError(
                "its transform puts all pixels in one place: write it anew with gdal_edit -a_ullr"
            )

    @property
    def gsd(self) -> float | None:
        """Metres on a side of a pixel, three digits; None where there is no location.

        In degrees it is the step of latitude, the nominal size: that of longitude changes with the place.
        """
        if not self.crs:
            return None
        a, b, _, d, e, _ = self.transform
        crs = parsed_crs(self.crs)
        if crs.is_geographic:
            metres = math.hypot(b, e) * math.pi / 180 * _radius(self.crs)
        elif not crs.is_projected:  # the coordinates of a building site
            return None
        else:
            metres = math.sqrt(abs(a * e - b * d)) * crs.linear_units_factor[1]
            if crs.to_epsg() == 3857:  # web Mercator stretches with the distance from the equator
                northing = self.transform[5] + e * self.height / 2
                metres /= math.cosh(northing / EARTH_RADIUS)
        return float(f"{metres:.3g}")

    @property
    def is_of_earth(self) -> bool:
        return not self.crs or abs(_radius(self.crs) - EARTH_RADIUS) < 30_000


@dataclass(frozen=True)
class Grid:
    """Pixels that a raster is brought to as it is read."""

    crs: str
    transform: tuple[float, ...]
    height: int
    width: int
    method: str
    """Of resampling, in GDAL's words."""
    nodata: float | None = None
    """What stands for no data where the file does not say: it must not be mixed into its neighbours."""


class Stored(NamedTuple):
    """A window as its file holds it."""

    numbers: np.ndarray
    """[channels, height, width] in the type of the file, or in floats that hold all of its types."""
    gaps: np.ndarray | None = None
    """bool like ``numbers``: where the file says that there are no data. NaN is a gap, too."""
    filler: int | None = None
    """The integer that stands for no data in every channel."""

    def floats(self) -> np.ndarray:
        """float32 or float64 like ``numbers``, NaN in the gaps; floats stay in the memory they lie in."""
        if self.numbers.dtype.kind == "f":
            floats = self.numbers
            floats[~np.isfinite(floats)] = np.nan
        else:
            floats = as_floats(self.numbers)
        if self.filler is not None:
            floats[self.numbers == self.filler] = np.nan
        if self.gaps is not None:
            floats[self.gaps] = np.nan
        return floats


class Raster(Protocol):
    """An open raster."""

    @property
    def header(self) -> Header: ...

    def window(self, channels: Sequence[int], row: int, column: int, height: int, width: int) -> Stored:
        """A window inside the raster; its arrays are the caller's. ``channels``: positions in the header."""
        ...

    def close(self) -> None: ...


def parsed_crs(wkt: str) -> CRS:
    """Raises GroundworkError for a text that is no CRS."""
    try:
        return CRS.from_wkt(wkt)
    except CRSError as error:
        raise GroundworkError(f"its CRS cannot be understood: {one_line(error)}") from error


def as_floats(stored: np.ndarray) -> np.ndarray:
    """Floats that hold every stored number: float32 up to 16 bits, float64 above."""
    return stored.astype(
        np.float32 if stored.dtype.itemsize <= 2 or stored.dtype == np.float32 else np.float64
    )


def short_type(dtypes: Iterable[str]) -> str:
    """The type that all of ``dtypes`` are, if it is one of ``SHORT_INTEGERS``; else empty."""
    types = set(dtypes)
    return types.pop() if len(types) == 1 and types <= SHORT_INTEGERS else ""


def integer_of(nodata: float | None, dtype: str) -> int | None:
    """A number as the type of integers holds it; None where it holds no such number."""
    limits = np.iinfo(dtype)
    if nodata is None or not (nodata.is_integer() and limits.min <= nodata <= limits.max):
        return None
    return int(nodata)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """What libraries say of a broken file, as one GroundworkError line that names the file."""
    try:
        yield
    except GroundworkError as error:
        detail = str(error)
        raise GroundworkError(detail if detail.startswith(name) else f"{name}: {detail}") from error
    except UnicodeEncodeError as error:
        raise GroundworkError(f"{name} has a name that is not UTF-8: rename it") from error
    except PermissionError as error:
        raise GroundworkError(f"{name} may not be read: change its permissions") from error
    except FileNotFoundError as error:
        raise GroundworkError(f"{name} is no longer there") from error
    except (RasterioError, rasterio._err.CPLE_BaseError) as error:
        raise GroundworkError(f"{name} is damaged or not what its suffix says: {one_line(error)}") from error
    except (OSError, EOFError, SyntaxError, ValueError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise GroundworkError(f"{name} is damaged or not what its suffix says: {one_line(error)}") from error
    except (NotImplementedError, RuntimeError) as error:  # an encrypted or exotic member of an archive
        raise GroundworkError(f"{name} cannot be unpacked: {one_line(error)}") from error


def in_short(text: str) -> str:
    """What a file says, fit for a line of an answer."""
    return " ".join(text.split())[:LONGEST_TEXT]


def one_line(error: BaseException) -> str:
    """The first 200 characters of an error, or of its cause where it only points there; without folders."""
    text = " ".join(str(error).split())
    if "previous exception" in text and error.__cause__ is not None:
        text = " ".join(str(error.__cause__).split())
    text = re.sub(r"(?<!\w)/(?:[^\s'\"]+/)+", "", text)
    return text[:200] or type(error).__name__


def _radius(wkt: str) -> float:
    """Semi-major axis of the CRS's ellipsoid in metres: what tells the Earth from Mars."""
    found = re.search(r'(?:SPHEROID|ELLIPSOID)\["[^"]*",\s*([0-9.eE+]+)', wkt)
    return float(found.group(1)) if found else EARTH_RADIUS
