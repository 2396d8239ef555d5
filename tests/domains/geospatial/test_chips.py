"""Chips: what is stored comes back as physical values, in its place, and NaN where there are none."""

from __future__ import annotations

import base64
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import transform as convert
from rasters_on_disk import BURN_BANDS, PLACE, SPEC, UTM, read_all, reflectances, write_tiff

from domains.abilities import MapWriter
from domains.contract import Domain, Record, Reject, Row
from domains.geospatial import GEOSPATIAL, BandSpec, Chip, RasterEncoding
from domains.geospatial.chips import count_chips, identity_of
from domains.geospatial.reading import scene_of


def test_it_is_a_domain() -> None:
    assert isinstance(GEOSPATIAL, Domain)
    assert isinstance(GEOSPATIAL, MapWriter)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float32", "float64"])
def test_stored_numbers_come_back(tmp_path: Path, dtype: str) -> None:
    pixels = reflectances(1).astype(dtype)
    path = write_tiff(tmp_path / "a.tif", pixels, ["height"], units="m")
    source = GEOSPATIAL.open(path, SPEC)
    records, rejects = read_all(source)
    assert not rejects
    scene = scene_of(source)
    whole = scene.read(0, 0, 48, 40, source.encoding.bands)  # type: ignore[attr-defined]
    assert whole.dtype == np.float32
    assert (whole == pixels).all()
    assert [record.value.pixels.shape for record in records] == [(1, 32, 32)] * 4


