"""Two dates of one place: how pairs are laid out, what is refused, and what a chip of both holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasters_on_disk import (
    BURN_BANDS,
    PLACE,
    TRUE_COLOUR,
    burn_scars,
    error_of,
    opened,
    read_all,
    reflectances,
    write_tiff,
    zipped,
)

from domains.contract import Reject, Row, Target
from domains.geospatial import GEOSPATIAL, RasterEncoding
from domains.geospatial.floors import image_statistics, pixel_features
from domains.geospatial.reading import scene_of
from domains.tables import Unreadable

FIRES = Path(__file__).parents[4] / "shared/data/geospatial/burn_scars"
MASKED = Target(name="mask", kind="binary", classes=("0", "1"), level="pixel", values=(0, 1))


def pairs(folder: Path, scenes: int = 3) -> Path:
    """The burn scars with what was there before."""
    burn_scars(folder, scenes)
    for index in range(scenes):
        place = from_origin(500_000 + 100_000 * index, 5_000_000, 20, 20)
        before = reflectances(seed=index + 20)
        write_tiff(folder / f"images_before/fire{index}.tif", before, BURN_BANDS, transform=place)
    return folder


def test_images_before_are_the_earlier_date_where_a_change_is_asked_for(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "fires")
    asked = GEOSPATIAL.encoding_for("change", RasterEncoding(chip=32, patch=8))
    source = GEOSPATIAL.open(folder, asked)
    assert (source.encoding.dates, source.pixel_targets, source.remarks) == (2, ("mask",), ())  # type: ignore[attr-defined]
    records, rejects = read_all(source)
    assert not rejects
    assert len(records) == 12
    pixels = GEOSPATIAL.encode(records[0], source.encoding)["pixels"]
    assert (pixels.shape, pixels.dtype) == ((2, 5, 32, 32), np.float32)
    np.testing.assert_array_equal(pixels[0], reflectances(seed=20)[:, :32, :32])
    np.testing.assert_array_equal(pixels[1], reflectances(seed=0)[:, :32, :32])
    assert GEOSPATIAL.draw(records[0], "burnt").startswith(b"<svg")
    single = opened(folder)
    assert read_all(single)[0][0].value.pixels.shape == (5, 32, 32)
    assert single.remarks == ("Beside images/ and masks/, fires holds images_before/: left alone.",)
    assert single.digest != source.digest
    assert opened(zipped(folder, tmp_path / "fires.zip"), dates=2).digest == source.digest


def test_chips_of_a_pair_that_follow_each_other_are_those_of_the_pair(tmp_path: Path) -> None:
    stored = [reflectances(height=48, width=130, seed=seed) for seed in (1, 2)]
    for name, pixels in zip(("before", "after"), stored, strict=True):
        write_tiff(tmp_path / f"{name}.tif", pixels, BURN_BANDS)
    records, _ = read_all(opened(tmp_path, dates=2))
    assert len(records) == 2 * 5
    for record in records:
        chip = record.value
        assert chip.pixels.shape == (2, 5, 32, 32)
        rows, columns = slice(chip.row, chip.row + 32), slice(chip.column, chip.column + 32)
        expected = np.stack(stored)[:, :, rows, columns]
        inside = chip.pixels[:, :, : expected.shape[2], : expected.shape[3]]
        np.testing.assert_array_equal(inside, expected)


def test_what_does_not_match_its_earlier_image_is_a_reject_that_names_both(tmp_path: Path) -> None:
    folder = pairs(tmp_path, scenes=6)
    before = folder / "images_before"
    far = [from_origin(500_000 + 100_000 * index, 5_000_000, 20, 20) for index in range(6)]
    (before / "fire0.tif").unlink()
    write_tiff(before / "fire1.tif", reflectances(height=40), BURN_BANDS, transform=far[1])
    write_tiff(before / "fire2.tif", reflectances(), TRUE_COLOUR, transform=far[2])
    write_tiff(before / "fire3.tif", reflectances(), BURN_BANDS, transform=PLACE)
    write_tiff(before / "fire4.tif", reflectances(), BURN_BANDS, crs=None)
    _, rejects = read_all(opened(folder, dates=2))
    reasons = {reject.original: reject.reason for reject in rejects}
    assert reasons == {
        "images/fire0.tif": "no image of the same name in images_before/, where two dates are compared",
        "images/fire1.tif": "images_before/fire1.tif: an image before of 40 × 40 pixels on an image "
        "of 40 × 48",
        "images/fire2.tif": "images_before/fire2.tif: bands TCI_R, TCI_G, TCI_B in display bytes where "
        "B4, B3, B2 in reflectance × 10000 are expected",
        "images/fire3.tif": "images_before/fire3.tif: an image before that lies 1.5e+04 pixels beside its "
        "image: warp it to the image",
        "images/fire4.tif": "images_before/fire4.tif: the later image of the pair has a location, and the "
        "earlier one has none",
    }


def test_what_one_date_did_not_see_is_missing_on_both(tmp_path: Path) -> None:
    folder = pairs(tmp_path, scenes=1)
    stored = reflectances().astype(np.float32)
    stored[:, :4] = np.nan
    stored[0, 10] = np.nan
    write_tiff(folder / "images_before/fire0.tif", stored, BURN_BANDS)
    (record, *_), _ = read_all(opened(folder, dates=2))
    pixels = record.value.pixels
    assert np.isnan(pixels[:, :, :4]).all()
    assert np.isnan(pixels[0, 0, 10]).all()
    assert np.isfinite(pixels[1, :, 4:]).all()


def test_folders_in_images_are_classes_of_change(tmp_path: Path) -> None:
    for place, name in enumerate(("built/a", "built/b", "stable/c")):
        for folder in ("images", "images_before"):
            write_tiff(tmp_path / f"set/{folder}/{name}.tif", reflectances(seed=place), BURN_BANDS)
    source = opened(tmp_path / "set", dates=2)
    assert source.targets == ("class",)
    assert source.pixel_targets == ()
    assert {row.fields["image"]: row.fields["class"] for row in source.stream()} == {
        "images/built/a.tif": "built", "images/built/b.tif": "built", "images/stable/c.tif": "stable",
    }  # fmt: skip
    assert opened(tmp_path / "set").targets == ("class",)


def test_two_files_are_one_pair_that_can_become_a_map(tmp_path: Path) -> None:
    for name, seed in (("before", 1), ("after", 2)):
        write_tiff(tmp_path / f"fire/{name}.tif", reflectances(seed=seed), BURN_BANDS)
    source = opened(tmp_path / "fire", dates=2)
    scene = scene_of(source)
    assert (source.map_suffix, scene.name) == (".tif", "after.tif")
    window = scene.read(40, 30, 16, 16, source.encoding.bands)  # type: ignore[attr-defined]
    assert window.shape == (2, 5, 16, 16)
    np.testing.assert_array_equal(window[0, :, :8, :10], reflectances(seed=1)[:, 40:, 30:])
    assert np.isnan(window[:, :, 8:]).all()


def test_a_map_of_a_pair_lies_where_the_pair_does(tmp_path: Path) -> None:
    before, after = reflectances(seed=1), reflectances(seed=1)
    after[:, :20] //= 2
    for name, pixels in (("before", before), ("after", after)):
        write_tiff(tmp_path / f"fire/{name}.tif", pixels, BURN_BANDS)
    source = opened(tmp_path / "fire", dates=2)

    def darker(samples: object) -> np.ndarray:
        both = np.stack([sample["pixels"] for sample in samples])  # type: ignore[attr-defined]
        assert both.shape[1:] == (2, 5, 32, 32)
        share = (both[:, 1] < 0.7 * both[:, 0]).all(axis=1).astype(np.float32)
        share[np.isnan(both).all(axis=(1, 2))] = np.nan
        return share.reshape(len(both), -1, 1)

    made = GEOSPATIAL.write_map(source, MASKED, darker, tmp_path / "map.tif", {}, lambda _: None)
    with rasterio.open(made.path) as file:
        answer = file.read(1)
        assert (file.transform, file.crs.to_epsg()) == (PLACE, 32632)
    assert (answer[:20] == 1).all()
    assert (answer[20:] == 0).all()


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (("a.tif", "b.tif"), "shows each place on one date"),
        (("images/a.tif", "masks/a.tif"), "has no folder images_before/, where two dates are compared"),
        (("images/a.tif", "images_before/b.tif"), "one of the same name in images_before/"),
    ],
)
def test_without_pairs_there_is_no_change(tmp_path: Path, layout: tuple[str, ...], words: str) -> None:
    for name in layout:
        pixels = reflectances(1).astype(np.uint8) % 2 if "mask" in name else reflectances()
        write_tiff(tmp_path / "set" / name, pixels, () if "mask" in name else BURN_BANDS)
    assert words in error_of(tmp_path / "set", dates=2)


def test_a_single_scene_is_one_date(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", reflectances(), BURN_BANDS)
    assert "name a folder that holds before.tif and after.tif" in error_of(path, dates=2)


def test_examples_of_a_pair_are_read_as_they_are_sent(tmp_path: Path) -> None:
    spec = opened(pairs(tmp_path), dates=2).encoding
    first, second = (GEOSPATIAL.read(Row(0, text), spec) for text in GEOSPATIAL.example(spec))
    assert not isinstance(first, Reject)
    assert not isinstance(second, Reject)
    np.testing.assert_array_equal(first.value.pixels[0], second.value.pixels[1])
    assert first.identity != second.identity
    alone = GEOSPATIAL.read(Row(0, GEOSPATIAL.example(spec)[0].split()[0]), spec)
    assert isinstance(alone, Reject)
    assert "1 images where 2 dates are compared" in alone.reason


def test_floors_see_both_dates_and_what_grew(tmp_path: Path) -> None:
    folder = pairs(tmp_path, scenes=1)
    (record, *_), _ = read_all(opened(folder, dates=2))
    (one, *_), _ = read_all(opened(folder))
    for features in (pixel_features, image_statistics):
        both, single = np.atleast_2d(features(record)), np.atleast_2d(features(one))
        earlier, later, growth = np.split(both, 3, axis=1)
        np.testing.assert_allclose(later, single, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(growth, later - earlier, rtol=1e-3, atol=1e-2)
        assert np.abs(growth).max() > 0
    (computed,) = GEOSPATIAL.computed(opened(folder, dates=2).encoding)
    assert GEOSPATIAL.describe(record, opened(folder, dates=2).encoding)[computed.name].shape == (
        computed.size,
    )


@pytest.mark.skipif(not FIRES.is_dir(), reason="the shared rasters are not at hand")
def test_twelve_of_the_fires_have_an_earlier_date() -> None:
    rows = list(GEOSPATIAL.open(FIRES, RasterEncoding(dates=2)).stream())
    faults = [row.value.reason for row in rows if isinstance(row.value, Unreadable)]
    assert faults == ["no image of the same name in images_before/, where two dates are compared"] * 10
    assert len({row.fields["image"] for row in rows}) == 22
