"""What masked autoencoding hides of rasters, and the decoder that fills it in (MAE, He et al. 2022).

Beside patches it hides bands and whole dates, so that an encoder learns how they go together (as SatMAE, Cong
et al. 2022, and Presto, Tseng et al. 2023, found to pay).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from models.rasters.band_filters import CODE
from models.rasters.bands import BandReader
from models.rasters.blocks import VisionBlock, key_bias
from models.rasters.patches import Patches, rows_of
from models.rasters.targets import EDGES, band_statistics, edges, evened
from models.rasters.visual_words import Vocabulary
from models.rasters.whereabouts import MOST_DATES

Asked = tuple[torch.Tensor, torch.Tensor]
"""Features [M, D], of which a head is to say truths [M, k]."""

ALL_BANDS = 0.5
"""How often all bands are seen."""

HIDDEN_DATE = 0.25
"""How often one of several dates is hidden before patches of the others are."""


class MaskedDecoder(nn.Module):
    """Fills in hidden patches from the embeddings of visible ones, half as wide as the encoder.

    It also says what else pretraining asks, and what is true of it.
    """

    vocabularies: nn.ModuleList

    def __init__(
        self, encoder_width: int, heads: int, intermediate: int, layers: int, bands: Sequence[int]
    ) -> None:
        super().__init__()
        width = encoder_width // 2
        self.narrow = nn.Linear(encoder_width, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.age = nn.Parameter(torch.zeros(MOST_DATES - 1, width))
        self.layers = nn.ModuleList(VisionBlock(width, heads, intermediate) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.band_of_patch = nn.Linear(CODE, width, bias=False)
        self.band_of_chip = nn.Linear(CODE, encoder_width, bias=False)
        self.make_vocabularies(bands)

    def forward(
        self,
        visible: torch.Tensor,
        rank: torch.Tensor,
        is_visible: torch.Tensor,
        mask: torch.Tensor,
        rotation: torch.Tensor,
        dates: int,
    ) -> torch.Tensor:
        """Tokens [B, N, D / 2] of all patches, oldest date first.

        Of the embeddings ``visible`` [B, K, D], that of rank k belongs to the patch whose ``rank``
        int64 [B, N] is k, where ``is_visible`` bool [B, N]; ``mask`` says which hold data.
        """
        narrow = self.narrow(visible)
        placed = rows_of(narrow, rank.clamp(max=visible.shape[1] - 1))
        tokens = torch.where(is_visible[..., None], placed, self.hidden)
        if dates > 1:
            older = self.age[: dates - 1].flip(0).repeat_interleave(tokens.shape[1] // dates, 0)
            tokens = tokens + F.pad(older, (0, 0, 0, tokens.shape[1] // dates))
        bias = key_bias(mask)
        for layer in self.layers:
            tokens = layer(tokens, rotation, bias)
        return self.norm(tokens)

    def make_vocabularies(self, bands: Sequence[int]) -> None:
        """Room for the visual words of sources of so many bands."""
        self.vocabularies = nn.ModuleList(Vocabulary(count) for count in bands)

    def fill_in(
        self,
        reader: BandReader,
        patches: Patches,
        tokens: torch.Tensor,
        hidden: torch.Tensor,
        wanted: Sequence[int],
    ) -> Asked:
        """The band that is ``wanted`` of each source, in each ``hidden`` [B, N] patch: truths [M, patch²]."""
        pixels = reader.filters.side**2
        features, truths = [], []
        for place, among in reader.sources(patches.source):
            its = hidden if among is None else torch.zeros_like(hidden).index_copy(0, among, hidden[among])
            # Of all patches, as that is faster than to copy the hidden ones first.
            own = patches.values[..., : reader.count(place) * pixels]
            column = wanted[place] * pixels
            [code] = reader.codes(place, wanted[place : place + 1])
            features.append(tokens[its] + said(self.band_of_patch, code))
            truths.append(evened(own, slice(column, column + pixels))[its])
        return torch.cat(features), torch.cat(truths)

    def trace(self, patches: Patches, tokens: torch.Tensor, hidden: torch.Tensor, patch: int) -> Asked:
        """Edges of each ``hidden`` [B, N] patch of ``patch`` pixels: truths [M, EDGES]."""
        pixels = patches.pixels
        truths = edges(pixels.flatten(0, -4), patch).view(len(pixels), -1, EDGES)
        return tokens[hidden], truths[hidden]

    def sum_up(self, reader: BandReader, patches: Patches, pooled: torch.Tensor) -> Asked:
        """What each band of each chip looks like, on the latest date: truths [M, STATISTICS]."""
        features, truths = [], []
        for place, own, its in self._by_source(reader, patches, pooled):
            codes = reader.codes(place, range(reader.count(place)))
            features.append((own[:, None] + said(self.band_of_chip, codes)).flatten(0, 1))
            truths.append(band_statistics(its).flatten(0, 1))
        return torch.cat(features), torch.cat(truths)

    def spell(self, reader: BandReader, patches: Patches, pooled: torch.Tensor) -> Asked:
        """The visual words of each chip, on the latest date: truths [B, BAG]."""
        features, truths = [], []
        for place, own, its in self._by_source(reader, patches, pooled):
            codes = reader.codes(place, range(reader.count(place)))
            features.append(own + said(self.band_of_chip, codes).mean(0))
            truths.append(self.vocabularies[place](its))
        return torch.cat(features), torch.cat(truths)

    @staticmethod
    def _by_source(
        reader: BandReader, patches: Patches, pooled: torch.Tensor
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Each source with the embeddings [b, D] and latest images [b, C, H, W] of its chips."""
        latest = patches.pixels[:, -1] if patches.pixels.dim() == 5 else patches.pixels
        for place, among in reader.sources(patches.source):
            own, its = (pooled, latest) if among is None else (pooled[among], latest[among])
            yield place, own, its[:, : reader.count(place)]


def said(layer: nn.Linear, codes: torch.Tensor) -> torch.Tensor:
    """What heads are told of bands, so that they know which they are asked about."""
    told: torch.Tensor = layer(codes.to(layer.weight.dtype))
    return told


def visible_order(mask: torch.Tensor, dates: int, generator: torch.Generator | None) -> torch.Tensor:
    """A random order int64 [B, N] of patches, those that are to be seen first, those without data last."""
    noise = torch.rand(mask.shape, generator=generator, device=mask.device)
    if dates > 1 and _chance(generator) < HIDDEN_DATE:
        date = int(_chance(generator) * dates)
        noise.unflatten(1, (dates, -1))[:, date] += 1.0
    return noise.masked_fill(~mask, 3.0).argsort(1)


def kept_bands(count: int, generator: torch.Generator | None) -> Sequence[int]:
    """Bands of ``count`` that are seen: all of them, or any number of them."""
    if count == 1 or _chance(generator) < ALL_BANDS:
        return range(count)
    return _drawn(count, 1 + int(_chance(generator) * (count - 1)), generator)


def predicted_band(count: int, generator: torch.Generator | None) -> int:
    """The band of ``count`` that is filled in, another each time: all at once cost a step too much."""
    return int(_chance(generator) * count)


def _drawn(count: int, wanted: int, generator: torch.Generator | None) -> list[int]:
    device = "cpu" if generator is None else generator.device
    return sorted(torch.randperm(count, generator=generator, device=device)[:wanted].tolist())


def _chance(generator: torch.Generator | None) -> float:
    device = "cpu" if generator is None else generator.device
    return float(torch.rand(1, generator=generator, device=device))
