"""Bad rasters: one reject with its reason, or an error in one line; and never a file that is not theirs."""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin
from rasters_on_disk import (
    BURN_BANDS,
    PLACE,
    SPEC,
    burn_scars,
    error_of,
    opened,
    read_all,
    reflectances,
    write_tiff,
)

from domains.contract import GroundworkError, RejectedLabel
from domains.geospatial import GEOSPATIAL

# --------------------------------------------------------------------------------------------- bad input


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def spoil_scene(change: Callable[[Path], object], folder: Path) -> Path:
    change(burn_scars(folder) / "images/fire1.tif")
    return folder


BAD_SCENES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "it is empty, 0 bytes"),
    "cut in its header": (lambda path: cut(path, 0.01), "damaged or not what its suffix says"),
    "cut in its pixels": (lambda path: cut(path, 0.6), "damaged or not what its suffix says"),
    "text": (lambda path: path.write_text("hello"), "damaged or not what its suffix says"),
    "a VRT called TIFF": (
        lambda path: path.write_text("<VRTDataset rasterXSize='9' rasterYSize='9'></VRTDataset>"),
        "damaged or not what its suffix says",
    ),
    "below a patch": (
        lambda path: write_tiff(path, reflectances(5, 7, 90), BURN_BANDS),
        "90 × 7 pixels, smaller than a patch of 8 × 8",
    ),
    "another size than its mask": (
        lambda path: write_tiff(path, reflectances(5, 48, 41), BURN_BANDS, transform=PLACE),
        "masks/fire1.tif: a mask of 40 × 48 pixels on an image of 41 × 48",
    ),
    "another CRS than its mask": (
        lambda path: write_tiff(path, reflectances(), BURN_BANDS, crs="EPSG:32633"),
        "masks/fire1.tif: a mask in EPSG:32632 on an image in EPSG:32633",
    ),
    "beside its mask": (
        lambda path: write_tiff(
            path, reflectances(), BURN_BANDS, transform=from_origin(600_030, 5_000_000, 20, 20)
        ),
        "a mask that lies 1.5 pixels beside its image",
    ),
    "other bands": (
        lambda path: write_tiff(path, reflectances(2), ["VV", "VH"], transform=from_origin(6e5, 5e6, 20, 20)),
        "bands VV, VH in dB where B2, B3, B4, B8, B12 in reflectance × 10000 are expected",
    ),
    "reflectance, not × 10000": (
        lambda path: write_tiff(
            path,
            (reflectances() / 10_000).astype(np.float32),
            BURN_BANDS,
            transform=from_origin(6e5, 5e6, 20, 20),
        ),
        "cannot be reflectance × 10000: it looks like reflectance",
    ),
    "complex numbers": (
        lambda path: write_tiff(path, reflectances().astype(np.complex64), BURN_BANDS),
        "complex numbers are not read",
    ),
    "without its mask": (
        lambda path: (path.parent.parent / "masks/fire1.tif").unlink(),
        "no mask of the same name in masks/",
    ),
    "twice": (
        lambda path: shutil.copy(path, path.with_suffix(".tiff")),
        "have the same name but for the suffix",
    ),
    "a mask with three bands": (
        lambda path: write_tiff(path.parent.parent / "masks/fire1.tif", reflectances(3)),
        "masks/fire1.tif: 3 bands; a mask has one",
    ),
    "a mask of lossy values": (
        lambda path: Image.new("L", (40, 48)).save(
            (path.parent.parent / "masks/fire1.tif").rename(path.parent.parent / "masks/fire1.jpg")
        ),
        "masks/fire1.jpg: JPEG changes the values of a mask: save it as PNG or GeoTIFF",
    ),
    "a damaged mask": (
        lambda path: (path.parent.parent / "masks/fire1.tif").write_bytes(b"II*\0"),
        "masks/fire1.tif is damaged",
    ),
    "an array file": (
        lambda path: (np.save(path.with_suffix(".npy"), reflectances()), path.unlink()),
        ".npy is not read: save it as a GeoTIFF",
    ),
}


