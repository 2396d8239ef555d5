"""What is filled into a chip lies where it was hidden, and in the units of the chip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_rasters import NIR, RGB, Encoding, encoder_of, textures, with_gap
from torch import nn

from domains.contract import GroundworkError
from models.encoder import Reconstructs

HIDDEN = 12
"""Of 16 patches, at a ratio of 0.75."""


class Flat(nn.Module):
    """Says that every patch is as its mean."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.new_zeros(*features.shape[:-1], 64)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def tiles(pixels: np.ndarray) -> np.ndarray:
    """[C, 32, 32] -> [16, C, 8, 8]"""
    return pixels.reshape(-1, 4, 8, 4, 8).transpose(1, 3, 0, 2, 4).reshape(16, -1, 8, 8)


def test_hidden_patches_are_filled_in_with_their_own_mean() -> None:
    encoder = encoder_of()
    [sample] = textures(1, 3)
    assert isinstance(encoder, Reconstructs)
    its = encoder.reconstruct(sample, 0.75, nn.ModuleDict({"patch": Flat()}), seeded())
    seen, masked, filled = (tiles(each["pixels"]) for each in (its.seen, its.masked, its.filled))
    np.testing.assert_allclose(its.seen["pixels"], sample["pixels"], atol=1e-5)
    is_hidden = np.isnan(masked).all((1, 2, 3))
    assert is_hidden.sum() == HIDDEN
    assert not np.isnan(masked[~is_hidden]).any()
    np.testing.assert_array_equal(filled[~is_hidden], seen[~is_hidden])
    mean, spread = (it.numpy()[:, None, None] for it in (encoder.reader.mean, encoder.reader.spread))
    level = ((seen[is_hidden] - mean) / spread).mean((1, 2, 3))  # over all bands, as patches are predicted
    np.testing.assert_allclose(((filled[is_hidden] - mean) / spread).mean((1, 2, 3)), level, atol=1e-4)
    assert ((filled[is_hidden] - mean) / spread).std((1, 2, 3)).max() < 1e-4


def test_the_same_seed_hides_the_same_and_data_alone_are_hidden() -> None:
    encoder, heads = encoder_of(), nn.ModuleDict({"patch": Flat()})
    sample = with_gap(textures(1, 3)[0], slice(0, 16), slice(None))
    one, other = (encoder.reconstruct(sample, 0.75, heads, seeded()) for _ in range(2))
    np.testing.assert_array_equal(one.masked["pixels"], other.masked["pixels"])
    assert np.isnan(tiles(one.masked["pixels"])).all((1, 2, 3)).sum() == 8 + 6
    assert np.isnan(one.filled["pixels"][:, :16]).all()
    assert not np.isnan(one.filled["pixels"][:, 16:]).any()


def test_each_source_is_filled_in_in_its_own_bands() -> None:
    encoder = encoder_of()
    near = Encoding(bands=(NIR,))
    encoder.fit_inputs([(RGB, textures(20, 3)), (near, textures(20, 1))])
    sample = {**textures(1, 1)[0], "source": np.int64(1)}
    its = encoder.reconstruct(sample, 0.75, nn.ModuleDict({"patch": Flat()}), seeded())
    assert its.filled["pixels"].shape == (1, 32, 32)
    np.testing.assert_allclose(its.seen["pixels"], sample["pixels"], atol=1e-5)


def test_a_tuned_encoder_fills_in_nothing() -> None:
    encoder = encoder_of()
    encoder.discard_decoder()
    with pytest.raises(GroundworkError, match="no decoder left"):
        encoder.reconstruct(textures(1, 3)[0], 0.75, nn.ModuleDict({"patch": Flat()}), seeded())
