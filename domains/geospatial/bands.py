"""What a band means: its identity, its unit, and when two bands or two files may stand for each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from domains.contract import FROM_DATA, EncodingSpec, GroundworkError, Resampling

REFLECTANCE = "reflectance"
REFLECTANCE_10000 = "reflectance × 10000"
DISPLAY_BYTE = "display byte"
DECIBEL = "dB"
DIGITAL_NUMBER = "digital number"

LARGEST_GSD_RATIO = 1.5
"""Pixels that differ more than this in size show other things: 10 m and 20 m do, 28.5 m and 30 m do not."""
TO_REFLECTANCE = 0.01
"""A scale below this leads from stored integers to reflectance, whatever the sensor's usual unit."""
SAME_WAVELENGTH = 0.5
"""Nanometres within which two centre wavelengths are one: what rounding in a file changes."""

SensorName = Literal[
    "auto",
    "sentinel-2",
    "landsat-5",
    "landsat-7",
    "landsat-8",
    "landsat-9",
    "hls",
    "naip",
    "rgb",
    "sentinel-1",
    "simulated",
]


class BandSpec(BaseModel):
    """One band of a raster: what was measured, and how the stored numbers say it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=80)
    wavelength: float | None = Field(
        default=None, gt=0, description="Centre in nm; none for radar and the like."
    )
    polarisation: str = Field(default="", max_length=10, description="VV, VH …; empty for optical bands.")
    unit: str = Field(min_length=1, max_length=80)
    scale: float = Field(
        default=1.0, allow_inf_nan=False, description="Value in the unit = stored × scale + offset."
    )
    offset: float = Field(default=0.0, allow_inf_nan=False)
    gsd: float | None = Field(
        default=None, gt=0, description="Metres of a pixel; none where there is no location."
    )
    nodata: float | None = Field(default=None, allow_inf_nan=False, description="As stored; none = only NaN.")

    @property
    def meaning(self) -> BandSpec:
        """The band without what belongs to its file only: scale, offset and nodata."""
        return self.model_copy(update={"scale": 1.0, "offset": 0.0, "nodata": None})

    def measures(self, other: BandSpec) -> bool:
        """Whether both hold the same quantity in the same unit, whatever the size of their pixels."""
        same_place = self.wavelength == other.wavelength or (
            self.wavelength is not None
            and other.wavelength is not None
            and abs(self.wavelength - other.wavelength) <= SAME_WAVELENGTH
        )
        mine = (self.name, self.polarisation, self.unit)
        return same_place and mine == (other.name, other.polarisation, other.unit)

    def is_as_fine(self, other: BandSpec) -> bool:
        """Whether the pixels are of about one size, as far as both sizes are known."""
        if self.gsd is None or other.gsd is None:
            return True
        return max(self.gsd, other.gsd) <= LARGEST_GSD_RATIO * min(self.gsd, other.gsd)

    def agrees(self, other: BandSpec) -> bool:
        """Whether a model that learnt from one may be given the other."""
        return self.measures(other) and self.is_as_fine(other)


class RasterEncoding(EncodingSpec):
    """How scenes become samples."""

    chip: int = Field(default=64, ge=8, le=512, description="Pixels on a side of a chip.")
    patch: int = Field(default=8, ge=2, le=64, description="Pixels on a side of a token; divides the chip.")
    sensor: SensorName = Field(
        default="auto",
        description="Whose bands the files hold, where they do not tell; a bands.yaml beside them may, too.",
    )
    use_bands: str = Field(
        default="",
        max_length=2000,
        description="Names of the bands to use, with commas between (B8,B12), of every scene that has them, "
        "whatever other known bands it holds; in every dataset. Empty = all that most scenes have.",
    )
    resample: Resampling = Field(
        default="no",
        description="How bands of coarser pixels are brought to the finest of their product; no = refused.",
    )
    whereabouts: bool = Field(
        default=False,
        description="Tell the model where on Earth a chip lies and on which day of the year it was taken, as "
        "far as files say; in training both are often withheld, so that it answers without them, too.",
    )
    bands: tuple[BandSpec, ...] = Field(default=(), json_schema_extra=FROM_DATA)
    dates: int = Field(default=1, ge=1, le=2, json_schema_extra=FROM_DATA)
    """Of one place in a sample: two where a change is asked for, else one."""
    resample_scenes: bool = Field(default=False, exclude=True, json_schema_extra=FROM_DATA)
    """Whether scenes, too, are brought to the pixel size of ``bands`` by ``resample``. Of one prediction:
    no part of what a model keeps."""

    @field_validator("use_bands")
    @classmethod
    def _spelled_alike(cls, names: str) -> str:
        alone = dict.fromkeys(filter(None, (name.strip() for name in names.split(","))))
        if names.strip() and not alone:
            raise ValueError("no name of a band stands between the commas")
        return ",".join(alone)

    @property
    def names_used(self) -> tuple[str, ...]:
        """Of the bands to use; none where all are."""
        return tuple(self.use_bands.split(",")) if self.use_bands else ()

    @model_validator(mode="after")
    def _divides(self) -> RasterEncoding:
        if self.chip % self.patch:
            raise ValueError(f"a chip of {self.chip} pixels cannot be cut into patches of {self.patch}")
        return self


def in_ten_thousandths(scale: float, offset: float) -> tuple[float, float]:
    """Scale and offset that lead to ``REFLECTANCE_10000``, where a file's own lead to reflectance itself.

    Numbers stored as integers are scaled by less than ``TO_REFLECTANCE`` then; other scales stay.
    """
    if not 0 < scale < TO_REFLECTANCE:
        return scale, offset
    return float(f"{scale * 10_000:.12g}"), float(f"{offset * 10_000:.12g}")


# ------------------------------------------------------------------------------------------ agreement


@lru_cache(maxsize=256)
def places_of(wanted: tuple[BandSpec, ...], found: tuple[BandSpec, ...]) -> tuple[int, ...]:
    """Positions in ``found`` of the bands of ``wanted``.

    Raises GroundworkError that names both sides where one is missing, in another unit, or of another size.
    """
    if fault := disagreement(wanted, found):
        raise GroundworkError(fault)
    return tuple(next(place for place, band in enumerate(found) if band.agrees(want)) for want in wanted)


def used_of(bands: tuple[BandSpec, ...], spec: RasterEncoding) -> tuple[BandSpec, ...]:
    """Those of a scene's ``bands`` that ``spec`` uses; all where it does not say, or where one is missing."""
    if spec.bands:
        misfits = bool(disagreement(spec.bands, bands))
        return bands if misfits else tuple(bands[place] for place in places_of(spec.bands, bands))
    if not spec.names_used or not set(spec.names_used) <= {band.name for band in bands}:
        return bands
    return tuple(band for band in bands if band.name in spec.names_used)


