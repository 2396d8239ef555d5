"""What the baselines of rasters see."""

from __future__ import annotations

import numpy as np
import pytest

from domains.contract import Record, SplitSpec, Target, TaskSpec
from domains.geospatial.chips import Chip
from domains.geospatial.floors import image_statistics, pixel_features, raster_floors


def record(pixels: np.ndarray) -> Record:
    return Record(0, "", Chip(pixels.astype(np.float32), "", 0, 0, "", ()))


@pytest.fixture
def chip() -> np.ndarray:
    return np.random.default_rng(0).uniform(200, 4000, (4, 16, 16))


@pytest.mark.parametrize(
    ("level", "estimators"), [("pixel", ["forest"]), ("sample", ["neighbours", "forest"])]
)
def test_each_level_has_its_floors(level: str, estimators: list[str]) -> None:
    target = Target(name="cover", kind="multiclass", classes=("a", "b"), level=level)  # type: ignore[arg-type]
    task = TaskSpec(domain="geospatial", targets=(target,), split=SplitSpec(method="blocks", seed=0))
    floors = raster_floors(task)
    assert [floor.estimator for floor in floors] == estimators
    assert len({floor.name for floor in floors}) == len(floors)


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
