"""Heads of pixel level answer every pixel, whatever the sides of chip and patch."""

from __future__ import annotations

import pytest
import torch

from models.encoder import DenseFeatures
from models.pixel_head import LinearPixelHead, PixelHead

TOKENS, PIXELS, OUTPUTS = 6, 4, 3


def features(count: int, side: int, patch: int, seed: int = 0) -> DenseFeatures:
    chance = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, TOKENS, side // patch, side // patch, generator=chance)
    pixels = torch.randn(count, PIXELS, side, side, generator=chance)
    return DenseFeatures(tokens, pixels, torch.ones(count, side, side, dtype=torch.bool))


@pytest.fixture
def head() -> PixelHead:
    torch.manual_seed(0)
    return PixelHead(TOKENS, PIXELS, OUTPUTS, 0.1).eval()


@pytest.mark.parametrize(("side", "patch"), [(8, 8), (18, 6), (20, 2), (64, 16)])
def test_every_pixel_is_answered(head: PixelHead, side: int, patch: int) -> None:
    some = features(2, side, patch)
    for of_pixels in (head, LinearPixelHead(TOKENS, PIXELS, OUTPUTS, 0.1)):
        answered = of_pixels(some)
        assert answered.shape == (2, side * side, OUTPUTS)
        assert torch.isfinite(answered).all()


def test_neighbours_in_the_batch_change_nothing(head: PixelHead) -> None:
    together = features(3, 32, 8)
    alone = DenseFeatures(*(values[:1] for values in together))
    torch.testing.assert_close(head(together)[:1], head(alone), atol=1e-5, rtol=1e-4)


def test_pixels_reach_their_surroundings_and_tokens_tell_of_the_rest(head: PixelHead) -> None:
    near = features(1, 160, 8)

    def moved(other: DenseFeatures) -> torch.Tensor:
        """By column, whether an answer has changed."""
        return (head(other) - head(near)).abs().amax(-1).view(160, 160).amax(0) > 1e-6

    far = near.pixels.clone()
    far[..., 80:] *= -1
    changed = moved(near._replace(pixels=far))
    assert changed[76:].all()
    assert not changed[: 80 - 64].any()
    assert moved(near._replace(tokens=-near.tokens)).all()
