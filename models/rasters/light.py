"""Chips as they would look in other light."""

from __future__ import annotations

import torch

SPREAD = 0.3
"""Of the logarithm of the light's strength: the sun's height, slopes, haze and thin cloud between them."""


def in_other_light(pixels: torch.Tensor, optical: torch.Tensor) -> torch.Tensor:
    """Images [B, C, H, W] or [B, T, C, H, W] in physical units, each date in its own light by chance.

    All bands that are ``optical`` (bool [C]) grow by one factor, so that their ratios stay; what a radar
    measured stays as it is. What is drawn follows torch's seed.
    """
    strength = (SPREAD * torch.randn(pixels.shape[:-3], device=pixels.device)).exp()
    return torch.where(optical[:, None, None], pixels * strength[..., None, None, None], pixels)
