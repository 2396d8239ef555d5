"""Cubes in NetCDF and Zarr: each time step is a scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
from rasters_on_disk import SPEC, UTM, read_all

from domains.contract import GroundworkError
from domains.geospatial import GEOSPATIAL
from domains.geospatial.reading import scene_of

ROWS, COLUMNS, TIMES = 40, 36, 3


def cube(names: tuple[str, ...] = ("B8A", "B12"), **attributes: object) -> xr.Dataset:
    """Reflectance × 10000 of some days, as a data cube holds it."""
    rng = np.random.default_rng(0)
    places = {
        "time": pd.date_range("2024-06-01", periods=TIMES),
        "y": 5_000_000 - 20.0 * np.arange(ROWS),
        "x": 500_000 + 20.0 * np.arange(COLUMNS),
    }
    layers = {
        name: (("time", "y", "x"), rng.integers(100, 4000, (TIMES, ROWS, COLUMNS), np.int16), attributes)
        for name in names
    }
    return xr.Dataset(layers, places).rio.write_crs(UTM)


def saved(dataset: xr.Dataset, path: Path) -> Path:
    if path.suffix == ".zarr":
        dataset.to_zarr(path, zarr_format=3, consolidated=False)
    else:
        dataset.to_netcdf(path, engine="h5netcdf")
    return path


WAYS: dict[str, Callable[[xr.Dataset, Path], object]] = {
    "NetCDF 4": lambda cube, path: cube.to_netcdf(path.with_suffix(".nc"), engine="h5netcdf"),
    "NetCDF 3": lambda cube, path: cube.to_netcdf(path.with_suffix(".nc"), engine="scipy"),
    "Zarr 2": lambda cube, path: cube.to_zarr(path.with_suffix(".zarr"), zarr_format=2, consolidated=True),
    "Zarr 3": lambda cube, path: cube.to_zarr(path.with_suffix(".zarr"), zarr_format=3, consolidated=False),
    "shards": lambda cube, path: _in_shards(cube).to_zarr(path.with_suffix(".zarr"), zarr_format=3),
}


def _in_shards(cube: xr.Dataset) -> xr.Dataset:
    for layer in cube.data_vars.values():
        layer.encoding.update(chunks=(1, 20, 18), shards=(TIMES, ROWS, COLUMNS))
    return cube


@pytest.mark.parametrize("way", WAYS)
def test_each_time_step_is_a_scene(tmp_path: Path, way: str) -> None:
    dataset = cube(nodata=-1)
    dataset["B12"][1, 5, 6] = -1
    WAYS[way](dataset, tmp_path / "cube")
    (path,) = tmp_path.iterdir()
    # A Zarr store is a folder, which has no order of its own.
    names = ["B12", "B8A"] if path.suffix == ".zarr" else ["B8A", "B12"]
    source = GEOSPATIAL.open(path, SPEC)
    assert [band.name for band in source.encoding.bands] == names  # type: ignore[attr-defined]
    assert source.encoding.bands[0].gsd == 20  # type: ignore[attr-defined]
    records, rejects = read_all(source)
    assert not rejects
    swir = names.index("B12")
    names = [f"{path.name} 2024-06-0{day}T00:00:00" for day in (1, 2, 3)]
    assert list(dict.fromkeys(record.value.scene for record in records)) == names
    second = next(record.value for record in records if record.value.scene == names[1])
    stored = dataset["B12"][1, :32, :32].to_numpy()
    assert np.isnan(second.pixels[swir, 5, 6])
    assert np.isnan(second.pixels).sum() == 1
    assert (second.pixels[swir][stored >= 0] == stored[stored >= 0]).all()
    assert second.transform == (20, 0, 499_990, 0, -20, 5_000_010)  # pixel centres become corners
    assert source.map_suffix == ""


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_bands_may_be_a_dimension_and_time_may_be_missing(tmp_path: Path, suffix: str) -> None:
    stacked = cube().isel(time=0, drop=True).to_dataarray("band").to_dataset(name="values").rio.write_crs(UTM)
    source = GEOSPATIAL.open(saved(stacked, tmp_path / f"a{suffix}"), SPEC)
    assert [band.name for band in source.encoding.bands] == ["B8A", "B12"]  # type: ignore[attr-defined]
    assert source.map_suffix == ".tif"
    (record, *_), _ = read_all(source)
    assert (record.value.pixels == cube().isel(time=0).to_dataarray().to_numpy()[:, :32, :32]).all()


def test_scale_and_fill_of_the_convention_are_honoured(tmp_path: Path) -> None:
    dataset = (cube() / 10_000).astype(np.float32)
    dataset["B8A"][0, 0, 0] = np.nan
    for name in dataset.data_vars:
        dataset[name].attrs["units"] = "reflectance"
        dataset[name].encoding = {"dtype": "int16", "scale_factor": 0.0001, "_FillValue": -9999}
    source = GEOSPATIAL.open(saved(dataset.rio.write_crs(UTM), tmp_path / "a.nc"), SPEC)
    (record, *_), _ = read_all(source)
    assert source.encoding.bands[0].unit == "reflectance"  # type: ignore[attr-defined]
    assert np.isnan(record.value.pixels[0, 0, 0])
    assert np.allclose(record.value.pixels[0, 1:], dataset["B8A"][0, 1:32, :32])


def test_cubes_of_a_folder_stand_beside_each_other(tmp_path: Path) -> None:
    saved(cube(), tmp_path / "a.nc")
    saved(cube(), tmp_path / "b.zarr")
    (tmp_path / "c.nc").write_bytes(b"\x89HDF\r\n\x1a\n broken")
    source = GEOSPATIAL.open(tmp_path, SPEC)
    records, (reject,) = read_all(source)
    assert len({record.value.scene for record in records}) == 2 * TIMES
    assert {record.value.scene.split()[0] for record in records} == {"a.nc", "b.zarr"}
    # The number of another chunk is other content.
    changed = cube()
    changed["B12"][2, 39, 35] = 7
    changed.to_zarr(tmp_path / "b.zarr", mode="w", zarr_format=3, consolidated=False)
    assert GEOSPATIAL.open(tmp_path, SPEC).digest != source.digest
    assert reject.original == "c.nc"
    assert "damaged or not what its suffix says" in reject.reason


def without_crs(dataset: xr.Dataset) -> xr.Dataset:
    plain = dataset.drop_vars("spatial_ref")
    for name in plain.data_vars:
        plain[name].attrs.pop("grid_mapping", None)
        plain[name].encoding.pop("grid_mapping", None)
    return plain


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda cube: cube.assign_coords(x=np.arange(COLUMNS) ** 2.0),
            "its coordinate x is not evenly spaced",
        ),
        (lambda cube: cube.assign_coords(x=list("ab" * 18)), "x is not made of numbers"),
        (
            lambda cube: cube.assign_coords(y=[np.nan, *range(ROWS - 1)]),
            "y is not made of numbers",
        ),
        (lambda cube: xr.Dataset(), "it has none outside of groups"),
        (lambda cube: cube.expand_dims(member=[1, 2]), "dimensions member, time beside y, x"),
        (lambda cube: cube.rename(x="i", y="j"), "no two dimensions that span a map"),
        (lambda cube: cube.isel(time=slice(0, 0)), "its axis of time is empty"),
        (lambda cube: cube.rename(B8A="swir"), "neither the file nor a bands.yaml says which bands"),
    ],
)
def test_what_is_no_cube_of_scenes_is_explained(tmp_path: Path, change: object, words: str) -> None:
    path = saved(change(cube()), tmp_path / "a.nc")  # type: ignore[operator]
    with pytest.raises(GroundworkError, match=words):
        GEOSPATIAL.open(path, SPEC)


@pytest.mark.parametrize(
    "said", [{"units": "days since 2000-02-30", "calendar": "360_day"}, {"units": "days since never"}]
)
def test_times_that_no_calendar_of_ours_has_only_name_the_scenes(
    tmp_path: Path, said: dict[str, str]
) -> None:
    dataset = cube().assign_coords(time=[0, 30, 60])
    dataset.time.attrs = said
    records, _ = read_all(GEOSPATIAL.open(saved(dataset, tmp_path / "a.nc"), SPEC))
    assert {record.value.scene for record in records} == {"a.nc 0", "a.nc 30", "a.nc 60"}


@pytest.mark.parametrize("name", ["cube", "2024-06-01", "S2_20240101_20241231", "2019"])
def test_the_time_of_a_step_is_that_of_its_scene(tmp_path: Path, name: str) -> None:
    records, _ = read_all(GEOSPATIAL.open(saved(cube(), tmp_path / f"{name}.nc"), SPEC))
    assert {record.value.times for record in records} == {(f"2024-06-0{day}T00:00:00",) for day in (1, 2, 3)}


def test_rows_that_go_north_lie_where_they_lie(tmp_path: Path) -> None:
    ascending = cube().isel(time=0, y=slice(None, None, -1))
    source = GEOSPATIAL.open(saved(ascending, tmp_path / "a.nc"), SPEC)
    scene = scene_of(source)
    assert scene.transform == (20, 0, 499_990, 0, 20, 4_999_210)
    found = scene.read(0, 0, ROWS, COLUMNS, source.encoding.bands)  # type: ignore[attr-defined]
    assert (found == ascending.to_dataarray().to_numpy()).all()


def test_longitudes_and_latitudes_are_a_location_by_their_units(tmp_path: Path) -> None:
    degrees = without_crs(cube()).rename(x="lon", y="lat")
    degrees = degrees.assign_coords(lon=10 + 0.0002 * np.arange(COLUMNS), lat=50 - 0.0002 * np.arange(ROWS))
    with pytest.raises(GroundworkError, match="no two dimensions that span a map"):
        GEOSPATIAL.open(saved(degrees, tmp_path / "a.nc"), SPEC)
    degrees.lon.attrs["units"], degrees.lat.attrs["units"] = "degrees_east", "degrees_north"
    source = GEOSPATIAL.open(saved(degrees, tmp_path / "b.nc"), SPEC)
    chip = read_all(source)[0][0].value
    assert rasterio.crs.CRS.from_wkt(chip.crs).to_epsg() == 4326
    assert chip.transform == pytest.approx((0.0002, 0, 9.9999, 0, -0.0002, 50.0001))


def test_coordinates_in_short_floats_are_as_even_as_these_can_be(tmp_path: Path) -> None:
    degrees = without_crs(cube()).rename(x="lon", y="lat")
    east, north = 100 + 0.0001 * np.arange(COLUMNS), 50 - 0.0001 * np.arange(ROWS)
    degrees = degrees.assign_coords(lon=east.astype(np.float32), lat=north.astype(np.float32))
    degrees.lon.attrs["units"], degrees.lat.attrs["units"] = "degrees_east", "degrees_north"
    scene, *_ = read_all(GEOSPATIAL.open(saved(degrees, tmp_path / "a.nc"), SPEC))[0]
    assert scene.value.transform == pytest.approx((0.0001, 0, 99.99995, 0, -0.0001, 50.00005), rel=1e-2)
    skipped = degrees.assign_coords(lon=np.where(np.arange(COLUMNS) < 9, east, east + 1e-4).astype("f4"))
    skipped.lon.attrs["units"] = "degrees_east"
    with pytest.raises(GroundworkError, match="lon is not evenly spaced"):
        GEOSPATIAL.open(saved(skipped, tmp_path / "b.nc"), SPEC)


def test_coordinates_in_kilometres_lie_where_they_lie(tmp_path: Path) -> None:
    metres = cube().isel(time=0)
    dataset = metres.assign_coords(x=metres.x / 1000, y=metres.y / 1000)
    dataset.x.attrs["units"] = dataset.y.attrs["units"] = "km"
    source = GEOSPATIAL.open(saved(dataset, tmp_path / "a.nc"), SPEC)
    assert source.encoding.bands[0].gsd == 20  # type: ignore[attr-defined]
    assert scene_of(source).transform == pytest.approx((20, 0, 499_990, 0, -20, 5_000_010))


def test_coordinates_in_radians_are_refused(tmp_path: Path) -> None:
    dataset = cube().rio.write_crs("+proj=geos +h=35786023 +lon_0=-75 +sweep=x")
    dataset = dataset.assign_coords(x=5.6e-5 * np.arange(COLUMNS), y=-5.6e-5 * np.arange(ROWS))
    dataset.x.attrs["units"] = dataset.y.attrs["units"] = "rad"
    with pytest.raises(GroundworkError, match="its coordinate x counts rad, which its CRS does not"):
        GEOSPATIAL.open(saved(dataset, tmp_path / "a.nc"), SPEC)


@pytest.mark.parametrize(
    "limits",
    [
        {"valid_range": np.array([500, 3000], "i2")},
        {"valid_min": np.int16(500), "valid_max": np.int16(3000)},
        {"valid_range": [0.05, 0.3]},
    ],
    ids=["as stored", "one by one", "in the unit"],
)
def test_what_is_outside_of_the_valid_range_is_no_data(tmp_path: Path, limits: dict[str, Any]) -> None:
    stored = cube()
    dataset = (stored / 10_000).rio.write_crs(UTM)
    for layer in dataset.data_vars.values():
        layer.attrs = {"units": "reflectance", **limits}
        layer.encoding = {"dtype": "int16", "scale_factor": 0.0001, "grid_mapping": "spatial_ref"}
    (record, *_), _ = read_all(GEOSPATIAL.open(saved(dataset, tmp_path / "a.nc"), SPEC))
    numbers = stored["B8A"][0, :32, :32].to_numpy()
    missing = np.isnan(record.value.pixels[0])
    assert missing[(numbers < 500) | (numbers > 3000)].all()
    assert not missing[(numbers > 500) & (numbers < 3000)].any()


def test_a_cube_without_crs_has_no_location(tmp_path: Path) -> None:
    source = GEOSPATIAL.open(saved(without_crs(cube()), tmp_path / "a.nc"), SPEC)
    assert source.split == "random"
    assert read_all(source)[0][0].value.crs == ""
