"""Datasets of rasters as users lay them out, and what they say of their bands and classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image
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

from domains.contract import ClassSpec, GroundworkError
from domains.geospatial import GEOSPATIAL, RasterEncoding
from domains.geospatial.reading import scene_of

# ----------------------------------------------------------------------------------------------- layouts


def test_masks_beside_images_are_labels_of_each_pixel(tmp_path: Path) -> None:
    folder = burn_scars(tmp_path / "fires")
    write_tiff(folder / "images_before/fire0.tif", reflectances(), BURN_BANDS)
    (folder / "README.txt").write_text("hello")
    (folder / "images/.hidden.tif").write_bytes(b"x")
    source = opened(folder)
    assert source.columns == ("image", "row", "column", "mask")
    assert source.targets == source.pixel_targets == ("mask",)
    assert source.remarks == ("Beside images/ and masks/, fires holds images_before/: left alone.",)
    assert (source.split, source.map_suffix, source.simulated) == ("", "", False)
    records, rejects = read_all(source)
    assert not rejects
    assert len(records) == 12
    last = records[3]
    assert dict(last.fields) == {
        "image": "images/fire0.tif", "row": "32", "column": "32", "mask": "masks/fire0.tif",
    }  # fmt: skip
    with rasterio.open(folder / "masks/fire0.tif") as file:
        mask = file.read(1)
    label = GEOSPATIAL.labels(last, ["mask"])["mask"].reshape(32, 32)
    assert (label[:16, :8] == mask[32:, 32:]).all()
    assert np.isnan(label[16:]).all()
    assert np.isnan(label[:, 8:]).all()


def test_numbers_of_masks_have_their_scale(tmp_path: Path) -> None:
    """Heights of trees in decimetres, as 16 bits hold them."""
    folder = burn_scars(tmp_path, scenes=1)
    stored = np.full((1, 48, 40), 123, np.int16)
    stored[:, 0, 0] = -1
    place = from_origin(500_000, 5_000_000, 20, 20)
    write_tiff(folder / "masks/fire0.tif", stored, transform=place, nodata=-1, scale=(0.1, 0.5))
    (record, *_), _ = read_all(opened(folder))
    label = GEOSPATIAL.labels(record, ["mask"])["mask"]
    assert np.isnan(label[0])
    assert set(label[1:].tolist()) == {float(np.float32(12.8))}
    (folder / "bands.yaml").write_text("classes: [{value: 123, name: wood}, {value: 0, name: none}]")
    (record, *_), _ = read_all(opened(folder))
    assert set(GEOSPATIAL.labels(record, ["mask"])["mask"][1:].tolist()) == {123.0}


def test_a_folder_for_each_class_below_a_common_top(tmp_path: Path) -> None:
    for index, name in enumerate(("Forest", "River", "Forest")):
        path = tmp_path / f"set/2750/{name}/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(reflectances(3, 32, 32, seed=index).astype(np.uint8).transpose(1, 2, 0)).save(path)
    source = opened(tmp_path / "set")
    assert source.targets == ("class",)
    assert source.pixel_targets == ()
    assert [row.fields["class"] for row in source.stream()] == ["Forest", "Forest", "River"]
    assert [band.name for band in source.encoding.bands] == ["R", "G", "B"]  # type: ignore[attr-defined]
    assert source.split == "random"
    assert source.remarks == (
        "No scene of set has a location: test chips are drawn at random, and may lie beside training chips.",
    )


@pytest.mark.parametrize("name", ["README", "LICENSE", "desktop.ini", "Desktop.ini"])
def test_what_is_left_beside_class_folders_is_no_scene(tmp_path: Path, name: str) -> None:
    for index, part in enumerate(("Forest", "River")):
        write_tiff(tmp_path / f"set/{part}/{index}.tif", reflectances(seed=index), BURN_BANDS)
    (tmp_path / "set" / name).write_text("hello")
    source = opened(tmp_path / "set")
    assert source.targets == ("class",)
    assert not read_all(source)[1]


def test_without_location_whole_scenes_are_held_out_where_there_are_enough(tmp_path: Path) -> None:
    for index in range(10):
        write_tiff(tmp_path / f"set/{index}.tif", reflectances(seed=index), BURN_BANDS, crs=None)
    source = opened(tmp_path / "set")
    assert source.split == "scene"
    assert source.remarks == ("No scene of set has a location: whole scenes are held out for the test.",)
    assert source.targets == ()


def test_other_folders_are_scenes_without_labels_and_it_is_said(tmp_path: Path) -> None:
    for name in ("north/a/1.tif", "north/b/2.tif", "south/a/3.tif"):
        write_tiff(tmp_path / "set" / name, reflectances(), BURN_BANDS)
    source = opened(tmp_path / "set")
    assert source.targets == ()
    assert "(north, south) are neither images/ and masks/ nor one folder per class" in source.remarks[0]


def test_one_scene_can_become_a_map(tmp_path: Path) -> None:
    source = opened(burn_scars(tmp_path) / "images/fire1.tif")
    assert source.map_suffix == ".tif"
    assert (scene_of(source).height, scene_of(source).width) == (48, 40)
    with pytest.raises(GroundworkError, match="several scenes"):
        scene_of(opened(tmp_path))


def test_a_zip_archive_is_the_folder_it_was_made_of(tmp_path: Path) -> None:
    folder = burn_scars(tmp_path / "set")
    write_tiff(folder / "images/bad.tif", reflectances(), TRUE_COLOUR)
    write_tiff(folder / "masks/bad.tif", reflectances(1).astype(np.uint8) % 2)
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX/fire.tif").write_bytes(b"junk")
    from_folder, from_zip = opened(folder), opened(zipped(folder, tmp_path / "set.zip"))
    assert from_zip.digest == from_folder.digest
    mine, theirs = read_all(from_folder), read_all(from_zip)
    assert [record.identity for record in mine[0]] == [record.identity for record in theirs[0]]
    assert [dict(record.fields) for record in mine[0]] == [dict(record.fields) for record in theirs[0]]
    assert [reject.reason for reject in mine[1]] == [reject.reason for reject in theirs[1]]
    assert len(mine[1]) == 1
    labels = [GEOSPATIAL.labels(found[0][2], ["mask"])["mask"] for found in (mine, theirs)]
    assert np.array_equal(*labels, equal_nan=True)


def test_the_digest_is_of_content_alone(tmp_path: Path) -> None:
    folder = burn_scars(tmp_path / "a")
    digest = opened(folder).digest
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved, copy_function=shutil.copy)
    assert opened(moved).digest == digest
    single = shutil.copy(folder / "images/fire1.tif", tmp_path / "other name.tif")
    assert opened(folder / "images/fire1.tif").digest == opened(single).digest
    write_tiff(moved / "masks/fire1.tif", np.ones((1, 48, 40), np.uint8), transform=PLACE)
    assert opened(moved).digest != digest


def test_simulated_files_say_so_wherever_they_lie(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", reflectances(), BURN_BANDS)
    with rasterio.open(path, "r+") as file:
        file.update_tags(SIMULATED="yes")
    assert opened(path).simulated


# -------------------------------------------------------------------------------------------- bands.yaml


def test_a_bands_yaml_tells_bands_and_classes(tmp_path: Path) -> None:
    stored = reflectances(2).astype(np.int16)
    stored[:, 0] = -1
    write_tiff(tmp_path / "images/a.tif", stored)
    mask = np.array([[[0, 2], [7, 9]]], np.uint8).repeat(24, 1).repeat(20, 2)
    write_tiff(tmp_path / "masks/a.tif", mask)
    content = {
        "bands": [
            {"name": "red", "wavelength": 660, "unit": "reflectance", "scale": 0.0001, "nodata": -1},
            {"name": "radar", "polarisation": "VV", "unit": "dB", "scale": -0.01},
        ],
        "classes": [
            {"value": 0, "name": "water", "colour": "#0000ff"},
            {"value": 2, "name": "land"},
            {"value": 7, "name": "ice"},
        ],
        "mask_nodata": 9,
    }
    (tmp_path / "bands.yaml").write_text(yaml.safe_dump(content))
    source = opened(tmp_path)
    assert source.classes == {
        "mask": (ClassSpec(0, "water", "#0000ff"), ClassSpec(2, "land"), ClassSpec(7, "ice"))
    }
    (record, *_), _ = read_all(source)
    assert np.isnan(record.value.pixels[:1, 0]).all()
    assert np.allclose(record.value.pixels[0, 1:], stored[0, 1:32, :32] / 10_000)
    label = GEOSPATIAL.labels(record, ["mask"])["mask"].reshape(32, 32)
    assert np.isnan(label[24:, 20:]).all()
    assert set(label[:24].ravel()) == {0, 2}
    # A scene out of images/ is told by the same file, when a map is made of it.
    assert opened(tmp_path / "images/a.tif").encoding == source.encoding


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bands: [{name: B4}]", "bands.yaml, bands.0.unit: Field required; such as: bands: [{name: B4"),
        ("bands: [{name: B4, unit: m, colour: 3}]", "bands.0.colour: Extra inputs are not permitted"),
        ("bands: [{name: a, unit: m}, {name: a, unit: m}]", "the same name or value stands twice"),
        ("classes: [{value: 1, name: a, colour: red}]", "classes.0.colour"),
        ("- {name: B4, unit: m}", "2 bands where bands.yaml names 1"),
        ("bands: [{", "bands.yaml is not YAML"),
        ("'bands'", "bands.yaml"),
        ("[" * 5000, "lists over 1000 entries"),
        ("- " * 5000, "bands.yaml is not YAML"),
    ],
)
def test_a_wrong_bands_yaml_is_explained(tmp_path: Path, text: str, words: str) -> None:
    write_tiff(tmp_path / "a.tif", reflectances(2))
    (tmp_path / "bands.yaml").write_text(text)
    assert words in error_of(tmp_path / "a.tif")


def test_a_file_that_says_otherwise_than_the_bands_yaml_is_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", reflectances(2), ["TCI_R", "B8"])
    (tmp_path / "bands.yaml").write_text("[{name: B4, unit: m}, {name: B8, unit: m}]")
    assert "the file calls its bands TCI_R, B8, and bands.yaml names B4, B8" in error_of(tmp_path / "a.tif")


@pytest.mark.parametrize("names", [["Band 1", "Band 2"], ["reflectance", "reflectance"]])
def test_names_that_tell_no_band_from_another_leave_it_to_the_bands_yaml(
    tmp_path: Path, names: list[str]
) -> None:
    write_tiff(tmp_path / "a.tif", reflectances(2), names)
    (tmp_path / "bands.yaml").write_text("[{name: now, unit: m}, {name: then, unit: m}]")
    assert [band.name for band in opened(tmp_path / "a.tif").encoding.bands] == ["now", "then"]  # type: ignore[attr-defined]


def test_categories_of_a_mask_are_its_classes(tmp_path: Path) -> None:
    folder = burn_scars(tmp_path, scenes=1)
    mask = folder / "masks/fire0.tif"
    with rasterio.open(mask, "r+") as file:
        file.write_colormap(1, {0: (10, 200, 30), 1: (120, 0, 0)})
    (folder / "masks/fire0.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><CategoryNames><Category>unburnt</Category>'
        "<Category>burnt</Category></CategoryNames></PAMRasterBand></PAMDataset>"
    )
    assert opened(folder).classes == {
        "mask": (ClassSpec(0, "unburnt", "#0ac81e"), ClassSpec(1, "burnt", "#780000"))
    }


# ------------------------------------------------------------------------------------------ disagreements


def test_the_bands_of_most_scenes_are_expected_of_all(tmp_path: Path) -> None:
    folder = burn_scars(tmp_path)
    for index in range(2):
        write_tiff(folder / f"images/tci{index}.tif", reflectances(), TRUE_COLOUR)
        write_tiff(folder / f"masks/tci{index}.tif", np.ones((1, 48, 40), np.uint8))
    write_tiff(folder / "images/coarse.tif", reflectances(), BURN_BANDS, transform=from_origin(0, 0, 40, 40))
    write_tiff(folder / "masks/coarse.tif", np.ones((1, 48, 40), np.uint8), crs=None)
    source = opened(folder)
    assert [band.name for band in source.encoding.bands] == list(BURN_BANDS)  # type: ignore[attr-defined]
    records, rejects = read_all(source)
    assert {record.value.scene for record in records} == {f"images/fire{index}.tif" for index in range(3)}
    assert [(reject.original, reject.reason) for reject in rejects] == [
        ("images/coarse.tif", "pixels of 40 m in B2 where 20 m are expected"),
        *(
            (
                f"images/tci{index}.tif",
                "bands TCI_R, TCI_G, TCI_B in display bytes where B4, B3, B2 in reflectance × 10000 are "
                "expected",
            )
            for index in range(2)
        ),
    ]


def mixed_fires(folder: Path) -> Path:
    """Three scenes of reflectances, and two whose visible bands are made for the screen."""
    burn_scars(folder)
    for index in range(2):
        pixels = reflectances(seed=9 + index)
        pixels[:3] //= 16
        write_tiff(folder / f"images/tci{index}.tif", pixels, TRUE_COLOUR)
        write_tiff(folder / f"masks/tci{index}.tif", np.ones((1, 48, 40), np.uint8))
    return folder


def test_bands_that_all_scenes_share_are_told_of(tmp_path: Path) -> None:
    folder = mixed_fires(tmp_path)
    assert opened(folder).remarks == (
        "2 of 5 scenes lack bands that most have, and are left out: --use-bands B8,B12 uses 5 of them.",
    )
    assert not opened(folder, use_bands="B8,B12").remarks
    assert not opened(burn_scars(tmp_path / "alike")).remarks


@pytest.mark.parametrize("names", ["B8,B12", " B12, B8,"])
def test_named_bands_are_used_of_all_scenes_that_have_them(names: str, tmp_path: Path) -> None:
    folder = mixed_fires(tmp_path)
    spec = RasterEncoding(chip=32, use_bands=names)
    source = GEOSPATIAL.open(folder, spec)
    assert isinstance(source.encoding, RasterEncoding)
    assert [band.name for band in source.encoding.bands] == ["B8", "B12"]
    records, rejects = read_all(source)
    assert not rejects
    assert len(records) == 20
    one = next(record for record in records if record.value.scene == "images/tci1.tif")
    expected = reflectances(seed=10)[3:, :32, :32]
    np.testing.assert_array_equal(one.value.pixels, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ("B8,B99", "has B99: --use-bands chooses from B2, B3, B4, B8, B12, TCI_R, TCI_G, TCI_B"),
        ("B2,TCI_R", "has all of B2, TCI_R: --use-bands chooses from B2, B3, B4, B8, B12, TCI_R"),
    ],
)
def test_bands_that_no_scene_has_are_refused(names: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(GroundworkError) as error:
        GEOSPATIAL.open(mixed_fires(tmp_path), RasterEncoding(chip=32, use_bands=names))
    assert fault in str(error.value)


@pytest.mark.parametrize("before", [BURN_BANDS, TRUE_COLOUR])
def test_both_dates_of_a_pair_have_the_bands_that_are_named(before: tuple[str, ...], tmp_path: Path) -> None:
    folder = mixed_fires(tmp_path)
    for path in sorted((folder / "images").glob("*.tif")):
        earlier = folder / "images_before" / path.name
        earlier.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, earlier)
    pixels = reflectances(seed=3)
    pixels[:3] //= 16
    write_tiff(folder / "images_before/fire0.tif", pixels, before)
    left = 2 if before == BURN_BANDS else 3
    assert opened(folder, dates=2).remarks == (
        f"{left} of 5 scenes lack bands that most have, and are left out: --use-bands B8,B12 uses 5 of them.",
    )
    records, rejects = read_all(opened(folder, dates=2, use_bands="B8,B12"))
    assert not rejects
    assert records[0].value.pixels.shape == (2, 2, 32, 32)


def test_a_stray_picture_does_not_hide_what_scenes_share(tmp_path: Path) -> None:
    folder = mixed_fires(tmp_path)
    picture = np.zeros((48, 40, 3), np.uint8)
    Image.fromarray(picture).save(folder / "images/photo.png")
    Image.fromarray(picture[..., 0]).save(folder / "masks/photo.png")
    [remark] = opened(folder).remarks
    assert remark.startswith("3 of 6 scenes lack bands")
    assert remark.endswith("--use-bands B8,B12 uses 5 of them.")


def test_what_is_not_used_may_hold_anything(tmp_path: Path) -> None:
    folder = burn_scars(tmp_path)
    pixels = reflectances()
    pixels[0] = 65_535
    write_tiff(folder / "images/fire0.tif", pixels, BURN_BANDS)
    _, (reject,) = read_all(opened(folder))
    assert "band B2 holds 65535" in reject.reason
    narrow = opened(folder, use_bands="B8,B12")
    assert not read_all(narrow)[1]
    scene = GEOSPATIAL.open(folder / "images/fire0.tif", narrow.encoding)
    assert not read_all(scene)[1]


def test_names_are_spelled_alike() -> None:
    assert RasterEncoding(use_bands=" B8, B12,B8,") == RasterEncoding(use_bands="B8,B12")
    assert RasterEncoding(use_bands=" ").names_used == ()
    with pytest.raises(ValueError, match="no name of a band stands between the commas"):
        RasterEncoding(use_bands=" , ")


def test_a_scene_without_a_named_band_is_a_reject(tmp_path: Path) -> None:
    source = GEOSPATIAL.open(mixed_fires(tmp_path), RasterEncoding(chip=32, use_bands="B4,B8"))
    records, rejects = read_all(source)
    assert len({record.value.scene for record in records}) == 3
    assert {reject.original for reject in rejects} == {"images/tci0.tif", "images/tci1.tif"}


def test_the_bands_of_a_model_are_the_measure_instead(tmp_path: Path) -> None:
    folder = burn_scars(tmp_path)
    spec = opened(folder).encoding
    scene = write_tiff(tmp_path / "scene.tif", reflectances(), TRUE_COLOUR)
    source = GEOSPATIAL.open(scene, spec)
    assert source.encoding == spec
    records, (reject,) = read_all(source)
    assert not records
    assert "TCI_R, TCI_G, TCI_B in display bytes where B4, B3, B2 in reflectance" in reject.reason
    with pytest.raises(GroundworkError, match=r"scene\.tif: bands TCI_R, TCI_G, TCI_B"):
        scene_of(source)
