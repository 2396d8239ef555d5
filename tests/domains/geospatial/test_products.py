"""Products as agencies deliver them: a folder of one band per file is one scene, with its own scale."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin
from rasters_on_disk import SPEC, read_all, write_tiff, zipped

from domains.contract import GroundworkError
from domains.geospatial import GEOSPATIAL, RasterEncoding
from domains.geospatial.bands import DIGITAL_NUMBER, REFLECTANCE_10000
from domains.geospatial.products import QUALITY, band_file, product_of
from domains.geospatial.reading import scene_of

L2A = "S2B_MSIL2A_20230801T101609_N0509_R065_T32TQM_20230801T131711.SAFE"
OLD = L2A.replace("N0509", "N0301")
LANDSAT = "LC09_L2SP_192027_20230801_20230803_02_T1"
HLS = "HLS.S30.T32TQM.2023213T101609.v2.0"
SMOOTH = RasterEncoding(chip=32, patch=8, resample="bilinear")


def layer(path: Path, value: float, side: int, gsd: float, dtype: str = "uint16", **profile: object) -> Path:
    pixels = np.full((1, side, side), value, dtype)
    return write_tiff(path, pixels, transform=from_origin(600_000, 5_000_000, gsd, gsd), **profile)


def sentinel_2(folder: Path, name: str = L2A) -> Path:
    """A SAFE of four bands: numbers of 3000, a picture, an optical mask, and a cloud in the first rows."""
    images = folder / name / "GRANULE" / "L2A_T32TQM_A033418_20230801T101609" / "IMG_DATA"
    for band in ("B02", "B04", "B08"):
        layer(images / "R10m" / f"T32TQM_20230801T101609_{band}_10m.tif", 3000, 64, 10)
    for band in ("B02", "B04", "B11", "B8A"):
        layer(images / "R20m" / f"T32TQM_20230801T101609_{band}_20m.tif", 5000, 32, 20)
    classes = np.full((1, 32, 32), 4, np.uint8)
    classes[:, :4] = 9
    place = from_origin(600_000, 5_000_000, 20, 20)
    write_tiff(images / "R20m" / "T32TQM_20230801T101609_SCL_20m.tif", classes, transform=place)
    layer(images / "R10m" / "T32TQM_20230801T101609_TCI_10m.tif", 90, 64, 10, "uint8")
    layer(images.parent / "QI_DATA" / "MSK_DETFOO_B02.tif", 1, 64, 10, "uint8")
    return folder / name


def test_a_folder_of_one_band_per_file_is_one_scene(tmp_path: Path) -> None:
    source = GEOSPATIAL.open(sentinel_2(tmp_path), SMOOTH)
    scene = scene_of(source)
    assert [band.name for band in scene.bands] == ["B2", "B4", "B8", "B8A", "B11"]
    assert {band.unit for band in scene.bands} == {REFLECTANCE_10000}
    assert (scene.height, scene.width, scene.bands[0].gsd) == (64, 64, 10)
    assert source.encoding.bands[-1].wavelength == 1613.7
    assert "2 files of products are neither bands nor quality layers" in source.remarks[0]
    # Baseline 05.09 stores 1000 too much; the finer of two files of a band is taken.
    pixels = scene.read(0, 0, 64, 64, source.encoding.bands)
    assert np.isnan(pixels[:, :8]).all()
    assert {float(value) for value in pixels[:3, 8:].ravel()} == {2000.0}
    assert {float(value) for value in pixels[3:, 8:].ravel()} == {4000.0}


def test_what_is_no_data_is_not_mixed_into_resampled_bands(tmp_path: Path) -> None:
    folder = sentinel_2(tmp_path)
    pixels = np.full((1, 32, 32), 5000, np.uint16)
    pixels[:, :, 20:] = 0  # beyond the swath; the files themselves do not say so
    place = from_origin(600_000, 5_000_000, 20, 20)
    write_tiff(next(folder.rglob("*_B11_20m.tif")), pixels, transform=place)
    scene = scene_of(GEOSPATIAL.open(folder, SMOOTH))
    found = scene.read(8, 0, 48, 64, scene.bands)[-1]
    assert np.isnan(found[:, 44:]).all()
    assert set(found[np.isfinite(found)].tolist()) == {4000.0}


def test_before_baseline_4_nothing_was_added(tmp_path: Path) -> None:
    scene = scene_of(GEOSPATIAL.open(sentinel_2(tmp_path, OLD), SMOOTH))
    assert {band.offset for band in scene.bands} == {0.0}


def test_coarser_bands_are_not_resampled_unasked(tmp_path: Path) -> None:
    with pytest.raises(
        GroundworkError,
        match=r"pixels of 20 m in B8A, B11 beside others of 10 m: say how .* --resample nearest, bilinear",
    ):
        GEOSPATIAL.open(sentinel_2(tmp_path), SPEC)


def test_bands_of_one_size_are_named_instead(tmp_path: Path) -> None:
    spec = RasterEncoding(chip=32, patch=8, use_bands="B8A, B11")
    source = GEOSPATIAL.open(sentinel_2(tmp_path), spec)
    scene = scene_of(source)
    assert isinstance(source.encoding, RasterEncoding)
    assert [band.name for band in source.encoding.bands] == ["B8A", "B11"]
    assert (scene.height, scene.width) == (32, 32)


def test_a_product_is_read_from_an_archive_too(tmp_path: Path) -> None:
    plain = GEOSPATIAL.open(sentinel_2(tmp_path / "folder"), SMOOTH)
    packed = GEOSPATIAL.open(zipped(tmp_path / "folder", tmp_path / "packed.zip"), SMOOTH)
    first, second = scene_of(plain), scene_of(packed)
    assert first.bands == second.bands
    np.testing.assert_array_equal(
        first.read(0, 0, 40, 40, first.bands), second.read(0, 0, 40, 40, second.bands)
    )


def test_a_changed_band_is_another_dataset(tmp_path: Path) -> None:
    folder = sentinel_2(tmp_path)
    before = GEOSPATIAL.open(folder, SMOOTH).digest
    layer(next(folder.rglob("*_B11_20m.tif")), 4999, 32, 20)
    assert GEOSPATIAL.open(folder, SMOOTH).digest != before


def test_landsat_surface_reflectance_is_scaled_as_its_guide_says(tmp_path: Path) -> None:
    for band in range(1, 8):
        layer(tmp_path / LANDSAT / f"{LANDSAT}_SR_B{band}.TIF".replace("TIF", "tif"), 14_545, 40, 30)
    quality = np.full((1, 40, 40), 21_824, np.uint16)
    quality[:, :, 30:] = 22_280  # cloud
    place = from_origin(600_000, 5_000_000, 30, 30)
    write_tiff(tmp_path / LANDSAT / f"{LANDSAT}_QA_PIXEL.tif", quality, transform=place)
    layer(tmp_path / LANDSAT / f"{LANDSAT}_ST_B10.tif", 44_000, 40, 30)
    source = GEOSPATIAL.open(tmp_path / LANDSAT, SPEC)
    scene = scene_of(source)
    assert [band.name for band in scene.bands] == [f"B{number}" for number in range(1, 8)]
    pixels = scene.read(0, 0, 40, 40, scene.bands)
    np.testing.assert_allclose(pixels[:, :, :30], 14_545 * 0.275 - 2000)  # a reflectance of 0.2
    assert np.isnan(pixels[:, :, 30:]).all()


@pytest.mark.parametrize(
    "name", ["LT05_L2SP_192027_20010801_20200917_02_T1", "LE07_L2SP_192027_20010801_20200917_02_T1"]
)
def test_the_temperature_in_a_product_of_landsat_5_or_7_is_no_reflectance(tmp_path: Path, name: str) -> None:
    for band in ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7", "ST_B6"):
        layer(tmp_path / name / f"{name}_{band}.tif", 14_545, 40, 30)
    source = GEOSPATIAL.open(tmp_path / name, SPEC)
    assert [band.name for band in scene_of(source).bands] == ["B1", "B2", "B3", "B4", "B5", "B7"]
    assert f"({name}_ST_B6.tif): left alone" in source.remarks[0]


def test_a_product_of_a_sensor_that_is_not_known_is_refused(tmp_path: Path) -> None:
    name = "LT04_L2SP_192027_19890801_20200917_02_T1"
    layer(tmp_path / name / f"{name}_SR_B4.tif", 14_545, 40, 30)
    with pytest.raises(GroundworkError, match="neither the file nor a bands"):
        GEOSPATIAL.open(tmp_path / name, SPEC)


def test_landsat_level_1_is_not_taken_for_reflectance(tmp_path: Path) -> None:
    name = "LE07_L1TP_192027_20010801_20200917_02_T1"
    layer(tmp_path / name / f"{name}_B4.tif", 90, 40, 30, "uint8")
    [band] = scene_of(GEOSPATIAL.open(tmp_path / name, SPEC)).bands
    assert (band.name, band.unit, band.wavelength, band.scale) == ("B4", DIGITAL_NUMBER, 835.0, 1.0)


def test_hls_keeps_the_scale_of_its_tags(tmp_path: Path) -> None:
    for band in ("B02", "B8A", "B12", "B05"):
        layer(
            tmp_path / "granules" / f"{HLS}.{band}.tif", 2500, 40, 30, "int16",
            scale=(0.0001, 0.0), nodata=-9999,
        )  # fmt: skip
    layer(tmp_path / "granules" / f"{HLS}.Fmask.tif", 64, 40, 30, "uint8")
    scene = scene_of(GEOSPATIAL.open(tmp_path / "granules", SPEC))
    assert [band.name for band in scene.bands] == ["BLUE", "NIR_NARROW", "SWIR_2"]
    assert float(scene.read(0, 0, 1, 1, scene.bands)[0, 0, 0]) == 2500.0


def test_one_band_alone_has_its_scale_too(tmp_path: Path) -> None:
    file = next(sentinel_2(tmp_path).rglob("*_B08_10m.tif"))
    [band] = scene_of(GEOSPATIAL.open(file, SPEC)).bands
    assert (band.name, band.offset, band.nodata) == ("B8", -1000.0, 0.0)


def test_bands_that_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    folder = sentinel_2(tmp_path)
    file = next(folder.rglob("*_B08_10m.tif"))
    write_tiff(file, np.full((1, 64, 64), 3000, np.uint16), transform=from_origin(600_300, 5_000_000, 10, 10))
    with pytest.raises(GroundworkError, match="B8 lies 30 of its pixels beside the finest band"):
        GEOSPATIAL.open(folder, SMOOTH)
    write_tiff(
        file, np.full((1, 64, 64), 3000, np.uint16), "", "EPSG:32633", from_origin(600_000, 5_000_000, 10, 10)
    )
    with pytest.raises(GroundworkError, match="B8 lies in another system of coordinates"):
        GEOSPATIAL.open(folder, SMOOTH)


def test_another_sensor_than_the_products_is_refused(tmp_path: Path) -> None:
    folder = sentinel_2(tmp_path)
    for path in [*folder.rglob("*B8A*"), *folder.rglob("*B11*"), *folder.rglob("*B08*")]:
        path.unlink()
    with pytest.raises(GroundworkError, match=r"B2 lies at 492.4 nm, and that of landsat-5 lies at 569 nm"):
        GEOSPATIAL.open(folder, SPEC.model_copy(update={"sensor": "landsat-5"}))


def test_several_products_of_a_folder_are_as_many_scenes(tmp_path: Path) -> None:
    sentinel_2(tmp_path / "scenes")
    later = L2A.replace("20230801", "20230811")
    shutil.copytree(tmp_path / "scenes" / L2A, tmp_path / "scenes" / later)
    source = GEOSPATIAL.open(tmp_path / "scenes", SMOOTH)
    found, _ = read_all(source)
    assert {record.value.scene for record in found} == {
        L2A.removesuffix(".SAFE"),
        later.removesuffix(".SAFE"),
    }


@pytest.mark.parametrize(
    ("name", "sensor", "band"),
    [
        (f"/data/{L2A}/IMG_DATA/T32TQM_20230801T101609_B8A_20m.jp2", "sentinel-2", "B8A"),
        ("S2A_MSIL1C_20160101T101609_N0201_R065_T32TQM_20160101T131711.SAFE/T_B01.jp2", "sentinel-2", "B1"),
        (f"{LANDSAT}/{LANDSAT}_SR_B5.TIF", "landsat-9", "B5"),
        ("LT05_L2SP_192027_20010801_20200917_02_T1_SR_B7.TIF", "landsat-5", "B7"),
        ("LT05_L1TP_192027_20010801_20200917_02_T1_B6.TIF", "landsat-5", ""),
        (f"{HLS}.B11.tif", "hls", "SWIR_1"),
        (f"{LANDSAT}/{LANDSAT}_SR_QA_AEROSOL.TIF", "landsat-9", ""),
        (f"{HLS}.B06.tif", "hls", ""),
    ],
)
def test_names_of_products(name: str, sensor: str, band: str) -> None:
    product = product_of(name)
    assert product is not None
    assert product.sensor == sensor
    assert band_file(name.rpartition("/")[2], product).band == band


@pytest.mark.parametrize("name", ["scene_B04_10m.tif", "S2A_MSIL2A_2023.tif", "LC08_B4.TIF", "burnt.tif"])
def test_other_names_say_nothing(name: str) -> None:
    assert product_of(name) is None


@pytest.mark.parametrize(
    ("layer_name", "hidden", "seen"),
    [("SCL", (0, 1, 3, 8, 9, 10), (2, 4, 5, 6, 7, 11)), ("QA_PIXEL", (1, 22_280, 23_888), (21_824, 21_952)),
     ("Fmask", (2, 4, 8, 255), (0, 32, 64))],
)  # fmt: skip
def test_what_quality_layers_hide(layer_name: str, hidden: tuple[int, ...], seen: tuple[int, ...]) -> None:
    assert QUALITY[layer_name](np.array(hidden, float)).all()
    assert not QUALITY[layer_name](np.array(seen, float)).any()
