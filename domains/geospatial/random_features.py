"""Random convolutional features: what an untrained layer of convolutions tells of a chip.

After MOSAIKS (Rolf et al. 2021, Nat. Commun. 12, 4392) and Coates & Ng (2012): patches are whitened,
projected on random directions, rectified and pooled. MOSAIKS whitens by the covariance of sampled patches;
here it is a prior, so that features of a chip depend on that chip alone: what is near in space and in the
spectrum is alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from domains.contract import Record
from domains.geospatial.bands import BandSpec
from domains.geospatial.chips import USUAL_RANGE

FILTERS = 256
WINDOW = 3
"""Pixels on a side of a patch."""
LENGTH, LIKENESS = 30.0, 0.95
"""Of the prior: pixels over which correlation falls to 1/e, and correlation between two bands."""
SHARPNESS = 0.1
"""Standard deviation of the thresholds, in values of which 0 to 1 is the usual range of a band."""
PLACES = 32
"""Patches on a side of a chip, about; of a large one not every place is looked at."""


def random_convolutions(record: Record) -> np.ndarray:
    """Means of the positive and the negative parts of responses to random filters, float32 [2 × FILTERS].

    Patches with gaps do not count; zeros where no patch is whole.
    """
    pixels = np.asarray(record.value.pixels)
    dates = pixels if pixels.ndim == 4 else pixels[None]
    images = _in_usual_range(dates, record.value.bands).reshape(-1, *pixels.shape[-2:])
    if min(images.shape[-2:]) < WINDOW:
        return np.zeros(2 * FILTERS, np.float32)
    stride = max(1, images.shape[-1] // PLACES)
    windows = np.lib.stride_tricks.sliding_window_view(images, (WINDOW, WINDOW), axis=(1, 2))
    patches = windows[:, ::stride, ::stride].transpose(1, 2, 0, 3, 4).reshape(-1, len(images) * WINDOW**2)
    patches = patches[np.isfinite(patches).all(1)]
    if not len(patches):
        return np.zeros(2 * FILTERS, np.float32)
    filters, thresholds = _bank(len(images))
    responses = patches @ filters - thresholds
    positive = np.maximum(responses, 0).mean(0)
    return np.concatenate([positive, positive - responses.mean(0)])


def _in_usual_range(dates: np.ndarray, bands: Sequence[BandSpec]) -> np.ndarray:
    """Values [dates, bands, h, w], the usual range of their unit at 0 to 1; of other units on a log scale."""
    scaled = np.array(dates, np.float32)
    for place in range(scaled.shape[1]):
        usual = USUAL_RANGE.get(bands[place].unit) if place < len(bands) else None
        if usual is None:
            scaled[:, place] = np.arcsinh(scaled[:, place])
        else:
            scaled[:, place] = (scaled[:, place] - usual[0]) / (usual[1] - usual[0])
    return scaled


@lru_cache(maxsize=16)
def _bank(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Filters float32 [channels × WINDOW², FILTERS] with the whitening in them, and thresholds [FILTERS]."""
    random = np.random.default_rng(0)
    places = np.stack(np.divmod(np.arange(WINDOW**2), WINDOW), 1)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    spectrum = np.full((channels, channels), LIKENESS) + (1 - LIKENESS) * np.eye(channels)
    whitening = np.kron(_inverse_root(spectrum), _inverse_root(np.exp(-apart / LENGTH)))
    directions = random.normal(size=(FILTERS, channels * WINDOW**2))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    thresholds = random.normal(0, SHARPNESS, FILTERS)
    return (directions @ whitening).T.astype(np.float32), thresholds.astype(np.float32)


def _inverse_root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return vectors @ np.diag(values**-0.5) @ vectors.T
