"""Several dates of a place, and where and when it was seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_rasters import PATCH, RGB, Encoding, embed, encoder_of, textures

from domains.contract import GroundworkError, Sample
from models.rasters.vit import RasterViT

PAIR = Encoding(bands=RGB.bands, dates=2)
TOLERANCE = 1e-5


@pytest.fixture
def encoder() -> RasterViT:
    return encoder_of(PAIR)


def pair(before: int, after: int) -> Sample:
    first, second = textures(1, 3, seed=before), textures(1, 3, seed=after)
    return {"pixels": np.stack([first[0]["pixels"], second[0]["pixels"]])}


def test_dates_are_told_apart_and_seen_together(encoder: RasterViT) -> None:
    change, other, none = embed(encoder, [pair(1, 2), pair(2, 1), pair(1, 1)])
    assert np.abs(change - other).max() > 1e-3
    assert np.abs(change - none).max() > 1e-3
    assert encoder.tokens(pair(1, 2)) == 2 * 16


def test_a_head_sees_every_date_of_a_pixel(encoder: RasterViT) -> None:
    batch = encoder.collate([pair(1, 2), pair(3, 4)])
    with torch.no_grad():
        dense, embeddings = encoder.dense(batch), encoder(batch)
    width = encoder.config.hidden_size
    assert dense.tokens.shape == (2, encoder.dense_width, 4, 4) == (2, 2 * width, 4, 4)
    assert dense.pixels.shape == (2, encoder.pixel_channels, 32, 32) == (2, 12, 32, 32)
    torch.testing.assert_close(dense.tokens[1, :width, 2, 3], embeddings.tokens[1, 2 * 4 + 3])
    torch.testing.assert_close(dense.tokens[1, width:, 2, 3], embeddings.tokens[1, 16 + 2 * 4 + 3])
    bands, differences = encoder.dense(encoder.collate([pair(1, 1)])).pixels.chunk(2, 1)
    torch.testing.assert_close(dense.pixels[:1, :3], bands[:, :3])
    torch.testing.assert_close(bands[:, :3], bands[:, 3:])
    torch.testing.assert_close(differences[:, :3], differences[:, 3:])


def test_hidden_patches_of_all_dates_are_filled_in(encoder: RasterViT) -> None:
    masked = encoder.masked_forward(encoder.collate([pair(1, 2), pair(3, 4)]), [PATCH], 0.75)
    assert masked.features["patch"].shape == (2 * 24, 16)
    assert masked.targets["patch"].shape == (2 * 24, 64)


def test_another_number_of_dates_is_refused(encoder: RasterViT) -> None:
    with pytest.raises(GroundworkError, match="1 dates where 2 are read"):
        encoder.collate(textures(1, 3))
    with pytest.raises(GroundworkError, match="2 dates where 1 are read"):
        encoder_of().collate([pair(1, 2)])


# --------------------------------------------------------------------------------------- where and when


def placed(longitude: float, latitude: float, day: float) -> Sample:
    place = np.array([longitude, latitude], np.float32)
    return {**textures(1, 3)[0], "place": place, "day": np.array([day], np.float32)}


@pytest.fixture
def travelled() -> RasterViT:
    """An encoder to which places and days mean something."""
    encoder = encoder_of()
    torch.manual_seed(1)
    torch.nn.init.normal_(encoder.whereabouts.place.weight)
    torch.nn.init.normal_(encoder.whereabouts.day.weight)
    return encoder


def test_place_and_day_are_told_apart(travelled: RasterViT) -> None:
    here, there, later = embed(travelled, [placed(8, 47, 10), placed(30, -2, 10), placed(8, 47, 190)])
    assert np.abs(here - there).max() > 1e-2
    assert np.abs(here - later).max() > 1e-2


def test_there_is_no_seam_on_the_sphere_nor_in_the_year(travelled: RasterViT) -> None:
    west, east, poles = placed(-180, 20, 366.25), placed(180, 20, 1), [placed(0, 90, 5), placed(120, 90, 5)]
    one, other = embed(travelled, [west, east])
    np.testing.assert_allclose(one, other, atol=1e-4)
    one, other = embed(travelled, poles)
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_what_is_unknown_adds_nothing(travelled: RasterViT) -> None:
    unknown = placed(np.nan, np.nan, np.nan)
    np.testing.assert_allclose(embed(travelled, [unknown]), embed(travelled, textures(1, 3)), atol=TOLERANCE)


def test_places_are_withheld_in_training_only(travelled: RasterViT) -> None:
    batch = travelled.collate([placed(8, 47, 10)] * 64)
    torch.manual_seed(0)
    with torch.no_grad():
        trained = travelled.train()(batch).pooled
        served = travelled.eval()(batch).pooled
    kinds = len(torch.unique(trained.round(decimals=3), dim=0))
    assert kinds == 4  # with and without each
    assert len(torch.unique(served.round(decimals=3), dim=0)) == 1
