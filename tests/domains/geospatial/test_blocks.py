"""Which chips stay together, and how one is drawn."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine, from_origin
from rasters_on_disk import (
    BURN_BANDS,
    UTM,
    opened,
    read_all,
    reflectances,
    write_tiff,
)

from domains.abilities import Reconstruction
from domains.contract import GroundworkError, Record
from domains.geospatial import GEOSPATIAL, RasterEncoding, drawing

# -------------------------------------------------------------------------------------------------- groups


def grouped(path: Path, method: str) -> list[int]:
    return GEOSPATIAL.groups(iter(read_all(opened(path))[0]), method).tolist()


def test_chips_of_a_block_on_the_ground_stay_together(tmp_path: Path) -> None:
    """Blocks of 8 × 32 pixels of 20 m: 5120 m, counted from the origin of the CRS."""
    corner = from_origin(5120 * 100, 5120 * 1000, 20, 20)
    write_tiff(tmp_path / "a.tif", reflectances(5, 32, 320), BURN_BANDS, transform=corner)
    write_tiff(
        tmp_path / "b.tif", reflectances(5, 32, 32, seed=1), BURN_BANDS,
        transform=corner * Affine.translation(260, 3),
    )  # fmt: skip
    blocks = grouped(tmp_path, "blocks")
    assert blocks[:8] == [blocks[0]] * 8
    assert blocks[8:10] == [blocks[8]] * 2
    assert blocks[10] == blocks[8]  # another scene of the same place
    assert len(set(blocks)) == 2
    assert grouped(tmp_path, "scene") == [0] * 10 + [1]
    assert len(set(grouped(tmp_path, "random"))) == 11


def test_the_date_line_parts_no_block(tmp_path: Path) -> None:
    for name, west in (("a", 181.0), ("b", -179.0)):
        place = from_origin(west, 10, 0.0001, 0.0001)
        write_tiff(tmp_path / f"{name}.tif", reflectances(5, 32, 32), BURN_BANDS, "EPSG:4326", place)
    assert grouped(tmp_path, "blocks") == [0, 0]


def test_duplicates_are_one_group_and_a_scene_without_location_another(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", reflectances(5, 32, 32), BURN_BANDS)
    write_tiff(tmp_path / "b.tif", reflectances(5, 32, 32), BURN_BANDS, crs=None)
    assert grouped(tmp_path, "random") == [0, 0]
    assert grouped(tmp_path, "blocks") == [0, 1]
    (tmp_path / "a.tif").unlink()
    with pytest.raises(GroundworkError, match="no scene has a location"):
        grouped(tmp_path, "blocks")
    with pytest.raises(GroundworkError, match="choose one of blocks, scene, random"):
        grouped(tmp_path, "scaffold")


# --------------------------------------------------------------------------------------------------- draw


def test_a_chip_is_drawn_with_its_caption(tmp_path: Path) -> None:
    stored = reflectances(5, 32, 32)
    stored[:, :4] = 0
    (record,), _ = read_all(opened(write_tiff(tmp_path / "a.tif", stored, BURN_BANDS, nodata=0)))
    svg = GEOSPATIAL.draw(record, "burnt <b>&\n said 0.9").decode()
    assert svg.startswith("<svg")
    assert "burnt &lt;b&gt;&amp; said 0.9</text>" in svg
    assert "data:image/png;base64," in svg


def test_targets_of_pretraining_are_the_pixels_of_a_patch(tmp_path: Path) -> None:
    spec = opened(write_tiff(tmp_path / "a.tif", reflectances(), BURN_BANDS)).encoding
    patch, edges, band, words = GEOSPATIAL.pretraining_targets(spec)
    assert (patch.name, patch.level, patch.kind, patch.size) == ("patch", "token", "reals", 64)
    assert (edges.name, edges.level, edges.kind) == ("edges", "token", "reals")
    assert (band.name, band.level, band.kind) == ("band", "channel", "reals")
    assert (words.name, words.level, words.kind) == ("words", "sample", "reals")
    record = read_all(opened(tmp_path / "a.tif"))[0][0]
    assert isinstance(record, Record)
    (statistics,) = GEOSPATIAL.computed(spec)
    assert GEOSPATIAL.describe(record, spec)[statistics.name].shape == (statistics.size,)
    assert isinstance(spec, RasterEncoding)
    assert rasterio.crs.CRS.from_wkt(record.value.crs).to_string() == UTM


def test_reconstructions_are_drawn_beside_what_was_seen(tmp_path: Path) -> None:
    source = opened(write_tiff(tmp_path / "a.tif", reflectances(), BURN_BANDS))
    pixels = next(iter(read_all(source)[0])).value.pixels
    masked, filled = pixels.copy(), pixels.copy()
    masked[:, :16], filled[:, :16] = np.nan, 9000.0
    its = Reconstruction(*({"pixels": each} for each in (pixels, masked, filled)))
    png = GEOSPATIAL.draw_reconstructions([(source.encoding, its)] * 2)
    with Image.open(io.BytesIO(png)) as picture:
        drawn = np.asarray(picture)[drawing.HEAD :]
    step = drawing.CELL + drawing.GAP
    seen, hidden, made = (drawn[: drawing.CELL, left : left + drawing.CELL] for left in (0, step, 2 * step))
    half = drawing.CELL // 2
    assert (hidden[:half] == drawing.GREY).all()
    assert (made[:half] == 255).all()
    for image in (hidden, made):  # stretched alike, whatever was filled in
        np.testing.assert_array_equal(image[half:], seen[half:])
    np.testing.assert_array_equal(drawn[step : step + drawing.CELL], drawn[: drawing.CELL])
