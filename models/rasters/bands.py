"""What an encoder of images knows of bands: their statistics, and what its filters make of their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from domains.contract import GroundworkError, Sample
from models.rasters.band_filters import BandCodes, BandFilters, Textures

MEASURED_SAMPLES, MEASURED_PIXELS = 1024, 1024
"""Statistics are taken from at most so many samples, and so many pixels of each."""

TAILS = (1.0, 99.0)
"""Percentiles that values are clipped to before they are measured: clouds, glint and unmarked nodata."""

LIKE_WAVELENGTH = 0.05
"""Largest relative difference between two wavelengths of one band as two sensors have it."""

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
        pixels = np.asarray(samples[int(place)]["pixels"]).take(columns, axis=-3)  # dates may lie before
        pixels = np.moveaxis(pixels, -3, 0).reshape(len(columns), -1)
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


class BandReader(nn.Module):
    """From pixels in physical units to what the filters of their bands, and of small windows, make of them.

    It holds the statistics of every band that is ``known``. ``readings`` says for each source of samples
    which of them its bands are, in its order.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    wavelength: torch.Tensor
    channel: torch.Tensor

    def __init__(
        self,
        known: Sequence[Band],
        readings: Sequence[Sequence[int]],
        channels: Sequence[str],
        *,
        patch: int,
        width: int,
        basis: int,
    ) -> None:
        super().__init__()
        self.known, self.readings, self.channels = list(known), list(readings), list(channels)
        self.coded = BandCodes(len(channels))
        self.filters = BandFilters(patch, width, basis)
        self.textures = Textures(patch, width, basis)
        # One element for each known band; ``fit`` fills them.
        self.register_buffer("mean", torch.zeros(len(known)))
        self.register_buffer("spread", torch.ones(len(known)))
        self.register_buffer("wavelength", torch.ones(len(known)))
        self.register_buffer("channel", torch.full((len(known),), -1))

    def fit(self, inputs: Sequence[tuple[Sequence[Band], Sequence[Sample]]]) -> None:
        """Keep the statistics of known bands, and measure those of others in samples of their source.

        Raises GroundworkError for a band without data, and changes nothing then.
        """
        known, statistics = list(self.known), torch.stack([self.mean, self.spread], 1)
        readings: list[Sequence[int]] = []
        for asked, samples in inputs:
            bands = [what_matters(band) for band in asked]
            rows = [
                next((row for row, other in enumerate(known) if same_band(other, band)), -1) for band in bands
            ]
            fresh = [column for column, row in enumerate(rows) if row < 0]
            if fresh:
                measured = torch.from_numpy(measure(samples, fresh, bands))
                statistics = torch.cat([statistics, measured.to(statistics)])
            for column in fresh:
                rows[column] = len(known)
                known.append(bands[column])
            readings.append(rows)
        self.known, self.readings = known, readings
        self.mean, self.spread = (column.clone() for column in statistics.T)
        self._find_filters()

    def _find_filters(self) -> None:
        """Say for each known band which filters are its own, and make room for new channels."""
        for name in [channel_name(band) for band in self.known if band["wavelength"] is None]:
            if name not in self.channels:
                self.coded.add_channel(name)
                self.channels.append(name)
        rows = [
            self.channels.index(channel_name(band)) if band["wavelength"] is None else -1
            for band in self.known
        ]
        self.channel = torch.tensor(rows).to(self.channel)
        # A channel without a wavelength never looks at its number, but a logarithm is taken of it.
        self.wavelength = torch.tensor([band["wavelength"] or 1.0 for band in self.known]).to(self.mean)

    def count(self, source: int) -> int:
        """Bands of a source."""
        return len(self.readings[source])

    def standardise(self, pixels: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """Images [B, C, H, W] or [B, T, C, H, W] in physical units -> in spreads from the mean of each band.

        ``source`` int64 [B] says which reading each is for. Behind the last band of a sample all is NaN.
        """
        widest = max(map(len, self.readings))
        table = torch.tensor([[*rows, *[0] * (widest - len(rows))] for rows in self.readings])
        rows = table[:1] if len(table) == 1 else table[source.cpu()]
        rows = rows[:, : pixels.shape[-3], None, None].to(self.mean.device)
        if pixels.dim() == 5:
            rows = rows[:, None]
        return (pixels - self.mean[rows]) * (1 / self.spread[rows])

    def forward(
        self, values: torch.Tensor, source: torch.Tensor, kept: Sequence[Sequence[int]] | None
    ) -> torch.Tensor:
        """Standardised patches [B, K, C * patch²] -> [B, K, width]; gaps count as the mean of their band.

        ``kept`` are the bands of each source that are looked at; None is all.
        """
        pixels = self.filters.side**2
        parts, places = [], []
        for place, among in self.sources(source):
            columns = list(range(self.count(place)) if kept is None else kept[place])
            own = values if among is None else values[among]
            if len(columns) * pixels < own.shape[-1]:
                own = own.unflatten(-1, (-1, pixels))[:, :, columns].flatten(-2)
            codes = self.codes(place, columns)
            filters = self.filters(codes)
            patterns = self.textures(own, codes)
            parts.append(own.nan_to_num(0.0).to(filters.dtype) @ filters + patterns)
            places.append(among)
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts)[torch.cat(places).argsort()]  # type: ignore[arg-type]  # none of them is None

    def sources(self, source: torch.Tensor) -> list[tuple[int, torch.Tensor | None]]:
        """Each source of a batch with the places of its samples; None where it is the only one."""
        found = [0] if len(self.readings) == 1 else source.unique().tolist()
        if len(found) == 1:
            return [(found[0], None)]
        return [(place, torch.nonzero(source == place)[:, 0]) for place in found]

    def codes(self, source: int, columns: Sequence[int]) -> torch.Tensor:
        """What tells some bands of a source apart, [columns, CODE]."""
        rows = [self.readings[source][column] for column in columns]
        coded: torch.Tensor = self.coded(self.wavelength[rows], self.channel[rows])
        return coded