def disagreement(wanted: Sequence[BandSpec], found: Sequence[BandSpec]) -> str:
    """Why bands as ``found`` cannot be used where ``wanted`` are expected; empty where they can."""
    missing = [want for want in wanted if not any(band.measures(want) for band in found)]
    if missing:
        odd = [band for band in found if not any(band.measures(want) for want in wanted)]
        if not odd:
            be = "is" if len(missing) == 1 else "are"
            return f"no {listed(missing)}, which {be} expected, but {listed(found) if found else 'none'}"
        be = "is" if len(missing) == 1 else "are"
        return f"{listed(odd)} where {listed(_beside(missing, odd), bare=True)} {be} expected"
    for want in wanted:
        band = next(band for band in found if band.measures(want))
        if not band.agrees(want):
            return f"pixels of {band.gsd:g} m in {band.name} where {want.gsd:g} m are expected"
    return ""


def listed(bands: Sequence[BandSpec], bare: bool = False) -> str:
    """Bands in words: ``bands B4, B3 in reflectance × 10000 and VV in dB``; ``bare`` without "bands"."""
    by_unit: dict[str, list[str]] = {}
    for band in bands:
        by_unit.setdefault(band.unit, []).append(band.name)
    parts = [f"{', '.join(names)} in {_plural(unit)}" for unit, names in by_unit.items()]
    return ("" if bare else "band " if len(bands) == 1 else "bands ") + " and ".join(parts)


def _beside(missing: Iterable[BandSpec], odd: Sequence[BandSpec]) -> list[BandSpec]:
    """``missing``, each at the place of the odd band that is nearest to it in the spectrum."""
    waiting, ordered = list(missing), []
    for band in odd:
        if waiting:
            nearest = min(waiting, key=lambda want: abs((want.wavelength or 0) - (band.wavelength or 0)))
            waiting.remove(nearest)
            ordered.append(nearest)
    return ordered + waiting


