"""NetCDF cubes: each time step is a scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from rasters_on_disk import SPEC, UTM, read_all

from domains.contract import GroundworkError
from domains.geospatial import GEOSPATIAL

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


def saved(dataset: xr.Dataset, path: Path, engine: str = "h5netcdf") -> Path:
    dataset.to_netcdf(path, engine=engine)  # type: ignore[call-overload]
    return path


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_each_time_step_is_a_scene(tmp_path: Path, engine: str) -> None:
    dataset = cube(nodata=-1)
    dataset["B12"][1, 5, 6] = -1
    source = GEOSPATIAL.open(saved(dataset, tmp_path / "cube.nc", engine), SPEC)
    assert [band.name for band in source.encoding.bands] == ["B8A", "B12"]  # type: ignore[attr-defined]
    assert source.encoding.bands[0].gsd == 20  # type: ignore[attr-defined]
    records, rejects = read_all(source)
    assert not rejects
    names = [f"cube.nc 2024-06-0{day}T00:00:00" for day in (1, 2, 3)]
    assert list(dict.fromkeys(record.value.scene for record in records)) == names
    second = next(record.value for record in records if record.value.scene == names[1])
    stored = dataset["B12"][1, :32, :32].to_numpy()
    assert np.isnan(second.pixels[1, 5, 6])
    assert np.isnan(second.pixels).sum() == 1
    assert (second.pixels[1][stored >= 0] == stored[stored >= 0]).all()
    assert second.transform == (20, 0, 499_990, 0, -20, 5_000_010)  # pixel centres become corners
    assert source.map_suffix == ""


def test_bands_may_be_a_dimension_and_time_may_be_missing(tmp_path: Path) -> None:
    stacked = cube().isel(time=0, drop=True).to_dataarray("band").to_dataset(name="values").rio.write_crs(UTM)
    source = GEOSPATIAL.open(saved(stacked, tmp_path / "a.nc"), SPEC)
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
    saved(cube(), tmp_path / "b.nc")
    (tmp_path / "c.nc").write_bytes(b"\x89HDF\r\n\x1a\n broken")
    records, (reject,) = read_all(GEOSPATIAL.open(tmp_path, SPEC))
    assert len({record.value.scene for record in records}) == 2 * TIMES
    assert reject.original == "c.nc"
    assert "damaged or not what its suffix says" in reject.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda cube: cube.assign_coords(x=np.arange(COLUMNS) ** 2.0),
            "its coordinate x is not evenly spaced",
        ),
        (lambda cube: cube.expand_dims(member=[1, 2]), "dimensions member, time beside y, x"),
        (lambda cube: cube.rename(x="i", y="j"), "no two dimensions that span a map"),
        (lambda cube: cube.rename(B8A="swir"), "neither the file nor a bands.yaml says which bands"),
    ],
)
def test_what_is_no_cube_of_scenes_is_explained(tmp_path: Path, change: object, words: str) -> None:
    path = saved(change(cube()), tmp_path / "a.nc")  # type: ignore[operator]
    with pytest.raises(GroundworkError, match=words):
        GEOSPATIAL.open(path, SPEC)


def test_a_cube_without_crs_has_no_location(tmp_path: Path) -> None:
    plain = cube().drop_vars("spatial_ref")
    for name in plain.data_vars:
        plain[name].attrs.pop("grid_mapping", None)
        plain[name].encoding.pop("grid_mapping", None)
    source = GEOSPATIAL.open(saved(plain, tmp_path / "a.nc"), SPEC)
    assert source.split == "random"
    assert read_all(source)[0][0].value.crs == ""
