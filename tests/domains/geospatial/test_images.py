"""Images without a location, as cameras and programs save them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasters_on_disk import (
    PLACE,
    declare,
    error_of,
    opened,
    pixels_of,
    reflectances,
)

from domains.geospatial.reading import scene_of

pytestmark = pytest.mark.filterwarnings("ignore", category=NotGeoreferencedWarning)
STORED = reflectances()
BYTES = reflectances(3).astype(np.uint8)
HOLES = np.full((48, 40), 255, np.uint8)
HOLES[:10, :7] = 0


@pytest.mark.parametrize("count", [1, 3])
def test_a_png_of_16_bits_keeps_them(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.png"
    with rasterio.open(
        path, "w", driver="PNG", count=count, height=48, width=40, dtype="uint16"
    ) as file:  # fmt: skip
        file.write(STORED[:count])
    assert np.array_equal(pixels_of(opened(declare(path, *"abc"[:count]))), STORED[:count])


def test_grey_with_transparency_and_a_transparent_colour_have_holes(tmp_path: Path) -> None:
    Image.fromarray(np.stack([BYTES[0], HOLES], axis=-1), "LA").save(tmp_path / "a.png")
    found = pixels_of(opened(declare(tmp_path / "a.png", "height")))
    assert np.array_equal(np.isnan(found[0]), HOLES == 0)
    assert np.array_equal(found[0][HOLES > 0], BYTES[0][HOLES > 0])
    (tmp_path / "bands.yaml").unlink()

    coloured = np.maximum(BYTES, 1)
    coloured[:, 3, 4] = 0
    Image.fromarray(coloured.transpose(1, 2, 0)).save(tmp_path / "b.png", transparency=(0, 0, 0))
    found = pixels_of(opened(tmp_path / "b.png"))
    assert np.isnan(found[:, 3, 4]).all()
    assert np.isnan(found).sum() == 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_stands_upright(tmp_path: Path, orientation: int) -> None:
    """As everything shows it that a mask may have been drawn in."""
    upright = np.zeros((48, 40, 3), np.uint8)
    upright[:16, :16] = 200
    ways_back = (
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.transpose(1, 0, 2),
        lambda a: np.rot90(a, 1),
        lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        lambda a: np.rot90(a, -1),
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(ways_back[orientation - 1](upright))
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=100)
    found = pixels_of(opened(tmp_path / "a.jpg"))
    assert found.shape == (3, 48, 40)
    assert np.abs(found - upright.transpose(2, 0, 1)).max() < 20


def test_a_photograph_with_a_preview_inside_is_one_image(tmp_path: Path) -> None:
    """As drones and telephones write them."""
    photo = Image.fromarray(BYTES.transpose(1, 2, 0))
    photo.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[photo.resize((10, 12))], quality=100)
    assert pixels_of(opened(tmp_path / "a.jpg")).shape == (3, 48, 40)


def test_a_large_photograph_that_lies_on_its_side_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1200, 1100)).save(tmp_path / "a.jpg", exif=exif)
    assert "it is to be turned (EXIF orientation 6): save it upright" in error_of(tmp_path / "a.jpg")


def test_a_picture_with_a_place_has_it(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(BYTES.transpose(1, 2, 0)).save(path)
    assert scene_of(opened(path)).crs == ""
    path.with_suffix(".pgw").write_text("20\n0\n0\n-20\n500010\n4999990\n")
    path.with_name("a.png.aux.xml").write_text("<PAMDataset><SRS>EPSG:32632</SRS></PAMDataset>")
    source = opened(shutil.copytree(tmp_path, tmp_path / "again") / "a.png")
    scene = scene_of(source)
    assert scene.transform == tuple(PLACE)[:6]
    assert rasterio.crs.CRS.from_wkt(scene.crs).to_epsg() == 32632
    assert np.array_equal(pixels_of(source), BYTES)
