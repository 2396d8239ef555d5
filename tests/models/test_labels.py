"""What cells of assays say, and one label of replicates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.contract import Target
from models.cells import fault_of, is_missing, measurement_of
from models.labels import Labels, join_replicates, read_labels
from models.targets import infer_target

LOGP = Target(name="logp", kind="regression", unit="log units")
TOXIC = Target(name="toxic", kind="binary", classes=("no", "yes"))
PHASE = Target(name="phase", kind="multiclass", classes=("gas", "liquid", "solid"))
PIC50 = Target(name="IC50", kind="regression", unit="pIC50", transform="pIC50", cell_unit="nM")
LOG10 = Target(name="dose", kind="regression", unit="log10", transform="log10")
NAN = np.nan


@pytest.mark.parametrize("cell", ["", "  ", "NaN", "na", "N/A", "NULL", "none"])
def test_ways_to_write_nothing(cell: str) -> None:
    assert is_missing(cell)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("3", (3.0, 0)),
        ("-3e1", (-30.0, 0)),
        ("=3", (3.0, 0)),
        (" ~3 ", (3.0, 0)),
        ("≈ 3", (3.0, 0)),
        (">10", (10.0, 1)),
        ("> 10.5", (10.5, 1)),
        (">=10", (10.0, 1)),
        ("≥10", (10.0, 1)),
        (">>10", (10.0, 1)),
        ("<0.5", (0.5, -1)),
        ("<= -2", (-2.0, -1)),
        ("≤1e-3", (1e-3, -1)),
        (">", None),
        ("> high", None),
        ("<inf", None),
        ("><3", None),
        ("1-10", None),
    ],
)
def test_numbers_and_bounds(cell: str, expected: tuple[float, int] | None) -> None:
    assert measurement_of(cell) == expected


def test_labels_of_cells() -> None:
    columns = [["1.5", "", "low", ">3"], ["yes", "no", "maybe", ""], ["solid", "gas", " liquid", "NA"]]
    labels = read_labels([LOGP, TOXIC, PHASE], columns)
    expected = [[1.5, 1, 2], [NAN, 0, 0], [NAN, NAN, 1], [3, NAN, NAN]]
    np.testing.assert_array_equal(labels.values, expected)
    assert labels.signs.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert labels.signs.dtype == np.int8
    assert labels.measured.tolist() == [True, True, True, True]


def test_numbers_name_the_same_class_however_they_are_written() -> None:
    target = infer_target("y", ["0", "1.0", "1"], "auto")
    assert read_labels([target], [["0.0", "1", "1.", "2"]]).values[:3, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("unit", "cell", "value", "sign"),
    [
        ("nM", "1000", 6, 0),
        ("µM", "1", 6, 0),
        ("M", "1e-6", 6, 0),
        ("mM", "0.001", 6, 0),
        ("pM", "1e6", 6, 0),
        ("µM", ">10", 5, -1),
        ("nM", "<1", 9, 1),
    ],
)
def test_a_pic50_and_its_bounds(unit: str, cell: str, value: float, sign: int) -> None:
    labels = read_labels([PIC50.model_copy(update={"cell_unit": unit})], [[cell]])
    assert labels.values[0, 0] == pytest.approx(value)
    assert labels.signs[0, 0] == sign


def test_what_has_no_logarithm_has_no_label() -> None:
    cells = ["100", "0", "-5", "<0", ">0.01"]
    labels = read_labels([LOG10], [cells])
    np.testing.assert_allclose(labels.values[:, 0], [2, NAN, NAN, NAN, -2])
    assert labels.signs[:, 0].tolist() == [0, 0, 0, 0, 1]
    assert [fault_of(LOG10, cell) for cell in cells] == [
        "",
        *["label is not positive, as log10 needs"] * 3,
        "",
    ]
    assert fault_of(LOG10, "high") == "label is not a number"
    assert fault_of(LOGP, "-5") == ""
    assert fault_of(TOXIC, "maybe") == "label is not one of the classes"


# ------------------------------------------------------------------------------------------ replicates


def column(values: list[float], signs: list[int] | None = None) -> Labels:
    """Labels of one target; a spread of other numbers below gives the column its deviation."""
    return Labels(np.array(values, float)[:, None], np.array(signs or [0] * len(values), np.int8)[:, None])


# Two far molecules by themselves: the standard deviation of every column below is above 4.
FAR = [-9.0, 9.0]
FAR_NAMES = ["p", "q"]


def joined_one(
    values: list[float], signs: list[int] | None = None, rule="median"
) -> tuple[float, int] | None:
    """What becomes of rows of one molecule; None where they are left out as a conflict."""
    labels = column(values + FAR, (signs or [0] * len(values)) + [0, 0])
    found = join_replicates(labels, [LOGP], ["m"] * len(values) + FAR_NAMES, rule)
    if found.conflicts:
        assert [row for row, _ in found.conflicts] == list(range(len(values)))
        assert found.rows.tolist() == [len(values), len(values) + 1]
        return None
    assert found.merged == len(values) - 1
    return found.labels.values[0, 0], found.labels.signs[0, 0]


@pytest.mark.parametrize(
    ("values", "signs", "rule", "expected"),
    [
        ([1, 2, 2.4], None, "median", (2, 0)),
        ([1, 2, 2.4], None, "mean", (1.8, 0)),
        ([1, 8], None, "median", None),
        ([1, 8], None, "first", (1, 0)),
        ([2, 1.5], [0, 1], "median", (2, 0)),
        ([2, 3], [0, 1], "median", (2, 0)),
        ([2, 8], [0, 1], "median", None),
        ([2, -8], [0, 1], "median", (2, 0)),
        ([2, -8], [0, -1], "median", None),
        ([2, 3, 5], [1, 1, 1], "median", (5, 1)),
        ([2, 3, 5], [-1, -1, -1], "median", (2, -1)),
        ([2, 3], [1, -1], "median", None),
        ([2, 3], [1, 0], "first", (2, 1)),
    ],
)
def test_replicates_of_numbers(values, signs, rule, expected: tuple[float, int] | None) -> None:
    found = joined_one(values, signs, rule)
    assert found == (None if expected is None else (pytest.approx(expected[0]), expected[1]))


def test_keep_leaves_every_row() -> None:
    labels = column([1, 8, 3])
    found = join_replicates(labels, [LOGP], ["m", "m", "n"], "keep")
    assert found.rows.tolist() == [0, 1, 2]
    assert (found.merged, found.conflicts) == (0, [])


@pytest.mark.parametrize(
    ("codes", "expected"), [([1, 1, 0], 1), ([0, 1], None), ([2, 2, 0, 1], None), ([2, NAN], 2)]
)
def test_replicates_of_classes_need_more_than_half(codes: list[float], expected: float | None) -> None:
    found = join_replicates(column([*codes, 0]), [PHASE], ["m"] * len(codes) + ["n"], "median")
    if expected is None:
        assert found.rows.tolist() == [len(codes)]
        assert found.conflicts[0][1].startswith("replicates of phase disagree (")
    else:
        assert found.labels.values[:, 0].tolist() == [expected, 0]


def test_a_conflict_on_one_target_leaves_the_label_of_another() -> None:
    values = np.array([[1.0, 1], [8.0, 1], [-9, 0], [9, 1]])
    found = join_replicates(
        Labels(values, np.zeros((4, 2), np.int8)), [LOGP, TOXIC], ["m", "m", *FAR_NAMES], "median"
    )
    np.testing.assert_array_equal(found.labels.values[0], [NAN, 1])
    assert found.rows.tolist() == [0, 2, 3]
    reason = "replicates of logp disagree (1, 8 log units): left out"
    assert found.conflicts == [(0, reason), (1, reason)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.floats(-5, 5), st.sampled_from([-1, 0, 0, 0, 1])),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from(["median", "mean", "first"]),
    st.randoms(use_true_random=False),
)
def test_each_identity_keeps_one_row_or_is_a_conflict(rows, rule, random) -> None:
    names = [str(name) for name, _, _ in rows]
    found = join_replicates(column([v for _, v, _ in rows], [s for _, _, s in rows]), [LOGP], names, rule)
    kept = [names[row] for row in found.rows]
    conflicting = {names[row] for row, _ in found.conflicts}
    assert len(set(kept)) == len(kept)
    assert set(kept) | conflicting == set(names)
    assert not set(kept) & conflicting
    assert found.rows.tolist() == sorted(found.rows.tolist())
    assert len(kept) + found.merged + len(found.conflicts) == len(names)
    for name, value in zip(kept, found.labels.values[:, 0], strict=True):
        own = [v for n, v, _ in rows if str(n) == name]
        assert min(own) - 1e-9 <= value <= max(own) + 1e-9
    if rule != "first":  # the order of rows says nothing
        shuffled = random.sample(rows, len(rows))
        again = join_replicates(
            column([v for _, v, _ in shuffled], [s for _, _, s in shuffled]),
            [LOGP],
            [str(name) for name, _, _ in shuffled],
            rule,
        )
        by_name = dict(
            zip([str(shuffled[row][0]) for row in again.rows], again.labels.values[:, 0], strict=True)
        )
        assert by_name == {
            name: pytest.approx(value) for name, value in zip(kept, found.labels.values[:, 0], strict=True)
        }
