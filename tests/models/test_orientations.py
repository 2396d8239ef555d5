"""Turning, mirroring and shifting of images: whole, and together with what belongs to them."""

from __future__ import annotations

import pytest
import torch

from models.rasters.orientations import oriented, shifted


@pytest.mark.parametrize(("height", "width", "ways"), [(6, 6, 8), (4, 6, 4)])
def test_each_sample_has_one_of_its_orientations(height: int, width: int, ways: int) -> None:
    image = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
    [seen] = oriented([image.expand(200, 3, -1, -1)], torch.Generator().manual_seed(0))
    expected = {
        tuple(side.flip(axes).flatten().tolist())
        for side in ([image[0, 0], image[0, 0].T] if height == width else [image[0, 0]])
        for axes in ((), (0,), (1,), (0, 1))
    }
    found = {tuple(band.flatten().tolist()) for sample in seen for band in sample}
    assert found == expected
    assert len(found) == ways
    assert (seen == seen[:, :1]).all()  # all bands of a sample are turned alike


def test_labels_turn_with_their_pixels_and_gaps_stay() -> None:
    labels = torch.randn(20, 8, 8)
    pixels = torch.stack([labels, labels + 1], 1)
    pixels[:, 1, :2] = torch.nan
    turned, along = oriented([pixels, labels])
    torch.testing.assert_close(turned[:, 0], along)
    assert turned.isnan().sum() == pixels.isnan().sum()


def test_dates_turn_together() -> None:
    [seen] = oriented([torch.arange(16.0).view(1, 1, 1, 4, 4).expand(9, 2, 3, -1, -1)])
    assert (seen == seen[:, :1, :1]).all()


def test_each_sample_is_cut_anew_and_mirrored_at_its_edges() -> None:
    image = torch.arange(30.0).view(5, 6)
    seen = shifted(image.expand(400, 2, 3, -1, -1), 2)
    assert (seen == seen[:, :1, :1]).all()  # all dates and bands of a sample move alike
    wide = torch.nn.functional.pad(image[None, None], (2, 2, 2, 2), mode="reflect")[0, 0]
    expected = {
        tuple(wide[row : row + 5, column : column + 6].flatten().tolist())
        for row in range(5)
        for column in range(5)
    }
    assert {tuple(sample[0, 0].flatten().tolist()) for sample in seen} == expected


def test_gaps_move_with_their_pixels() -> None:
    image = torch.zeros(8, 8)
    image[:, :4] = torch.nan
    found = {int(sample.isnan().sum()) for sample in shifted(image.expand(200, 1, -1, -1), 2)}
    assert found == {16, 24, 32, 40, 48}


def test_an_image_is_not_shifted_by_its_size() -> None:
    with pytest.raises(ValueError, match="6 × 4 pixels cannot be shifted by 4"):
        shifted(torch.zeros(1, 1, 4, 6), 4)
