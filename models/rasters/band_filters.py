"""Filters for any set of bands, generated from what tells bands apart.

From a band's centre wavelength (DOFA, Xiong et al. 2024), so that one set of weights reads any set of
optical bands; channels without a wavelength, such as the polarisations of a radar, have a code of their own.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import nn
from torch.nn import functional as F

CODE = 64
"""Width of the code of a band."""

WINDOW = 4
"""Pixels on a side of the windows of a patch."""
LEAST_STEP, STEPS = 2, 4
"""Windows lie a quarter of a patch apart, and at least two pixels."""
PATTERNS = 128
"""Filters of a window."""
FAINT = 0.02
"""Added to the variance of a window, in standardised units: the noise of flat ones is no pattern."""
RARE = -0.3
"""Where the thresholds of patterns begin: most windows are like few of them."""


class BandCodes(nn.Module):
    """What tells bands apart: sines and cosines of the logarithm of a wavelength, or a learned vector."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = nn.Embedding(channels, CODE)

    def forward(self, wavelengths: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
        """Wavelengths [C] in nm, and rows int64 [C] of channels or -1 -> [C, CODE]."""
        # At the lowest frequency all that is optical spans half a turn; at the highest, 20 nm in the red do.
        frequency = torch.logspace(0, math.log10(120), CODE // 2, device=wavelengths.device)
        angle = torch.log(wavelengths.float() / 1000)[:, None] * frequency
        optical = torch.cat([angle.sin(), angle.cos()], -1)
        return torch.where(channels[:, None] < 0, optical, self.channel(channels.clamp(min=0)))

    def add_channel(self, name: str) -> None:
        """A row more for a channel, whose start depends on its name alone."""
        known = self.channel.weight.data
        start = torch.randn(1, CODE, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        self.channel = nn.Embedding(len(known) + 1, CODE, _weight=torch.cat([known, start.to(known)]))


class BandFilters(nn.Module):
    """Generates filters of ``side`` pixels: the code of a band says how a basis of them is mixed."""

    def __init__(self, side: int, width: int, basis: int) -> None:
        super().__init__()
        self.side, self.width = side, width
        self.mix = nn.Sequential(
            nn.Linear(CODE, 2 * CODE), nn.GELU(), nn.Linear(2 * CODE, basis), nn.LayerNorm(basis)
        )
        self.basis = nn.Parameter(torch.zeros(basis, side * side * width))

    def begin(self) -> None:
        """Draw the basis so that what filters make of values of unit variance has it too."""
        # The mix has unit variance.
        nn.init.normal_(self.basis, std=(len(self.basis) ** 0.5 * self.side) ** -1)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [C, CODE] -> filters [C * side², width].

        Divided by the root of C, so that tokens have the same scale whatever the number of bands.
        """
        filters = self.mix(codes.to(self.basis.dtype)) @ self.basis
        return filters.view(-1, self.width) / len(codes) ** 0.5


class Textures(nn.Module):
    """What the small windows of a patch look like, wherever they lie in it.

    Windows are evened, so that a pattern counts and not its contrast, compared with ``PATTERNS`` filters, and
    pooled over their patch: what a linear filter of the whole patch cannot tell. Early convolutions help
    transformers (Xiao et al. 2021), and single layers of such patterns go far by themselves (Coates, Ng & Lee
    2011); these stay within a patch, so that nothing of a hidden one is seen.
    """

    def __init__(self, patch: int, width: int, basis: int) -> None:
        super().__init__()
        self.patch, self.step = patch, max(LEAST_STEP, patch // STEPS)
        self.filters = BandFilters(min(WINDOW, patch), PATTERNS, basis)
        self.threshold = nn.Parameter(torch.full((PATTERNS,), RARE))
        self.widen = nn.Linear(2 * PATTERNS, width)

    def forward(self, values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Standardised patches [B, K, C * patch²], gaps NaN, and codes [C, CODE] -> [B, K, width]."""
        windows = self._windows(values.float().reshape(-1, len(codes), self.patch, self.patch))
        filters = self.filters(codes)
        answers = F.linear(windows.to(filters.dtype), filters.T, self.threshold)
        # Window by window, which on the way back takes half the time of a mean over all of them.
        total = squares = torch.zeros_like(answers[0])
        for answer in answers:
            found = F.relu(answer)
            total, squares = total + found, torch.addcmul(squares, found, found)
        strongest = (squares / len(answers) + 1e-4).sqrt()
        tokens: torch.Tensor = self.widen(torch.cat([total / len(answers), strongest], -1))
        return tokens.view(*values.shape[:-1], -1)

    def _windows(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches [M, C, patch, patch] -> their windows, evened, [windows, M, C * side²]."""
        side = self.filters.side
        mean = F.avg_pool2d(patches.mean(1, keepdim=True), side, self.step)
        spread = F.avg_pool2d(patches.square().mean(1, keepdim=True), side, self.step) - mean.square()
        scale = (spread.clamp(min=0) + FAINT).rsqrt()
        windows = patches.unfold(-2, side, self.step).unfold(-2, side, self.step)
        windows = windows.permute(2, 3, 0, 1, 4, 5).flatten(3).flatten(0, 1)
        mean, scale = (each.flatten(1).T[..., None] for each in (mean, scale))
        evened = (windows - mean).mul_(scale)
        # A window with a gap is like nothing.
        return evened.nan_to_num_(0.0) if mean.isnan().any() else evened
