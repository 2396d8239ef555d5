"""What masked autoencoding hides of rasters, and the decoder that fills it in (MAE, He et al. 2022).

Beside patches it hides bands and whole dates, so that an encoder learns how they go together (as SatMAE, Cong
et al. 2022, and Presto, Tseng et al. 2023, found to pay).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from models.bands import CODE
from models.vision_blocks import VisionBlock, key_bias
from models.whereabouts import MOST_DATES

FLAT = 1e-4
"""Added to the variance of a patch, in standardised units: the noise of flat ones is not worth predicting."""

ALL_BANDS = 0.5
"""How often all bands are seen."""

MOST_PREDICTED = 4
"""Bands that are filled in at once: of chips with more, others each time."""

HIDDEN_DATE = 0.25
"""How often one of several dates is hidden before patches of the others are."""


class MaskedDecoder(nn.Module):
    """Fills in hidden patches from the embeddings of visible ones, half as wide as the encoder."""

    def __init__(self, encoder_width: int, heads: int, intermediate: int, layers: int) -> None:
        super().__init__()
        width = encoder_width // 2
        self.narrow = nn.Linear(encoder_width, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.age = nn.Parameter(torch.zeros(MOST_DATES - 1, width))
        self.layers = nn.ModuleList(VisionBlock(width, heads, intermediate) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, encoder_width)
        self.band = nn.Linear(CODE, encoder_width, bias=False)

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
        width = narrow.shape[-1]
        place = rank.clamp(max=visible.shape[1] - 1)[..., None].expand(-1, -1, width)
        tokens = torch.where(is_visible[..., None], narrow.gather(1, place), self.hidden)
        if dates > 1:
            older = self.age[: dates - 1].flip(0).repeat_interleave(tokens.shape[1] // dates, 0)
            tokens = tokens + F.pad(older, (0, 0, 0, tokens.shape[1] // dates))
        bias = key_bias(mask)
        for layer in self.layers:
            tokens = layer(tokens, rotation, bias)
        return self.norm(tokens)

    def in_bands(self, tokens: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Tokens [M, D / 2] and codes of bands [C, CODE] -> what each says of each band, [M, C, D]."""
        return self.widen(tokens)[:, None] + self.band(codes.to(tokens.dtype))


STATISTICS = 10
"""Numbers that ``band_statistics`` gives of a band."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
EVERY = 4
"""Quantiles are taken of every fourth pixel: sorting them all costs as much as a layer."""
LEAST = 0.02
"""Added before a logarithm is taken, in spreads of a band."""
NEAR, FAR = 1, 4
"""Pixels between which differences are taken."""


def band_statistics(pixels: torch.Tensor) -> torch.Tensor:
    """What each band of standardised chips [B, C, H, W] looks like on the whole, [B, C, ``STATISTICS``].

    Mean, logarithms of the spread and of the differences between near and far pixels, correlation with the
    mean of all bands (twice), quantiles; all of about unit spread. NaN for a band without data. To predict
    them from a part of a chip is to an image what descriptors are to a molecule.
    """
    flat = pixels.flatten(2)
    mean = flat.nanmean(2)
    centred = flat - mean[..., None]
    spread = centred.square().nanmean(2).sqrt()
    brightness = flat.nanmean(1, keepdim=True)
    brightness = brightness - brightness.nanmean(2, keepdim=True)
    shared = (brightness * centred).nanmean(2)
    correlation = shared / (brightness.square().nanmean(2).sqrt() * spread + LEAST**2)
    quantiles = torch.nanquantile(flat[..., ::EVERY], torch.tensor(QUANTILES, device=pixels.device), dim=2)
    logarithms = [(it + LEAST).log() for it in (spread, _apart(pixels, NEAR), _apart(pixels, FAR))]
    return torch.cat([torch.stack([mean, *logarithms, 2 * correlation], 2), quantiles.permute(1, 2, 0)], 2)


ORIENTATIONS, CELLS = 8, 2
EDGES = ORIENTATIONS * CELLS**2
"""Numbers that ``edges`` gives of a patch."""
FAINT = 0.01
"""Added to the strength of edges before its logarithm is taken, in spreads of a band."""


def edges(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """How strong the edges of each direction are in standardised images [B, C, H, W], [B, N, ``EDGES``].

    Logarithms of histograms of oriented gradients of the mean of all bands, in ``CELLS``² cells of each patch
    (Dalal & Triggs 2005; as a target of masked prediction: MaskFeat, Wei et al. 2022).
    """
    bright = F.pad(pixels.nanmean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = (bright[..., 1:-1, 2:] - bright[..., 1:-1, :-2]).nan_to_num(0.0)
    down = (bright[..., 2:, 1:-1] - bright[..., :-2, 1:-1]).nan_to_num(0.0)
    turns = torch.atan2(down, across) / (2 * torch.pi)
    bins = (turns * ORIENTATIONS).round().long() % ORIENTATIONS
    strength = torch.hypot(across, down)
    images, _, height, width = strength.shape
    sorted_by = strength.new_zeros(images, ORIENTATIONS, height, width).scatter_(1, bins, strength)
    cells_of_grid = (height // patch * CELLS, width // patch * CELLS)
    cells = (F.adaptive_avg_pool2d(sorted_by, cells_of_grid) + FAINT).log()
    grid = cells.view(images, ORIENTATIONS, height // patch, CELLS, width // patch, CELLS)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(images, -1, EDGES)


def _apart(pixels: torch.Tensor, step: int) -> torch.Tensor:
    """Mean absolute difference between pixels ``step`` apart, down and across, [B, C]."""
    down = (pixels[..., step:, :] - pixels[..., :-step, :]).abs().flatten(2).nanmean(2)
    return (down + (pixels[..., step:] - pixels[..., :-step]).abs().flatten(2).nanmean(2)) / 2


def evened(patches: torch.Tensor) -> torch.Tensor:
    """Patches [M, C, k] scaled to their own mean and spread over all bands; NaN stays NaN."""
    # Most have no gaps, and to look for some in each costs as much as a layer.
    mean_of = torch.nanmean if patches.isnan().any() else torch.mean
    centred = patches - mean_of(patches, (1, 2), keepdim=True)
    return centred * (mean_of(centred.square(), (1, 2), keepdim=True) + FLAT).rsqrt()


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


def predicted_bands(count: int, generator: torch.Generator | None) -> Sequence[int]:
    """Bands of ``count`` that are filled in."""
    return range(count) if count <= MOST_PREDICTED else _drawn(count, MOST_PREDICTED, generator)


def _drawn(count: int, wanted: int, generator: torch.Generator | None) -> list[int]:
    device = "cpu" if generator is None else generator.device
    return sorted(torch.randperm(count, generator=generator, device=device)[:wanted].tolist())


def _chance(generator: torch.Generator | None) -> float:
    device = "cpu" if generator is None else generator.device
    return float(torch.rand(1, generator=generator, device=device))
