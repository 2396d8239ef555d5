"""The bands of known sensors, by the names that their files use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domains.geospatial.bands import DECIBEL, DISPLAY_BYTE, REFLECTANCE_10000, BandSpec


@dataclass(frozen=True)
class Sensor:
    """Bands of a sensor by name, and how its files are usually laid out."""

    bands: Mapping[str, BandSpec]
    layouts: tuple[tuple[str, ...], ...]
    """Names in file order, where a file has that many bands and names none."""
    is_told_by_names: bool = True
    """Whether names alone tell it: many cameras have an R and a NIR."""

    def named(self, name: str) -> BandSpec | None:
        """The band that a file calls ``name``: case and leading zeros do not matter (``b02`` is B2)."""
        plain = re.sub(r"^B0+(?=\d)", "B", name.strip().upper())
        return self.bands.get(ALIASES.get(plain, plain)) or self.bands.get(plain)


ALIASES = {"RED": "R", "GREEN": "G", "BLUE": "B"}


def _optical(unit: str, **centres: float) -> dict[str, BandSpec]:
    return {name: BandSpec(name=name, wavelength=centre, unit=unit) for name, centre in centres.items()}


# Sentinel-2 MSI, Spectral Response Functions of ESA (S2A); products hold reflectance × 10000.
SENTINEL_2 = _optical(
    REFLECTANCE_10000,
    B1=442.7,
    B2=492.4,
    B3=559.8,
    B4=664.6,
    B5=704.1,
    B6=740.5,
    B7=782.8,
    B8=832.8,
    B8A=864.7,
    B9=945.1,
    B10=1373.5,
    B11=1613.7,
    B12=2202.4,
)
TRUE_COLOUR = _optical(DISPLAY_BYTE, TCI_R=664.6, TCI_G=559.8, TCI_B=492.4)
# Landsat 5 TM and Landsat 7 ETM+ (Chander et al. 2009, Remote Sensing of Environment 113, 893).
LANDSAT_5 = _optical(REFLECTANCE_10000, B1=485.0, B2=569.0, B3=660.0, B4=840.0, B5=1676.0, B7=2223.0)
LANDSAT_7 = _optical(REFLECTANCE_10000, B1=483.0, B2=560.0, B3=662.0, B4=835.0, B5=1648.0, B7=2206.0)
# Landsat 8 and 9 OLI (Barsi et al. 2014, Remote Sensing 6, 10232).
LANDSAT_8 = _optical(
    REFLECTANCE_10000, B1=443.0, B2=482.0, B3=561.4, B4=654.6, B5=864.7, B6=1608.9, B7=2200.7
)
# Harmonised Landsat and Sentinel-2: the bands that both have, under their common names.
HLS = _optical(
    REFLECTANCE_10000, BLUE=490.0, GREEN=560.0, RED=665.0, NIR_NARROW=865.0, SWIR_1=1610.0, SWIR_2=2200.0
)
RGB = _optical(DISPLAY_BYTE, R=665.0, G=560.0, B=490.0)
# NAIP, flown with ADS100 cameras: middles of the bands that Leica states.
NAIP = _optical(DISPLAY_BYTE, R=635.0, G=555.0, B=465.0, NIR=845.0)
SENTINEL_1 = {name: BandSpec(name=name, polarisation=name, unit=DECIBEL) for name in ("VV", "VH", "HH", "HV")}

L1C = tuple(SENTINEL_2)
L2A = tuple(name for name in L1C if name != "B10")
SIMULATED = ("B2", "B3", "B4", "B8", "B11", "B12")

SENSORS: Mapping[str, Sensor] = {
    "sentinel-2": Sensor({**SENTINEL_2, **TRUE_COLOUR}, (L1C, L2A)),
    "landsat-5": Sensor(LANDSAT_5, (tuple(LANDSAT_5),)),
    "landsat-7": Sensor(LANDSAT_7, (tuple(LANDSAT_7),)),
    "landsat-8": Sensor(LANDSAT_8, (tuple(LANDSAT_8),)),
    "landsat-9": Sensor(LANDSAT_8, (tuple(LANDSAT_8),)),
    "hls": Sensor(HLS, (tuple(HLS),)),
    "naip": Sensor(NAIP, (tuple(NAIP),), is_told_by_names=False),
    "rgb": Sensor(RGB, (tuple(RGB),)),
    "sentinel-1": Sensor(SENTINEL_1, (("VV", "VH"),)),
    "simulated": Sensor({name: SENTINEL_2[name] for name in SIMULATED}, (SIMULATED,), is_told_by_names=False),
}


def by_layout(sensor: str, count: int) -> tuple[BandSpec, ...]:
    """Bands of a file of ``sensor`` with ``count`` bands and no names; empty where that is not known."""
    known = SENSORS[sensor]
    layout = next((layout for layout in known.layouts if len(layout) == count), ())
    return tuple(known.bands[name] for name in layout)


def by_names(sensor: str, names: Sequence[str]) -> tuple[BandSpec | None, ...]:
    """The band of ``sensor`` for each name, None for names it has not."""
    return tuple(SENSORS[sensor].named(name) for name in names)


def told_by(names: Sequence[str]) -> dict[str, tuple[BandSpec, ...]]:
    """Sensors that have all of ``names``, with the bands; one entry where several mean the same."""
    found: dict[str, tuple[BandSpec, ...]] = {}
    for sensor, known in SENSORS.items():
        if not known.is_told_by_names:
            continue
        bands = tuple(band for band in by_names(sensor, names) if band is not None)
        if len(bands) == len(names) and bands not in found.values():
            found[sensor] = bands
    return found


def may_be_thermal(names: Sequence[str]) -> bool:
    """Whether a B10 of ``names`` may be the temperature of Landsat 8, as its files are written: B1 to B11.

    Sentinel-2 has bands of all of these names, and its own B10 (cirrus) stands beside a B8A or B12.
    """
    return "B10" in names and set(names) <= {f"B{number}" for number in range(1, 12)}
