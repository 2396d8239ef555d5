"""A scene of other pixels than a model's is refused, or brought to them where that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasters_on_disk import BURN_BANDS, PLACE, SPEC, opened, reflectances, write_tiff
from scenes_to_map import BIOMASS, nothing

from domains.abilities import Resamples
from domains.contract import GroundworkError, Resampling, Sample
from domains.geospatial import GEOSPATIAL
from domains.geospatial.maps import write_map

METHODS: tuple[Resampling, ...] = ("nearest", "bilinear", "cubic")


def first_band(samples: Any) -> np.ndarray:
    def answer(sample: Sample) -> np.ndarray:
        return sample["pixels"][0].reshape(-1, 1)

    return np.stack([answer(sample) for sample in samples])


def mapped(path: Path, encoding: Any, out: Path) -> Any:
    write_map(GEOSPATIAL.open(path, encoding), BIOMASS, first_band, out, {}, nothing)
    return rasterio.open(out)


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """The encoding of a model of pixels of 20 m."""
    return opened(write_tiff(tmp_path / "learnt.tif", reflectances(), BURN_BANDS)).encoding


def test_other_pixels_are_refused_with_both_sizes(model: Any, tmp_path: Path) -> None:
    fine = Affine(5, 0, PLACE.c, 0, -5, PLACE.f)
    path = write_tiff(tmp_path / "fine.tif", reflectances(), BURN_BANDS, transform=fine)
    with pytest.raises(
        GroundworkError, match=r"pixels of 5 m in B2 where 20 m .*--resample nearest, bilinear"
    ):
        mapped(path, model, tmp_path / "map.tif")


@pytest.mark.parametrize("method", METHODS)
def test_a_finer_scene_is_mapped_on_the_pixels_of_the_model(
    method: Resampling, model: Any, tmp_path: Path
) -> None:
    fine = Affine(5, 0, PLACE.c, 0, -5, PLACE.f)
    blocks = np.kron(reflectances(5, 12, 10), np.ones((4, 4), np.uint16))
    blocks[:, :8, :8] = 0
    pixels = np.pad(blocks, ((0, 0), (0, 1), (0, 2)), mode="edge")  # its last pixels are not whole
    path = write_tiff(tmp_path / "fine.tif", pixels, BURN_BANDS, transform=fine, nodata=0)
    assert isinstance(GEOSPATIAL, Resamples)
    asked = GEOSPATIAL.resampling(model, method)
    assert asked.model_dump().keys() == model.model_dump().keys()
    with mapped(path, asked, tmp_path / "map.tif") as made:
        assert (made.crs.to_string(), made.transform, made.shape) == ("EPSG:32632", PLACE, (13, 11))
        found = made.read(1)
    assert np.isnan(found[:2, :2]).all()
    assert np.isfinite(found[2:12, 2:10]).all()
    if method == "nearest":
        np.testing.assert_array_equal(found[2:12, 2:10], pixels[0, 8:48:4, 8:40:4])


def test_a_coarser_scene_in_degrees_keeps_its_corner(model: Any, tmp_path: Path) -> None:
    step = 60 / 111_319.49
    place = Affine(step, 0, 12.0, 0, -step, 48.0)
    pixels = np.tile(np.linspace(1000, 2000, 40), (5, 48, 1)).astype(np.uint16)
    path = write_tiff(tmp_path / "coarse.tif", pixels, BURN_BANDS, crs="EPSG:4326", transform=place)
    with mapped(path, GEOSPATIAL.resampling(model, "bilinear"), tmp_path / "map.tif") as made:
        assert (made.transform.c, made.transform.f) == (12.0, 48.0)
        assert made.transform.a == pytest.approx(step / 3, rel=1e-3)
        assert made.shape == (144, 120)
        row = made.read(1)[70]
    assert np.isfinite(row).all()
    assert (np.diff(row) >= 0).all()
    assert len(np.unique(row)) > 100


def test_gaps_are_not_mixed_into_their_neighbours(model: Any, tmp_path: Path) -> None:
    """NaN without a declared nodata, and a file that has a mask instead."""
    fine = Affine(5, 0, PLACE.c, 0, -5, PLACE.f)
    pixels = np.full((5, 80, 80), 1000, np.float32)
    pixels[:, 20:42, 20:42] = np.nan
    nan = write_tiff(tmp_path / "nan.tif", pixels, BURN_BANDS, transform=fine)
    masked = tmp_path / "masked.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_tiff(masked, np.nan_to_num(pixels, nan=9000).astype(np.uint16), BURN_BANDS, transform=fine)
        with rasterio.open(masked, "r+") as file:
            file.write_mask(np.isfinite(pixels[0]))
    for path in (nan, masked):
        with mapped(path, GEOSPATIAL.resampling(model, "bilinear"), tmp_path / "map.tif") as made:
            found = made.read(1)
        assert found.shape == (20, 20)
        assert np.isnan(found[6:10, 6:10]).all()
        assert set(np.unique(found[np.isfinite(found)])) == {1000}
        assert np.isfinite(found[:4]).all()


def test_bands_of_several_fillers_are_not_resampled(model: Any, tmp_path: Path) -> None:
    """GDAL's reader for other grids knows one filler for all bands."""
    write_tiff(tmp_path / "pixels.tif", reflectances(), BURN_BANDS)
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{place}"><Description>{name}</Description>'
        f'<NoDataValue>{filler}</NoDataValue><SimpleSource><SourceFilename relativeToVRT="1">pixels.tif'
        f"</SourceFilename><SourceBand>{place}</SourceBand></SimpleSource></VRTRasterBand>"
        for place, (name, filler) in enumerate(zip(BURN_BANDS, (0, 0, 0, 0, 9), strict=True), start=1)
    )
    place = f"{PLACE.c}, 5, 0, {PLACE.f}, 0, -5"
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="40" rasterYSize="48"><SRS>EPSG:32632</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"
    )
    with pytest.raises(GroundworkError, match=r"several values for no data \(0, 9\)"):
        mapped(tmp_path / "a.vrt", GEOSPATIAL.resampling(model, "nearest"), tmp_path / "map.tif")


def test_a_product_whose_bands_differ_is_brought_to_the_model(tmp_path: Path) -> None:
    """A finer band and a coarser one, both to what the model reads."""
    folder = tmp_path / "LC08_L2SP_021030_20200801_20200906_02_T1"
    for name, size in (("SR_B4", 30), ("SR_B5", 30)):
        place = Affine(size, 0, 500_000, 0, -size, 5_000_000)
        write_tiff(folder / f"{folder.name}_{name}.TIF", reflectances(1, 64, 64), transform=place)
    source = GEOSPATIAL.open(folder, SPEC)
    bands = tuple(band.model_copy(update={"gsd": 60.0}) for band in source.encoding.bands)
    spec = source.encoding.model_copy(update={"bands": bands})
    with pytest.raises(GroundworkError, match=r"pixels of 30 m .* where 60 m"):
        mapped(folder, spec, tmp_path / "map.tif")
    with mapped(folder, GEOSPATIAL.resampling(spec, "bilinear"), tmp_path / "map.tif") as made:
        assert made.shape == (32, 32)
        assert made.res == (60, 60)
