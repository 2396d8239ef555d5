"""Patches of a map: whole, in the right place, and as large as they are on the ground."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from pyogrio.raw import read
from pyproj import CRS, Geod, Transformer
from rasterio import Affine
from rasterio.control import GroundControlPoint
from scenes_to_map import BIOMASS, COVER, NORTH_UP, cover, nothing, of_pixels, source_of, write_scene
from scipy import ndimage

from domains.contract import GroundworkError, Target
from domains.geospatial import patches as patching
from domains.geospatial.ground import pixel_areas
from domains.geospatial.maps import write_map
from domains.geospatial.patches import write_polygons

NAMES = {1: "unburned", 2: "burned"}


def write_map_of(
    path: Path, classes: np.ndarray, transform: Affine = NORTH_UP, crs: str = "EPSG:32633"
) -> np.ndarray:
    """A map with 255 for no data; gives its percents."""
    percent = np.random.default_rng(0).integers(50, 101, classes.shape).astype(np.uint8)
    percent[classes == 255] = 255
    height, width = classes.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=2, dtype="uint8", nodata=255, crs=crs,
        transform=transform,
    ) as file:  # fmt: skip
        file.write(np.stack([classes.astype(np.uint8), percent]))
    return percent


def rows_of(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, Any]]:
    told, _, geometry, columns = read(path)
    return dict(zip(told["fields"], columns, strict=True)), shapely.from_wkb(geometry), told


@pytest.mark.parametrize("side", [5, 16, 1024])
@pytest.mark.parametrize("transform", [NORTH_UP, Affine(8.66, 5, 500_000, 5, -8.66, 4_000_000)])
def test_patches_are_whole_whatever_squares_they_were_read_in(
    side: int, transform: Affine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patching, "SIDE", side)
    monkeypatch.setattr(patching, "AT_ONCE", 7)
    random = np.random.default_rng(side)
    smooth = ndimage.gaussian_filter(random.random((33, 41)), 1.0)
    classes = np.where(smooth > np.median(smooth), 2, 1)
    classes[3:9, 20:27] = 255
    percent = write_map_of(tmp_path / "map.tif", classes, transform)
    count = write_polygons(tmp_path / "map.tif", NAMES, tmp_path / "patches.gpkg")
    columns, shapes, told = rows_of(tmp_path / "patches.gpkg")
    assert count == len(shapes)
    assert (told["crs"], told["geometry_type"]) == ("EPSG:32633", "Polygon")
    assert shapely.is_valid(shapes).all()

    expected = []
    for value in (1, 2):
        labels, number = ndimage.label(classes == value)
        for label in range(1, number + 1):
            inside = labels == label
            expected.append((value, int(inside.sum()), round(float(percent[inside].mean()) / 100, 9)))
    found = zip(
        columns["class"].tolist(),
        columns["pixels"].tolist(),
        columns["mean_probability"].round(9),
        strict=True,
    )
    assert sorted(found) == sorted(expected)
    assert set(columns["class_name"]) == {"unburned", "burned"}
    assert sorted(part.name for part in tmp_path.iterdir()) == ["map.tif", "patches.gpkg"]

    pixel = abs(transform.determinant)
    np.testing.assert_allclose(shapely.area(shapes), columns["pixels"] * pixel, rtol=1e-6)
    middles = np.argwhere(classes != 255)[::37]
    for row, column in middles:
        a, b, c, d, e, f = tuple(transform)[:6]
        point = shapely.Point(
            a * (column + 0.5) + b * (row + 0.5) + c, d * (column + 0.5) + e * (row + 0.5) + f
        )
        [holder] = np.flatnonzero(shapely.contains(shapes, point))
        assert columns["class"][holder] == classes[row, column]


def zone_area(south: float, north: float, degrees: float) -> float:
    """Area in m² between two parallels of WGS 84 and two meridians (Snyder 1987, equation 3-12)."""
    squared = 0.00669437999014
    e = math.sqrt(squared)

    def q(latitude: float) -> float:
        sine = math.sin(math.radians(latitude))
        return (1 - squared) * (
            sine / (1 - squared * sine**2) - math.log((1 - e * sine) / (1 + e * sine)) / (2 * e)
        )

    return 6_378_137.0**2 * math.radians(degrees) * (q(north) - q(south)) / 2


@pytest.mark.parametrize("latitude", [0.0, 48.0, 89.9])
@pytest.mark.parametrize("longitude", [12.0, 179.95])
def test_pixels_in_degrees_are_as_large_as_on_the_ellipsoid(latitude: float, longitude: float) -> None:
    step = 0.001
    grid = Affine(step, 0, longitude, 0, -step, latitude + 0.05)
    areas = pixel_areas(CRS("EPSG:4326").to_wkt(), grid, 0, 0, 100, 100)
    assert areas.sum() == pytest.approx(zone_area(latitude - 0.05, latitude + 0.05, 0.1), rel=1e-6)
    assert areas[0, 0] == pytest.approx(zone_area(latitude + 0.049, latitude + 0.05, step), rel=1e-4)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3857", "EPSG:3035", "ESRI:102003"])
def test_projected_pixels_are_as_large_as_geodesics_say(crs: str) -> None:
    x, y = (-1_000_000, 500_000) if crs.startswith("ESRI") else (700_000, 5_800_000)
    x, y = (4_000_000, 3_000_000) if crs == "EPSG:3035" else (x, y)
    areas = pixel_areas(CRS(crs).to_wkt(), Affine(10, 0, x, 0, -10, y), 0, 0, 200, 300)
    edge = [(x + column, y) for column in range(0, 3000, 10)]
    edge += [(x + 3000, y - row) for row in range(0, 2000, 10)]
    edge += [(x + column, y - 2000) for column in range(3000, 0, -10)]
    edge += [(x, y - row) for row in range(2000, 0, -10)]
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    area, _ = Geod(ellps="WGS84").polygon_area_perimeter(*to_degrees.transform(*zip(*edge, strict=True)))
    assert areas.sum() == pytest.approx(abs(area), rel=1e-5)


def test_a_map_comes_with_its_patches_where_they_have_a_place(tmp_path: Path) -> None:
    def make(name: str, target: Target = COVER, **place: Any) -> Path:
        write_scene(tmp_path / "scene.tif", 40, 37, **place)
        out, patches = tmp_path / f"{name}.tif", tmp_path / f"{name}.gpkg"
        write_map(source_of(tmp_path / "scene.tif"), target, of_pixels(cover), out, {}, nothing, patches)
        return patches

    columns, _, _ = rows_of(make("cover"))
    with rasterio.open(tmp_path / "cover.tif") as made:
        known = made.read(1) != made.nodata
    assert columns["pixels"].sum() == known.sum()
    assert columns["area_ha"].sum() == pytest.approx(known.sum() * 0.01, rel=1e-3)
    assert set(columns["class_name"]) == {"water", "wood", "town"}

    with pytest.raises(GroundworkError, match="map of numbers has no patches"):
        make("numbers", BIOMASS)
    points = [GroundControlPoint(r, c, 12 + c, 48 - r, 0) for r, c in ((0, 0), (0, 37), (40, 0), (40, 37))]
    for place in ({"transform": None, "crs": None}, {"transform": None, "crs": "EPSG:4326", "gcps": points}):
        with pytest.raises(GroundworkError, match="no place by CRS and transform"):
            make("nowhere", **place)
    site = 'LOCAL_CS["site",UNIT["metre",1]]'
    write_scene(tmp_path / "scene.tif", 40, 37, crs=site)
    asked: list[object] = []
    with pytest.raises(GroundworkError, match=r"areas cannot be told; leave out --polygons"):
        write_map(
            *(source_of(tmp_path / "scene.tif"), COVER, asked.append, tmp_path / "n.tif", {}, nothing),
            tmp_path / "n.gpkg",
        )
    assert not asked
    assert sorted(part.name for part in tmp_path.glob("n*")) == []
