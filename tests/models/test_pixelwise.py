"""The linear model of pixels beside a network: what it learns, and how its answers are mixed with others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_rasters import RED, Encoding, encoder_of, textures

from domains.contract import Target
from models.pixelwise import UNSEEN, PixelwiseModel
from models.tuning import TaskModel

BURNT = Target(name="burnt", kind="binary", classes=("no", "yes"), values=(0, 1), level="pixel")
COVER = Target(name="cover", kind="multiclass", classes=("a", "b", "c"), values=(0, 1, 2), level="pixel")
HEIGHT = Target(name="height", kind="regression", unit="m", level="pixel")


def drawn(count: int, seed: int = 0) -> np.ndarray:
    """Contrasts float32 [count, 3], of which the second spreads most and the third never varies."""
    values = np.random.default_rng(seed).normal(size=(count, 3)) * [0.3, 2.0, 0.0] + [0.5, -1.0, 0.7]
    return values.astype(np.float32)


def answered(model: PixelwiseModel, contrasts: np.ndarray) -> np.ndarray:
    """[n, R] -> [n, outputs], as one row of pixels."""
    image = torch.from_numpy(contrasts.T.copy()[None, :, None])
    return model(image)[0].numpy()


def test_a_cut_through_a_contrast_is_found_however_rare_a_class() -> None:
    contrasts = drawn(5000)
    truth = (contrasts[:, 0] > 1.0).astype(np.float32)
    assert 0.03 < truth.mean() < 0.08
    model = PixelwiseModel(3, 1)
    model.fit(contrasts, truth)
    fresh = drawn(5000, seed=1)
    is_right = (answered(model, fresh)[:, 0] > 0) == (fresh[:, 0] > 1.0)
    assert is_right.mean() > 0.95
    assert is_right[fresh[:, 0] > 1.0].mean() > 0.9


def test_where_contrasts_tell_nothing_a_class_is_half_as_rare_in_logits() -> None:
    truth = (np.random.default_rng(2).random(20_000) < 0.05).astype(np.float32)
    model = PixelwiseModel(3, 1)
    model.fit(drawn(20_000), truth)
    np.testing.assert_allclose(answered(model, drawn(500, seed=1)), np.log(0.05 / 0.95) / 2, atol=0.4)


@pytest.mark.parametrize("seen", [(0, 1, 2), (0, 2)])
def test_several_classes_are_told_apart_and_one_that_was_not_seen_is_not_answered(
    seen: tuple[int, ...],
) -> None:
    contrasts = drawn(6000)
    truth = np.digitize(contrasts[:, 1], [-2.0, 0.0]).astype(np.float32)
    known = np.isin(truth, seen)
    model = PixelwiseModel(3, 3)
    model.fit(contrasts[known], truth[known])
    raw = answered(model, contrasts[known])
    assert (raw.argmax(1) == truth[known]).mean() > 0.9
    assert ((raw == UNSEEN).all(0) == [code not in seen for code in range(3)]).all()


def test_it_stays_as_it_is_where_all_pixels_are_of_one_class() -> None:
    for outputs in (1, 3):
        model = PixelwiseModel(3, outputs)
        model.fit(drawn(50), np.ones(50, np.float32))
        assert not model.weight.any()
        assert not model.bias.any()


def test_a_contrast_that_is_not_known_says_nothing() -> None:
    contrasts = drawn(3000)
    truth = (contrasts[:, 0] > 0.5).astype(np.float32)
    holes = contrasts.copy()
    holes[::3, 1] = np.nan
    model = PixelwiseModel(3, 1)
    model.fit(holes, truth)
    known, blank = drawn(200, seed=1), drawn(200, seed=1)
    blank[:, 1] = np.nan
    assert ((answered(model, blank) > 0) == (answered(model, known) > 0)).mean() > 0.95
    blank[:] = np.nan
    assert np.abs(answered(model, blank)).max() < 0.5


def test_a_pixel_like_none_of_training_does_not_outvote_the_network() -> None:
    contrasts = drawn(3000)
    model = PixelwiseModel(3, 1)
    model.fit(contrasts, (contrasts[:, 0] > 0.5).astype(np.float32))
    far = contrasts[:1].copy()
    far[0, 0] += 3.0  # ten standard deviations
    farther = far + 100.0
    np.testing.assert_array_equal(answered(model, farther)[:, 0], answered(model, far + 50.0)[:, 0])
    assert answered(model, farther)[0, 0] < 2 * answered(model, far)[0, 0]


def test_the_share_goes_from_the_network_alone_to_the_pixel_alone() -> None:
    model, contrasts = PixelwiseModel(3, 1), torch.from_numpy(drawn(64).T.reshape(1, 3, 8, 8).copy())
    model.fit(drawn(500), (drawn(500)[:, 0] > 0.5).astype(np.float32))
    logits = torch.randn(1, 64, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.beside(logits, contrasts), logits)
    model.share.fill_(0.25)
    torch.testing.assert_close(model.beside(logits, contrasts), 0.75 * logits + 0.25 * model(contrasts))
    model.share.fill_(1.0)
    torch.testing.assert_close(model.beside(logits, contrasts), model(contrasts))


def test_a_task_model_answers_with_both_and_learns_as_if_the_network_were_alone() -> None:
    model = TaskModel(encoder_of(), [BURNT], linear_head=False).eval()
    batch = model.encoder.collate(textures(2, 3))  # type: ignore[operator]  # a module's attribute
    labels = torch.zeros(2, 32 * 32)
    with torch.no_grad():
        alone, loss = model(batch)["logits"], model(batch, labels)["loss"]
        assert model.pixelwise is not None
        model.pixelwise.bias.fill_(4.0)
        model.pixelwise.share.fill_(0.5)
        torch.testing.assert_close(model(batch)["logits"], alone / 2 + 2.0)
        assert model(batch, labels)["loss"] == loss


def test_its_answers_are_exact_where_the_network_computes_in_bfloat16() -> None:
    model, contrasts = PixelwiseModel(2, 1), torch.full((1, 2, 4, 4), 0.5)
    model.weight.copy_(torch.tensor([[1000.0, -1001.0]]))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(contrasts), torch.full((1, 16, 1), -0.5))


def test_a_probe_a_single_band_and_values_have_none() -> None:
    assert TaskModel(encoder_of(), [HEIGHT], linear_head=False).pixelwise is None
    assert TaskModel(encoder_of(), [BURNT], linear_head=True).pixelwise is None
    assert TaskModel(encoder_of(Encoding(bands=(RED,))), [BURNT], linear_head=False).pixelwise is None


def test_contrasts_stay_the_same_in_other_light_and_are_not_known_where_data_lack() -> None:
    encoder = encoder_of()
    samples = textures(2, 3)
    for sample in samples:
        sample["pixels"] = np.abs(sample["pixels"]) + 0.1
    batch = encoder.collate(samples)
    batch["pixels"][0, :, :8] = torch.nan
    bright = {**batch, "pixels": batch["pixels"] * 1.7}
    found = encoder.contrasts(batch)
    assert found.shape == (2, encoder.contrast_count, 32, 32)
    torch.testing.assert_close(encoder.contrasts(bright), found, equal_nan=True)
    with torch.no_grad():
        dense = encoder.dense(batch)
    assert dense.contrasts[0, :, :8].isnan().all()
    torch.testing.assert_close(dense.contrasts, found, equal_nan=True)
    assert dense.pixels.isfinite().all()
