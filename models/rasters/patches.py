"""Rasters cut into patches, as encoder and decoder hand them to each other."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Patches(NamedTuple):
    """B samples of T dates of h × w patches, N = T * h * w, of C bands at most."""

    pixels: torch.Tensor
    """[B, C, H, W] or [B, T, C, H, W], standardised."""
    values: torch.Tensor
    """[B, N, C * patch²], the same in patches; NaN where there is no data."""
    share: torch.Tensor
    """[B, N], share of the values that are data."""
    rotation: torch.Tensor
    """Complex [1, N, 1, d / 2], turns heads of d numbers."""
    source: torch.Tensor
    """int64 [B], which reading each sample is for."""
    context: torch.Tensor | None
    """[B, N, D], what date and place add to each token; None where nothing is known of either."""
    grid: tuple[int, int, int]
    """T, h, w."""


def share_of_data(values: torch.Tensor) -> torch.Tensor:
    """Share [...] of values [..., k] that are not NaN."""
    # A sum is NaN where any part of it is, and takes a fifth of the time of a look at each.
    has_gaps = values.sum(-1).isnan()
    share = torch.ones_like(values[..., 0])
    share[has_gaps] = 1 - values[has_gaps].isnan().to(share.dtype).mean(-1)
    return share


def pooled_of(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean [B, D] of the tokens [B, K, D] within ``mask``; they are zero elsewhere."""
    return tokens.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def rows_of(table: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Rows ``chosen`` int64 [B, K] of each table [B, N, k]: [B, K, k]."""
    first = torch.arange(len(chosen), device=chosen.device)[:, None] * table.shape[1]
    # Whole rows, which is much faster than to gather element by element.
    return table.flatten(0, 1).index_select(0, (chosen + first).flatten()).view(*chosen.shape, -1)
