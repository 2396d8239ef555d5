"""An encoder of rasters keeps what it knows of bands, measures what is new, and says what it cannot take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_rasters import (
    BLUE,
    GREEN,
    NIR,
    PATCH,
    RED,
    RGB,
    SWIR,
    Encoding,
    embed,
    encoder_of,
    optical,
    radar,
    textures,
)

from domains.contract import GroundworkError, Sample, TargetSpec
from models.rasters.visual_words import BAG
from models.rasters.vit import RasterViT

WORDS = TargetSpec("words", "sample", "reals", BAG)


def test_statistics_are_those_of_the_samples_without_gaps_and_tails() -> None:
    chance = np.random.default_rng(3)
    pixels = chance.normal([[[5.0]], [[-2.0]]], [[[2.0]], [[0.1]]], (40, 2, 32, 32)).astype(np.float32)
    pixels[:, 0, :4] = np.nan
    pixels[:, 1, 0, :3] = 1e6
    encoder = encoder_of(Encoding(bands=(RED, GREEN)))
    encoder.fit_input(Encoding(bands=(radar("x"), radar("y"))), [{"pixels": chip} for chip in pixels])
    [reading] = encoder.reader.readings
    np.testing.assert_allclose(encoder.reader.mean[reading], [5, -2], atol=0.03)
    np.testing.assert_allclose(encoder.reader.spread[reading], [2, 0.1], rtol=0.05)


def test_a_constant_band_stays_finite() -> None:
    encoder = encoder_of()
    constant = [{"pixels": np.full((1, 32, 32), 7000.1, np.float32)}]
    encoder.fit_input(Encoding(bands=(radar("level"),)), constant)
    assert np.isfinite(embed(encoder, constant)).all()


def test_a_foundation_keeps_what_it_knows_and_measures_what_is_new(tmp_path: Path) -> None:
    encoder_of().save_pretrained(tmp_path / "foundation")
    encoder = RasterViT.from_pretrained(tmp_path / "foundation")
    known = dict(zip(("B4", "B3", "B2"), encoder.reader.mean.tolist(), strict=True))
    task = Encoding(bands=(NIR, BLUE, radar("slope"), RED, SWIR))
    samples = [{"pixels": sample["pixels"] + 100} for sample in textures(30, 5)]
    encoder.fit_input(task, samples)
    assert encoder.pixel_channels == 5 + 10
    fresh = np.mean([sample["pixels"] for sample in samples], axis=(0, 2, 3))
    [reading] = encoder.reader.readings
    expected = [fresh[0], known["B2"], fresh[2], known["B4"], fresh[4]]
    np.testing.assert_allclose(encoder.reader.mean[reading], expected, atol=0.05)
    assert encoder.reader.mean[reading[1]].item() == known["B2"]
    encoder.save_pretrained(tmp_path / "task")
    loaded = RasterViT.from_pretrained(tmp_path / "task").eval()
    np.testing.assert_array_equal(embed(loaded, samples[:3]), embed(encoder.eval(), samples[:3]))
    encoder.fit_input(RGB, textures(2, 3))
    np.testing.assert_array_equal(encoder.reader.mean[encoder.reader.readings[0]], list(known.values()))
    assert encoder.fit_input(RGB, []) is None  # nothing new, nothing measured


def test_the_same_name_on_another_sensor_is_another_band() -> None:
    encoder = encoder_of(Encoding(bands=(optical("B5", 705),)))
    encoder.fit_input(Encoding(bands=(optical("B5", 865),)), [{"pixels": np.full((1, 8, 8), 9, np.float32)}])
    assert encoder.reader.mean[encoder.reader.readings[0]] == 9
    encoder.fit_input(Encoding(bands=(optical("B5", 704),)), [])
    assert encoder.reader.mean[encoder.reader.readings[0]] != 9


def test_a_new_channel_starts_alike_whatever_else_there_is() -> None:
    both, one = encoder_of(), encoder_of()
    both.fit_input(Encoding(bands=(radar("slope"), radar("height"))), textures(2, 2))
    one.fit_input(Encoding(bands=(radar("height"),)), textures(2, 1))
    torch.testing.assert_close(both.reader.coded.channel.weight[-1], one.reader.coded.channel.weight[-1])
    assert (both.reader.coded.channel.weight[-1] != both.reader.coded.channel.weight[-2]).any()


@pytest.mark.parametrize(
    ("encoding", "samples", "words"),
    [
        (Encoding(patch=16, bands=RGB.bands), [], ("patches of 8", "16")),
        (Encoding(), [], ("no band",)),
        (
            Encoding(bands=(RED, NIR)),
            [{"pixels": np.full((2, 8, 8), np.nan, np.float32)}],
            ("B8", "no training"),
        ),
    ],
)
def test_input_that_it_cannot_take_is_refused_and_changes_nothing(
    encoding: Encoding, samples: list[Sample], words: tuple[str, ...]
) -> None:
    encoder = encoder_of()
    before = embed(encoder, textures(2, 3))
    with pytest.raises(GroundworkError) as refused:
        encoder.fit_input(encoding, samples)
    assert all(word in str(refused.value) for word in words)
    np.testing.assert_array_equal(embed(encoder, textures(2, 3)), before)


def test_without_statistics_nothing_is_embedded() -> None:
    fresh = RasterViT.create("tiny", RGB)
    with pytest.raises(GroundworkError, match="statistics"):
        fresh.collate(textures(1, 3))


def test_sources_with_bands_of_their_own_share_a_batch() -> None:
    """What a chip becomes depends on its own bands, and not on those of its neighbours."""
    encoder = encoder_of()
    task = Encoding(bands=(NIR, radar("VV", "VV"), RED, SWIR, GREEN))
    colour, many = textures(3, 3), textures(4, 5, seed=1)
    encoder.fit_inputs([(RGB, colour), (task, many)])
    samples = [{**sample, "source": np.int64(sample["pixels"].shape[0] == 5)} for sample in (*many, *colour)]
    together = embed(encoder, [samples[place] for place in (0, 4, 1, 5, 2, 6, 3)])
    apart = np.concatenate([embed(encoder, [sample]) for sample in samples])
    np.testing.assert_allclose(together, apart[[0, 4, 1, 5, 2, 6, 3]], atol=1e-5)
    with torch.no_grad():
        masked = encoder.masked_forward(encoder.collate(samples), [PATCH], 0.5)
    assert masked.features["patch"].shape == ((4 + 3) * 8, 16)
    assert masked.targets["patch"].isfinite().all()


def test_each_source_has_words_of_its_own() -> None:
    encoder = encoder_of()
    task = Encoding(bands=(NIR, RED, SWIR, GREEN, radar("VV", "VV")))
    colour, many = textures(24, 3), textures(20, 5, seed=1)
    encoder.fit_inputs([(RGB, colour), (task, many)])
    samples = [{**sample, "source": np.int64(len(sample["pixels"]) == 5)} for sample in (*many, *colour)]
    encoder.fit_targets(samples)
    with torch.no_grad():
        masked = encoder.masked_forward(encoder.collate(samples), [WORDS], 0.5)
    assert masked.features["words"].shape == (44, 32)
    truths = masked.targets["words"]
    # By source, each scaled to its own mean.
    np.testing.assert_allclose(truths[:24].mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(truths[24:].mean(0), 0, atol=1e-3)
    encoder.fit_inputs([(RGB, colour)])
    with torch.no_grad():
        unknown = encoder.masked_forward(encoder.collate(colour), [WORDS], 0.5)
    assert unknown.targets["words"].isnan().all()  # they were others, of other sources


def test_a_source_of_other_bands_is_refused_with_its_bands() -> None:
    encoder = encoder_of()
    encoder.fit_inputs([(RGB, textures(2, 3)), (Encoding(bands=(NIR, SWIR)), textures(2, 2))])
    with pytest.raises(GroundworkError, match="3 bands where 2 are read: B8, B11"):
        encoder.collate([{**textures(1, 3)[0], "source": np.int64(1)}])
