"""Turning and mirroring images: seen from above, there is no up and no left."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def oriented(images: Sequence[torch.Tensor], generator: torch.Generator | None = None) -> list[torch.Tensor]:
    """Images [B, ..., H, W] that belong together, each sample turned to one of its orientations by chance.

    Eight of them, four where images are not square. Values and numbers of pixels stay as they are.
    """
    first = images[0]
    chances = torch.rand((3, len(first)), generator=generator, device=first.device) < 0.5
    is_square = first.shape[-1] == first.shape[-2]
    return [_turned(image, *chances, is_square=is_square) for image in images]


def _turned(
    images: torch.Tensor,
    across: torch.Tensor,
    down: torch.Tensor,
    transposed: torch.Tensor,
    *,
    is_square: bool,
) -> torch.Tensor:
    def where(chosen: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.where(chosen.view(-1, *[1] * (images.dim() - 1)), other, images)

    images = where(across, images.flip(-1))
    images = where(down, images.flip(-2))
    return where(transposed, images.transpose(-1, -2)) if is_square else images
