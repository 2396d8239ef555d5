"""What the names of products say of their numbers: sensor, scale, offset, and which file holds which band.

Agencies deliver a scene as a folder of files with one band each, whose tags say nothing of the scale; the
names follow conventions that do. Sources: Sentinel-2 Products Specification Document, issue 14.9 (since
processing baseline 04.00 of January 2022 the numbers are 1000 too high); Landsat Collection 2 Level 2 Science
Product Guide (LSDS-1619); HLS Product User Guide 2.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from domains.geospatial.sensors import SENSORS


@dataclass(frozen=True)
class Product:
    """A product by its name. A value in the usual unit of its sensor = stored × scale + offset."""

    name: str
    sensor: str
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    is_calibrated: bool = True
    """Whether a scale leads to reflectance; those of Landsat's level 1 need the height of the sun as well."""
    bands: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Names of files' bands where the sensor calls them otherwise; with these, no others are read."""


def product_of(path: str) -> Product | None:
    """The product that a path lies in or names, by its last part that is a product's name."""
    for part in reversed(path.split("/")):
        for pattern, make in _PRODUCTS:
            if found := pattern.match(part):
                return make(found)
    return None


@dataclass(frozen=True)
class BandFile:
    """What the name of a file of a product says."""

    band: str = ""
    """As the sensor calls it; empty where the file holds none that is read."""
    quality: str = ""
    """Which layer of ``QUALITY`` it is; empty where it is none."""


def band_file(name: str, product: Product) -> BandFile:
    """What a file of ``product`` holds, by its name without folders."""
    stem = name.rpartition(".")[0]
    if product.sensor == "hls":
        last = stem.rpartition(".")[2]
        return BandFile(quality="Fmask") if last == "Fmask" else BandFile(product.bands.get(last, ""))
    if product.sensor == "sentinel-2":
        found = re.search(r"_(B\d[\dA]|SCL)(?:_\d\dm)?$", stem)
        if not found or stem.startswith("MSK_"):
            return BandFile()
        plain = re.sub(r"^B0", "B", found.group(1))
        return BandFile(quality="SCL") if plain == "SCL" else BandFile(plain)
    found = re.search(r"_(?:(?:SR_)?(B[1-7])|(QA_PIXEL))$", stem)
    if not found:
        return BandFile()
    if found.group(2):
        return BandFile(quality="QA_PIXEL")
    # B6 of Landsat 5 and 7 is a temperature, and lies beside the reflectances in every product.
    known = SENSORS.get(product.sensor)
    return BandFile(found.group(1)) if known and found.group(1) in known.bands else BandFile()


# ---------------------------------------------------------------------------------------------- names


def _sentinel_2(found: re.Match[str]) -> Product:
    baseline = int(found.group("baseline"))
    return Product(
        found.group(0), "sentinel-2", offset=-1000.0 if baseline >= OFFSET_SINCE else 0.0, nodata=0.0
    )


def _landsat(found: re.Match[str]) -> Product:
    sensor = f"landsat-{int(found.group('number'))}"
    if found.group("level") == "2":
        return Product(found.group(0), sensor, scale=0.275, offset=-2000.0, nodata=0.0)
    return Product(found.group(0), sensor, nodata=0.0, is_calibrated=False)


def _hls(found: re.Match[str]) -> Product:
    common = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
    names = HLS_FILES[found.group("sensor")]
    return Product(found.group(0), "hls", nodata=-9999.0, bands=dict(zip(names, common, strict=True)))


OFFSET_SINCE = 400
"""Processing baseline 04.00."""
HLS_FILES = {
    "L30": ("B02", "B03", "B04", "B05", "B06", "B07"),
    "S30": ("B02", "B03", "B04", "B8A", "B11", "B12"),
}
_PRODUCTS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Product]], ...] = (
    (re.compile(r"S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{6}_N(?P<baseline>\d{4})_R\d{3}_T\w{5}_\w+"), _sentinel_2),
    (
        re.compile(r"L[CET]0(?P<number>[45789])_L(?P<level>[12])[A-Z]{2}_\d{6}_\d{8}_\d{8}_02_(?:T1|T2|RT)"),
        _landsat,
    ),
    (re.compile(r"HLS\.(?P<sensor>L30|S30)\.T\w{5}\.\d{7}T\d{6}\.v2\.\d"), _hls),
)

# ------------------------------------------------------------------------------------------ quality


def _bits(values: np.ndarray, *places: int) -> np.ndarray:
    return (values.astype(np.int64) & sum(1 << place for place in places)) != 0


def _scene_classes(values: np.ndarray) -> np.ndarray:
    """Sentinel-2's SCL: no data, defective, cloud shadow, clouds of middle and high probability, cirrus."""
    return np.isin(values, (0, 1, 3, 8, 9, 10))


def _landsat_quality(values: np.ndarray) -> np.ndarray:
    """QA_PIXEL: fill, dilated cloud, cirrus, cloud, cloud shadow."""
    return _bits(values, 0, 1, 2, 3, 4)


def _fmask(values: np.ndarray) -> np.ndarray:
    """Fmask of HLS: cirrus, cloud, beside cloud, cloud shadow; 255 is fill."""
    return _bits(values, 0, 1, 2, 3) | (values == 255)


QUALITY: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "SCL": _scene_classes,
    "QA_PIXEL": _landsat_quality,
    "Fmask": _fmask,
}
"""Numbers of a quality layer -> where the surface is not seen, by the layer's name."""
