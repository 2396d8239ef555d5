"""The table of a map's classes, as numbers and in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from domains.contract import Target
from flows.class_table import class_table, shown
from flows.evaluation import Evaluation
from models.results import BINS, PixelResults, SampleResults

COVER = Target(
    name="mask", kind="multiclass", classes=("water", "land", "ice"), level="pixel", values=(0, 1, 2)
)


def of(sums: Any, groups: list[int]) -> Any:
    sums = np.array(sums)
    split = SimpleNamespace(groups=np.array([*groups, 99]), test=np.arange(len(groups)))
    results = PixelResults(COVER, sums, np.zeros((len(sums), BINS, 3)))
    return class_table(SimpleNamespace(split=split), Evaluation("miou", results, []))  # type: ignore[arg-type]


WET, DRY = [[8, 2, 0], [1, 9, 0], [0, 0, 0]], [[3, 1, 0], [2, 14, 0], [0, 0, 0]]


def test_accuracies_and_shares_of_each_class() -> None:
    table = of([WET, DRY, WET], [0, 1, 2])
    assert table["class"].tolist() == ["water", "land", "ice"]
    water = table.iloc[0]
    assert (water["users_accuracy"], water["producers_accuracy"]) == pytest.approx((19 / 23, 19 / 24))
    assert (water["mapped_share"], water["estimated_share"]) == pytest.approx((23 / 60, 24 / 60))
    assert 0 < water["estimated_share_95"] < 1
    words = shown(table)
    assert words[0]["estimated (95% interval, groups: 3)"].startswith("40.00 ± ")
    assert words[2]["user's accuracy"] == words[2]["IoU"] == "–"


def test_chips_of_one_group_are_one_cluster() -> None:
    apart, together = of([WET, DRY] * 3, [0, 1, 2, 3, 4, 5]), of([WET, DRY] * 3, [0, 1, 0, 1, 0, 1])
    assert together["estimated_share_95"][0] > 2 * apart["estimated_share_95"][0]
    alone = of([WET, DRY], [4, 4])
    assert np.isnan(alone["estimated_share_95"][0])
    assert shown(alone)[0]["estimated (95% interval, groups: 1)"].endswith("± unknown")


def test_other_answers_have_no_such_table() -> None:
    number = Target(name="mask", kind="regression", level="pixel")
    for results in (
        PixelResults(number, np.zeros((1, 5)), np.zeros((1, BINS, 3))),
        SampleResults((number,), np.zeros((1, 1)), np.zeros((1, 1))),
    ):
        assert class_table(SimpleNamespace(), Evaluation("mae", results, [])) is None  # type: ignore[arg-type]
