"""What a label raster is, and what a model learns from its values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.contract import ClassSpec, GroundworkError
from models.targets import pixel_labels, pixel_target

DECLARED = (ClassSpec(1, "burnt", "#d7191c"), ClassSpec(0, "unburnt", "#1a9641"))


def test_whole_numbers_are_classes() -> None:
    target = pixel_target("mask", np.array([3.0, 1, np.nan, 1, 7]), "auto")
    assert (target.kind, target.classes, target.values) == ("multiclass", ("1", "3", "7"), (1, 3, 7))
    assert (target.level, target.colours) == ("pixel", ())
    assert pixel_target("mask", np.array([0.0, 1]), "segmentation").kind == "binary"


def test_declared_classes_keep_their_order_names_and_colours() -> None:
    target = pixel_target("mask", np.array([0.0, 1]), "auto", DECLARED)
    assert (target.classes, target.values) == (("burnt", "unburnt"), (1, 0))
    assert target.colours == ("#d7191c", "#1a9641")
    assert pixel_labels(target, np.array([1, 0, np.nan, 9], np.float32)).tolist()[:2] == [0, 1]


def test_other_numbers_are_a_quantity() -> None:
    assert pixel_target("height", np.array([0.5, 2.25]), "auto", unit="m").kind == "regression"
    assert pixel_target("height", np.arange(101.0), "auto").kind == "regression"
    assert pixel_target("height", np.array([1.0, 2]), "regression").unit == ""


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ([1.0, 1], "auto", "only the value 1"),
        ([np.nan], "auto", "no value"),
        ([0.5, 0.7], "segmentation", "are no classes"),
        (list(range(101)), "segmentation", "101 distinct values"),
        ([0, 1], "classification", "--task segmentation"),
    ],
)
def test_what_cannot_be_learnt_is_said(values: list[float], kind: str, said: str) -> None:
    with pytest.raises(GroundworkError, match=said):
        pixel_target("mask", np.array(values, float), kind)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 255), min_size=2, max_size=20, unique=True), st.integers(0, 255))
def test_every_class_has_its_code_and_other_values_none(values: list[int], other: int) -> None:
    target = pixel_target("mask", np.array(values, float), "segmentation")
    codes = pixel_labels(target, np.array([*target.values, other, np.nan], np.float32))
    assert codes[: len(values)].tolist() == list(range(len(values)))
    expected = target.values.index(other) if other in target.values else None
    assert (np.isnan(codes[-2]) and expected is None) or codes[-2] == expected
    assert np.isnan(codes[-1])
    assert codes.dtype == np.float32
