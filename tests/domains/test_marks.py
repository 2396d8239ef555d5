"""What a split column says: dates, numbers, sides."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.contract import GroundworkError, SplitSpec
from domains.marks import mark_identities, read_marks, why_unmarked

GIVEN = SplitSpec(method="given", seed=0, column="set")
TIME = SplitSpec(method="time", seed=0, column="measured")


def test_sides_in_any_case() -> None:
    cells = ["train", "VAL", " Valid ", "validation", "Test", "TRAIN", "", "holdout"]
    np.testing.assert_array_equal(read_marks(cells, GIVEN), [0, 1, 1, 1, 2, 0, np.nan, np.nan])
    assert why_unmarked("holdout", GIVEN) == (
        "split column 'set' is 'holdout', not train, val (or valid) or test"
    )


def test_numbers_are_times_as_they_are() -> None:
    np.testing.assert_array_equal(read_marks(["2015", "-3", "1e3", "", "inf"], TIME)[:3], [2015, -3, 1000])
    assert np.isnan(read_marks(["2015", "", "inf"], TIME)[1:]).all()


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2019-12-31", "2020-01-01"),
        ("2019/12/31", "2020-01-01"),
        ("2019", "2019-01-02"),
        ("2019-05", "2019-05-02"),
        ("2019-05-02 09:00", "2019-05-02T10:00:00"),
        ("2019-05-02T12:00:00+02:00", "2019-05-02T10:30:00Z"),
    ],
)
def test_dates_in_order(earlier: str, later: str) -> None:
    marks = read_marks([later, earlier, "2018-01-01"], TIME)
    assert marks[2] < marks[1] < marks[0]


@given(st.lists(st.dates(), min_size=1, max_size=20))
def test_dates_order_as_they_do(days: list[date]) -> None:
    marks = read_marks([day.isoformat() for day in days], TIME)
    assert np.argsort(marks, kind="stable").tolist() == sorted(
        range(len(days)), key=lambda place: days[place]
    )


@pytest.mark.parametrize("cell", ["01/02/2020", "31.12.2019", "yesterday", "2020-13-01", "20"])
def test_what_is_no_date_beside_dates(cell: str) -> None:
    assert np.isnan(read_marks(["2020-01-01", cell], TIME)).tolist() == [False, True]
    assert "a date (2024-01-31) or a number" in why_unmarked(cell, TIME)


@pytest.mark.parametrize(("spec", "expected"), [(GIVEN, "train, val"), (TIME, "a date")])
def test_a_column_that_says_nothing_is_refused(spec: SplitSpec, expected: str) -> None:
    with pytest.raises(GroundworkError, match=f"holds 'a' and the like where --split .*{expected}") as error:
        read_marks(["a", "b"], spec)
    assert "--split-column" in str(error.value)


def test_an_identity_is_as_old_as_its_first_row() -> None:
    marks = mark_identities(np.array([5.0, 3, 4, 9]), ["m", "n", "m", "o"], TIME)
    assert marks.tolist() == [4, 3, 4, 9]


def test_an_identity_on_two_given_sides_is_named() -> None:
    with pytest.raises(GroundworkError, match=r"column 'set' puts CCO into train and test \(2 such\)"):
        mark_identities(np.array([0.0, 2, 1, 2, 2]), ["CCO", "CCO", "N", "N", "O"], GIVEN)
    assert mark_identities(np.array([0.0, 0, 1]), ["CCO", "CCO", "N"], GIVEN).tolist() == [0, 0, 1]
