"""What an encoder of rasters is to predict of them, computed from their standardised pixels."""

from __future__ import annotations

import torch
from torch.nn import functional as F

FLAT = 1e-4
"""Added to the variance of a patch, in standardised units: the noise of flat ones is not worth predicting."""

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


def evened(patches: torch.Tensor, band: slice) -> torch.Tensor:
    """Columns ``band`` of patches [..., C * k], scaled to mean and spread of the whole; NaN stays NaN."""
    mean = patches.mean(-1, keepdim=True)
    squares = torch.linalg.vector_norm(patches, dim=-1, keepdim=True).square() / patches.shape[-1]
    # Most have no gaps, and to look for some in each costs as much as a layer.
    has_gaps = mean.isnan()[..., 0]
    if has_gaps.any():
        some = patches[has_gaps]
        mean[has_gaps] = some.nanmean(-1, keepdim=True)
        squares[has_gaps] = some.square().nanmean(-1, keepdim=True)
    return (patches[..., band] - mean) * ((squares - mean.square()).clamp(min=0) + FLAT).rsqrt()
