"""What the baselines of rasters see."""

from __future__ import annotations

import numpy as np
import pytest

from domains.contract import Record, SplitSpec, Target, TaskSpec
from domains.geospatial.bands import REFLECTANCE_10000, BandSpec, RasterEncoding
from domains.geospatial.chips import USUAL_RANGE, Chip
from domains.geospatial.floors import image_of, image_statistics, pixel_features, raster_floors
from domains.geospatial.indices import indices_of
from domains.geospatial.random_features import FILTERS, random_convolutions
from domains.geospatial.sensors import SENTINEL_2


def record(pixels: np.ndarray) -> Record:
    return Record(0, "", Chip(pixels.astype(np.float32), "", 0, 0, "", ()))


@pytest.fixture
def chip() -> np.ndarray:
    return np.random.default_rng(0).uniform(200, 4000, (4, 16, 16))


def task_of(level: str, kind: str = "binary") -> TaskSpec:
    classes = ("a", "b") if kind == "binary" else ("a", "b", "c")
    target = Target(name="cover", kind=kind, classes=classes, level=level)  # type: ignore[arg-type]
    return TaskSpec(domain="geospatial", targets=(target,), split=SplitSpec(method="blocks", seed=0))


def floors_of(task: TaskSpec, *bands: BandSpec) -> list[tuple[str, str]]:
    return [(floor.name, floor.estimator) for floor in raster_floors(task, RasterEncoding(bands=bands))]


def optical(name: str, wavelength: float, unit: str = REFLECTANCE_10000) -> BandSpec:
    return BandSpec(name=name, wavelength=wavelength, unit=unit)


GREEN, RED = optical("B3", 560), optical("B4", 665)
NIR, SWIR = optical("B8A", 865), optical("B12", 2190)


def test_each_level_has_its_floors() -> None:
    assert floors_of(task_of("sample")) == [
        ("image statistics + nearest neighbours", "neighbours"),
        ("image statistics + random forest", "forest"),
        ("random convolutional features + linear", "linear"),
    ]
    per_pixel = [("pixel values + random forest", "forest"), ("U-Net from scratch", "unet")]
    assert floors_of(task_of("pixel", "multiclass"), NIR, SWIR) == per_pixel
    assert floors_of(task_of("pixel"), GREEN, RED) == per_pixel
    assert floors_of(task_of("pixel"), SWIR, NIR) == [("NBR threshold", "threshold"), *per_pixel]
    assert [name for name, _ in floors_of(task_of("pixel"), GREEN, RED, NIR)][:2] == [
        "NDVI threshold", "NDWI threshold",
    ]  # fmt: skip


def test_bands_of_two_units_have_no_ratio() -> None:
    assert indices_of([NIR, optical("B12", 2190, "display byte")]) == []
    [index] = indices_of([optical("B8", 842, "display byte"), SWIR, NIR])
    assert (index.name, index.first, index.second) == ("NBR", 2, 1)


def test_the_red_edge_is_not_taken_for_near_infrared() -> None:
    bands = tuple(SENTINEL_2.values())
    pairs = {index.name: (bands[index.first].name, bands[index.second].name) for index in indices_of(bands)}
    assert pairs == {"NBR": ("B8", "B12"), "NDVI": ("B8", "B4"), "NDWI": ("B3", "B8")}


def test_an_index_is_that_of_each_pixel() -> None:
    [nbr] = indices_of([NIR, SWIR])
    pixels = np.full((2, 2, 2), np.nan)
    pixels[:, 0, 0] = 3000, 1000
    pixels[0, 0, 1] = 500  # of one band alone
    pixels[:, 1, 1] = -100, 50
    np.testing.assert_allclose(nbr(record(pixels))[:, 0], [0.5, 0, np.nan, 0])


def test_two_dates_have_a_change_of_the_index() -> None:
    change, now = indices_of([NIR, SWIR], dates=2)
    assert (change.name, now.name) == ("dNBR", "NBR")
    before, after = np.full((2, 1, 2), 1000.0), np.full((2, 1, 2), 1000.0)
    before[0], after[1] = 3000, 3000
    after[:, 0, 1] = np.nan
    dates = record(np.stack([before, after]))
    np.testing.assert_allclose(change(dates)[:, 0], [1, 0])  # 0.5 before, −0.5 after; not known
    np.testing.assert_allclose(now(dates)[:, 0], [-0.5, 0])
    assert pixel_features(dates).shape == (2, 3 * (2 + 1))  # each date, and by how much it grew
    assert image_of(dates).shape == (4, 1, 2)
    assert np.isfinite(image_statistics(dates)).all()