@pytest.mark.parametrize("kind", sorted(BAD_SCENES))
def test_one_bad_scene_is_a_reject_with_its_reason_and_the_others_are_read(tmp_path: Path, kind: str) -> None:
    change, words = BAD_SCENES[kind]
    records, rejects = read_all(opened(spoil_scene(change, tmp_path)))
    assert {record.value.scene for record in records} >= {"images/fire0.tif", "images/fire2.tif"}
    assert rejects, kind
    assert all("fire1" in reject.original for reject in rejects)
    assert all(words in reject.reason for reject in rejects), rejects[0].reason
    assert all("\n" not in reject.reason for reject in rejects)
    assert all(str(tmp_path.parent) not in reject.reason + reject.original for reject in rejects)


def test_nodata_everywhere_is_a_reject(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((5, 48, 40), np.uint16), BURN_BANDS, nodata=0)
    records, rejects = read_all(opened(path))
    assert not records
    assert {reject.reason for reject in rejects} == {"no data in any pixel"}


def test_smaller_than_a_chip_is_padded(tmp_path: Path) -> None:
    (record,), _ = read_all(opened(write_tiff(tmp_path / "a.tif", reflectances(5, 9, 11), BURN_BANDS)))
    assert np.isfinite(record.value.pixels).sum() == 5 * 9 * 11


def test_masks_without_image_are_left_alone_and_said(tmp_path: Path) -> None:
    folder = burn_scars(tmp_path / "set")
    (folder / "images/fire2.tif").unlink()
    source = opened(folder)
    assert source.remarks == ("1 masks of set have no image (masks/fire2.tif): left alone.",)
    shutil.rmtree(folder / "images")
    assert "masks/ without images/" in error_of(folder)


def test_values_that_no_declared_class_has_are_rejected_labels(tmp_path: Path) -> None:
    folder = burn_scars(tmp_path)
    (folder / "bands.yaml").write_text("classes: [{value: 0, name: unburnt}, {value: 1, name: burnt}]")
    odd = np.zeros((1, 48, 40), np.float32)
    odd[0, 40] = 0.5
    odd[0, 41] = 3
    write_tiff(folder / "masks/fire1.tif", odd, crs=None)
    records, _ = read_all(opened(folder))
    for record in records:
        if record.value.scene != "images/fire1.tif" or record.value.row == 0:
            assert np.nanmax(GEOSPATIAL.labels(record, ["mask"])["mask"]) <= 1
            continue
        with pytest.raises(
            RejectedLabel, match=r"fire1\.tif holds 0\.5, 3, where the declared classes are 0, 1"
        ):
            GEOSPATIAL.labels(record, ["mask"])


def test_labels_that_cannot_be_read_are_rejected_labels(tmp_path: Path) -> None:
    folder = burn_scars(tmp_path, scenes=1)
    mask = np.random.default_rng(0).integers(0, 2, (1, 48, 40), np.uint8)
    write_tiff(folder / "masks/fire0.tif", mask, compress="deflate", transform=from_origin(5e5, 5e6, 20, 20))
    records, _ = read_all(opened(folder))
    cut(folder / "masks/fire0.tif", 0.7)
    with pytest.raises(RejectedLabel, match="damaged"):
        GEOSPATIAL.labels(records[-1], ["mask"])


def test_an_image_cut_short_is_a_reject(tmp_path: Path) -> None:
    for name in "abc":
        Image.fromarray(reflectances(3, 64, 64).astype(np.uint8).transpose(1, 2, 0)).save(
            tmp_path / f"{name}.jpg"
        )
    cut(tmp_path / "b.jpg", 0.5)
    (tmp_path / "d.png").write_bytes(b"GIF89a")
    source = opened(tmp_path)
    records, rejects = read_all(source)
    assert {record.value.scene for record in records} == {"a.jpg", "c.jpg"}
    assert {reject.original.split()[0] for reject in rejects} == {"b.jpg", "d.png"}
    *cut_short, other = rejects
    assert all("b.jpg is damaged" in reject.reason for reject in cut_short)
    assert other.reason == "it is no PNG image, or damaged"
    assert opened(tmp_path).digest == source.digest


