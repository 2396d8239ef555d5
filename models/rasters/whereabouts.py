"""What a place on Earth, a day of the year and the order of dates add to the tokens of a raster."""

from __future__ import annotations

import torch
from torch import nn

MOST_DATES = 16
OCTAVES = 6
"""Halves of waves over the diameter of the Earth: 1, 2, 4 ... of them; the shortest wave is about 800 km."""
HARMONICS = 2
"""Of the year."""
FORGOTTEN = 0.5
"""How often a place, and a day, is withheld in training, so that an answer does not hang on it."""
YEAR = 365.25


class Whereabouts(nn.Module):
    """Codes of place, day and date, [B, T, D] in all; what is not known adds nothing.

    A place is a point on the unit sphere, so that there is no seam at ±180° and none at the poles (Klemmer et
    al., SatCLIP, 2023, compare such codes); a day is an angle.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.Linear(3 * 2 * OCTAVES, width, bias=False)
        self.day = nn.Linear(2 * HARMONICS, width, bias=False)
        self.age = nn.Parameter(torch.zeros(MOST_DATES - 1, width))

    def start_from_nothing(self) -> None:
        """Set the weights so that nothing is added: training says what a place is worth."""
        nn.init.zeros_(self.place.weight)
        nn.init.zeros_(self.day.weight)
        nn.init.normal_(self.age, std=0.02)

    def forward(
        self, count: int, dates: int, place: torch.Tensor | None, day: torch.Tensor | None
    ) -> torch.Tensor | None:
        """What is added to ``count`` samples of ``dates`` dates, oldest first; None where that is nothing.

        ``place`` [B, 2] is longitude and latitude in degrees, ``day`` [B, T] the day of the year from 1
        on; NaN where it is not known.
        """
        parts = []
        if dates > 1:
            # The latest date is as if it were the only one.
            older = self.age[: dates - 1].flip(0)
            parts.append(nn.functional.pad(older, (0, 0, 0, 1)).expand(count, -1, -1))
        if place is not None:
            parts.append(self._coded(self.place, _on_sphere(place), place)[:, None].expand(-1, dates, -1))
        if day is not None:
            parts.append(self._coded(self.day, _in_year(day), day[..., None]))
        return torch.stack(parts).sum(0) if parts else None

    def _coded(self, layer: nn.Linear, code: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        is_known = known.isfinite().all(-1, keepdim=True)
        if self.training:
            remembered = torch.rand(len(known), device=known.device) >= FORGOTTEN
            is_known = is_known & remembered.view(-1, *[1] * (is_known.dim() - 1))
        return layer(torch.where(is_known, code, 0.0).to(layer.weight.dtype))


def _on_sphere(place: torch.Tensor) -> torch.Tensor:
    """Longitude and latitude [B, 2] in degrees -> waves [B, 6 * OCTAVES] along the axes of the Earth."""
    longitude, latitude = place.double().deg2rad().unbind(-1)
    axes = [latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()]
    waves = torch.stack(axes, -1)[..., None] * (
        torch.pi / 2 * 2.0 ** torch.arange(OCTAVES, device=place.device)
    )
    return torch.cat([waves.sin(), waves.cos()], -1).flatten(-2).float()


def _in_year(day: torch.Tensor) -> torch.Tensor:
    """Days of the year [B, T] -> sines and cosines [B, T, 2 * HARMONICS]."""
    angle = (2 * torch.pi / YEAR) * day[..., None] * torch.arange(1, HARMONICS + 1, device=day.device)
    return torch.cat([angle.sin(), angle.cos()], -1)
