"""What a masked autoencoder of rasters makes of a chip: hidden patches filled in, in physical units again.

Patches are predicted scaled to their own mean and spread (MAE with normalised pixels, He et al. 2022), which
are not predicted: a picture borrows them from what is true, and shows whether shapes are right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from domains.abilities import Reconstruction
from domains.contract import GroundworkError, Sample
from models.rasters.bands import BandReader
from models.rasters.masked_decoder import said, visible_order
from models.rasters.targets import FLAT

if TYPE_CHECKING:
    from models.rasters.vit import RasterViT


@torch.no_grad()
def reconstruct(
    encoder: RasterViT, sample: Sample, ratio: float, head: nn.Module, generator: torch.Generator
) -> Reconstruction:
    """Hide ``ratio`` of the patches of one chip, all bands of them, and fill them in.

    ``head`` makes a patch in one band of the decoder's features. Raises GroundworkError for an encoder
    without decoder.
    """
    if encoder.decoder is None:
        raise GroundworkError("a tuned encoder has no decoder left: pretrain its foundation instead")
    batch = {name: tensor.to(encoder.device) for name, tensor in encoder.collate([sample]).items()}
    patches, source = encoder.cut(batch), int(batch["source"])
    dates, rows, columns = patches.grid
    mask = patches.share > 0
    order = visible_order(mask, dates, generator)
    shown = max(1, round(int(mask.sum()) * (1 - ratio)))
    is_visible = torch.zeros_like(mask).scatter_(1, order[:, :shown], True) & mask
    visible = encoder.embed(patches, order[:, :shown], patches.share.gather(1, order[:, :shown]))
    tokens = encoder.decoder(visible, order.argsort(1), is_visible, mask, patches.rotation, dates)

    count = encoder.reader.count(source)
    hidden = (mask & ~is_visible)[0]
    seen = patches.values[0].unflatten(-1, (-1, encoder.patch**2))[:, :count]
    codes = said(encoder.decoder.band_of_patch, encoder.reader.codes(source, range(count)))
    predicted = head(tokens[0, hidden][:, None] + codes).to(seen.dtype)
    truth = seen[hidden]
    mean = truth.nanmean((1, 2), keepdim=True)
    spread = ((truth - mean).square().nanmean((1, 2), keepdim=True) + FLAT).sqrt()
    masked, filled = seen.clone(), seen.clone()
    masked[hidden] = torch.nan
    filled[hidden] = predicted * spread + mean

    def whole(values: torch.Tensor) -> np.ndarray:
        side = encoder.patch
        tiles = values.view(dates, rows, columns, count, side, side).permute(0, 3, 1, 4, 2, 5)
        images = in_units(encoder.reader, tiles.reshape(dates, count, rows * side, columns * side), source)
        pixels: np.ndarray = images.float().cpu().numpy()
        return pixels if dates > 1 else pixels[0]

    return Reconstruction(*({"pixels": whole(values)} for values in (seen, masked, filled)))


def in_units(reader: BandReader, standardised: torch.Tensor, source: int) -> torch.Tensor:
    """Images [..., C, H, W] of a source in its physical units: what ``BandReader.standardise`` undoes."""
    rows = reader.readings[source]
    return standardised * reader.spread[rows][:, None, None] + reader.mean[rows][:, None, None]
