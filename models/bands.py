"""What an encoder of images knows of bands: their statistics, and the filters that read them.

Filters are generated from a band's centre wavelength (DOFA, Xiong et al. 2024), so that one set of
weights reads any set of optical bands; channels without a wavelength, such as the polarisations of a
radar, have an embedding of their own.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from domains.contract import GroundworkError, Sample

MEASURED_SAMPLES, MEASURED_PIXELS = 1024, 1024
"""Statistics are taken from at most so many samples, and so many pixels of each."""

TAILS = (1.0, 99.0)
"""Percentiles that values are clipped to before they are measured: clouds, glint and unmarked nodata."""

LIKE_WAVELENGTH = 0.05
"""Largest relative difference between two wavelengths of one band as two sensors have it."""

CODE = 64
"""Width of the code of a band."""

Band = Mapping[str, Any]
"""A band as an encoding describes it: ``name``, ``unit``, ``wavelength`` (nm or None), ``polarisation``."""


def what_matters(band: Band) -> dict[str, Any]:
    """What tells a band from others, whatever file it lies in."""
    return {key: band[key] for key in ("name", "wavelength", "polarisation", "unit")}


def channel_name(band: Band) -> str:
    """What tells a channel without a wavelength from others: its polarisation, or else its name."""
    return str(band["polarisation"] or band["name"])


def same_band(one: Band, other: Band) -> bool:
    """Whether the statistics of one band hold for the other.

    Name and unit are not enough: ``B5`` is red edge to one sensor and near infrared to another.
    """
    if any(one[key] != other[key] for key in ("name", "polarisation", "unit")):
        return False
    wave, other_wave = one["wavelength"], other["wavelength"]
    if wave is None or other_wave is None:
        return wave is other_wave
    return bool(abs(wave - other_wave) <= LIKE_WAVELENGTH * max(wave, other_wave))


def measure(samples: Sequence[Sample], columns: Sequence[int], bands: Sequence[Band]) -> np.ndarray:
    """Mean and standard deviation of some of the bands of ``pixels``, float64 [len(columns), 2].

    Gaps do not count, tails are clipped, and the spread of a constant band is 1. The choice of samples
    and pixels is seeded. Raises GroundworkError for a band without any data.
    """
    chance = np.random.default_rng(0)
    taken = [np.empty((len(columns), 0), np.float32)]
    for place in np.sort(chance.permutation(len(samples))[:MEASURED_SAMPLES]):
        pixels = np.asarray(samples[int(place)]["pixels"])[list(columns)].reshape(len(columns), -1)
        taken.append(pixels[:, chance.permutation(pixels.shape[1])[:MEASURED_PIXELS]])
    statistics = np.empty((len(columns), 2))
    for row, values in enumerate(np.concatenate(taken, axis=1)):
        values = values[np.isfinite(values)].astype(np.float64)
        if not len(values):
            raise GroundworkError(
                f"no training chip holds data in band {bands[columns[row]]['name']}: leave the band out, "
                "or look at its nodata value"
            )
        values = values.clip(*np.percentile(values, TAILS))
        mean, spread = values.mean(), values.std()
        # Rounding alone gives a large constant some spread.
        statistics[row] = mean, spread if spread > 1e-6 * abs(mean) else 1.0
    return statistics


class BandFilters(nn.Module):
    """Generates the filters that turn patches of any set of bands into tokens.

    The code of a band (sines and cosines of the logarithm of its wavelength, or a learned vector) goes
    through a small network, whose outputs mix a basis of filters.
    """

    def __init__(self, patch: int, width: int, basis: int, channels: Sequence[str]) -> None:
        super().__init__()
        self.width = width
        self.mix = nn.Sequential(
            nn.Linear(CODE, 2 * CODE), nn.GELU(), nn.Linear(2 * CODE, basis), nn.LayerNorm(basis)
        )
        self.basis = nn.Parameter(torch.zeros(basis, patch * patch * width))
        self.channel = nn.Embedding(len(channels), CODE)

    def forward(self, wavelengths: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
        """Wavelengths [C] in nm, and rows int64 [C] of channels or -1 -> filters [C * patch², width].

        Divided by the root of C, so that tokens have the same scale whatever the number of bands.
        """
        # At the lowest frequency all that is optical spans half a turn; at the highest, 20 nm in the red do.
        frequency = torch.logspace(0, math.log10(120), CODE // 2, device=wavelengths.device)
        angle = torch.log(wavelengths.float() / 1000)[:, None] * frequency
        optical = torch.cat([angle.sin(), angle.cos()], -1)
        codes = torch.where(channels[:, None] < 0, optical, self.channel(channels.clamp(min=0)))
        filters = self.mix(codes.to(self.basis.dtype)) @ self.basis
        return filters.view(-1, self.width) / len(codes) ** 0.5

    def add_channel(self, name: str) -> None:
        """A row more for a channel, whose start depends on its name alone."""
        known = self.channel.weight.data
        start = torch.randn(1, CODE, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        self.channel = nn.Embedding(len(known) + 1, CODE, _weight=torch.cat([known, start.to(known)]))
