"""The baselines that stand beside every model of rasters: none of them learns from unlabelled data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from domains.contract import Floor, Record, TaskSpec
from domains.geospatial.bands import RasterEncoding
from domains.geospatial.indices import indices_of
from domains.geospatial.random_features import random_convolutions

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_PAIRS = 28
"""Normalised differences are taken of all pairs of bands up to eight bands; beyond, of neighbours only."""


def raster_floors(task: TaskSpec, spec: RasterEncoding) -> Sequence[Floor]:
    """Statistics of a chip and random features for answers about chips.

    For answers about pixels what each pixel alone tells, an index by which two classes can be told apart
    where the bands have one, and a U-Net that learns from the task's own chips only.
    """
    if not all(target.level == "pixel" for target in task.targets):
        return (
            Floor("image statistics + nearest neighbours", image_statistics, "neighbours"),
            Floor("image statistics + random forest", image_statistics, "forest"),
            Floor("random convolutional features + linear", random_convolutions, "linear"),
        )
    indices = indices_of(spec.bands, spec.dates) if task.targets[0].kind == "binary" else []
    return (
        *(Floor(f"{index.name} threshold", index, "threshold") for index in indices),
        Floor("pixel values + random forest", pixel_features, "forest"),
        Floor("U-Net from scratch", image_of, "unet"),
    )


def image_of(record: Record) -> np.ndarray:
    """The chip, its dates one after the other, float32 [dates × bands, h, w], NaN where there is no data."""
    pixels = record.value.pixels
    return pixels.reshape(-1, *pixels.shape[-2:])


def pixel_features(record: Record) -> np.ndarray:
    """Values of the bands and their normalised differences at each pixel, float32 [pixels, f].

    Of two dates, those of each, and by how much they grew. Rows of pixels without data in any band are NaN;
    single gaps are 0, so that floor and model answer the same pixels. No pixel sees another.
    """
    dates = record.value.dates
    bands = dates.reshape(*dates.shape[:2], -1)
    features = np.concatenate(_with_growth([np.concatenate([one, _differences(one)]) for one in bands]))
    features = np.nan_to_num(features.T.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    features[~np.isfinite(bands).any(axis=(0, 1))] = np.nan
    return features


def image_statistics(record: Record) -> np.ndarray:
    """What a chip looks like on the whole, float32 [f], gaps as 0.

    Per band: mean, standard deviation, quantiles, gradient energy at two scales. Between bands: mean and
    spread of the normalised differences, and correlations. Of two dates all of it for each, and by how much
    it grew.
    """
    dates = np.asarray(record.value.dates, np.float64)
    found = np.concatenate(_with_growth([_statistics(pixels) for pixels in dates]))
    return np.nan_to_num(found).astype(np.float32)


def _with_growth(features: list[np.ndarray]) -> list[np.ndarray]:
    """Features of each date, and what the last has more than the first; of one date nothing more."""
    return [*features, *([features[-1] - features[0]] if len(features) > 1 else [])]


def _statistics(pixels: np.ndarray) -> np.ndarray:
    """Of one date, float64 [bands, h, w] -> [f], NaN where there is nothing to tell."""
    bands = pixels.reshape(len(pixels), -1)
    valid = bands[:, np.isfinite(bands).all(axis=0)]
    if not valid.size:
        valid = np.zeros((len(bands), 1))
    differences = _differences(valid)
    spread = valid.std(axis=1)
    centred = (valid - valid.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)[:, None]
    pairs = _pairs(len(valid))
    correlations = np.array([np.mean(centred[first] * centred[second]) for first, second in pairs])
    parts = [
        valid.mean(axis=1),
        spread,
        np.quantile(valid, QUANTILES, axis=1).ravel(),
        _gradients(pixels, 1),
        _gradients(pixels, 4),
        differences.mean(axis=1),
        differences.std(axis=1),
        correlations,
    ]
    return np.concatenate(parts)


def count_statistics(bands: int, dates: int = 1) -> int:
    """How many numbers ``image_statistics`` gives of a chip of so many bands and dates."""
    of_one = (2 + len(QUANTILES) + 2) * bands + 3 * len(_pairs(bands))
    return of_one * (dates + 1 if dates > 1 else 1)


def _pairs(bands: int) -> list[tuple[int, int]]:
    every = list(combinations(range(bands), 2))
    return every if len(every) <= MOST_PAIRS else [(band, band + 1) for band in range(bands - 1)]


def _differences(bands: np.ndarray) -> np.ndarray:
    """Normalised differences (a − b)/(|a| + |b|) [pairs, pixels]: the NDVI is one of them."""
    rows = []
    for first, second in _pairs(len(bands)):
        total = np.abs(bands[first]) + np.abs(bands[second])
        rows.append((bands[first] - bands[second]) / np.where(total == 0, 1, total))
    return np.array(rows).reshape(len(rows), bands.shape[1])


def _gradients(pixels: np.ndarray, step: int) -> np.ndarray:
    """Mean absolute difference to the pixel ``step`` below and to the right, per band [bands]."""
    result = np.zeros(len(pixels))
    for axis in (1, 2):
        if pixels.shape[axis] > step:
            size = pixels.shape[axis] - step
            far = pixels.take(range(step, step + size), axis)
            apart = np.abs(far - pixels.take(range(size), axis)).reshape(len(pixels), -1)
            valid = np.isfinite(apart)
            result += np.where(valid, apart, 0).sum(axis=1) / np.maximum(valid.sum(axis=1), 1)
    return result / 2
