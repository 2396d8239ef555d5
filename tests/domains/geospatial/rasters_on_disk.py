"""Rasters as users have them, for the tests of this folder."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from domains.contract import GroundworkError, Record, Reject, Source
from domains.geospatial import GEOSPATIAL, RasterEncoding
from domains.geospatial.reading import scene_of

SPEC = RasterEncoding(chip=32, patch=8)
TRUE_COLOUR = ("TCI_R", "TCI_G", "TCI_B", "B8", "B12")
BURN_BANDS = ("B2", "B3", "B4", "B8", "B12")
UTM = "EPSG:32632"
PLACE = from_origin(500_000, 5_000_000, 20, 20)


def reflectances(bands: int = 5, height: int = 48, width: int = 40, seed: int = 0) -> np.ndarray:
    """Reflectance × 10000 as a sensor gives it, uint16 [bands, h, w]."""
    return np.random.default_rng(seed).integers(100, 4000, (bands, height, width), dtype=np.uint16)


def write_tiff(
    path: Path,
    pixels: np.ndarray,
    names: Sequence[str] = (),
    crs: str | None = UTM,
    transform: Any = PLACE,
    units: str = "",
    scale: tuple[float, float] = (1.0, 0.0),
    **profile: Any,
) -> Path:
    """A GeoTIFF of pixels [bands, h, w]; ``crs`` None = no location."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    placed = {} if crs is None else {"crs": crs, "transform": transform}
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype,
        **placed, **profile,
    ) as file:  # fmt: skip
        file.write(pixels)
        if names:
            file.descriptions = tuple(names)
        if units:
            file.units = (units,) * count
        if scale != (1.0, 0.0):
            file.scales, file.offsets = (scale[0],) * count, (scale[1],) * count
    return path


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(folder).as_posix())
    return archive


def read_all(source: Source, spec: RasterEncoding | None = None) -> tuple[list[Record], list[Reject]]:
    """Every row of a source, read with its own encoding or that of a model."""
    found = [GEOSPATIAL.read(row, spec or source.encoding) for row in source.stream()]
    return [each for each in found if isinstance(each, Record)], [
        each for each in found if isinstance(each, Reject)
    ]


def opened(path: Path, **spec: object) -> Source:
    return GEOSPATIAL.open(path, SPEC.model_copy(update=spec))


def error_of(path: Path, **spec: object) -> str:
    with pytest.raises(GroundworkError) as error:
        opened(path, **spec)
    assert "\n" not in str(error.value)
    return str(error.value)


def pixels_of(source: Source) -> np.ndarray:
    """The whole scene, float32 [bands, h, w]."""
    scene = scene_of(source)
    return scene.read(0, 0, scene.height, scene.width, source.encoding.bands)  # type: ignore[attr-defined]


def declare(path: Path, *names: str, **more: object) -> Path:
    """Say in a bands.yaml beside ``path`` that its bands are heights."""
    told = ", ".join(f"{key}: {value}" for key, value in {"unit": "m", **more}.items())
    (path.parent / "bands.yaml").write_text("\n".join(f"- {{name: {name}, {told}}}" for name in names))
    return path


def burn_scars(folder: Path, scenes: int = 3) -> Path:
    """Scenes with masks, far from each other."""
    for index in range(scenes):
        place = from_origin(500_000 + 100_000 * index, 5_000_000, 20, 20)
        write_tiff(folder / f"images/fire{index}.tif", reflectances(seed=index), BURN_BANDS, transform=place)
        mask = (reflectances(1, seed=index + 50) % 2).astype(np.uint8)
        write_tiff(folder / f"masks/fire{index}.tif", mask, ["mask"], transform=place)
    return folder
