"""Maps of scenes: in the right place, pixel for pixel, and what they say of themselves."""

from __future__ import annotations

import gc
import io
import os
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from scenes_to_map import (
    BIOMASS,
    BURNT,
    CHIP,
    COVER,
    NORTH_UP,
    burnt,
    cover,
    make,
    nothing,
    of_pixels,
    source_of,
    write_scene,
)

from domains.abilities import MapWriter
from domains.contract import GroundworkError
from domains.geospatial import GEOSPATIAL
from domains.geospatial.bands import RasterEncoding
from domains.geospatial.map_layers import PALETTE, layers_of
from domains.geospatial.maps import write_map
from domains.geospatial.opened import KEPT_OPEN
from domains.geospatial.scenes import Scene

pytestmark = pytest.mark.filterwarnings("ignore", category=NotGeoreferencedWarning)

# ------------------------------------------------------------------------------------- the right place

PLACES = {
    "north-up": (NORTH_UP, "EPSG:32633"),
    "south-up": (Affine(10, 0, 500_000, 0, 10, 3_999_000), "EPSG:32633"),
    "rotated": (Affine(8.66, 5, 500_000, 5, -8.66, 4_000_000), "EPSG:32633"),
    "degrees": (Affine(0.001, 0, 12, 0, -0.001, 48), "EPSG:4326"),
    "mars": (NORTH_UP, "+proj=eqc +a=3396190 +b=3396190 +units=m"),
    "transform without CRS": (NORTH_UP, None),
    "CRS without transform": (None, "EPSG:32633"),
    "no place": (None, None),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_map_lies_where_its_scene_lies(name: str, tmp_path: Path) -> None:
    transform, crs = PLACES[name]
    pixels = write_scene(tmp_path / "scene.tif", 45, 37, transform, crs)
    written = make(tmp_path / "scene.tif", BURNT, burnt, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "scene.tif") as scene, rasterio.open(written.path) as answer:
        assert (answer.crs, answer.transform, answer.shape) == (scene.crs, scene.transform, scene.shape)
        assert np.array_equal(answer.read(1) == answer.nodata, pixels[0] == -1)
    assert Image.open(io.BytesIO(written.quick_look)).width == 1000


def test_control_points_are_kept(tmp_path: Path) -> None:
    points = [
        GroundControlPoint(r, c, 12 + c / 100, 48 - r / 100, 0)
        for r, c in ((0, 0), (0, 40), (30, 0), (30, 40))
    ]
    write_scene(tmp_path / "scene.tif", 30, 40, None, "EPSG:4326", gcps=points)
    make(tmp_path / "scene.tif", BURNT, burnt, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as answer:
        kept, crs = answer.gcps
        assert crs.to_epsg() == 4326
        assert [(point.row, point.col, point.x, point.y) for point in kept] == [
            (point.row, point.col, point.x, point.y) for point in points
        ]


@pytest.mark.parametrize("shape", [(7, 9), (1, 40), (40, 1), (16, 16), (17, 33)])
def test_every_size_is_answered_pixel_for_pixel(shape: tuple[int, int], tmp_path: Path) -> None:
    pixels = write_scene(tmp_path / "scene.tif", *shape)
    make(tmp_path / "scene.tif", COVER, cover, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as answer:
        expected, percent = direct(pixels)
        np.testing.assert_array_equal(answer.read(1), expected)
        np.testing.assert_array_equal(answer.read(2), percent)


def direct(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class and percent of ``cover`` without tiles; 254 is the first number that is free."""
    flat = np.where(pixels == -1, np.nan, pixels).astype(np.float32).reshape(3, -1)
    probabilities = cover(flat).astype(np.float32).reshape(*pixels.shape[1:], 3)
    known = pixels[0] != -1
    codes = np.where(np.isnan(probabilities), 0, probabilities).argmax(axis=2)
    percent = np.rint(100 * probabilities.max(axis=2))
    return np.where(known, np.array([10, 20, 255])[codes], 254), np.where(known, percent, 254)


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    pixels = write_scene(tmp_path / "scene.tif", 70, 53)
    written = make(tmp_path / "scene.tif", BIOMASS, lambda p: np.sin(p[1])[:, None], tmp_path / "map.tif")
    with rasterio.open(written.path) as answer:
        assert (answer.count, answer.dtypes, answer.units) == (1, ("float32",), ("t/ha",))
        assert np.isnan(answer.nodata)
        expected = np.where(pixels[1] == -1, np.nan, np.sin(pixels[1].astype(np.float32)))
        np.testing.assert_array_equal(answer.read(1), expected.astype(np.float32))
    assert written.shares == {}
    assert not written.path.with_suffix(".qml").exists()


# ------------------------------------------------------------------------------------ what the map says


def test_classes_have_names_and_colours_and_the_file_is_cloud_optimised(tmp_path: Path) -> None:
    pixels = write_scene(tmp_path / "scene.tif", 1200, 700)
    heard: list[float] = []
    written = write_map(
        source_of(tmp_path / "scene.tif", chip=64, simulated=True),
        BURNT,
        of_pixels(burnt),
        tmp_path / "map.tif",
        {"model": "burn-scars version 3"},
        heard.append,
    )
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    known = pixels[0] != -1
    assert written.shares["burned"] == pytest.approx(np.mean(pixels[0][known] >= 5000))
    assert sum(written.shares.values()) == pytest.approx(1)
    assert sorted(part.name for part in tmp_path.iterdir()) == [
        "map.qml",
        "map.tif",
        "map.tif.aux.xml",
        "scene.tif",
    ]

    with rasterio.open(written.path) as answer:
        assert answer.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert answer.block_shapes == [(512, 512)] * 2
        assert answer.overviews(1) == answer.overviews(2) == [2, 4]
        assert answer.tags()["model"] == "burn-scars version 3"
        assert answer.tags()["SIMULATED"] == "yes"
    names = ElementTree.parse(tmp_path / "map.tif.aux.xml").iter("Category")  # noqa: S314
    assert [name.text or "" for name in names] == ["", "unburned", "burned"]
    entries = ElementTree.parse(tmp_path / "map.qml").iter("paletteEntry")  # noqa: S314
    assert [(entry.get("value"), entry.get("label"), entry.get("color")) for entry in entries] == [
        ("1", "unburned", "#00ff00"),
        ("2", "burned", "#aa0000"),
    ]

    (tmp_path / "alone").mkdir()
    alone = written.path.rename(tmp_path / "alone" / "map.tif")  # what the map says without its sidecars
    with rasterio.open(alone) as answer:
        assert answer.colorinterp == (ColorInterp.palette, ColorInterp.undefined)
        assert answer.colormap(1)[1][:3] == (0, 255, 0)
        assert answer.colormap(1)[2][:3] == (170, 0, 0)
        assert answer.tags(1) == {"CLASS_1": "unburned", "CLASS_2": "burned"}
        assert answer.descriptions == ("mask: class", "mask: probability of the class")
        assert answer.scales == (1.0, 0.01)
        full = answer.read()
    with rasterio.open(alone, overview_level=0) as half:
        overview = half.read()
    # A class between classes would be a class that nobody predicted; a probability may lie between.
    assert set(np.unique(overview[0])) == {1, 2, 255}
    block = full[1, 600:602, 600:602].astype(float)
    assert abs(overview[1, 300, 300] - block.mean()) <= 0.5


def test_a_second_map_replaces_the_first_and_what_lay_beside_it(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene.tif", 20, 20)
    make(tmp_path / "scene.tif", BURNT, burnt, tmp_path / "map.tif")
    make(tmp_path / "scene.tif", BIOMASS, burnt, tmp_path / "map.tif")
    assert sorted(part.name for part in tmp_path.iterdir()) == ["map.tif", "scene.tif"]


@pytest.mark.parametrize(
    ("values", "dtype", "nodata"),
    [
        ((0, 1, 2), "uint8", 255),
        ((0, 254, 255), "uint8", 253),
        ((0, 1, 1000), "uint16", 65535),
        ((-9999, 0, 1), "int16", 32767),
        ((0, 1, 70_000), "int32", 2**31 - 1),
    ],
)
def test_classes_are_written_as_the_masks_write_them(
    values: tuple[float, ...], dtype: str, nodata: int
) -> None:
    layers = layers_of(COVER.model_copy(update={"values": values}))
    assert (layers.dtype, layers.nodata) == (dtype, nodata)
    answers = np.array([[[1, 0, 0], [0.2, 0.5, 0.3], [0, 0.4, 0.6], [np.nan] * 3]], np.float32)
    pixels = layers.encode(answers)
    assert pixels[0].tolist() == [[*values, nodata]]
    assert pixels[1].tolist() == [[100, 50, 60, nodata]]
    assert layers.count(pixels).tolist() == [1, 1, 1]


def test_a_map_of_large_numbers_keeps_them(tmp_path: Path) -> None:
    target = COVER.model_copy(update={"values": (-9999, 0, 1)})
    write_scene(tmp_path / "scene.tif", 20, 20)
    make(tmp_path / "scene.tif", target, cover, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as answer:
        assert answer.dtypes == ("int16", "int16")
        assert set(np.unique(answer.read(1))) == {-9999, 0, 1, 32767}
        assert answer.tags(1)["CLASS_-9999"] == "water"


def test_classes_without_colours_get_some_that_can_be_told_apart() -> None:
    classes = layers_of(COVER).classes
    assert tuple(item.colour for item in classes) == PALETTE[:3]
    assert len({item.rgb for item in classes}) == 3


# -------------------------------------------------------------------------------- as users open a scene


def test_the_next_row_of_tiles_is_read_while_one_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Scene.read
    read_rows: list[int] = []
    second_is_read = threading.Event()

    def told(scene: Scene, row: int, *where: Any) -> np.ndarray:
        pixels = read(scene, row, *where)
        read_rows.append(row)
        if len(read_rows) == 2:
            second_is_read.set()
        return pixels

    def waiting(pixels: np.ndarray) -> np.ndarray:
        assert second_is_read.wait(20), "nothing is read beside the first row of tiles"
        return burnt(pixels)

    monkeypatch.setattr(Scene, "read", told)
    write_scene(tmp_path / "scene.tif", 45, 20)
    make(tmp_path / "scene.tif", BURNT, waiting, tmp_path / "map.tif")
    assert read_rows == sorted(set(read_rows))


def test_a_row_that_cannot_be_read_while_one_is_answered_ends_the_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Scene.read

    def failing(scene: Scene, row: int, *where: Any) -> np.ndarray:
        if row:
            raise GroundworkError("scene.tif is damaged")
        return read(scene, row, *where)

    monkeypatch.setattr(Scene, "read", failing)
    write_scene(tmp_path / "scene.tif", 45, 20)
    with pytest.raises(GroundworkError, match="damaged"):
        make(tmp_path / "scene.tif", BURNT, burnt, tmp_path / "map.tif")
    assert not (tmp_path / "map.tif").exists()


def test_scenes_that_cannot_be_read_are_let_go_of(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    write_scene(path, 200, 200, tiled=True, blockxsize=16, blockysize=16)
    whole = path.read_bytes()
    gc.disable()  # what lives on until it comes by holds files open
    try:
        before = len(os.listdir("/proc/self/fd"))
        for number in range(2 * KEPT_OPEN):
            damaged = tmp_path / f"damaged{number}.tif"
            damaged.write_bytes(whole[: len(whole) * 3 // 4])
            with pytest.raises(GroundworkError, match="damaged"):
                make(damaged, BURNT, burnt, tmp_path / "map.tif")
        assert len(os.listdir("/proc/self/fd")) - before <= KEPT_OPEN
    finally:
        gc.enable()


def test_the_domain_maps_a_scene_that_fits_the_model_and_refuses_one_that_does_not(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def scene(name: str, bands: tuple[str, ...], dtype: str, highest: int) -> Path:
        size = {"height": 40, "width": 50, "count": 3, "dtype": dtype}
        place = {"crs": "EPSG:32633", "transform": NORTH_UP}
        with rasterio.open(tmp_path / name, "w", driver="GTiff", **size, **place) as file:
            file.write(random.integers(1, highest, (3, 40, 50)).astype(dtype))
            file.descriptions = bands
        return tmp_path / name

    assert isinstance(GEOSPATIAL, MapWriter)
    asked = RasterEncoding(chip=CHIP, patch=8, sensor="sentinel-2")
    fitting = GEOSPATIAL.open(scene("reflectance.tif", ("B4", "B3", "B2"), "uint16", 10_000), asked)
    written = GEOSPATIAL.write_map(fitting, BURNT, of_pixels(burnt), tmp_path / "map.tif", {}, nothing)
    with rasterio.open(written.path) as answer:
        assert (answer.transform, answer.shape) == (NORTH_UP, (40, 50))

    true_colour = scene("colour.tif", ("TCI_R", "TCI_G", "TCI_B"), "uint8", 255)
    other = GEOSPATIAL.open(true_colour, fitting.encoding)
    with pytest.raises(GroundworkError, match=r"colour\.tif.*display byte.*reflectance"):
        GEOSPATIAL.write_map(other, BURNT, of_pixels(burnt), tmp_path / "other.tif", {}, nothing)
    assert not (tmp_path / "other.tif").exists()
