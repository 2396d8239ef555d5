"""Cubes, in NetCDF or Zarr, through xarray: each time step is a scene, each variable or ``band`` a band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import rioxarray  # noqa: F401 -- gives every dataset its .rio
import xarray as xr
from rasterio.crs import CRS
from rioxarray.exceptions import DimensionError, MissingCRS, RioXarrayError

from domains.contract import GroundworkError
from domains.geospatial.cube_files import open_cube
from domains.geospatial.rasters import IDENTITY, Channel, Header, Stored, as_floats, explained, in_short

CUBE = "cube:"
"""How a step of a cube is named as a path: ``cube:STEP:FILE``."""
BAND = "band"
WGS_84 = "EPSG:4326"
EAST = frozenset(("degrees_east", "degree_east", "degree_E", "degrees_E", "degreeE", "degreesE"))
NORTH = frozenset(("degrees_north", "degree_north", "degree_N", "degrees_N", "degreeN", "degreesN"))
"""Units by which longitudes and latitudes are told (CF conventions 1.11, sections 4.1 and 4.2)."""
KILOMETRES = frozenset(("km", "kilometre", "kilometres", "kilometer", "kilometers"))
RADIANS = frozenset(("rad", "radian", "radians", "microradian", "microradians", "urad"))
UNEVEN = 0.01
"""Share of a pixel by which the coordinates of an even grid may be off."""


class CubeStep:
    """One time step of a cube as a raster."""

    def __init__(self, path: str, step: int) -> None:
        self._dataset = open_cube(path)
        try:
            grid = _grid(self._dataset)
            self._layers = _layers(self._dataset, grid, step)
            self._x, self._y = grid.x, grid.y
            self.header = Header(
                self._dataset.sizes[grid.y],
                self._dataset.sizes[grid.x],
                tuple(_channel(name, layer) for name, layer in self._layers),
                grid.crs,
                grid.transform,
            )
        except Exception:
            self._dataset.close()
            raise

    def window(self, channels: Sequence[int], row: int, column: int, height: int, width: int) -> Stored:
        inside = {self._y: slice(row, row + height), self._x: slice(column, column + width)}
        parts = []
        for channel in channels:
            layer = self._layers[channel][1]
            part = as_floats(layer.isel(inside).transpose(self._y, self._x).to_numpy())
            low, high = _valid_range(layer)
            part[(part < low) | (part > high)] = np.nan
            parts.append(part)
        return Stored(np.stack(parts))

    def close(self) -> None:
        self._dataset.close()


class _Grid:
    """Where the pixels lie."""

    def __init__(self, x: str, y: str, crs: str, transform: tuple[float, ...]) -> None:
        self.x, self.y, self.crs, self.transform = x, y, crs, transform


def step_names(path: str) -> list[str]:
    """A name for each time step, its time where it has one; one empty name where there is no time."""
    with explained(path.rpartition("/")[2]), open_cube(path) as dataset:
        time = _time_of(dataset, _grid(dataset))
        if time is None:
            return [""]
        if time not in dataset.coords:
            return [f"{time} {step}" for step in range(dataset.sizes[time])]
        values = dataset[time].to_numpy()
        if np.issubdtype(values.dtype, np.datetime64):
            return [str(value) for value in np.datetime_as_string(values, unit="s")]
        return [str(value) for value in values]


def _grid(dataset: xr.Dataset) -> _Grid:
    east, north = _axis(dataset, EAST), _axis(dataset, NORTH)
    try:
        if east and north:
            dataset = dataset.rio.set_spatial_dims(east, north)
        x, y = str(dataset.rio.x_dim), str(dataset.rio.y_dim)
        crs = dataset.rio.crs
        if crs is None and east and north:  # whose datum nobody states; GDAL takes this one, too
            crs = CRS.from_string(WGS_84)
    except (DimensionError, MissingCRS, RioXarrayError) as error:
        raise GroundworkError(
            "no two dimensions that span a map (x and y, or lat and lon): it has "
            + (", ".join(map(str, dataset.sizes)) or "none outside of groups")
        ) from error
    for dimension in (x, y):
        if dimension in dataset.coords:
            _refuse_uneven(dimension, dataset[dimension].to_numpy())
    has_place = crs is not None and x in dataset.coords and y in dataset.coords
    if not has_place or min(dataset.sizes[x], dataset.sizes[y]) < 2:
        return _Grid(x, y, "", IDENTITY)
    a, b, c, d, e, f = tuple(dataset.rio.transform(recalc=True))[:6]
    across, up = _in_units_of(crs, dataset[x]), _in_units_of(crs, dataset[y])
    transform = (a * across, b * across, c * across, d * up, e * up, f * up)
    return _Grid(x, y, crs.to_wkt(), tuple(map(float, transform)))


def _in_units_of(crs: CRS, coordinate: xr.DataArray) -> float:
    """What a coordinate is multiplied by to count as its CRS does: some count kilometres."""
    unit = str(coordinate.attrs.get("units", "")).strip().lower()
    if unit in RADIANS:
        raise GroundworkError(
            f"its coordinate {coordinate.name} counts {unit}, which its CRS does not: write it as metres or "
            "degrees; of a geostationary satellite, multiply it by the height in its grid mapping"
        )
    return 1000 / float(crs.linear_units_factor[1]) if unit in KILOMETRES and crs.is_projected else 1.0


def _axis(dataset: xr.Dataset, units: frozenset[str]) -> str:
    """The dimension whose coordinates are in one of ``units``; empty where there is none."""
    names = (str(name) for name in dataset.dims if name in dataset.coords)
    return next((name for name in names if dataset[name].attrs.get("units") in units), "")


def _refuse_uneven(dimension: str, values: np.ndarray) -> None:
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise GroundworkError(
            f"its coordinate {dimension} is not made of numbers: write it as metres or degrees"
        )
    steps = np.diff(values.astype(np.float64))
    if not steps.size:
        return
    # Short floats cannot say far places to a hundredth of a pixel, however even these are.
    rounding = float(np.spacing(np.abs(values).max())) if values.dtype.kind == "f" else 0.0
    if np.abs(steps - steps.mean()).max() > UNEVEN * abs(steps.mean()) + rounding:
        raise GroundworkError(f"its coordinate {dimension} is not evenly spaced: resample it to a grid")


def _spatial(dataset: xr.Dataset, grid: _Grid) -> dict[str, xr.DataArray]:
    return {
        str(name): variable
        for name, variable in dataset.data_vars.items()
        if {grid.x, grid.y} <= set(variable.dims)
    }


def _time_of(dataset: xr.Dataset, grid: _Grid) -> str | None:
    """The dimension along which the scenes follow each other."""
    others = {
        str(dimension)
        for variable in _spatial(dataset, grid).values()
        for dimension in variable.dims
        if dimension not in (grid.x, grid.y, BAND)
    }
    if len(others) > 1:
        raise GroundworkError(
            f"dimensions {', '.join(sorted(others))} beside {grid.y}, {grid.x} and {BAND}: choose one of "
            "them as time"
        )
    return next(iter(others), None)


def _layers(dataset: xr.Dataset, grid: _Grid, step: int) -> list[tuple[str, xr.DataArray]]:
    """Name and pixels [y, x] of each band at a time step."""
    variables = _spatial(dataset, grid)
    if not variables:
        raise GroundworkError(f"no variable with dimensions {grid.y} and {grid.x}")
    time = _time_of(dataset, grid)
    layers: list[tuple[str, xr.DataArray]] = []
    for name, variable in variables.items():
        at_step = variable.isel({time: step}) if time in variable.dims else variable
        if BAND not in at_step.dims:
            layers.append((name, at_step))
            continue
        has_names = BAND in dataset.coords and dataset[BAND].dtype.kind in "OUST"
        names = [str(value) for value in dataset[BAND].to_numpy()] if has_names else None
        layers += [
            (names[place] if names else "", at_step.isel({BAND: place}))
            for place in range(at_step.sizes[BAND])
        ]
    return layers


def _valid_range(layer: xr.DataArray) -> tuple[float, float]:
    """Smallest and largest value that count as data (CF conventions 1.11, section 2.5.1)."""
    attributes = layer.attrs
    stated = attributes.get("valid_range")
    if stated is None:
        stated = [attributes.get("valid_min", -np.inf), attributes.get("valid_max", np.inf)]
    try:
        low, high = sorted(_unpacked(limit, layer.encoding) for limit in stated)
    except (TypeError, ValueError) as error:
        raise GroundworkError(f"its valid range {stated!r} is no pair of numbers") from error
    return low, high


def _unpacked(limit: Any, packing: Mapping[Any, Any]) -> float:
    """A limit in the unit, where it is stated as numbers are stored."""
    if "scale_factor" not in packing or np.asarray(limit).dtype.kind == "f":
        return float(limit)
    return float(limit) * float(packing["scale_factor"]) + float(packing.get("add_offset", 0.0))


def _channel(name: str, layer: xr.DataArray) -> Channel:
    attributes = cast(dict[str, Any], layer.attrs)
    nodata = attributes.get("nodata")  # what Open Data Cube writes; xarray has applied _FillValue already
    is_number = isinstance(nodata, int | float | np.number) and np.isfinite(nodata)
    return Channel(
        in_short(name),
        str(layer.dtype),
        unit=in_short(str(attributes.get("units", ""))),
        nodata=float(cast(float, nodata)) if is_number else None,
    )