def test_random_features_are_finite_whatever_is_missing(chip: np.ndarray) -> None:
    whole = random_convolutions(record(chip))
    assert whole.shape == (2 * FILTERS,)
    assert (whole >= 0).all()
    np.testing.assert_array_equal(whole, random_convolutions(record(chip)))
    gappy = chip.copy()
    gappy[:, :, 8:] = np.nan
    # What is there counts, and not that something is missing.
    np.testing.assert_allclose(
        random_convolutions(record(gappy)), random_convolutions(record(chip[:, :, :8])), rtol=1e-4
    )
    for pixels in (np.full_like(chip, np.nan), chip[:, :1, :1], np.full_like(chip, 7.0)):
        assert np.isfinite(random_convolutions(record(pixels))).all()
    many = np.random.default_rng(0).normal(size=(2, 13, 80, 80))
    assert random_convolutions(record(many)).shape == (2 * FILTERS,)


def test_random_features_do_not_depend_on_the_unit() -> None:
    shares = np.random.default_rng(0).uniform(0.02, 0.5, (1, 16, 16))

    def of(pixels: np.ndarray, unit: str) -> np.ndarray:
        bands = (optical("B4", 665, unit),)
        return random_convolutions(
            Record(0, "", Chip(pixels.astype(np.float32), "", 0, 0, "", (), None, bands))
        )

    low, high = USUAL_RANGE[REFLECTANCE_10000]
    scaled = low + (shares - 0.02) / 0.48 * (high - low)
    np.testing.assert_allclose(of(shares, "reflectance"), of(scaled, REFLECTANCE_10000), atol=1e-3)


def test_random_features_tell_textures_of_equal_values_apart(chip: np.ndarray) -> None:
    smooth = np.sort(chip.reshape(4, -1), axis=1).reshape(chip.shape)
    rough, smooth = random_convolutions(record(chip)), random_convolutions(record(smooth))
    assert np.abs(rough - smooth).max() > 0.5 * rough.mean()


def test_a_pixel_tells_of_itself_alone(chip: np.ndarray) -> None:
    features = pixel_features(record(chip))
    assert features.shape == (256, 4 + 6)
    np.testing.assert_allclose(features[17, :4], chip[:, 1, 1], rtol=1e-6)
    red, near_infrared = chip[2, 1, 1], chip[3, 1, 1]
    assert (red - near_infrared) / (red + near_infrared) == pytest.approx(features[17, -1], rel=1e-5)
    turned = pixel_features(record(chip[:, ::-1, ::-1]))
    np.testing.assert_array_equal(turned[::-1], features)


def test_pixels_without_data_have_no_features(chip: np.ndarray) -> None:
    chip[:, 3, 4] = np.nan
    chip[1, 0, 0] = np.nan  # a gap in one band leaves a pixel that models answer, too
    features = pixel_features(record(chip))
    assert np.isnan(features[3 * 16 + 4]).all()
    assert np.isfinite(np.delete(features, 3 * 16 + 4, axis=0)).all()


def test_values_of_any_unit_have_finite_features() -> None:
    decibels = np.random.default_rng(1).uniform(-25, 3, (2, 8, 8))
    decibels[:, 0, 0] = 0.0
    features = pixel_features(record(decibels))
    assert np.isfinite(features).all()
    assert np.abs(features[:, 2:]).max() <= 1


def test_statistics_are_finite_whatever_is_missing(chip: np.ndarray) -> None:
    whole = image_statistics(record(chip))
    gappy = chip.copy()
    gappy[:, :, 8:] = np.nan
    assert image_statistics(record(gappy)).shape == whole.shape
    for pixels in (gappy, np.full_like(chip, np.nan), np.full_like(chip, 7.0), chip[:, :1, :1]):
        assert np.isfinite(image_statistics(record(pixels))).all()
    # What is there counts, and not that something is missing.
    repeated = np.concatenate([chip[:, :, :8], chip[:, :, :8]], axis=2)
    np.testing.assert_allclose(image_statistics(record(gappy))[:4], repeated.mean(axis=(1, 2)), rtol=1e-5)


def test_statistics_tell_textures_of_equal_values_apart(chip: np.ndarray) -> None:
    smooth = np.sort(chip.reshape(4, -1), axis=1).reshape(chip.shape)
    apart = np.abs(image_statistics(record(chip)) - image_statistics(record(smooth)))
    per_band = apart[: 7 * 4]  # mean, spread and quantiles of each band
    assert per_band.max() < 1e-2
    assert apart[7 * 4 : 9 * 4].min() > 10  # gradients


def test_more_bands_than_pairs_can_be_taken_of() -> None:
    hyperspectral = np.random.default_rng(2).uniform(0, 1, (60, 4, 4))
    assert pixel_features(record(hyperspectral)).shape == (16, 60 + 59)