def test_control_points_are_no_location_and_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    points = [
        GroundControlPoint(row, column, 10 + column / 9, 45 - row / 9) for row in (0, 9) for column in (0, 9)
    ]
    with rasterio.open(
        path, "w", driver="GTiff", count=5, height=48, width=40, dtype="uint16", gcps=points, crs="EPSG:4326"
    ) as file:  # fmt: skip
        file.write(reflectances())
        file.descriptions = BURN_BANDS
    source = opened(path)
    assert source.split == "random"
    assert "a.tif) lies by ground control points only" in source.remarks[0]
    assert read_all(source)[0][0].value.crs == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.tif", "check the path"),
        ("array.npy", ".npy is not read; save it as a GeoTIFF"),
        ("scenes.tar.gz", ".gz is not read: unpack it, or pack it as .zip"),
        ("pipe.tif", "check the path"),
        ("empty.tif", "it is empty, 0 bytes"),
        ("text.tif", "damaged or not what its suffix says"),
        ("folder", "holds no raster"),
        ("broken.zip", "no zip archive"),
        ("unnamed.tif", "neither the file nor a bands.yaml says which bands"),
    ],
)
def test_what_cannot_be_opened_is_an_error(tmp_path: Path, name: str, words: str) -> None:
    np.save(tmp_path / "array.npy", reflectances())
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "text.tif").write_text("x" * 200)
    (tmp_path / "folder").mkdir()
    (tmp_path / "scenes.tar.gz").write_bytes(b"\x1f\x8b")
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 nothing")
    write_tiff(tmp_path / "unnamed.tif", reflectances())
    message = error_of(tmp_path / name)
    assert words in message
    assert name in message


def test_columns_are_of_tables(tmp_path: Path) -> None:
    with pytest.raises(GroundworkError, match="leave out --input-column"):
        GEOSPATIAL.open(burn_scars(tmp_path), SPEC, "smiles")


# ---------------------------------------------------------------------------------------------- security


def test_an_archive_that_reaches_outside_itself_is_refused(tmp_path: Path) -> None:
    for name in ("../evil.tif", "/etc/evil.tif", "a/../../evil.tif", "..\\evil.tif"):
        with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
            file.writestr(name, b"x")
        assert "outside itself" in error_of(tmp_path / "evil.zip")


@pytest.mark.parametrize("name", ["images\\a.tif", "./images/a.tif", "images//a.tif"])
def test_an_archive_that_spells_names_in_its_own_way_is_told_apart(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as file:
        file.writestr(name, b"x")
    assert "pack it again, with / between its folders" in error_of(tmp_path / "odd.zip")


@pytest.mark.parametrize("way", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_archive_packed_in_other_ways_is_not_said_to_be_damaged(tmp_path: Path, way: int) -> None:
    path = write_tiff(tmp_path / "a.tif", reflectances(), BURN_BANDS)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", way) as file:
        file.write(path, "a.tif")
    assert "a.tif: it is packed in a way that GDAL does not unpack" in error_of(tmp_path / "a.zip")


def test_an_archive_too_large_once_unpacked_is_refused_before_it_is(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.tif", b"0" * 1000)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    data[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFFFFFE)
    many = data[entry : data.index(b"PK\5\6")] * 70
    end = bytearray(data[data.index(b"PK\5\6") :])
    end[8:12] = struct.pack("<HH", 70, 70)
    end[12:16] = struct.pack("<I", len(many))
    path.write_bytes(data[:entry] + many + end)
    assert "70 files, 279 GiB" in error_of(path)


@pytest.mark.parametrize(
    "named", ["/etc/hostname", "../secret.tif", "/vsicurl/http://127.0.0.1/a.tif", "inner.vrt", "missing.tif"]
)
def test_a_vrt_reaches_rasters_of_its_own_folder_only(tmp_path: Path, named: str) -> None:
    write_tiff(tmp_path / "secret.tif", reflectances(1))
    write_tiff(tmp_path / "set/own.tif", reflectances(1))

    def vrt(source: str) -> str:
        return (
            f'<VRTDataset rasterXSize="40" rasterYSize="48"><VRTRasterBand dataType="UInt16" band="1">'
            f"<Description>B8A</Description><SimpleSource><SourceFilename>{source}</SourceFilename>"
            f"<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
        )

    path = tmp_path / "set/a.vrt"
    (tmp_path / "set/inner.vrt").write_text(vrt("own.tif"))
    path.write_text(vrt(str(tmp_path / "set/own.tif")))
    assert len(read_all(opened(path))[0]) == 4
    path.write_text(vrt(named))
    assert "which is no raster in its own folder" in error_of(path)


def test_a_block_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=60_000, width=60_000, dtype="uint8", SPARSE_OK=True,
        tiled=True, blockxsize=32_768, blockysize=32_768, compress="deflate", interleave="pixel",
    ):  # fmt: skip
        pass
    assert "too large to read in parts" in error_of(path)
