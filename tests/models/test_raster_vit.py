"""The raster encoder sees pixels where there are any: not their units, nor their order, nor neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_rasters import (
    BLUE,
    GREEN,
    NIR,
    PATCH,
    RED,
    RGB,
    Encoding,
    embed,
    encoder_of,
    radar,
    textures,
    with_gap,
)
from transformers import AutoModel

from domains.contract import GroundworkError, Target, TargetSpec
from domains.geospatial import GEOSPATIAL, RasterEncoding
from models.encoder import Batch, parameter_count
from models.molecules.graph_transformer import GraphTransformer
from models.pretraining import PretrainingModel
from models.rasters import vit
from models.rasters.band_differences import band_differences
from models.rasters.targets import EDGES, STATISTICS
from models.rasters.visual_words import BAG
from models.rasters.vit import RasterViT
from models.rasters.whereabouts import MOST_DATES
from models.tuning import TaskModel, prepare

BAND = TargetSpec("band", "channel", "reals", STATISTICS)

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def encoder() -> RasterViT:
    return encoder_of()


# --------------------------------------------------------------------------- what must change nothing


@settings(deadline=None, max_examples=15)
@given(
    sides=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4),
    seed=st.integers(0, 9),
    gap=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_collate_and_padding_change_nothing(
    encoder: RasterViT, sides: list[tuple[int, int]], seed: int, gap: tuple[int, int]
) -> None:
    chips = [
        {"pixels": sample["pixels"][:, : 8 * height, : 8 * width]}
        for sample, (height, width) in zip(textures(len(sides), 3, 40, seed), sides, strict=True)
    ]
    chips[0] = with_gap(chips[0], slice(gap[0]), slice(gap[1]))
    batch = encoder.collate(chips)
    tall, wide = (max(side[axis] for side in sides) for axis in (0, 1))
    assert batch["pixels"].shape == (len(sides), 3, 8 * tall, 8 * wide)
    assert batch["size"].tolist() == [height * width for height, width in sides]
    assert batch["size"].tolist() == [encoder.tokens(chip) for chip in chips]
    with torch.no_grad():
        together = encoder(batch)
        for place, (chip, (height, width)) in enumerate(zip(chips, sides, strict=True)):
            alone = encoder(encoder.collate([chip]))
            torch.testing.assert_close(together.pooled[place], alone.pooled[0], atol=TOLERANCE, rtol=0)
            grid = together.tokens[place].view(tall, wide, -1)[:height, :width].flatten(0, 1)
            torch.testing.assert_close(grid, alone.tokens[0], atol=TOLERANCE, rtol=0)
            assert together.mask[place].sum() == alone.mask.sum()


def test_the_order_of_bands_changes_nothing() -> None:
    encoder, samples = encoder_of(), textures(4, 3)
    before = embed(encoder, samples)
    encoder.fit_input(Encoding(bands=(BLUE, RED, GREEN)), samples)
    after = embed(encoder, [{"pixels": sample["pixels"][[2, 0, 1]]} for sample in samples])
    np.testing.assert_allclose(after, before, atol=TOLERANCE)


def test_units_change_nothing_once_they_are_measured() -> None:
    """The same reflectance as a digital number, with an offset."""
    samples = textures(20, 3)
    numbers = [{"pixels": sample["pixels"] * 10_000 - 1000} for sample in samples]
    encoder = encoder_of()
    before = embed(encoder, samples)
    bands = tuple({**band, "unit": "digital number"} for band in RGB.bands)
    encoder.fit_input(Encoding(bands=bands), numbers)
    np.testing.assert_allclose(embed(encoder, numbers), before, atol=1e-3)


# ------------------------------------------------------------------------------------ what must matter


def test_bands_are_told_apart(encoder: RasterViT) -> None:
    [sample] = textures(1, 3)
    swapped = {"pixels": sample["pixels"][[1, 0, 2]]}
    assert np.abs(embed(encoder, [sample]) - embed(encoder, [swapped])).max() > 1e-2


def test_polarisations_are_told_apart() -> None:
    encoder = encoder_of(Encoding(bands=(radar("1", "VV"), radar("2", "VH"))))
    [sample] = textures(1, 2)
    swapped = {"pixels": sample["pixels"][::-1].copy()}
    assert np.abs(embed(encoder, [sample]) - embed(encoder, [swapped])).max() > 1e-2


def test_places_are_told_apart(encoder: RasterViT) -> None:
    [sample] = textures(1, 3)
    upside_down = {"pixels": sample["pixels"].reshape(3, 4, 8, 32)[:, ::-1].reshape(3, 32, 32)}
    assert np.abs(embed(encoder, [sample]) - embed(encoder, [upside_down])).max() > 1e-2


# ----------------------------------------------------------------------------------- where data is missing


def test_a_patch_without_data_is_no_token(encoder: RasterViT) -> None:
    [sample] = textures(1, 3)
    cropped = {"pixels": sample["pixels"][:, :, :24]}
    gap = with_gap(sample, slice(None), slice(24, None))
    np.testing.assert_allclose(embed(encoder, [gap]), embed(encoder, [cropped]), atol=TOLERANCE)
    with torch.no_grad():
        tokens, _, mask = encoder(encoder.collate([gap]))
    assert mask.view(4, 4)[:, :3].all()
    assert not mask.view(4, 4)[:, 3].any()
    assert not tokens[~mask].any()
    assert tokens[mask].abs().sum(-1).min() > 0


def test_a_gap_is_not_a_mean_value(encoder: RasterViT) -> None:
    [sample] = textures(1, 3)
    gap = with_gap(sample, slice(4), slice(4))
    filled = {
        "pixels": np.where(
            np.isnan(gap["pixels"]), encoder.reader.mean.numpy()[:, None, None], sample["pixels"]
        )
    }
    assert np.abs(embed(encoder, [gap]) - embed(encoder, [filled])).max() > 1e-4


def test_infinite_is_no_data(encoder: RasterViT) -> None:
    gap = with_gap(textures(1, 3)[0], slice(5), slice(5))
    infinite = {"pixels": np.where(np.isnan(gap["pixels"]), np.float32(np.inf), gap["pixels"])}
    np.testing.assert_array_equal(embed(encoder, [infinite]), embed(encoder, [gap]))


def test_a_chip_without_data_harms_nobody(encoder: RasterViT) -> None:
    empty = {"pixels": np.full((3, 32, 32), np.nan, np.float32)}
    [sample] = textures(1, 3)
    batch = encoder.collate([empty, sample])
    with torch.no_grad():
        tokens, pooled, mask = encoder(batch)
    assert torch.isfinite(tokens).all()
    assert not tokens[0].any()
    assert not pooled[0].any()
    assert mask.sum(1).tolist() == [0, 16]
    np.testing.assert_allclose(pooled[1:], embed(encoder, [sample]), atol=TOLERANCE)
    masked = encoder.masked_forward(batch, [PATCH], 0.5)
    assert len(masked.features["patch"]) == 8
    assert torch.isfinite(masked.features["patch"]).all()
    model = PretrainingModel(encoder, [PATCH], 0.5)
    assert torch.isfinite(model(encoder.collate([empty]))["loss"])


@pytest.mark.parametrize(
    ("shape", "words"), [((2, 32, 32), "2 bands where 3 are read: B4, B3, B2"), ((3, 32, 30), "32 × 30")]
)
def test_samples_that_do_not_fit_are_refused(
    encoder: RasterViT, shape: tuple[int, int, int], words: str
) -> None:
    with pytest.raises(GroundworkError, match=words):
        encoder.collate([{"pixels": np.zeros(shape, np.float32)}])


# ----------------------------------------------------------------------------------------- pretraining


def hide(encoder: RasterViT, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and targets of what one draw hides."""
    with torch.no_grad():
        masked = encoder.masked_forward(batch, [PATCH], 0.75, torch.Generator().manual_seed(5))
    return masked.features["patch"], masked.targets["patch"]


