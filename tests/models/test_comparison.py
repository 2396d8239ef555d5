"""The bootstrap equals repeating the records, tells luck from skill, and takes seconds."""

from __future__ import annotations

import time

import numpy as np
import pytest

from domains.contract import Target
from models.comparison import compare, resampled
from models.results import BINS, PixelResults, Results, SampleResults

NUMBER = Target(name="number", kind="regression")
OTHER = Target(name="other", kind="regression")
YES = Target(name="yes", kind="binary", classes=("no", "yes"))
KIND = Target(name="kind", kind="multiclass", classes=("a", "b", "c"))
COVER = Target(name="cover", kind="multiclass", classes=("a", "b", "c"), level="pixel", values=(0, 1, 2))
HEIGHT = Target(name="height", kind="regression", level="pixel")


def samples(*targets: Target, n: int = 40, seed: int = 0, skill: float = 1.0) -> SampleResults:
    """Answers that know ``skill`` of the truth; gaps in the truth, ties among the answers."""
    random, noise = np.random.default_rng(0), np.random.default_rng(seed + 1)
    truths, answers = [], []
    for target in targets:
        if target.kind == "regression":
            truth = random.normal(size=n)
            answers.append((skill * truth + noise.normal(size=n))[:, None])
        else:
            truth = random.integers(0, len(target.classes), n).astype(float)
            scores = noise.random((n, len(target.classes)))
            scores[np.arange(n), truth.astype(int)] += skill * noise.random(n)
            chances = scores / scores.sum(1, keepdims=True)
            answers.append(np.round(chances[:, 1:], 1) if target.kind == "binary" else chances)
        truths.append(np.where(random.random(n) < 0.1, np.nan, truth))
    return SampleResults(targets, np.stack(truths, 1), np.concatenate(answers, 1))


def pixels(target: Target, n: int = 12) -> PixelResults:
    random = np.random.default_rng(0)
    if target.kind == "regression":
        return PixelResults(target, random.random((n, 5)) * 100, np.zeros((n, BINS, 3)))
    sums = random.integers(0, 50, (n, 3, 3))
    sums[:, 2] = sums[:, :, 2] = 0  # a class that hardly any record has
    sums[0, 2, 2] = 7
    return PixelResults(target, sums, np.zeros((n, BINS, 3)))


@pytest.mark.parametrize(
    ("results", "metric"),
    [
        (samples(NUMBER), "mae"),
        (samples(NUMBER, OTHER), "mae"),
        (samples(YES), "auroc"),
        (samples(YES), "accuracy"),
        (samples(KIND), "accuracy"),
        (samples(NUMBER, YES, KIND), "mae"),
        (samples(YES, KIND), "accuracy"),
        (pixels(COVER), "miou"),
        (pixels(COVER), "accuracy"),
        (pixels(HEIGHT), "mae"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_draw_gives_the_figure_of_the_repeated_records(results: Results, metric: str) -> None:
    random = np.random.default_rng(5)
    draws = random.integers(0, len(results), (30, len(results)))
    counts = np.stack([np.bincount(draw, minlength=len(results)) for draw in draws]).astype(float)
    expected = [results.metrics(draw)[metric] for draw in draws]
    np.testing.assert_allclose(resampled(metric, results, counts), expected, rtol=1e-9)


def test_a_draw_without_a_class_has_no_figure() -> None:
    results = samples(YES)
    one_class = np.nan_to_num(results.truth[:, 0]) > 0.5
    assert np.isnan(resampled("auroc", results, one_class[None].astype(float))).all()


def test_skill_is_told_from_luck() -> None:
    skilled, unskilled = samples(NUMBER, n=200, skill=0.9), samples(NUMBER, n=200, seed=1, skill=-0.5)
    groups = np.arange(200)
    better = compare("mae", skilled, unskilled, groups, seed=0)
    assert better.gain > 0
    assert better.probability > 0.99
    low, high = better.interval
    assert 0 < low < better.gain < high
    worse = compare("mae", unskilled, skilled, groups, seed=0)
    assert worse.gain == pytest.approx(-better.gain)
    assert worse.probability == pytest.approx(1 - better.probability)
    luckier = compare("mae", skilled, samples(NUMBER, n=200, seed=2, skill=0.9), groups, seed=0)
    assert 0.02 < luckier.probability < 0.98


def test_a_model_is_no_better_than_itself() -> None:
    one = samples(YES, n=100)
    same = compare("auroc", one, one, np.arange(100), seed=0)
    assert (same.gain, same.probability, same.interval) == (0, 0.5, (0, 0))


def test_records_of_a_group_are_drawn_together() -> None:
    # Every record eight times: as many independent records as before, and no more certainty.
    one, other = samples(NUMBER, n=30, skill=0.9), samples(NUMBER, n=30, seed=4, skill=0.7)
    repeated = [
        SampleResults(it.targets, np.repeat(it.truth, 8, 0), np.repeat(it.predicted, 8, 0))
        for it in (one, other)
    ]
    alone = compare("mae", one, other, np.arange(30), seed=0)
    grouped = compare("mae", *repeated, np.repeat(np.arange(30), 8), seed=0)
    apart = compare("mae", *repeated, np.arange(240), seed=0)
    assert grouped.drawn == 30
    width = np.ptp(alone.interval)
    assert np.ptp(grouped.interval) == pytest.approx(width, rel=0.1)
    assert np.ptp(apart.interval) < 0.6 * width
    assert compare("mae", *repeated, np.repeat([0, 1], 120), seed=0).drawn == 240


def test_draws_depend_on_the_seed_alone() -> None:
    one, other = samples(NUMBER), samples(NUMBER, seed=3)
    draws = [compare("mae", one, other, np.arange(40), seed=seed).differences for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_many_targets_take_seconds() -> None:
    targets = [YES.model_copy(update={"name": str(number)}) for number in range(12)]
    one, other = samples(*targets, n=800), samples(*targets, n=800, seed=1)
    started = time.process_time()
    assert len(compare("auroc", one, other, np.arange(800), seed=0).differences) == 2000
    assert time.process_time() - started < 10
