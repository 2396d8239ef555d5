"""Turning, mirroring and shifting images: from above there is no up or left, and where a chip begins is
chance."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def oriented(images: Sequence[torch.Tensor], generator: torch.Generator | None = None) -> list[torch.Tensor]:
    """Images [B, ..., H, W] that belong together, each sample turned to one of its orientations by chance.

    Eight of them, four where images are not square. Values and numbers of pixels stay as they are.
    """
    first = images[0]
    height, width = first.shape[-2:]
    ways = _ways(height, width).to(first.device)
    drawn = torch.randint(len(ways), (len(first),), generator=generator, device=first.device)
    return [_rearranged(image, ways[drawn]) for image in images]


def shifted(images: torch.Tensor, most: int) -> torch.Tensor:
    """Images [B, ..., H, W], each as cut up to ``most`` pixels beside where it was, by chance in both axes.

    The random crops of padded images of He et al. (CVPR 2016, section 4.2), but that what lies beyond an
    edge is mirrored there: zeros would be taken for data. What is drawn follows torch's seed. Raises
    ValueError for images that are not larger than ``most``.
    """
    height, width = images.shape[-2:]
    if min(height, width) <= most:
        raise ValueError(f"images of {width} × {height} pixels cannot be shifted by {most}")
    rows, columns = (_walked(len(images), side, most, images.device) for side in (height, width))
    return _rearranged(images, (rows[:, :, None] * width + columns[:, None]).flatten(1))


def _walked(count: int, side: int, most: int, device: torch.device) -> torch.Tensor:
    """From where the pixels of an axis come, int64 [count, side]."""
    places = torch.arange(side, device=device) + torch.randint(-most, most + 1, (count, 1), device=device)
    last = side - 1
    return last - (last - places.abs()).abs()


def _ways(height: int, width: int) -> torch.Tensor:
    """From where each pixel of an image is taken in each of its orientations, int64 [ways, H * W]."""
    grid = torch.arange(height * width).view(height, width)
    sides = [grid, grid.T] if height == width else [grid]
    flips: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 1))
    return torch.stack([side.flip(axes).flatten() for side in sides for axes in flips])


def _rearranged(images: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
    """Images [B, ..., H, W] whose pixels are taken from ``taken`` [B, H * W]; in one pass over them all."""
    flat = images.flatten(-2)
    places = taken.view(len(taken), *[1] * (flat.dim() - 2), -1).expand_as(flat)
    return flat.gather(-1, places).view_as(images)
