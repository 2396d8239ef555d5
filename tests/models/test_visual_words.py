"""Words of rasters: what occurs in a chip, how it may be found again, and what is unknown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_rasters import textures

from models.rasters.visual_words import BAG, Vocabulary

BANDS = 3


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Standardised images [count, BANDS, H, W]."""
    pixels = torch.from_numpy(np.stack([sample["pixels"] for sample in textures(count, BANDS, seed=seed)]))
    return (pixels - pixels.mean((0, 2, 3), keepdim=True)) / pixels.std((0, 2, 3), keepdim=True)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    made = Vocabulary(BANDS)
    made.fit(list(images(64)))
    return made


def test_bags_have_unit_spread(vocabulary: Vocabulary) -> None:
    bags = vocabulary(images(64))
    assert bags.shape == (64, BAG)
    np.testing.assert_allclose(bags.mean(0), 0, atol=1e-4)
    occurring = bags.std(0) > 0
    assert occurring.float().mean() > 0.9
    np.testing.assert_allclose(bags.std(0)[occurring], 1, atol=1e-3)


def test_words_are_found_again_whatever_the_contrast(vocabulary: Vocabulary) -> None:
    """A pattern is the same on brighter ground, and where it stands out twice as much."""
    some = images(8, seed=1)
    np.testing.assert_allclose(vocabulary(2 * some + 5), vocabulary(some), atol=0.2)
    assert (vocabulary(some) - vocabulary(some.flip(0))).abs().mean() > 0.5


def test_the_same_images_give_the_same_words(vocabulary: Vocabulary) -> None:
    again = Vocabulary(BANDS)
    again.fit(list(images(64)))
    torch.testing.assert_close(again.words, vocabulary.words)


def test_gaps_do_not_count(vocabulary: Vocabulary) -> None:
    whole = images(2, seed=2)
    gappy = whole.clone()
    gappy[0, :, :, 16:] = torch.nan
    gappy[1] = torch.nan
    bags = vocabulary(gappy)
    assert bags[0].isfinite().all()
    assert bags[1].isnan().all()
    torch.testing.assert_close(vocabulary(whole[:1, :, :, :16]), bags[:1], atol=0.7, rtol=0.5)


def test_too_few_windows_have_no_words() -> None:
    vocabulary = Vocabulary(BANDS)
    vocabulary.fit([])
    assert vocabulary(images(2)).isnan().all()
    vocabulary.fit(list(images(1)[:, :, :8, :8]))
    assert vocabulary(images(2)).isnan().all()
    assert Vocabulary(BANDS)(images(1)[:, :, :4, :4]).isnan().all()
