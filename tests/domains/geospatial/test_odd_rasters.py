"""Rasters as people have them: read rightly, or refused with the words that help; never read wrongly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasters_on_disk import (
    BURN_BANDS,
    declare,
    error_of,
    opened,
    pixels_of,
    read_all,
    reflectances,
    write_tiff,
    zipped,
)

from domains.contract import Source

pytestmark = pytest.mark.filterwarnings("ignore", category=NotGeoreferencedWarning)
STORED = reflectances()
BYTES = reflectances(3).astype(np.uint8)
HOLES = np.full((48, 40), 255, np.uint8)
HOLES[:10, :7] = 0


def units_of(source: Source) -> set[str]:
    return {band.unit for band in source.encoding.bands}  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------- ways to store a number


@pytest.mark.parametrize(
    "profile",
    [
        {"compress": "lzw", "predictor": 2},
        {"compress": "zstd", "tiled": True, "blockxsize": 16, "blockysize": 32},
        {"compress": "packbits", "blockysize": 1},
        {"compress": "lerc"},
        {"BIGTIFF": "YES", "interleave": "band"},
        {"BIGTIFF": "YES", "interleave": "pixel", "tiled": True, "blockxsize": 16, "blockysize": 16},
        {"ENDIANNESS": "BIG"},
        {"SPARSE_OK": True, "NBITS": 12},
    ],
    ids=str,
)
def test_the_way_a_tiff_is_packed_changes_nothing(tmp_path: Path, profile: dict[str, Any]) -> None:
    path = write_tiff(tmp_path / "a.tif", STORED, BURN_BANDS, **profile)
    assert np.array_equal(pixels_of(opened(path)), STORED)


@pytest.mark.parametrize("dtype", ["int8", "uint32", "int64", "uint64", "float64"])
def test_every_type_of_real_numbers_is_read(tmp_path: Path, dtype: str) -> None:
    stored = (STORED[:1] % 100).astype(dtype)
    path = declare(write_tiff(tmp_path / "a.tif", stored), "height")
    assert np.array_equal(pixels_of(opened(path)), stored)


def test_single_bits_are_zeros_and_ones(tmp_path: Path) -> None:
    stored = (STORED[:1] % 2).astype(np.uint8)
    path = declare(write_tiff(tmp_path / "a.tif", stored, NBITS=1), "flooded")
    assert np.array_equal(pixels_of(opened(path)), stored)


def test_half_floats_are_read(tmp_path: Path) -> None:
    stored = np.linspace(0, 1, 48 * 40, dtype=np.float16).reshape(1, 48, 40)
    path = declare(write_tiff(tmp_path / "a.tif", stored.astype(np.float32), NBITS=16), "height")
    assert np.array_equal(pixels_of(opened(path)), stored)


def test_a_jpeg_inside_a_tiff_is_read_as_rasterio_reads_it(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.linspace(0, 255, 40), (3, 48, 40)).astype(np.uint8)
    path = write_tiff(tmp_path / "a.tif", smooth, compress="jpeg", photometric="ycbcr")
    found = pixels_of(opened(path))
    with rasterio.open(path) as file:
        assert np.array_equal(found, file.read())
    assert np.abs(found - smooth).max() < 10


def test_bands_of_several_types_are_read_together(tmp_path: Path) -> None:
    write_tiff(tmp_path / "red.tif", BYTES[:1], ["TCI_R"])
    write_tiff(tmp_path / "infrared.tif", STORED[3:4], ["B8"])
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{place}"><Description>{band}</Description><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{name}.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for place, (kind, band, name) in enumerate(
            (("Byte", "TCI_R", "red"), ("UInt16", "B8", "infrared")), start=1
        )
    )
    (tmp_path / "a.vrt").write_text(f'<VRTDataset rasterXSize="40" rasterYSize="48">{bands}</VRTDataset>')
    source = opened(tmp_path / "a.vrt")
    assert [band.unit for band in source.encoding.bands] == ["display byte", "reflectance × 10000"]  # type: ignore[attr-defined]
    assert np.array_equal(pixels_of(source), np.stack([BYTES[0], STORED[3]]))


@pytest.mark.parametrize("scale", [(0.0, 0.0), (np.nan, 0.0), (np.inf, 0.0), (1.0, np.nan)], ids=str)
def test_a_scale_that_leaves_nothing_is_refused_until_it_is_declared(
    tmp_path: Path, scale: tuple[float, float]
) -> None:
    path = write_tiff(tmp_path / "a.tif", STORED[:1], ["B4"], scale=scale)
    assert "leave nothing of its numbers: say them in a bands.yaml" in error_of(path)
    declare(path, "B4")
    assert "leave nothing of its numbers: say them in a bands.yaml" in error_of(path)
    declare(path, "B4", scale=2, offset=0)
    assert np.array_equal(pixels_of(opened(path)), 2.0 * STORED[:1])


# ---------------------------------------------------------------------------------------------------- no data


def test_a_mask_inside_or_beside_a_tiff_makes_holes(tmp_path: Path) -> None:
    for is_inside in (True, False):
        path = write_tiff(tmp_path / f"{is_inside}/a.tif", STORED, BURN_BANDS)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=is_inside), rasterio.open(path, "r+") as file:
            file.write_mask(HOLES)
        assert (tmp_path / f"{is_inside}/a.tif.msk").exists() != is_inside
        for each in (path, zipped(path.parent, tmp_path / f"{is_inside}.zip")):
            records, _ = read_all(opened(each))
            found = records[0].value.pixels
            assert np.array_equal(np.isnan(found), np.broadcast_to(HOLES[:32, :32] == 0, found.shape))


def test_what_lies_beside_a_raster_is_part_of_its_content_but_for_statistics(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "set/a.tif", STORED, BURN_BANDS)
    plain = opened(path).digest
    auxiliary = path.with_name("a.tif.aux.xml")
    statistics = '<Metadata><MDI key="STATISTICS_MEAN">1</MDI></Metadata><Histograms><HistItem/></Histograms>'
    auxiliary.write_text(
        f'<PAMDataset><PAMRasterBand band="1">{statistics}</PAMRasterBand></PAMDataset>', encoding="utf-8"
    )
    assert opened(path).digest == plain
    auxiliary.write_text(
        f'<PAMDataset><PAMRasterBand band="1">{statistics}<NoDataValue>100</NoDataValue></PAMRasterBand>'
        "</PAMDataset>"
    )
    assert opened(path).digest != plain
    auxiliary.unlink()
    digests = {plain, opened(tmp_path / "set").digest}
    path.with_name("a.tif.msk").write_bytes(b"mask")
    path.with_name("a.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    digests |= {opened(path).digest, opened(tmp_path / "set").digest}
    assert len(digests) == 4
    assert opened(zipped(path.parent, tmp_path / "set.zip")).digest == opened(tmp_path / "set").digest


def test_a_value_for_no_data_that_no_pixel_can_hold_hides_nothing(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", STORED, BURN_BANDS)
    declared = "".join(
        f'<PAMRasterBand band="{band}"><NoDataValue>-9999</NoDataValue></PAMRasterBand>'
        for band in range(1, 6)
    )
    path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{declared}</PAMDataset>")
    assert np.array_equal(pixels_of(opened(path)), STORED)


@pytest.mark.parametrize(
    ("dtype", "filler"), [("int16", -9999), ("float32", -9999), ("uint16", 65535), ("uint16", 55537)]
)
def test_an_undeclared_filler_is_refused_until_it_is_declared(
    tmp_path: Path, dtype: str, filler: float
) -> None:
    stored = STORED.astype(dtype)
    stored[:, :12, :12] = filler
    path = write_tiff(tmp_path / "a.tif", stored, BURN_BANDS)
    assert f"holds {filler}, which stands for no data in many files" in error_of(path)
    lines = [
        f"{{name: {name}, unit: reflectance × 10000, wavelength: {nm}, nodata: {filler}}}"
        for name, nm in zip(BURN_BANDS, (492, 560, 665, 833, 2202), strict=True)
    ]
    (tmp_path / "bands.yaml").write_text("\n".join(f"- {line}" for line in lines), encoding="utf-8")
    found = pixels_of(opened(path))
    assert np.isnan(found[:, :12, :12]).all()
    assert np.isnan(found).sum() == 5 * 144


def test_zeros_in_all_bands_that_nobody_declared_are_remarked(tmp_path: Path) -> None:
    stored = STORED.copy()
    stored[:, :12] = 0
    path = write_tiff(tmp_path / "a.tif", stored, BURN_BANDS)
    source = opened(path)
    assert source.remarks == (
        "1 scene (a.tif) holds pixels that are zero in all bands, and no value is declared for no data: they "
        "count as measured unless a bands.yaml says nodata: 0.",
    )
    assert np.array_equal(pixels_of(source), stored)
    declared = opened(write_tiff(tmp_path / "b.tif", stored, BURN_BANDS, nodata=0))
    assert not declared.remarks
    assert np.isnan(pixels_of(declared)[:, :12]).all()
    dark = STORED.copy()
    dark[:2, :12] = 0  # water is dark, and not in all bands
    assert not opened(write_tiff(tmp_path / "c.tif", dark, BURN_BANDS)).remarks


def test_a_filled_corner_hides_nothing_of_a_large_scene(tmp_path: Path) -> None:
    """Of large scenes in tiles one corner is looked at first, where swaths most often end."""
    stored = np.full((2, 1600, 1600), 0.3, np.float32)
    stored[:, :600, :600] = 0
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    path = write_tiff(tmp_path / "a.tif", stored, ["B4", "B8"], units="reflectance × 10000", **tiles)
    assert "cannot be reflectance × 10000: it looks like" in error_of(path)
    right = write_tiff(tmp_path / "b.tif", stored * 10_000, ["B4", "B8"], **tiles)
    assert "zero in all bands" in " ".join(opened(right).remarks)


def test_a_frame_of_one_pixel_without_data_is_a_frame(tmp_path: Path) -> None:
    stored = np.zeros((5, 65, 33), np.uint16)
    stored[:, 1:-1, 1:-1] = reflectances(5, 63, 31)
    source = opened(write_tiff(tmp_path / "a.tif", stored, BURN_BANDS, nodata=0))
    records, rejects = read_all(source)
    assert [(each.value.row, each.value.column) for each in records] == [(0, 0), (32, 0)]
    assert {each.reason for each in rejects} == {"no data in any pixel"}
    assert len(rejects) == 4
    found = pixels_of(source)
    assert np.array_equal(np.isnan(found), stored == 0)


# --------------------------------------------------------------------------------------- what is not measured


def test_transparency_is_no_band_unless_it_is_measured(tmp_path: Path) -> None:
    """Programs mark the fourth band as alpha, which is near infrared in aerial pictures."""
    naip = reflectances(4).astype(np.uint8)
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    path = write_tiff(tmp_path / "a.tif", naip)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = colours
    assert "its band 4 is marked as transparency (alpha), and looks like a measurement" in error_of(path)

    veiled = naip.copy()
    veiled[3] = HOLES
    veiled[3, 10, :7] = 90  # the soft edge that a program leaves
    path = write_tiff(tmp_path / "b.tif", veiled)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = colours
    found = pixels_of(opened(path))
    assert np.array_equal(np.isnan(found), np.broadcast_to(HOLES == 0, found.shape))

    filled = veiled.copy()
    filled[:3, 20:] = 0
    path = write_tiff(tmp_path / "d.tif", filled, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = colours
    found = pixels_of(opened(path))
    assert np.array_equal(np.isnan(found), (filled[:3] == 0) | (HOLES == 0))

    named = write_tiff(tmp_path / "c.tif", veiled, ["red", "green", "blue", "NIR"])
    with rasterio.open(named, "r+") as file:
        file.colorinterp = colours
    assert "its band 4 (NIR) is marked as transparency" in error_of(named)


def test_descriptions_of_any_kind_are_shown_in_one_line(tmp_path: Path) -> None:
    message = error_of(write_tiff(tmp_path / "a.tif", STORED[:2], ["B4\nred", "x" * 5000]))
    assert "2 bands, B4 red, xxx" in message
    assert len(message) < 600


def test_heights_in_the_crs_do_not_become_the_unit_of_bands(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", STORED, BURN_BANDS, crs="EPSG:32632+5773")
    with rasterio.open(path) as file:
        assert set(file.units) == {"metre"}
    assert units_of(opened(path)) == {"reflectance × 10000"}


def pages(path: Path) -> None:
    images = [Image.fromarray(BYTES[band]) for band in range(3)]
    images[0].save(path, save_all=True, append_images=images[1:])


def complex_integers(path: Path) -> None:
    with rasterio.open(path, "w", driver="GTiff", count=1, height=48, width=40, dtype="complex_int16"):
        pass


def cmyk(path: Path) -> None:
    kind = {"photometric": "CMYK", "dtype": "uint8"} if path.suffix == ".tif" else {}
    if kind:
        write_tiff(path, reflectances(4).astype(np.uint8), photometric="CMYK")
    else:
        Image.fromarray(reflectances(4).astype(np.uint8).transpose(1, 2, 0), "CMYK").save(path)


def moving(path: Path) -> None:
    first, second = (Image.fromarray(each.transpose(1, 2, 0)) for each in (BYTES, 255 - BYTES))
    first.save(path, save_all=True, append_images=[second])


def palette(path: Path) -> None:
    write_tiff(path, BYTES[:1])
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {1: (10, 20, 30)})


def transparency(path: Path) -> None:
    write_tiff(path, np.full((1, 48, 40), 255, np.uint8))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.alpha]


def dates(path: Path) -> None:
    write_tiff(path, np.concatenate([STORED, STORED]), BURN_BANDS * 2)


def halved(path: Path) -> None:
    write_tiff(path, STORED, BURN_BANDS, tiled=True, blockxsize=16, blockysize=16)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flat(path: Path) -> None:
    write_tiff(path, STORED, BURN_BANDS, transform=Affine(0, 0, 500_000, 0, 0, 5_000_000))


def nowhere(path: Path) -> None:
    write_tiff(path, STORED, BURN_BANDS, transform=Affine(np.nan, 0, 500_000, 0, -20, 5_000_000))


ODD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pages.tif": (pages, "it holds 3 images: save each in a file of its own"),
    "complex.tif": (complex_integers, "complex numbers are not read"),
    "cmyk.tif": (cmyk, "its colours are CMYK: save it as RGB"),
    "cmyk.jpg": (cmyk, "its colours are CMYK: save it as RGB"),
    "moving.png": (moving, "it is animated: save each image"),
    "moving.webp": (moving, "it is animated: save each image"),
    "palette.tif": (palette, "entries of a colour table"),
    "transparency.tif": (transparency, "all of its bands are marked as transparency"),
    "dates.tif": (dates, "it calls several bands B2, such as those of several dates"),
    "halved.tif": (halved, "damaged or not what its suffix says"),
    "flat.tif": (flat, "its transform puts all pixels in one place"),
    "nowhere.tif": (nowhere, "its transform puts all pixels in one place"),
    "picture.png": (lambda path: path.write_text("<html>"), "it is no PNG image, or damaged"),
    "page.tif": (lambda path: path.write_text("\ufeff<html>"), "damaged or not what its suffix says"),
    "photo.tif": (lambda path: Image.new("RGB", (40, 40)).save(path, "JPEG"), "damaged or not what"),
    "list.hdf": (lambda path: path.write_bytes(b"\x0e\x03\x13\x01"), ".hdf is not read"),
}


@pytest.mark.parametrize("name", sorted(ODD))
def test_what_is_no_scene_is_refused_by_itself_and_in_a_folder(tmp_path: Path, name: str) -> None:
    make, words = ODD[name]
    (tmp_path / "set").mkdir()
    make(tmp_path / "set" / name)
    message = error_of(tmp_path / "set" / name)
    assert words in message
    assert name in message
    assert str(tmp_path) not in message
    write_tiff(tmp_path / "set/good.tif", STORED, BURN_BANDS)
    records, rejects = read_all(opened(tmp_path / "set"))
    assert {each.value.scene for each in records} == {"good.tif"}
    assert [words.partition(":")[0] in each.reason for each in rejects] == [True]


# ------------------------------------------------------------------------------------------- names and places


@pytest.mark.parametrize(
    "name",
    [
        *("ünï çödé 😀.tif", "a#b?c%20&d;e.tif", "\ufeffbom.tif", "quote'\".tif", "{a}!b.tif", "-rf.TIF"),
        *("http:a.tif", "GTIFF_DIR:1:a.tif", "line\nbreak.tif"),
    ],
)
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    path = write_tiff(tmp_path / name, STORED, BURN_BANDS)
    for each in (path, tmp_path):
        source = opened(each)
        assert np.array_equal(pixels_of(source), STORED)
        assert all("\n" not in row.fields["image"] for row in source.stream())


def test_a_name_that_is_no_text_is_refused_in_words_that_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.tif")
    try:
        shutil.copy(write_tiff(tmp_path / "a.tif", STORED, BURN_BANDS), path)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    message = error_of(path)
    assert "\\udcff.tif has a name that is not UTF-8: rename it" in message
    records, (reject,) = read_all(opened(tmp_path))
    assert len(records) == 4
    (reject.reason + reject.original + opened(tmp_path).origin).encode()


def test_a_building_site_has_coordinates_but_no_metres_of_the_earth(tmp_path: Path) -> None:
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    source = opened(write_tiff(tmp_path / "a.tif", STORED, BURN_BANDS, crs=local))
    assert source.encoding.bands[0].gsd is None  # type: ignore[attr-defined]
    assert np.array_equal(pixels_of(source), STORED)
