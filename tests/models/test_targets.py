"""What a column of cells is: a number, a class, or nothing that can be learnt."""

from __future__ import annotations

import pytest

from domains.contract import GroundworkError
from models.targets import infer_target


@pytest.mark.parametrize(
    ("cells", "kind", "expected"),
    [
        (["1.5", "2", "-3e1"], "auto", "regression"),
        (["0", "1", "1"], "auto", "binary"),
        (["0.0", "1.0", ""], "auto", "binary"),
        (["1", "2", "1"], "auto", "regression"),
        (["0", "1", "2"], "auto", "regression"),
        (["yes", "no", "yes"], "auto", "binary"),
        (["gas", "solid", "liquid"], "auto", "multiclass"),
        (["1"] * 5 + ["2"] * 4 + ["<5"], "auto", "regression"),
        (["1"] * 5 + ["2"] * 3 + ["<5", ">9"], "auto", "regression"),
        (["1"] * 5 + ["2"] * 3 + ["low", "high"], "auto", "multiclass"),
        (["<10", ">10", ">10"], "auto", "binary"),
        (["0", "1", ">1"], "auto", "multiclass"),
        (["1", "2", "3"], "classification", "multiclass"),
        (["7", "9"], "classification", "binary"),
        (["0", "1"], "regression", "regression"),
        (["", "nan", "NA", "None", "1.0", "2.0"], "auto", "regression"),
    ],
)
def test_the_rule_of_kinds(cells: list[str], kind, expected: str) -> None:
    target = infer_target("y", cells, kind, "K")
    assert target.kind == expected
    assert target.unit == ("K" if expected == "regression" else "")


@pytest.mark.parametrize(
    ("cells", "kind", "classes"),
    [
        (["1", "0", "1.0"], "auto", ("0", "1")),
        (["yes", "no"], "auto", ("no", "yes")),
        (["10", "9", "1"], "classification", ("1", "9", "10")),
        ([" solid ", "gas", "solid"], "auto", ("gas", "solid")),
        (["0.50", ".5", "2"], "classification", ("0.5", "2")),
    ],
)
def test_classes_in_order(cells: list[str], kind, classes: tuple[str, ...]) -> None:
    assert infer_target("y", cells, kind).classes == classes


@pytest.mark.parametrize(
    ("cells", "kind", "said"),
    [
        (["", "nan", "n/a"], "auto", "'y' has no value in any usable row: choose another column"),
        (["3", "3.0", ""], "auto", r"'y' is constant \(3\)"),
        (["a", "a"], "auto", r"'y' is constant \(a\)"),
        (["1", "1"], "classification", r"'y' is constant \(1\)"),
        (["1", "low", "2"], "regression", "holds text where numbers are needed, such as 'low': clean it"),
        ([f"name {n}" for n in range(101)], "auto", "has 101 distinct values, more than 100 classes"),
        (["inf", "inf", "a"], "regression", "such as 'inf': clean it"),
        ([">1", "<2"], "regression", "'y' has no number: all are bounds"),
    ],
)
def test_columns_that_cannot_be_learnt(cells: list[str], kind, said: str) -> None:
    with pytest.raises(GroundworkError, match=said) as error:
        infer_target("y", cells, kind)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            [f"-{n},5" for n in range(20)],
            "mixes numbers and text, such as '-0,5': write a decimal point, or use",
        ),
        ([f"{n}.5 mg" for n in range(20)], r"such as '0\.5 mg': clean it \(an empty cell is not measured\)"),
        ([f"{n}" for n in range(70)] + ["inactive"] * 10, "such as 'inactive': clean it"),
        ([f"{n}.5" for n in range(15)] + ["n.d."] * 15, "such as 'n.d.': clean it"),
    ],
)
def test_numbers_that_text_was_mixed_into_are_no_classes(cells: list[str], said: str) -> None:
    with pytest.raises(GroundworkError, match=said):
        infer_target("y", cells, "auto")
    assert infer_target("y", cells, "classification").kind == "multiclass"


@pytest.mark.parametrize(
    "cells",
    [
        [*"0123" * 20, "unknown", "unclear", *["other"] * 10],
        [f"{n} mg" for n in (5, 10, 20)] * 9,
        [f"{n}-chloro" for n in range(30)],
        [f"{n}ABC" for n in range(30)],
        [f"plate {n}" for n in range(30)],
    ],
)
def test_codes_and_names_with_numbers_are_classes(cells: list[str]) -> None:
    assert infer_target("y", cells, "auto").kind == "multiclass"


def test_a_hundred_classes_are_still_classes() -> None:
    assert infer_target("y", [f"name {n}" for n in range(100)], "auto").outputs == 100


@pytest.mark.parametrize(
    ("name", "unit", "transform", "learnt", "cells"),
    [
        ("IC50_nM", "", "pIC50", "pIC50", "nM"),
        ("ic50 (uM)", "", "pIC50", "pIC50", "µM"),
        ("IC50 [μM]", "", "pIC50", "pIC50", "µM"),
        ("IC50nM", "", "pIC50", "pIC50", "nM"),
        ("ic50_nmol/L", "", "pIC50", "pIC50", "nM"),
        ("IC50_nM", "nanomolar", "pIC50", "pIC50", "nM"),
        ("IC50", "M", "pIC50", "pIC50", "M"),
        ("IC50_nM", "", "log10", "log10(nM)", "nM"),
        ("clearance", "mL/min", "log10", "log10(mL/min)", "mL/min"),
        ("clearance", "", "log10", "log10", ""),
        ("IC50_nM", "", "none", "", ""),
    ],
)
def test_a_transform_names_its_unit(name: str, unit: str, transform, learnt: str, cells: str) -> None:
    target = infer_target(name, ["1", "2"], "auto", unit, transform)
    assert (target.unit, target.cell_unit, target.transform) == (learnt, cells, transform)


@pytest.mark.parametrize(
    ("name", "cells", "unit", "transform", "said"),
    [
        ("IC50", ["1", "2"], "", "pIC50", "needs its unit of concentration: give --unit nM"),
        ("IC50", ["1", "2"], "K", "pIC50", "'K' is not one: give --unit nM"),
        ("y", ["yes", "no"], "", "log10", "holds classes, which have no log10: use --transform none"),
        ("y", ["-1", "0", "-2.5"], "", "log10", "has no positive number, which log10 needs"),
        ("y", ["-1", "3", "3.0"], "", "log10", r"'y' is constant \(3\)"),
        ("y", ["-1", "-2", "-3", "2", "3"], "", "log10", "most values of target 'y' are 0 or below"),
        ("IC50_nM", ["1", "2"], "uM", "pIC50", "'IC50_nM' says nM, its unit is given as uM"),
        ("IC50_nM", ["1", "2"], "uM", "log10", "'IC50_nM' says nM, its unit is given as uM"),
    ],
)
def test_transforms_that_cannot_be(name: str, cells: list[str], unit: str, transform, said: str) -> None:
    with pytest.raises(GroundworkError, match=said) as error:
        infer_target(name, cells, "auto", unit, transform)
    assert "\n" not in str(error.value)
