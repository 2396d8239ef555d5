"""What a tuning leaves open is chosen by what learns; what it asks for stays."""

from __future__ import annotations

from typing import Any

import pytest

from domains.contract import TargetLevel
from flows.tuning_plan import TuningPlan, plan_tuning, suiting_batch
from models.settings import TrainingSettings, TuningSettings


def plan(
    level: TargetLevel,
    records: int = 100,
    *,
    has_foundation: bool = True,
    varies: bool = False,
    **asked: Any,
) -> TuningPlan:
    told = {name: value for name, value in asked.items() if name in TrainingSettings.model_fields}
    return plan_tuning(
        TrainingSettings(**told),
        TuningSettings(**{name: value for name, value in asked.items() if name not in told}),
        records=records,
        level=level,
        has_foundation=has_foundation,
        varies=varies,
    )


@pytest.mark.parametrize(
    ("records", "level", "batch"),
    [(50, "sample", 32), (50, "pixel", 8), (1024, "pixel", 8), (1025, "pixel", 16), (10**6, "pixel", 32)],
)
def test_records_that_are_labelled_at_each_pixel_are_learnt_from_a_few_at_a_time(
    records: int, level: TargetLevel, batch: int
) -> None:
    assert suiting_batch(records, level) == batch


def test_few_records_are_passed_over_more_often() -> None:
    assert plan("sample", 10**6).training.epochs == 10
    assert plan("sample", 10**6, has_foundation=False).training.epochs == 30
    assert plan("sample", 320).training.epochs == 30  # 300 steps of 32
    assert plan("sample", 10).training.epochs == 60


def test_samples_that_are_shown_ever_differently_are_passed_over_more_often() -> None:
    assert plan("sample", 10**6, varies=True).training.epochs == 30
    assert plan("sample", 800, varies=True).training.epochs == 30  # 750 steps of 32
    assert plan("sample", 10, varies=True).training.epochs == 60
    assert plan("pixel", 10**6, varies=True).training.epochs == 10
    assert plan("sample", 10**6, varies=True, has_foundation=False).training.epochs == 30


def test_on_a_foundation_a_head_of_pixels_learns_fast_and_lower_layers_slowly() -> None:
    tuned = plan("pixel")
    assert (tuned.training.learning_rate, tuned.layer_decay) == (2e-3, 0.5)
    for other in (plan("pixel", has_foundation=False), plan("sample")):
        assert (other.training.learning_rate, other.layer_decay) == (5e-4, 1.0)
    for mode in ("probe", "lora"):  # where the encoder stays as it is
        assert plan("pixel", mode=mode, layer_decay=0.5).layer_decay == 1


def test_what_is_asked_for_stays() -> None:
    asked = {"epochs": 3, "batch_size": 5, "learning_rate": 0.1, "layer_decay": 0.9}
    chosen = {f"chosen_{name}": value for name, value in asked.items()}
    assert plan("pixel", **asked).parameters == {**chosen, "chosen_weights": "best"}


def test_the_last_weights_are_kept_where_the_few_scenes_to_choose_by_say_little() -> None:
    assert plan("pixel").patience is None
    assert plan("pixel").parameters["chosen_weights"] == "last"
    assert plan("pixel", epochs=20).patience == 15
    assert plan("pixel", patience=3).patience == 3
    assert plan("sample", varies=True).parameters["chosen_weights"] == "last"
    assert plan("sample", varies=True, has_foundation=False).parameters["chosen_weights"] == "last"
    for other in (
        plan("sample"),
        plan("sample", varies=True, mode="lora"),
        plan("sample", varies=True, epochs=10),
        plan("pixel", has_foundation=False),
        plan("pixel", mode="probe"),
    ):
        assert other.patience == 15