def _plural(unit: str) -> str:
    return f"{unit}s" if unit in (DISPLAY_BYTE, DIGITAL_NUMBER) else unit


# ----------------------------------------------------------------------------------------------- units

FILLERS = frozenset((-999, -9999, -99999, -32768, -32767, 32767, 55_537, 65_535))
"""Stored numbers that usually stand for no data; 55,537 is what 16 bits without sign make of −9999."""
ENORMOUS = 1e20
"""No measurement is as large: what floats are filled with."""
LEAST = {REFLECTANCE: -1.0, REFLECTANCE_10000: -5000.0, DECIBEL: -200.0}
MOST = {REFLECTANCE: 2.5, REFLECTANCE_10000: 30_000.0, DECIBEL: 100.0}
"""What no surface shows, however bright or dark, and however its atmosphere was corrected."""


def unit_fault(pixels: np.ndarray, bands: Sequence[BandSpec], dtypes: Sequence[str] = ()) -> str:
    """Why ``pixels`` (float [bands, ...], NaN = no data) cannot be in the units of ``bands``; or empty.

    The rules are those that physics and storage force, with no guess at what else the numbers may be: they
    refuse what is certainly wrong and leave the rest. ``dtypes`` are those of the bands in their file.
    """
    extremes = [_extremes(values) for values in pixels]
    stored_as = dtypes or [""] * len(bands)
    for band, values, (low, high), dtype in zip(bands, pixels, extremes, stored_as, strict=True):
        if np.isnan(low):
            continue
        if filler := _filler(band, float(np.nanmin(values)), high):
            return (
                f"band {band.name} holds {filler}, which stands for no data in many files and cannot be "
                f"{band.unit}, and no such value is declared: say nodata: {filler} in a bands.yaml beside "
                "it, or write it into the file with gdal_edit -a_nodata"
            )
        shown = f"band {band.name} holds values from {low:.5g} to {high:.5g}"
        if fault := _fault_of_range(band, low, high, dtype):
            return f"{shown}, which cannot be {band.unit}: {fault}"
    scaled = [
        (band.name, high)
        for band, (_, high) in zip(bands, extremes, strict=True)
        if band.unit == REFLECTANCE_10000 and not np.isnan(high)
    ]
    bytes_like = [name for name, high in scaled if 250 <= high <= 255]
    if len(bytes_like) > 1 and any(high > 1000 for _, high in scaled):
        return (
            f"bands {', '.join(bytes_like)} end at 255 like {DISPLAY_BYTE}s, beside others in "
            f"{REFLECTANCE_10000}"
        )
    return ""


def _filler(band: BandSpec, lowest: float, high: float) -> str:
    """The stored number that can only stand for no data; empty where there is none."""
    for value in (lowest, high):
        if LEAST.get(band.unit, -np.inf) <= value <= MOST.get(band.unit, np.inf):
            continue
        if abs(value) >= ENORMOUS:
            return f"{value:g}"
        stored = (value - band.offset) / band.scale if band.scale else value
        if abs(stored) < ENORMOUS and round(stored) in FILLERS:
            return str(round(stored))
    return ""


def _fault_of_range(band: BandSpec, low: float, high: float, dtype: str) -> str:
    if band.unit == REFLECTANCE_10000:
        if dtype == "uint8" and band.scale == 1.0:
            return f"the file holds bytes, such as {DISPLAY_BYTE}s"
        if 0 < high < 2:
            return f"it looks like {REFLECTANCE}"
        if high > MOST[REFLECTANCE_10000]:
            return "it looks like stored numbers that still want their scale and offset"
    if band.unit == REFLECTANCE and (high > MOST[REFLECTANCE] or low < LEAST[REFLECTANCE]):
        return f"it looks like {DISPLAY_BYTE if high <= 255 else REFLECTANCE_10000}"
    if band.unit == DISPLAY_BYTE and (low < 0 or high > 255):
        return "a byte lies between 0 and 255"
    if band.unit == DECIBEL and (low >= 0 or low < LEAST[DECIBEL] or high > MOST[DECIBEL]):
        return "backscatter in dB is mostly negative; this looks like linear power or amplitude"
    return ""


def _extremes(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value but for the odd defect pixel; NaN where there is none."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return float("nan"), float("nan")
    # One pixel in a thousand may be a glint or a dead detector, and says nothing of the unit.
    low, high = np.quantile(finite, (0.001, 0.999), method="nearest")
    return float(low), float(high)
