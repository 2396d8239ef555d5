"""Temperature scaling makes probabilities as sure as they come true."""

from __future__ import annotations

import pytest
import torch
from small_models import small_encoder
from torch.nn import functional as F

from domains.contract import Target
from models.temperature import temperature_of
from models.tuning import SMOOTHING, TaskModel

PHASE = Target(name="phase", kind="multiclass", classes=("gas", "liquid", "solid"))


def drawn(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that say with what chance each class is the truth, and truths drawn so."""
    chance = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 3, generator=chance)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=chance)[:, 0]


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_the_temperature_that_logits_were_changed_by_is_found(factor: float) -> None:
    logits, truth = drawn(5000)
    assert temperature_of(logits[:, None] * factor, truth) == pytest.approx(factor, rel=0.1)


def test_members_that_differ_are_sharpened_until_their_mean_is_right() -> None:
    logits, truth = drawn(5000)
    noise = torch.randn(5000, 5, 3, generator=torch.Generator().manual_seed(1))
    members = logits[:, None] + 2 * noise
    alone = [temperature_of(members[:, place : place + 1], truth) for place in range(5)]
    together = temperature_of(members, truth)
    assert together < 0.9 * min(alone)

    def loss(temperature: float) -> float:
        chances = (members / temperature).softmax(-1).mean(1)
        return float(F.nll_loss(chances.log(), truth))

    assert loss(together) < min(loss(0.8 * together), loss(1.25 * together))


def test_a_few_rows_that_are_all_right_ask_for_no_certainty() -> None:
    truth = torch.tensor([0, 1, 2, 1])
    assert 0.3 < temperature_of(4 * F.one_hot(truth, 3)[:, None].float(), truth) <= 1
    assert temperature_of(torch.empty(0, 1, 3), torch.empty(0)) == 1


def test_a_model_answers_by_its_temperature_and_learns_without_it() -> None:
    model = TaskModel(small_encoder(), [PHASE], linear_head=False).eval()
    logits, truth = drawn(50)
    loss = model.loss(logits, truth[:, None].float())
    torch.testing.assert_close(model.outputs(logits), logits.softmax(1))
    model.scale.fill_(0.5)
    torch.testing.assert_close(model.outputs(logits), (logits / 2).softmax(1))
    torch.testing.assert_close(model.loss(logits, truth[:, None].float()), loss)
    torch.testing.assert_close(loss, F.cross_entropy(logits, truth))


def test_labels_are_smoothed_in_training_alone() -> None:
    model = TaskModel(small_encoder(), [PHASE], linear_head=False).train()
    sure, truth = 20 * F.one_hot(torch.arange(3), 3).float(), torch.arange(3.0)[:, None]
    assert model.loss(sure, truth) == pytest.approx(20 * SMOOTHING * 2 / 3, rel=0.01)
    assert model.eval().loss(sure, truth) < 1e-6
