"""Datasets of simulated scenes: made once as real GeoTIFFs, then opened as anybody's files are.

They stand in for real imagery where none is given, and say that they are simulated wherever they go.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import cast

import numpy as np
import rasterio
import yaml
from rasterio.transform import Affine

from domains.contract import EncodingSpec, GroundworkError, Source, digest_of
from domains.geospatial.bands import RasterEncoding
from domains.geospatial.reading import open_source
from domains.geospatial.sensors import by_layout
from domains.geospatial.simulator.atmosphere import OPAQUE, observe
from domains.geospatial.simulator.fields import grid, rotated
from domains.geospatial.simulator.spectra import CLOUD, LAND_COVERS
from domains.geospatial.simulator.surfaces import Sun, simulate_ground

BANDS = by_layout("simulated", 6)
SCALE = 10_000
"""Stored value of a reflectance of 1."""
NODATA = 0
UNLABELLED = 255
CRS = "EPSG:32632"
PIXEL = 10.0
"""Metres."""
SPACING = 10_240.0
"""Metres between the corners of two scenes: each lies by itself, so that no two share a block of chips."""
DESCRIPTION = "Simulated landscape, no real place: made by Groundwork from published reflectances."
REMARK = "The scenes are simulated: what is learnt from them says nothing about real imagery."


@dataclass(frozen=True)
class Dataset:
    """A set of scenes that can be made again at any time."""

    seed: int
    scenes: int
    shape: tuple[int, int]
    """Rows and columns of each scene."""
    labelled: bool


DATASETS: Mapping[str, Dataset] = {
    "simulated-scenes": Dataset(seed=1, scenes=96, shape=(256, 256), labelled=False),
    "simulated-landcover": Dataset(seed=2, scenes=96, shape=(128, 128), labelled=True),
    "simulated-scene": Dataset(seed=6, scenes=1, shape=(500, 600), labelled=False),
}
"""A corpus to pretrain on, label masks to learn segmentation from (small scenes, so that many different ones
are held out), and one larger scene to map."""


@dataclass(frozen=True)
class SimulatedScene:
    """One scene as it lies in its files."""

    pixels: np.ndarray
    """Reflectance × 10000 of ``BANDS``, uint16 [6, h, w]; ``NODATA`` beyond the swath."""
    cover: np.ndarray
    """Code of the land cover or of cloud, uint8 [h, w]; ``UNLABELLED`` beyond the swath."""


def embedded() -> Mapping[str, Callable[[EncodingSpec], Source]]:
    """Datasets by name, opened with the settings of an encoding: ``RasterEncoding``."""
    return {name: partial(_open, name) for name in DATASETS}


def _open(name: str, spec: EncodingSpec) -> Source:
    source = open_source(materialise(name), cast(RasterEncoding, spec))
    # The same data, whatever folder the cache is in.
    origin = f"groundwork simulator, {name}"
    return replace(source, name=name, origin=origin, simulated=True, remarks=(*source.remarks, REMARK))


def simulate_scene(seed: tuple[int, ...], shape: tuple[int, int]) -> SimulatedScene:
    """The scene of ``shape`` that belongs to ``seed``: always the same one."""
    rng = np.random.default_rng(seed)
    sun = Sun(zenith=np.radians(rng.uniform(25, 62)), azimuth=np.radians(rng.uniform(110, 200)))
    ground = simulate_ground(rng, shape, sun)
    image, clouds = observe(rng, ground.reflectance, sun)
    cover = np.where(clouds > OPAQUE, CLOUD, ground.cover).astype(np.uint8)
    pixels = np.clip(np.rint(image * SCALE), NODATA + 1, 2 * SCALE).astype(np.uint16)
    outside = _beyond_swath(rng, shape)
    pixels[:, outside] = NODATA
    cover[outside] = UNLABELLED
    return SimulatedScene(pixels, cover)


def _beyond_swath(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Pixels that the satellite's swath does not reach, bool [h, w]: some in one scene of eight."""
    rows, columns = grid(shape)
    if rng.random() > 0.125:
        return np.zeros(shape, bool)
    across, _ = rotated(columns - shape[1] / 2, rows - shape[0] / 2, np.radians(rng.uniform(8, 16)))
    return across * rng.choice([-1, 1]) > rng.uniform(0.2, 0.45) * shape[1]


