"""Bags of visual words: how often each of many small patterns occurs in an image, as a target of pretraining.

To predict from a part of an image the words of the whole is BoWNet (Gidaris et al. 2020); the words are
centres of whitened windows, found by spherical k-means, whose pooled strengths alone tell classes well
(Coates, Ng & Lee 2011). They are of a source: those of other bands, or of another sensor, differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from models.rasters.band_filters import FAINT

WORDS = 256
BAG = 2 * WORDS
"""Numbers that tell how an image is described: the mean and the root mean square strength of each word."""

SIDE, STEP = 5, 4
"""Pixels on a side of a word, and between two places where words are looked for."""
LIKE = 0.25
"""How like a window must be to a word, as a cosine, to count for it."""
ROUNDS = 8
MEASURED_IMAGES, MEASURED_WINDOWS = 2048, 50_000
"""Words are found in at most so many images, and so many windows of all of them."""
FEWEST_WINDOWS = WORDS
RIDGE = 0.05
"""Added to the variances that whitening divides by."""


class Vocabulary(nn.Module):
    """The words of one source of ``bands`` bands."""

    centre: torch.Tensor
    whitening: torch.Tensor
    words: torch.Tensor
    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        size = bands * SIDE**2
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("whitening", torch.eye(size))
        self.register_buffer("words", torch.zeros(WORDS, size))
        self.register_buffer("mean", torch.full((BAG,), torch.nan))  # until there are words
        self.register_buffer("spread", torch.ones(BAG))

    @torch.no_grad()
    def fit(self, images: Sequence[torch.Tensor]) -> None:
        """Find words in standardised images [C, H, W]; where they hold too few windows, none."""
        chance = torch.Generator().manual_seed(0)
        each = -(-MEASURED_WINDOWS // max(1, len(images)))
        drawn = []
        for image in images:
            windows = _evened(_windows(image[None].float())[0])
            windows = windows[windows.isfinite().all(1)]
            drawn.append(windows[torch.randperm(len(windows), generator=chance)[:each]])
        windows = torch.cat(drawn) if drawn else torch.empty(0, len(self.centre))
        if len(windows) < FEWEST_WINDOWS:
            return
        self.centre = windows.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((windows - self.centre).T))
        self.whitening = vectors @ torch.diag((values.clamp(min=0) + RIDGE).rsqrt()) @ vectors.T
        directions = F.normalize((windows - self.centre) @ self.whitening, dim=1)
        words = directions[torch.randperm(len(directions), generator=chance)[:WORDS]]
        for _ in range(ROUNDS):
            nearest = (directions @ words.T).argmax(1)
            sums = torch.zeros_like(words).index_add_(0, nearest, directions)
            # A word that nothing is nearest to stays what it was.
            words = torch.where(sums.any(1, keepdim=True), F.normalize(sums, dim=1), words)
        self.words = words
        bags = torch.cat([self._strengths(image[None].float()) for image in images])
        bags = bags[bags.isfinite().all(1)]
        self.mean, self.spread = bags.mean(0), bags.std(0).clamp(min=1e-6)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Standardised images [B, C, H, W] -> bags [B, BAG], of about unit spread; NaN where unknown."""
        return (self._strengths(images.float()) - self.mean) / self.spread

    def _strengths(self, images: torch.Tensor) -> torch.Tensor:
        windows = _evened(_windows(images))
        known = windows.isfinite().all(-1)
        white = (windows.nan_to_num(0.0) - self.centre) @ self.whitening
        likeness = F.relu(F.normalize(white, dim=-1) @ self.words.T - LIKE) * known[..., None]
        count = known.sum(1, keepdim=True)
        count = torch.where(count > 0, count, torch.nan)
        return torch.cat([likeness.sum(1) / count, (likeness.square().sum(1) / count).sqrt()], 1)


def _windows(images: torch.Tensor) -> torch.Tensor:
    """Windows [B, n, C * SIDE²] of images [B, C, H, W]; none of those smaller than a window."""
    if min(images.shape[-2:]) < SIDE:
        return images.new_zeros(len(images), 0, images.shape[1] * SIDE**2)
    return F.unfold(images, SIDE, stride=STEP).transpose(1, 2)


def _evened(windows: torch.Tensor) -> torch.Tensor:
    centred = windows - windows.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + FAINT).rsqrt()
