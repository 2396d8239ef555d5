"""The gate's verdict: sure enough, in words, and never below a floor that was beaten before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from domains.contract import Target
from flows.evaluation import Evaluation
from flows.figures import promotion_figure
from flows.promotion import _verdict
from models.baselines import FloorResult
from models.comparison import Comparison, compare
from models.registry import Version
from models.results import SampleResults

TARGET = Target(name="melting_point", kind="regression", unit="K")
TRUTH = np.random.default_rng(0).normal(300, 60, (200, 1))
HOLDER = Version("mp", 3, ("champion",), "run", {"beats_floor": "true"}, datetime(2026, 1, 1, tzinfo=UTC))


def answers(error: float, seed: int = 0) -> SampleResults:
    noise = np.random.default_rng(seed).normal(0, error, TRUTH.shape)
    return SampleResults((TARGET,), TRUTH, TRUTH + noise)


def judged(
    challenger: SampleResults, champion: SampleResults, floor: float = 80.0, holder: Version = HOLDER
) -> tuple[Comparison, bool, str]:
    comparison = compare("mae", challenger, champion, np.arange(200), seed=0)
    evaluation = Evaluation("mae", challenger, [FloorResult("forest", answers(floor, 9))])
    return comparison, *_verdict(comparison, holder, evaluation, " K", 0.9)


def test_a_better_one_is_promoted_with_its_figures() -> None:
    comparison, promoted, reason = judged(answers(30), answers(45, 1))
    low, high = comparison.interval
    assert promoted
    assert reason == (
        f"mae {comparison.challenger:.4g} K against {comparison.champion:.4g} K of mp/3 "
        f"on the same 200 rows: better by {comparison.gain:.3g} "
        f"[{low:.3g}, {high:.3g}], probability of being better 1.00"
    )
    assert 0 < low < comparison.gain < high


def test_a_worse_one_is_refused_with_its_figures() -> None:
    comparison, promoted, reason = judged(answers(45), answers(30, 1))
    low, high = comparison.interval
    assert not promoted
    assert f"worse by {-comparison.gain:.3g} [{-high:.3g}, {-low:.3g}]" in reason
    assert reason.endswith("probability of being better 0.00, less than the 0.9 asked for")


def test_a_luckier_one_is_refused() -> None:
    comparison, promoted, reason = judged(answers(45, 2), answers(45, 10))
    assert comparison.gain > 0
    assert not promoted
    assert "better by" in reason
    assert reason.endswith("less than the 0.9 asked for")


@pytest.mark.parametrize(("beat_it_before", "promoted"), [("true", False), ("false", True)])
def test_nothing_below_its_floor_follows_on_a_champion_above(beat_it_before: str, promoted: bool) -> None:
    holder = replace(HOLDER, tags={"beats_floor": beat_it_before})
    _, is_promoted, reason = judged(answers(30), answers(45, 1), floor=20, holder=holder)
    assert is_promoted == promoted
    assert ("but not better than its floor" in reason) != promoted


def test_the_picture_shows_all_three() -> None:
    comparison = judged(answers(30), answers(45, 1))[0]
    figures, draws = promotion_figure(comparison, 60.0, "mp: promoted").axes
    assert [label.get_text() for label in figures.get_yticklabels()] == [
        "challenger",
        "champion",
        "best floor",
    ]
    assert sum(patch.get_height() for patch in draws.patches) == 2000
