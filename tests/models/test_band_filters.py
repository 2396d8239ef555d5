"""Textures of patches, beside what a plain reading of their definition gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from models.rasters.band_filters import CODE, FAINT, Textures


def textures(patch: int) -> Textures:
    torch.manual_seed(0)
    made = Textures(patch, 16, 4)
    made.filters.begin()
    return made


def as_defined(made: Textures, values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    filters, patch = made.filters(codes), made.patch
    side, step = made.filters.side, made.step
    tokens = []
    for image in values.view(-1, len(codes), patch, patch):
        answers = []
        for top in range(0, patch - side + 1, step):
            for left in range(0, patch - side + 1, step):
                window = image[:, top : top + side, left : left + side].flatten()
                evened = (window - window.mean()) / (window.var(correction=0) + FAINT).sqrt()
                evened = torch.zeros_like(evened) if window.isnan().any() else evened
                answers.append(F.relu(evened @ filters + made.threshold))
        found = torch.stack(answers)
        tokens.append(torch.cat([found.mean(0), (found.square().mean(0) + 1e-4).sqrt()]))
    return made.widen(torch.stack(tokens)).view(*values.shape[:2], -1)


@pytest.mark.parametrize(("patch", "windows"), [(4, 1), (6, 4), (8, 9), (16, 16)])
def test_textures_are_those_of_the_windows(patch: int, windows: int) -> None:
    made, codes = textures(patch), torch.randn(3, CODE)
    values = 2 + torch.randn(2, 5, 3 * patch**2)
    values[0, 0, :7] = torch.nan
    torch.testing.assert_close(made(values, codes), as_defined(made, values, codes), atol=1e-5, rtol=1e-4)
    assert len(range(0, patch - made.filters.side + 1, made.step)) ** 2 == windows


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 4), st.floats(-20, 20))
def test_light_and_contrast_hardly_count(gain: float, offset: float) -> None:
    made, codes = textures(8), torch.randn(2, CODE)
    values = 3 * torch.randn(1, 4, 2 * 64)
    torch.testing.assert_close(made(gain * values + offset, codes), made(values, codes), atol=0.02, rtol=0.02)
