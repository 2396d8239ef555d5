"""The pretraining loss: scaled, blind to gaps, at ease with nothing to score, and falling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import MOLECULES, SPEC, samples_of, small_encoder

from domains.contract import Sample, TargetSpec
from models.pretraining import OUTLIER, TEMPERATURE, PretrainingModel, likeness_loss, unpack_bits

REALS = TargetSpec("descriptors", "sample", "reals", 3)
SMILES = ("CCO", "c1ccccc1", "CC(=O)O", "CCN", "OCC", "CCCCCC")


def described(values: list[list[float]]) -> list[Sample]:
    """One molecule for each row of values."""
    samples = samples_of(SMILES[: len(values)])
    return [
        {**sample, "descriptors": np.array(row, np.float32)}
        for sample, row in zip(samples, values, strict=True)
    ]


def model_of(*targets: TargetSpec) -> PretrainingModel:
    return PretrainingModel(small_encoder(), targets, mask_ratio=0.5)


def test_scaling_is_that_of_the_samples_without_their_gaps() -> None:
    model = model_of(REALS)
    model.fit_scaling(described([[1, 5, np.nan], [3, 5, np.nan], [np.nan, 5, np.nan]]))
    assert model.get_buffer("mean_descriptors").tolist() == [2, 5, 0]
    assert model.get_buffer("scale_descriptors").tolist() == [1, 1, 1]


def test_a_prediction_at_the_mean_costs_what_the_spread_says() -> None:
    model = model_of(REALS)
    samples = described([[0, 100, 1], [4, 300, 1]])
    model.fit_scaling(samples)
    truth = torch.from_numpy(np.stack([sample["descriptors"] for sample in samples]))
    # Standardised values are ±1, ±1 and 0: the smooth L1 of 1 is 0.5.
    assert model.loss(REALS, torch.zeros(2, 3), truth).item() == pytest.approx(1 / 3)


def test_gaps_cost_nothing_and_teach_nothing() -> None:
    model = model_of(REALS)
    truth = torch.tensor([[1.0, np.nan, np.nan], [1.0, 2.0, np.nan]])
    predicted = torch.zeros(2, 3, requires_grad=True)
    loss = model.loss(REALS, predicted, truth)
    loss.backward()
    assert loss.item() == pytest.approx((0.5 + 0.5 + 1.5) / 3)
    assert (predicted.grad != 0).tolist() == [[True, False, False], [True, True, False]]


def test_only_gaps_cost_zero() -> None:
    predicted = torch.ones(2, 3, requires_grad=True)
    loss = model_of(REALS).loss(REALS, predicted, torch.full((2, 3), np.nan))
    loss.backward()
    assert loss.item() == 0
    assert not predicted.grad.any()


def test_an_outlier_costs_no_more_than_the_clip() -> None:
    model = model_of(REALS)
    far, farther = (
        model.loss(REALS, torch.zeros(1, 3), torch.full((1, 3), value)).item() for value in (10.0, 1e6)
    )
    assert far == farther == pytest.approx(OUTLIER - 0.5)


def test_nothing_hidden_is_a_loss_of_zero_with_a_gradient() -> None:
    """A batch of one molecule, shown whole, has no masked atom to score."""
    target = TargetSpec("element", "token", "classes", 119)
    model = model_of(target)
    batch = model.encoder.collate(samples_of(["C"]))
    for seed in range(8):
        torch.manual_seed(seed)
        loss = model(batch)["loss"]
        loss.backward()
        assert torch.isfinite(loss)
    for seed in range(8):
        torch.manual_seed(seed)
        masked = model.encoder.masked_forward(batch, [target], 0.5)
        if not len(masked.targets["element"]):
            break
    else:
        pytest.fail("no draw left the molecule whole")


def test_the_loss_falls(molecules: list[str]) -> None:
    model = PretrainingModel(small_encoder(), MOLECULES.pretraining_targets(SPEC), mask_ratio=0.4)
    samples = samples_of(molecules[:32], described=True)
    model.fit_scaling(samples)
    batch = model.encoder.collate(samples)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def draw() -> torch.Tensor:
        torch.manual_seed(1)
        return model(batch)["loss"]

    before = draw().item()
    for step in range(20):
        torch.manual_seed(100 + step)
        optimiser.zero_grad()
        model(batch)["loss"].backward()
        optimiser.step()
    assert draw().item() < 0.7 * before


BITS = TargetSpec("fingerprint", "sample", "bits", 16)


def with_bits(rows: list[list[int]]) -> list[Sample]:
    return [{"fingerprint": np.packbits(np.array(row, np.uint8))} for row in rows]


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bits_are_unpacked_as_they_were_packed(bits: list[bool]) -> None:
    packed = torch.from_numpy(np.packbits(np.array(bits, np.uint8)))[None]
    assert unpack_bits(packed, len(bits)).tolist() == [[float(bit) for bit in bits]]


def test_to_know_only_how_often_bits_are_set_costs_one() -> None:
    rows = [[int((place * 7 + row) % 3 == 0) for place in range(16)] for row in range(300)]
    model = model_of(BITS)
    samples = with_bits(rows)
    model.fit_scaling(samples)
    truth = torch.from_numpy(np.stack([sample["fingerprint"] for sample in samples]))
    nothing = torch.zeros(len(rows), 16)
    assert model.loss(BITS, nothing, truth).item() == pytest.approx(1, abs=0.01)
    knowing = (unpack_bits(truth, 16) - 0.5) * 8
    assert model.loss(BITS, knowing, truth).item() < 0.1


def test_views_are_told_from_those_of_others_both_ways() -> None:
    one, other = torch.tensor([[3.0, 0.0], [0.0, 0.5]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    scores = np.array([[1, 0.5**0.5], [0, 0.5**0.5]]) / TEMPERATURE
    chances = [np.exp(scores) / np.exp(scores).sum(axis, keepdims=True) for axis in (0, 1)]
    expected = -np.mean([np.log(np.diag(chance)) for chance in chances])
    assert likeness_loss(one, other).item() == pytest.approx(expected, rel=1e-5)


def test_views_that_are_nearly_alike_are_told_apart_in_any_precision() -> None:
    chance = torch.Generator().manual_seed(0)
    one = torch.randn(64, 128, generator=chance)
    other = one + 0.3 * torch.randn(64, 128, generator=chance)
    gradients = []
    for is_rough in (False, True):
        asked = one.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_rough):
            loss = likeness_loss(asked, other)
        loss.backward()
        assert asked.grad is not None
        gradients.append(asked.grad)
    exact, rough = gradients
    assert (rough - exact).norm() < 1e-3 * exact.norm()
