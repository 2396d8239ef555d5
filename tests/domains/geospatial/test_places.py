"""From file to map: every pixel of the answer lies where the pixel of the scene lies that it answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasters_on_disk import BURN_BANDS, PLACE, UTM, opened, reflectances, write_tiff
from scenes_to_map import BIOMASS, nothing

from domains.contract import GroundworkError, Sample, Source
from domains.geospatial import GEOSPATIAL, maps

pytestmark = pytest.mark.filterwarnings("ignore", category=NotGeoreferencedWarning)
STORED = reflectances(5, 45, 37)
DEGREES = 0.0002


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What costs most of a small map, and says nothing of places."""
    monkeypatch.setattr(maps, "draw_quick_look", lambda *_: b"")


def mapped(source: Source, folder: Path) -> rasterio.DatasetReader:
    """The map that answers each pixel with its own first band."""

    def first_band(samples: list[Sample]) -> np.ndarray:
        return np.stack([sample["pixels"][0].reshape(-1, 1) for sample in samples])

    GEOSPATIAL.write_map(source, BIOMASS, first_band, folder / "map.tif", {}, nothing)  # type: ignore[arg-type]
    return rasterio.open(folder / "map.tif")


PLACES: dict[str, tuple[str, Affine]] = {
    "north up": (UTM, PLACE),
    "south up": (UTM, Affine(20, 0, 500_000, 0, 20, 5_000_000)),
    "mirrored": (UTM, Affine(-20, 0, 500_000, 0, -20, 5_000_000)),
    "rotated": (UTM, Affine(17.32, 10, 500_000, 10, -17.32, 5_000_000)),
    "transposed": (UTM, Affine(0, 20, 500_000, 20, 0, 5_000_000)),
    "sheared": (UTM, Affine(20, 3, 500_000, 0, -20, 5_000_000)),
    "pixels that are no squares": (UTM, Affine(20, 0, 500_000, 0, -10, 5_000_000)),
    "degrees across the date line": ("EPSG:4326", Affine(DEGREES, 0, 179.996, 0, -DEGREES, 10)),
    "degrees across it from the west": (
        "EPSG:4326",
        Affine(DEGREES, 0, -180.004, 0, -DEGREES, 10),
    ),
    "degrees from 0 to 360": ("EPSG:4326", Affine(DEGREES, 0, 250, 0, -DEGREES, 10)),
    "metres across the date line": ("EPSG:32660", Affine(20, 0, 833_700, 0, -20, 1_000_000)),
    "the north pole": ("EPSG:3413", Affine(20, 0, -300, 0, -20, 400)),
    "the southern hemisphere": ("EPSG:32733", Affine(20, 0, 500_000, 0, -20, 6_000_000)),
    "feet": ("EPSG:2263", Affine(66, 0, 980_000, 0, -66, 200_000)),
    "Mars": ("+proj=eqc +R=3396190 +units=m", Affine(20, 0, 100, 0, -20, 100)),
    "a building site": ('LOCAL_CS["site",UNIT["metre",1]]', Affine(0.1, 0, 3, 0, -0.1, 9)),
    "heights": ("EPSG:32632+5773", PLACE),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_map_lies_on_its_scene_pixel_for_pixel(tmp_path: Path, place: str) -> None:
    crs, transform = PLACES[place]
    stored = STORED.copy()
    stored[:, 30:, :9] = 0
    path = write_tiff(tmp_path / "scene.tif", stored, BURN_BANDS, crs, transform, nodata=0)
    with mapped(opened(path), tmp_path) as answer, rasterio.open(path) as scene:
        assert (answer.crs, answer.transform, answer.shape) == (scene.crs, scene.transform, scene.shape)
        expected = np.where(stored[0] == 0, np.nan, stored[0])
        assert np.array_equal(answer.read(1), expected, equal_nan=True)


@pytest.mark.parametrize(
    "shape",
    [(8, 8), (9, 31), (32, 32), (33, 33), (64, 65), (31, 70)],
    ids=lambda shape: "{}×{}".format(*shape),
)
def test_scenes_below_a_chip_and_one_pixel_beyond_are_answered_whole(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    stored = reflectances(5, *shape)
    path = write_tiff(tmp_path / "scene.tif", stored, BURN_BANDS)
    with mapped(opened(path), tmp_path) as answer:
        assert np.array_equal(answer.read(1), stored[0])


def test_a_scene_without_any_data_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "scene.tif", np.zeros_like(STORED), BURN_BANDS, nodata=0)
    with pytest.raises(GroundworkError, match="no pixel with data in all of its bands"):
        mapped(opened(path), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["scene.tif"]


# ------------------------------------------------------------------------------------------- other files


def as_cube(step: float) -> xr.Dataset:
    """The scene with rows that go south, or north where ``step`` is positive."""
    places = {"y": 5_000_000 + step * np.arange(45), "x": 500_000 + 20.0 * np.arange(37)}
    layers = {name: (("y", "x"), STORED[place]) for place, name in enumerate(BURN_BANDS)}
    return xr.Dataset(layers, places).rio.write_crs(UTM)


CUBES: dict[str, tuple[float, Callable[[xr.Dataset, Path], object], str]] = {
    "NetCDF going south": (-20, lambda cube, path: cube.to_netcdf(path, engine="h5netcdf"), ".nc"),
    "NetCDF going north": (20, lambda cube, path: cube.to_netcdf(path, engine="h5netcdf"), ".nc"),
    "NetCDF 3 going north": (20, lambda cube, path: cube.to_netcdf(path, engine="scipy"), ".nc"),
    "Zarr going north": (
        20,
        lambda cube, path: cube.to_zarr(path, zarr_format=3, consolidated=False),
        ".zarr",
    ),
}


@pytest.mark.parametrize("kind", CUBES)
def test_a_cube_of_one_time_becomes_a_map_in_its_place(tmp_path: Path, kind: str) -> None:
    step, save, suffix = CUBES[kind]
    cube = as_cube(step)
    save(cube, tmp_path / f"scene{suffix}")
    source = opened(tmp_path / f"scene{suffix}", sensor="sentinel-2")
    first = source.encoding.bands[0].name  # type: ignore[attr-defined]
    with mapped(source, tmp_path) as answer:
        assert answer.crs.to_epsg() == 32632
        rows, columns = np.mgrid[:45, :37]
        x, y = answer.transform @ (columns.ravel() + 0.5, rows.ravel() + 0.5)
        found = cube[first].sel(x=xr.DataArray(x, dims="pixel"), y=xr.DataArray(y, dims="pixel"))
        assert np.array_equal(answer.read(1).ravel(), found)