@given(st.integers(8, 70), st.integers(8, 70), st.sampled_from([8, 16, 40]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chips_tile_a_scene_of_any_size(tmp_path: Path, height: int, width: int, side: int) -> None:
    pixels = reflectances(1, height, width, seed=height * width)
    path = write_tiff(tmp_path / f"{height}-{width}.tif", pixels, ["height"], units="m")
    source = GEOSPATIAL.open(path, RasterEncoding(chip=side, patch=8))
    records, _ = read_all(source)
    together = np.full((1, -(-height // side) * side, -(-width // side) * side), np.nan, np.float32)
    for record in records:
        chip: Chip = record.value
        window = together[:, chip.row : chip.row + side, chip.column : chip.column + side]
        assert np.isnan(window).all()
        window[:] = chip.pixels
    assert (together[:, :height, :width] == pixels).all()
    assert np.isnan(together[:, height:]).all()
    assert np.isnan(together[:, :, width:]).all()
    assert len(records) == count_chips(scene_of(source), side)
    assert [record.row for record in records] == list(range(len(records)))


def test_bands_come_in_the_order_of_the_model(tmp_path: Path) -> None:
    pixels = reflectances(5)
    source = GEOSPATIAL.open(write_tiff(tmp_path / "a.tif", pixels, BURN_BANDS), SPEC)
    bands = source.encoding.bands  # type: ignore[attr-defined]
    reordered = RasterEncoding(chip=32, bands=(bands[4], bands[0]))
    records, _ = read_all(GEOSPATIAL.open(tmp_path / "a.tif", reordered))
    assert (records[0].value.pixels == pixels[[4, 0], :32, :32]).all()


def test_scale_offset_and_nodata_are_honoured(tmp_path: Path) -> None:
    stored = reflectances(1).astype(np.int16)
    stored[0, :5] = -999
    path = write_tiff(tmp_path / "a.tif", stored, ["height"], units="m", scale=(0.5, 100.0), nodata=-999)
    (pixels, *_), _ = read_all(GEOSPATIAL.open(path, SPEC))
    found = pixels.value.pixels[0]
    assert np.isnan(found[:5]).all()
    assert np.allclose(found[5:], stored[0, 5:32, :32] * 0.5 + 100)


@pytest.mark.parametrize("nodata", [np.nan, -3.4028234663852886e38, -1.2676506e30, 1e20])
def test_any_filler_becomes_nan(tmp_path: Path, nodata: float) -> None:
    stored = np.random.default_rng(0).random((1, 48, 40)).astype(np.float64 if nodata < -1e35 else np.float32)
    stored[0, 3:9, 4] = nodata
    path = write_tiff(tmp_path / "a.tif", stored, ["height"], units="m", nodata=nodata)
    (record, *_), _ = read_all(GEOSPATIAL.open(path, SPEC))
    holes = np.isnan(record.value.pixels[0])
    assert holes[3:9, 4].all()
    assert holes.sum() == 6


def test_alpha_and_masks_are_no_bands_but_holes(tmp_path: Path) -> None:
    pixels = np.full((4, 32, 32), 90, np.uint8)
    pixels[3, :8] = 0
    pixels[3, 8:] = 255
    path = write_tiff(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES")
    png = tmp_path / "a.png"
    Image.fromarray(np.moveaxis(pixels, 0, -1)).save(png)
    for each in (path, png):
        (record,), _ = read_all(GEOSPATIAL.open(each, SPEC))
        found = record.value.pixels
        assert found.shape == (3, 32, 32)
        assert np.isnan(found[:, :8]).all()
        assert (found[:, 8:] == 90).all()


@pytest.mark.parametrize(
    "transform",
    [
        PLACE,
        Affine(20, 0, 500_000, 0, 20, 5_000_000),
        Affine(14.1, 14.1, 500_000, 14.1, -14.1, 5_000_000),
    ],
    ids=["north up", "south up", "rotated"],
)
def test_a_chip_knows_where_it_lies(tmp_path: Path, transform: Affine) -> None:
    path = write_tiff(tmp_path / "a.tif", reflectances(5, 64, 96), BURN_BANDS, transform=transform)
    records, _ = read_all(GEOSPATIAL.open(path, SPEC))
    last: Chip = records[-1].value
    assert (last.row, last.column) == (32, 64)
    assert Affine(*last.transform) * (0, 0) == pytest.approx(transform * (64, 32))
    assert rasterio.crs.CRS.from_wkt(last.crs) == rasterio.crs.CRS.from_string(UTM)
    assert records[0].value.bands[0].gsd == pytest.approx(20, rel=0.01)


def test_metres_of_a_pixel_in_degrees_and_on_other_bodies(tmp_path: Path) -> None:
    for name, crs, step, metres in [
        ("degrees", "EPSG:4326", 0.0001796630568, 20.0),
        ("mars", "+proj=eqc +R=3396190 +units=m", 5.0, 5.0),
        ("feet", "EPSG:2263", 10.0, 3.05),
    ]:
        place = Affine(step, 0, 10, 0, -step, 45)
        path = write_tiff(tmp_path / f"{name}.tif", reflectances(5), BURN_BANDS, crs, place)
        source = GEOSPATIAL.open(path, SPEC)
        assert source.encoding.bands[0].gsd == metres  # type: ignore[attr-defined]
        assert ("another body than the Earth" in " ".join(source.remarks)) == (name == "mars")


def test_web_mercator_stretches(tmp_path: Path) -> None:
    (x,), (y,) = convert("EPSG:4326", "EPSG:3857", [10], [60])
    path = write_tiff(
        tmp_path / "a.tif", reflectances(5), BURN_BANDS, "EPSG:3857", Affine(20, 0, x, 0, -20, y)
    )
    assert GEOSPATIAL.open(path, SPEC).encoding.bands[0].gsd == pytest.approx(10, rel=0.01)  # type: ignore[attr-defined]


def test_rows_can_be_sent_to_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiff(tmp_path / "a.tif", reflectances(5), BURN_BANDS)
    monkeypatch.chdir(tmp_path)
    source = GEOSPATIAL.open(Path("a.tif"), SPEC)
    monkeypatch.chdir("/")
    rows = pickle.loads(pickle.dumps(list(source.stream())))  # noqa: S301 -- our own
    again = [GEOSPATIAL.read(row, source.encoding) for row in rows]
    assert [found.identity for found in again] == [found.identity for found in read_all(source)[0]]  # type: ignore[union-attr]


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", reflectances(5), BURN_BANDS)
    first = GEOSPATIAL.open(path, SPEC)
    before = read_all(first)[0][0]
    write_tiff(path, reflectances(5, seed=7), BURN_BANDS, compress="deflate")
    assert read_all(first)[0][0].identity != before.identity
    assert GEOSPATIAL.open(path, SPEC).digest != first.digest


def test_equal_pixels_are_one_thing_wherever_they_lie() -> None:
    pixels = np.random.default_rng(0).random((3, 8, 8), np.float32)
    pixels[0, 0, 0] = np.nan
    other = pixels.copy()
    other.view(np.uint32)[0, 0, 0] |= 1  # another of the many NaNs
    assert identity_of(pixels) == identity_of(other)
    assert identity_of(pixels) != identity_of(pixels[::-1])
    assert identity_of(pixels) != identity_of(pixels.reshape(3, 4, 16))


# ------------------------------------------------------------------------------------------ images as text


OWN_BANDS = (
    BandSpec(name="B4", wavelength=654.6, unit="reflectance", gsd=30.0),
    BandSpec(name="VV", polarisation="VV", unit="dB"),
    BandSpec(name="slope", unit="degrees"),
)


@pytest.mark.parametrize("bands", [(), OWN_BANDS, OWN_BANDS[2:]], ids=["RGB", "mixed", "other"])
def test_the_examples_are_valid_for_their_model(bands: tuple[BandSpec, ...]) -> None:
    spec = RasterEncoding(chip=32, bands=bands)
    found = [GEOSPATIAL.read(Row(0, value), spec) for value in GEOSPATIAL.example(spec)]
    assert [type(each) for each in found] == [Record, Record]
    sample = GEOSPATIAL.encode(found[0], spec)  # type: ignore[arg-type]
    assert sample["pixels"].shape == (len(bands) or 3, 32, 32)
    assert sample["pixels"].dtype == np.float32
    assert np.isfinite(sample["pixels"]).all()


def data_uri(path: Path) -> str:
    kind = {".tif": "tiff", ".png": "png"}[path.suffix]
    return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode()


def test_a_scene_sent_as_text_is_read_as_from_its_file(tmp_path: Path) -> None:
    stored = reflectances(5, 30, 32)
    stored[:, 4, 4] = 0
    path = write_tiff(tmp_path / "a.tif", stored, BURN_BANDS, nodata=0, scale=(0.0001, -0.1))
    source = GEOSPATIAL.open(path, SPEC)
    (from_file,), _ = read_all(source)
    from_text = GEOSPATIAL.read(Row(0, data_uri(path)), source.encoding)
    assert isinstance(from_text, Record)
    assert np.array_equal(from_text.value.pixels, from_file.value.pixels, equal_nan=True)
    assert from_text.identity == from_file.identity


def test_what_is_sent_may_not_be_a_path_too_large_or_of_other_bands(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", reflectances(5, 32, 32), BURN_BANDS)
    large = write_tiff(tmp_path / "large.tif", reflectances(5, 33, 33), BURN_BANDS)
    small = write_tiff(tmp_path / "small.tif", reflectances(5, 7, 31), BURN_BANDS)
    unnamed = write_tiff(tmp_path / "unnamed.tif", reflectances(5, 32, 32))
    png = tmp_path / "a.png"
    Image.new("RGB", (32, 32), (9, 80, 7)).save(png)
    bomb = tmp_path / "bomb.png"
    head = b"IHDR" + struct.pack(">II", 30_000, 30_000)
    chunk = head + png.read_bytes()[24:29]
    bomb.write_bytes(
        png.read_bytes()[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + png.read_bytes()[33:]
    )
    spec = GEOSPATIAL.open(path, SPEC).encoding
    vrt = base64.b64encode(b"<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>").decode()
    for value, reason in [
        (str(path), "paths are not opened here"),
        ("", "not an image"),
        (None, "not an image but NoneType"),
        (data_uri(large), "33 × 33 pixels; one image holds at most 32 × 32"),
        (data_uri(small), "31 × 7 pixels, smaller than a patch of 8 × 8"),
        (
            data_uri(png),
            "bands R, G, B in display bytes where B4, B3, B2, B8, B12 in reflectance × 10000 are",
        ),
        (data_uri(unnamed), "neither the file nor a bands.yaml says which bands"),
        ("data:image/tiff;base64,####", "not base64"),
        ("data:image/tiff;base64,", "damaged"),
        (f"data:image/tiff;base64,{vrt}", "damaged"),
        (data_uri(path)[: len("data:image/tiff;base64,") + 4000], "damaged"),
        (data_uri(bomb), "more than 1,048,576 pixels"),
        ("data:image/tiff;base64," + "A" * (1 << 25), "characters; at most"),
    ]:
        found = GEOSPATIAL.read(Row(5, value), spec)
        assert isinstance(found, Reject), reason
        assert reason in found.reason
        assert found.row == 5
        assert len(found.original) <= 60
