"""Other light changes what is bright, and not what is there."""

from __future__ import annotations

import pytest
import torch

from models.rasters.band_differences import band_differences
from models.rasters.light import SPREAD, in_other_light

OPTICAL = torch.tensor([True, True, False])


@pytest.mark.parametrize("dates", [(), (2,)])
def test_ratios_of_bands_and_what_a_radar_saw_stay(dates: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    pixels = torch.rand(200, *dates, 3, 4, 4) + 0.1
    changed = in_other_light(pixels, OPTICAL)
    torch.testing.assert_close(changed[..., 2, :, :], pixels[..., 2, :, :])
    torch.testing.assert_close(
        band_differences(changed[..., :2, :, :]), band_differences(pixels[..., :2, :, :]), atol=1e-5, rtol=0
    )
    light = (changed / pixels)[..., 0, 0, 0].log()
    assert light.std().item() == pytest.approx(SPREAD, rel=0.2)
    assert len(light.unique()) == light.numel()  # each date of each chip has its own


def test_gaps_stay() -> None:
    pixels = torch.rand(2, 3, 4, 4)
    pixels[:, :, 0] = torch.nan
    assert torch.equal(in_other_light(pixels, OPTICAL).isnan(), pixels.isnan())
