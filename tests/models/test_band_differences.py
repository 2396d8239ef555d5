"""Normalised differences are those of remote sensing, and gaps stay gaps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.rasters.band_differences import SCALE, band_differences, band_pairs


def image(*values: float) -> torch.Tensor:
    """One pixel [C, 1, 1]."""
    return torch.tensor(values)[:, None, None]


def test_the_ndvi_is_one_of_them() -> None:
    red, nir, swir = 0.05, 0.4, 0.2
    found = band_differences(image(nir, red, swir)).flatten() / SCALE
    assert found.tolist() == pytest.approx([0.35 / 0.45, 0.2 / 0.6, -0.15 / 0.25], abs=1e-6)


@given(
    bands=st.lists(st.floats(0.01, 1), min_size=2, max_size=10),
    light=st.floats(0.1, 2),
)
def test_light_changes_nothing(bands: list[float], light: float) -> None:
    pixels = image(*bands)
    torch.testing.assert_close(band_differences(pixels * light), band_differences(pixels), atol=1e-4, rtol=0)


@given(bands=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=12))
def test_they_are_bounded_whatever_the_unit(bands: list[float]) -> None:
    found = band_differences(image(*bands))
    assert len(found) == len(band_pairs(len(bands)))
    assert (found.abs() <= SCALE * (1 + 1e-6)).all()


def test_a_gap_is_one_in_its_own_pairs_only() -> None:
    found = band_differences(image(0.1, float("nan"), 0.3)).flatten()
    assert found.isnan().tolist() == [True, False, True]
    assert not band_differences(image(0.0, 0.0)).any()


def test_of_many_bands_neighbours_are_compared() -> None:
    assert len(band_pairs(8)) == 28
    assert band_pairs(9) == [(band, band + 1) for band in range(8)]
    assert band_differences(torch.rand(2, 2, 1, 4, 4)).shape == (2, 2, 0, 4, 4)