def materialise(name: str) -> Path:
    """The folder (or the single file) of a simulated dataset; made if it is not there yet.

    It lies in ``$GROUNDWORK_CACHE`` (default ``~/.cache/groundwork``), under a name that changes with the
    simulator, and appears there only when it is complete.
    """
    dataset = DATASETS[name]
    root = Path(os.environ.get("GROUNDWORK_CACHE") or Path.home() / ".cache" / "groundwork")
    folder = root / f"{name}-{digest_of({'code': _code_digest(), **asdict(dataset)})}"
    if not folder.is_dir():
        try:
            root.mkdir(parents=True, exist_ok=True)
            _make(dataset, root, folder)
        except OSError as error:
            raise GroundworkError(
                f"cannot write {name} to {root}: {error.strerror or error}; "
                "set GROUNDWORK_CACHE to a folder that can be written and has 100 MB free"
            ) from error
    return folder / "scene.tif" if dataset.scenes == 1 else folder


def _make(dataset: Dataset, root: Path, folder: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=root))
    try:
        unfinished.chmod(0o755)  # mkdtemp makes it private; a shared cache is read by others
        _write_dataset(dataset, unfinished)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster with the same files
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@cache
def _code_digest() -> str:
    """Digest of the simulator's own source: whatever changes it makes other scenes."""
    files = [Path(__file__), *sorted((Path(__file__).parent / "simulator").glob("*.py"))]
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _write_dataset(dataset: Dataset, folder: Path) -> None:
    images, masks = folder, folder / "masks"
    if dataset.labelled:
        images = folder / "images"
        images.mkdir()
        masks.mkdir()
    description: dict[str, list[dict[str, object]]] = {
        "bands": [
            {"name": band.name, "wavelength": band.wavelength, "unit": band.unit, "nodata": NODATA}
            for band in BANDS
        ],
    }
    if dataset.labelled:
        description["classes"] = [
            {"value": code, "name": cover.name, "colour": cover.colour}
            for code, cover in enumerate(LAND_COVERS)
        ]
    (folder / "bands.yaml").write_text(yaml.safe_dump(description, sort_keys=False, allow_unicode=True))
    for index in range(dataset.scenes):
        scene = simulate_scene((dataset.seed, index), dataset.shape)
        name = "scene.tif" if dataset.scenes == 1 else f"scene-{index:03d}.tif"
        transform = _location(index)
        _write(images / name, scene.pixels, NODATA, transform)
        if dataset.labelled:
            _write(masks / name, scene.cover[None], UNLABELLED, transform)


def _location(index: int) -> Affine:
    """Where the scene of ``index`` lies: 40 to a row, well within the zone and within blocks of 5,120 m."""
    row, column = divmod(index, 40)
    return Affine(PIXEL, 0, 308_480 + column * SPACING, 0, -PIXEL, 5_118_720 - row * SPACING)


def _write(path: Path, array: np.ndarray, nodata: int, transform: Affine) -> None:
    count, height, width = array.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=array.dtype, nodata=nodata,
        crs=CRS, transform=transform, compress="deflate", predictor=2, tiled=True,
        blockxsize=128, blockysize=128,
    ) as file:  # fmt: skip
        file.write(array)
        file.update_tags(SIMULATED="yes", TIFFTAG_IMAGEDESCRIPTION=DESCRIPTION)
        if array.dtype == np.uint8:
            file.set_band_description(1, "land cover")
            file.write_colormap(1, {code: _rgb(cover.colour) for code, cover in enumerate(LAND_COVERS)})
        else:
            file.descriptions = tuple(band.name for band in BANDS)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
