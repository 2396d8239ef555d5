"""Heads that answer each pixel: from what tokens say of the surroundings, and from the pixels themselves."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from models.encoder import DenseFeatures

WIDTHS = (16, 32, 64)
"""Channels at a side of all pixels, half of them, and a quarter."""


class PixelHead(nn.Module):
    """Features of tokens and of pixels -> raw outputs [B, H * W, outputs], row by row.

    A small U-Net (Ronneberger et al., MICCAI 2015), at whose bottom the tokens join in: they say what lies in
    and around a patch, and the way up finds its borders again. Each place is normalised by itself, so that an
    answer hangs on neither the batch nor what else a chip holds.
    """

    def __init__(self, tokens: int, pixels: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.norm = PlaceNorm(tokens)
        self.dropout = nn.Dropout(dropout)
        self.from_tokens = nn.Conv2d(tokens, WIDTHS[-1], 1)
        self.down = nn.ModuleList(_Convolutions(*sizes) for sizes in pairwise((pixels, *WIDTHS)))
        self.bottom = _Convolutions(2 * WIDTHS[-1], WIDTHS[-1])
        self.up = nn.ModuleList(
            _Convolutions(level + below, level)
            for level, below in zip(WIDTHS, (*WIDTHS[1:], WIDTHS[-1]), strict=True)
        )
        self.decide = nn.Conv2d(WIDTHS[0], outputs, 1)

    def forward(self, features: DenseFeatures) -> torch.Tensor:
        around = self.from_tokens(self.dropout(self.norm(features.tokens)))
        hidden, passed = features.pixels, []
        for convolutions in self.down:
            hidden = convolutions(hidden)
            passed.append(hidden)
            hidden = F.avg_pool2d(hidden, 2, ceil_mode=True)
        hidden = self.bottom(torch.cat([hidden, _stretched(around, hidden)], 1))
        for convolutions, beside in zip(reversed(self.up), reversed(passed), strict=True):
            hidden = convolutions(torch.cat([beside, _stretched(hidden, beside)], 1))
        return self.decide(hidden).flatten(2).movedim(1, 2)


class LinearPixelHead(nn.Module):
    """The same from a projection of tokens, stretched over their pixels, and one of pixels."""

    def __init__(self, tokens: int, pixels: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.norm = PlaceNorm(tokens)
        self.dropout = nn.Dropout(dropout)
        self.from_tokens = nn.Conv2d(tokens, outputs, 1)
        self.from_pixels = nn.Conv2d(pixels, outputs, 1)

    def forward(self, features: DenseFeatures) -> torch.Tensor:
        around = self.from_tokens(self.dropout(self.norm(features.tokens)))
        answered = self.from_pixels(features.pixels)
        return (answered + _stretched(around, answered)).flatten(2).movedim(1, 2)


class PlaceNorm(nn.LayerNorm):
    """Layer norm over the channels of images [B, C, H, W], at each place by itself."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.movedim(1, -1)).movedim(-1, 1)


class _Convolutions(nn.Sequential):
    """Twice a convolution, a norm and a bend."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for size in (inputs, outputs):
            layers += [nn.Conv2d(size, outputs, 3, padding=1), PlaceNorm(outputs), nn.GELU()]
        super().__init__(*layers)


def _stretched(images: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Images at the sides of others; borders between places are smooth."""
    return F.interpolate(images, size=like.shape[-2:], mode="bilinear", align_corners=False)
