"""Small scenes, and predictors that look at one pixel at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio import Affine

from domains.abilities import WrittenMap
from domains.contract import Row, Sample, Source, Target
from domains.geospatial.bands import BandSpec, RasterEncoding
from domains.geospatial.chips import ChipReference
from domains.geospatial.maps import write_map
from domains.geospatial.scenes import Scene

CHIP = 16
UNIT = "reflectance × 10000"
BANDS = tuple(
    BandSpec(name=name, wavelength=nm, unit=UNIT, nodata=-1)
    for name, nm in (("B4", 665), ("B3", 560), ("B2", 490))
)
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 4_000_000)
BURNT = Target(
    name="mask",
    kind="binary",
    classes=("unburned", "burned"),
    level="pixel",
    values=(1, 2),
    colours=("#00ff00", "#aa0000"),
)
COVER = Target(
    name="cover", kind="multiclass", classes=("water", "wood", "town"), level="pixel", values=(10, 20, 255)
)
BIOMASS = Target(name="biomass", kind="regression", unit="t/ha", level="pixel")


def write_scene(
    path: Path,
    height: int,
    width: int,
    transform: Affine | None = NORTH_UP,
    crs: str | None = "EPSG:32633",
    **more: Any,
) -> np.ndarray:
    """A scene of three bands, int16 with -1 for no data in a corner; returns its pixels."""
    pixels = (
        np.random.default_rng(height * 1000 + width).integers(0, 10_000, (3, height, width)).astype(np.int16)
    )
    if height > 4 and width > 4:
        pixels[:, : height // 4, : width // 3] = -1
    where = {"transform": transform} if transform else {}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=3,
        dtype="int16",
        nodata=-1,
        crs=crs,
        **where,
        **more,
    ) as file:
        file.write(pixels)
    return pixels


def source_of(path: Path, chip: int = CHIP, **more: Any) -> Source:
    with rasterio.open(path) as file:
        crs, transform = (file.crs.to_wkt() if file.crs else ""), tuple(file.transform)[:6]
        scene = Scene(str(path), path.name, file.height, file.width, crs, transform, BANDS)
    encoding = RasterEncoding(chip=chip, patch=8, bands=BANDS)
    rows = [Row(0, ChipReference(scene, 0, 0))]
    return Source(path.name, str(path), "", ("image",), lambda: iter(rows), encoding, **more)


def of_pixels(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Sequence[Sample]], np.ndarray]:
    """A predictor that looks at one pixel at a time: float [3, pixels] -> [pixels, outputs]."""

    def predict(samples: Sequence[Sample]) -> np.ndarray:
        return np.stack([function(sample["pixels"].reshape(3, -1)) for sample in samples]).astype(np.float32)

    return predict


def burnt(pixels: np.ndarray) -> np.ndarray:
    return (pixels[0] / 10_000)[:, None]


def cover(pixels: np.ndarray) -> np.ndarray:
    return (pixels / pixels.sum(axis=0)).T


def nothing(_: float) -> None:
    pass


def make(
    path: Path, target: Target, function: Callable[[np.ndarray], np.ndarray], out: Path, **more: Any
) -> WrittenMap:
    return write_map(source_of(path, **more), target, of_pixels(function), out, {}, nothing)
