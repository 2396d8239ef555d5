"""Normalised differences of bands: what tells burnt ground, plants and water, whatever the light.

(a − b) / (|a| + |b|) is the same for a slope in the sun and one in the shade; the NDVI (Rouse et al. 1974),
the NDWI (McFeeters 1996) and the NBR (Key & Benson 2006) are each of one pair of bands. Filters of
standardised bands do not come near a ratio, so a head that answers pixels is given it.
"""

from __future__ import annotations

from itertools import combinations

import torch

MOST_PAIRS = 28
"""All pairs of up to eight bands are compared; of more bands, neighbours only."""
SCALE = 3.0
"""Differences spread over about a third; standardised bands, which they stand beside, over one."""


def band_pairs(bands: int) -> list[tuple[int, int]]:
    """Which of so many bands are compared."""
    every = list(combinations(range(bands), 2))
    return every if len(every) <= MOST_PAIRS else [(band, band + 1) for band in range(bands - 1)]


def band_differences(pixels: torch.Tensor) -> torch.Tensor:
    """Images [..., C, H, W] in physical units -> [..., pairs, H, W] within ±``SCALE``.

    NaN where one of the two has no data, 0 where both are 0.
    """
    pairs = torch.tensor(band_pairs(pixels.shape[-3]), dtype=torch.int64, device=pixels.device).view(-1, 2)
    first, second = (pixels.index_select(-3, side) for side in pairs.T)
    total = first.abs() + second.abs()
    return SCALE * (first - second) / total.masked_fill(total == 0, 1.0)