def test_masked_shapes_follow_the_data(encoder: RasterViT, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, other = textures(2, 3)
    gap = with_gap(with_gap(other, slice(8), slice(None)), slice(8, 12), slice(12, 30), slice(1))
    bands = []
    for band in range(3):
        monkeypatch.setattr(vit, "predicted_band", lambda *_, band=band: band)
        features, truth = hide(encoder, encoder.collate([whole, gap]))
        assert features.shape == (12 + 9, 16)
        assert truth.shape == (12 + 9, 8 * 8)
        bands.append(truth)
    patches = torch.stack(bands, 1).flatten(1)
    assert not patches[:12].isnan().any()
    assert 0 < patches[12:].isnan().sum() <= 4 * 18
    np.testing.assert_allclose(patches.nanmean(1), 0, atol=1e-5)
    np.testing.assert_allclose(patches.square().nanmean(1).sqrt(), 1, atol=1e-2)


def test_hidden_patches_are_hidden_and_visible_ones_are_used(encoder: RasterViT) -> None:
    batch = encoder.collate(textures(2, 3))
    features, truth = hide(encoder, batch)
    hidden = visible = 0
    for chip in range(2):
        for row in range(0, 32, 8):
            for column in range(0, 32, 8):
                changed = {**batch, "pixels": batch["pixels"].clone()}
                changed["pixels"][chip, :, row : row + 8, column : column + 8] = torch.randn(3, 8, 8)
                new_features, new_truth = hide(encoder, changed)
                is_hidden = not torch.equal(new_truth, truth)
                assert torch.equal(new_features, features) == is_hidden
                hidden += is_hidden
                visible += not is_hidden
    assert (hidden, visible) == (24, 8)


def test_masks_follow_the_generator_or_the_seed(encoder: RasterViT) -> None:
    batch = encoder.collate(textures(3, 3))
    assert torch.equal(hide(encoder, batch)[1], hide(encoder, batch)[1])
    torch.manual_seed(1)
    first = encoder.masked_forward(batch, [PATCH], 0.5).targets["patch"]
    other = encoder.masked_forward(batch, [PATCH], 0.5).targets["patch"]
    torch.manual_seed(1)
    again = encoder.masked_forward(batch, [PATCH], 0.5).targets["patch"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_encoder_that_augments_says_so(encoder: RasterViT) -> None:
    assert encoder.varies
    assert not GraphTransformer.create("tiny").varies


def test_images_in_any_order_of_memory_make_the_same_batch(encoder: RasterViT) -> None:
    samples = textures(2, 3, 32)
    batch = encoder.collate([{"pixels": np.asfortranarray(sample["pixels"])} for sample in samples])
    assert batch["pixels"].is_contiguous()
    assert batch["pixels"].equal(encoder.collate(samples)["pixels"])


def test_batch_mates_change_nothing_in_pretraining(encoder: RasterViT) -> None:
    """A chip that shows fewer patches than its neighbour is embedded as if it were alone."""
    samples = textures(2, 3)
    few = with_gap(samples[0], slice(16), slice(None))
    alone, _ = hide(encoder, encoder.collate([few]))
    together, _ = hide(encoder, encoder.collate([few, samples[1]]))
    torch.testing.assert_close(together[: len(alone)], alone, atol=TOLERANCE, rtol=0)


def test_every_parameter_learns_in_pretraining() -> None:
    encoding = Encoding(bands=(RED, radar("1", "VV"), NIR), dates=MOST_DATES)
    encoder = encoder_of(encoding).train()
    model = PretrainingModel(encoder, [PATCH, BAND], 0.5)
    samples = [
        {
            "pixels": with_gap(sample, slice(4), slice(4))["pixels"][None].repeat(MOST_DATES, 0),
            "place": np.array([7.0, 46.0], np.float32),
            "day": np.arange(1, MOST_DATES + 1, dtype=np.float32),
        }
        for sample in textures(8, 3)
    ]
    torch.manual_seed(0)
    model(encoder.collate(samples))["loss"].backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not idle


def test_the_loss_falls() -> None:
    model = PretrainingModel(encoder_of(hidden_size=96, intermediate_size=192).train(), [PATCH], 0.5)
    batch = model.encoder.collate(textures(32, 3))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def draw() -> torch.Tensor:
        torch.manual_seed(1)
        return model(batch)["loss"]

    before = draw().item()
    for step in range(160):
        torch.manual_seed(100 + step)
        optimiser.zero_grad()
        model(batch)["loss"].backward()
        optimiser.step()
    assert draw().item() < 0.85 * before  # the mean of each patch alone would reach 0.98


# ------------------------------------------------------------------------------------ around the encoder


def test_saved_and_loaded_it_is_the_same(encoder: RasterViT, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, RasterViT)
    assert loaded.config.to_diff_dict() == encoder.config.to_diff_dict()
    samples = textures(3, 3)
    np.testing.assert_array_equal(embed(loaded, samples), embed(encoder, samples))
    torch.testing.assert_close(hide(loaded, loaded.collate(samples)), hide(encoder, encoder.collate(samples)))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_discarded_decoder_leaves_the_embeddings(tmp_path: Path) -> None:
    encoder, samples = encoder_of(), textures(2, 3)
    before, weights = embed(encoder, samples), parameter_count(encoder)
    encoder.discard_decoder()
    encoder.save_pretrained(tmp_path)
    loaded = RasterViT.from_pretrained(tmp_path).eval()
    assert parameter_count(loaded) < weights
    np.testing.assert_array_equal(embed(loaded, samples), before)
    with pytest.raises(GroundworkError, match="decoder"):
        loaded.masked_forward(loaded.collate(samples), [PATCH], 0.5)
    loaded.restore_decoder()
    assert parameter_count(loaded) == weights
    assert torch.isfinite(PretrainingModel(loaded, [PATCH], 0.5)(loaded.collate(samples))["loss"])
    np.testing.assert_array_equal(embed(loaded, samples), before)


def test_dense_features_lie_on_the_pixels(encoder: RasterViT) -> None:
    samples = textures(2, 3)
    batch = encoder.collate([samples[0], with_gap(samples[1], slice(8), slice(16))])
    with torch.no_grad():
        dense, embeddings = encoder.dense(batch), encoder(batch)
    assert dense.tokens.shape == (2, 32, 4, 4)
    assert dense.pixels.shape == (2, encoder.pixel_channels, 32, 32)
    torch.testing.assert_close(dense.tokens[0, :, 1, 2], embeddings.tokens[0, 4 + 2])
    assert dense.valid[0].all()
    assert dense.valid[1].sum() == 32 * 32 - 8 * 16
    assert not dense.pixels[1, :, :8, :16].any()
    scaled = (
        samples[0]["pixels"] - encoder.reader.mean.numpy()[:, None, None]
    ) / encoder.reader.spread.numpy()[:, None, None]
    np.testing.assert_allclose(dense.pixels[0, :3], scaled, atol=TOLERANCE)
    differences = band_differences(torch.from_numpy(samples[0]["pixels"]))
    torch.testing.assert_close(dense.pixels[0, 3:], differences)


def test_a_pixel_with_some_bands_is_data(encoder: RasterViT) -> None:
    some = with_gap(textures(1, 3)[0], slice(None), slice(None), slice(2))
    with torch.no_grad():
        assert encoder.dense(encoder.collate([some])).valid.all()
        assert encoder(encoder.collate([some])).mask.all()


@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_is_close(autocast: bool) -> None:
    encoder, samples = encoder_of(), [*textures(3, 3), with_gap(textures(1, 3)[0], slice(20), slice(None))]
    exact = embed(encoder, samples)
    if not autocast:
        encoder.bfloat16()
    batch = encoder.collate(samples)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        rough, dense = encoder(batch).pooled.float(), encoder.dense(batch)
        masked = encoder.masked_forward(batch, [PATCH], 0.5)
    assert torch.isfinite(masked.features["patch"]).all()
    assert torch.isfinite(dense.tokens).all()
    assert np.abs(rough.numpy() - exact).mean() < 0.1 * exact.std()


def test_checkpointed_gradients_are_the_same() -> None:
    gradients = []
    for checkpointing in (False, True):
        encoder = encoder_of().train()
        if checkpointing:
            encoder.gradient_checkpointing_enable()
        encoder(encoder.collate(textures(2, 3))).pooled.square().sum().backward()
        gradients.append(encoder.blocks[0].query_key_value.weight.grad)
    assert gradients[0].any()
    torch.testing.assert_close(*gradients)


def test_low_rank_adaptation_learns_in_the_blocks() -> None:
    encoder = encoder_of()
    encoder.discard_decoder()
    model = TaskModel(
        encoder, [Target(name="class", kind="multiclass", classes=("a", "b", "c"))], linear_head=False
    )
    prepare(model, "lora", 4)
    batch = encoder.collate(textures(3, 3))
    model(batch, torch.tensor([[0.0], [1.0], [2.0]]))["loss"].backward()
    adapted = {
        name.split(".")[-4]
        for name, weight in model.named_parameters()
        if "lora_" in name and weight.grad is not None
    }
    assert adapted == set(RasterViT.lora_modules)


@pytest.mark.parametrize(
    ("preset", "least", "most"), [("tiny", 1.8e6, 2.4e6), ("small", 5e6, 7e6), ("base", 80e6, 95e6)]
)
def test_presets_have_their_sizes(preset: str, least: float, most: float) -> None:
    with torch.device("meta"):
        encoder = RasterViT.create(preset, RGB)
        encoder.discard_decoder()
        assert least < parameter_count(encoder) < most


# --------------------------------------------------------------------------------- targets of whole chips

EDGE = TargetSpec("edges", "token", "reals", EDGES)


def test_the_domain_and_the_encoder_agree_on_the_sizes_of_targets() -> None:
    sizes = {target.name: target.size for target in GEOSPATIAL.pretraining_targets(RasterEncoding())}
    assert sizes == {"patch": 8 * 8, "edges": EDGES, "band": STATISTICS, "words": BAG}


def test_a_band_is_summed_up_as_numpy_does(encoder: RasterViT) -> None:
    samples = [textures(1, 3)[0], with_gap(textures(1, 3, seed=1)[0], slice(9), slice(5))]
    with torch.no_grad():
        masked = encoder.masked_forward(encoder.collate(samples), [BAND], 0.75)
    assert masked.features["band"].shape == (2 * 3, 32)
    mean, spread = (it.numpy()[:, None, None] for it in (encoder.reader.mean, encoder.reader.spread))
    for place, sample in enumerate(samples):
        scaled = ((sample["pixels"] - mean) / spread).reshape(3, -1)
        found = masked.targets["band"][3 * place : 3 * place + 3].numpy()
        np.testing.assert_allclose(found[:, 0], np.nanmean(scaled, 1), atol=1e-4)
        np.testing.assert_allclose(found[:, 1], np.log(np.nanstd(scaled, 1) + 0.02), atol=1e-3)
        np.testing.assert_allclose(found[:, 7], np.nanmedian(scaled, 1), atol=0.3)


def test_edges_have_the_direction_of_stripes(encoder: RasterViT) -> None:
    rows, columns = np.mgrid[:32, :32].astype(np.float32)
    upright = {"pixels": np.repeat(np.sin(columns)[None], 3, 0)}
    level = {"pixels": np.repeat(np.sin(rows)[None], 3, 0)}
    with torch.no_grad():
        masked = encoder.masked_forward(encoder.collate([upright, level]), [EDGE], 0.5)
    found = masked.targets["edges"].view(2, 8, 8, 4).mean((1, 3))  # of each image, by direction
    across, down = [0, 4], [2, 6]  # opposite directions: a stripe has two sides
    assert found[0, across].min() > found[0, down].max() + 1
    assert found[1, down].min() > found[1, across].max() + 1


def test_views_of_a_chip_are_alike_for_no_other_reason_than_the_chip() -> None:
    model = PretrainingModel(encoder_of().train(), [PATCH], 0.5, contrast=0.2)
    batch = model.encoder.collate(textures(6, 3))
    one, other = model.encoder.masked_forward(batch, [PATCH], 0.5, views=True).views
    assert one.shape == other.shape == (6, 32)
    assert not torch.equal(one, other)
    with_contrast = model(batch)["loss"]
    model.contrast = 0.0
    assert with_contrast > model(batch)["loss"]


def test_where_a_whole_chip_is_cut_is_chance(encoder: RasterViT) -> None:
    line = (torch.arange(16) == 8).float().expand(300, 3, 16, -1)  # from top to bottom
    batch = {"pixels": line, "source": torch.zeros(300, dtype=torch.long)}

    def columns_of(seen: Batch) -> set[int]:
        """Where the line is, in those that are not turned on their side."""
        sums = (seen["pixels"][:, 0] > 0).sum(1)
        return set(sums[(sums == 16).any(1)].argmax(1).tolist())

    half = encoder.patch // 2
    mirrored, first = 7 - half, 8 + half
    assert columns_of(encoder.augment(batch)[0]) == set(range(mirrored, first + 1))
    # Where pixels are labelled, the whole chip is answered, and patches begin where they began.
    assert columns_of(encoder.augment(batch, torch.zeros(300, 256))[0]) == {7, 8}


@pytest.mark.parametrize("shape", [(8, 8), (8, 16)])
def test_labels_turn_with_their_pixels(encoder: RasterViT, shape: tuple[int, int]) -> None:
    height, width = shape
    codes = torch.arange(1.0, height * width + 1).view(1, 1, height, width)
    batch = {"pixels": codes.repeat(64, 3, 1, 1), "source": torch.zeros(64, dtype=torch.long)}
    labels = codes.view(1, -1).repeat(64, 1)
    turned, turned_labels = encoder.augment(batch, labels)
    light = turned["pixels"][:, 0].flatten(1) / turned_labels  # one for each chip
    torch.testing.assert_close(light, light[:, :1].expand_as(light))
    assert len(torch.unique(turned_labels, dim=0)) == (8 if height == width else 4)
    torch.testing.assert_close(turned_labels.sort(1).values, labels)
