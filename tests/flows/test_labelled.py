"""Labelled rows of assays as they come: bounds, replicates, logarithms, and columns that split them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domains.contract import GroundworkError, load_domain
from domains.splits import CannotExtend
from domains.store import build
from flows.asked import choose_targets, chosen_split
from flows.labelled import LabelledData, describe_task, label
from flows.settings import TaskSettings, settings_class

MOLECULES = load_domain("molecules")
SIDES = ["train"] * 40 + ["val"] * 10 + ["test"] * 10


@dataclass(frozen=True)
class Assay:
    """A table of molecules and what a fine-tuning makes of it."""

    folder: Path
    smiles: list[str]

    def learn(
        self, columns: Mapping[str, Sequence[str]], known: Mapping[str, str] | None = None, **values: Any
    ) -> LabelledData:
        """Columns of cells, as many as molecules or fewer, the molecules among them unless given."""
        columns = {"smiles": self.smiles, **columns}
        rows = zip(*columns.values(), strict=False)
        path = self.folder / "assay.csv"
        path.write_text("\n".join([",".join(columns), *map(",".join, rows)]) + "\n", encoding="utf-8")
        made = settings_class("finetune", "molecules")(**{"split": "random", **values})
        settings, spec = made.part(TaskSettings), MOLECULES.encoding()
        source = MOLECULES.open(path, spec)
        names = choose_targets(source, settings)
        split = chosen_split(MOLECULES, source, settings, made.model_dump()["split"], 0)
        store = build("molecules", source, spec, self.folder / "stores", keep=names)
        task = describe_task(MOLECULES, source, store, settings, names, split)
        return label(MOLECULES, source, store, spec, task, known)


@pytest.fixture
def assay(tmp_path: Path, molecules: list[str]) -> Assay:
    return Assay(tmp_path, molecules[:60])


def numbers(size: int = 60) -> list[str]:
    return [f"{1 + place % 17}" for place in range(size)]


def test_plain_numbers_need_no_remark(assay: Assay) -> None:
    data = assay.learn({"y": numbers()})
    assert data.remark == ""
    assert not data.signs.any()
    assert (len(data.store), data.signs.shape, data.rejects) == (60, (60, 1), [])


def test_labels_that_cannot_be_read_are_counted(assay: Assay) -> None:
    cells = ["1.5 mg", "", "inf", "n/a", *numbers()[4:]]
    data = assay.learn({"y": cells})
    assert data.remark == (
        "2 rows without a label, left out; 2 labels that cannot be read, such as '1.5 mg', left out"
    )
    assert [reject.row for reject in data.rejects] == [0, 1, 2, 3]


def test_bounds_are_learnt_and_not_tested_on(assay: Assay) -> None:
    cells = [f">{cell}" if place % 3 == 0 else cell for place, cell in enumerate(numbers())]
    cells[1] = "~3"
    data = assay.learn({"y": cells})
    assert data.task.targets[0].kind == "regression"
    bounded = np.array([cell.startswith(">") for cell in cells])
    learnt = np.concatenate([data.split.train, data.split.val])
    assert (data.signs[learnt, 0] == bounded[learnt]).all()
    assert np.isfinite(data.labels[learnt]).all()
    assert (np.isnan(data.labels[data.split.test, 0]) == bounded[data.split.test]).all()
    assert not data.signs[data.split.test].any()
    assert data.remark == (
        "20 bounds (20 lower, 0 upper), learnt as such and not tested on; "
        "1 approximate values, learnt as they are"
    )


def test_a_pic50_from_the_name_of_the_column(assay: Assay) -> None:
    cells = [f"{10 ** (place % 5)}" for place in range(60)]
    cells[:3] = ["0", "-4", ">10000"]
    data = assay.learn({"IC50_nM": cells}, transform="pIC50")
    target = data.task.targets[0]
    assert (target.unit, target.cell_unit) == ("pIC50", "nM")
    assert [(reject.row, reject.reason, reject.original) for reject in data.rejects] == [
        (0, "label is not positive, as pIC50 needs", "0"),
        (1, "label is not positive, as pIC50 needs", "-4"),
    ]
    place = data.store.rows.tolist().index(2)
    if place not in data.split.test:
        assert (data.labels[place, 0], data.signs[place, 0]) == (5, -1)
    exact = data.labels[1:][np.isfinite(data.labels[1:])]
    assert set(np.round(exact, 6).tolist()) == {5, 6, 7, 8, 9}
    assert "2 values without a logarithm, as pIC50 needs, left out" in data.remark


def test_replicates_become_one_and_contradictions_are_rejects(assay: Assay) -> None:
    smiles = [*assay.smiles[:50], *assay.smiles[:4]]
    cells = [*numbers(50), "1", "3", "90", ""]
    data = assay.learn({"smiles": smiles, "y": cells})
    assert len(data.store) == len(set(data.identities)) == 49
    by_row = dict(zip(data.store.rows.tolist(), data.labels[:, 0].tolist(), strict=True))
    assert (by_row[0], by_row[1], by_row[3]) == (1, 2.5, 4)
    assert 2 not in by_row
    told = [(reject.row, reject.reason, reject.original) for reject in data.rejects]
    reason = "replicates of y disagree (3, 90): left out"
    assert told == [(53, "no label", ""), (2, reason, "3"), (52, reason, "90")]
    assert data.remark == (
        "1 rows without a label, left out; 2 rows joined with others of the same molecule (median); "
        "2 labels left out because replicates disagree"
    )
    kept = assay.learn({"smiles": smiles, "y": cells}, replicates="keep")
    assert len(kept.store) == 53
    side_of = {}
    for identity, side in zip(kept.identities, kept.split.sides, strict=True):
        assert side_of.setdefault(identity, side) == side


def test_classes_without_a_majority_are_left_out(assay: Assay) -> None:
    smiles = [*assay.smiles[:40], *assay.smiles[:2], *assay.smiles[:1]]
    data = assay.learn({"smiles": smiles, "y": [str(n % 2) for n in range(40)] + ["1", "0", "1"]})
    labels = dict(zip(data.store.rows.tolist(), data.labels[:, 0].tolist(), strict=True))
    assert labels[0] == 1  # 0, 1, 1
    assert 1 not in labels  # 1, 0
    assert {reject.row for reject in data.rejects} == {1, 41}


# ------------------------------------------------------------------------------------------ a split column


def test_a_given_column_decides(assay: Assay) -> None:
    sides = ["Train"] * 40 + ["valid"] * 9 + ["TEST"] * 10 + ["later"]
    data = assay.learn({"y": numbers(), "split": sides}, split="given", split_column="split")
    assert data.task.targets[0].name == "y"  # the only other column
    assert data.task.split.column == "split"
    assert data.store.rows[data.split.test].tolist() == list(range(49, 59))
    assert data.store.rows[data.split.val].tolist() == list(range(40, 49))
    [reject] = data.rejects
    assert (reject.row, reject.original) == (59, "later")
    assert reject.reason == "split column 'split' is 'later', not train, val (or valid) or test"


def test_a_time_column_holds_out_the_latest(assay: Assay) -> None:
    days = [f"20{10 + place % 10}-03-01" for place in range(60)]
    values = {"split": "time", "split_column": "measured", "target": ["y"]}
    data = assay.learn({"y": numbers(), "measured": days}, **values)
    year = data.store.rows % 10
    assert set(year[data.split.test].tolist()) == {9}
    assert set(year[data.split.val].tolist()) == {8}
    known = dict(zip(data.identities, data.split.sides.tolist(), strict=True))
    assert assay.learn({"y": numbers(), "measured": days}, known, **values).split.id == data.split.id
    with pytest.raises(CannotExtend, match="was in train and would be in"):
        assay.learn({"y": numbers(), "measured": days[::-1]}, known, **values)


@pytest.mark.parametrize("method", ["scaffold-balanced", "cluster"])
def test_groups_are_dealt_by_the_seed_and_carried_over(assay: Assay, method: str) -> None:
    data = assay.learn({"y": numbers()}, split=method)
    known = dict(zip(data.identities, data.split.sides.tolist(), strict=True))
    assert assay.learn({"y": numbers()}, known, split=method).split.id == data.split.id
    groups_of_side = [set(data.split.groups[getattr(data.split, side)]) for side in ("train", "val", "test")]
    assert sum(map(len, groups_of_side)) == len(set.union(*groups_of_side))


@pytest.mark.parametrize(
    ("columns", "values", "said"),
    [
        (
            {},
            {"split": "given"},
            "--split given needs --split-column, the column that holds train, val or test",
        ),
        ({}, {"split": "time"}, "--split time needs --split-column, the column that holds the time"),
        ({}, {"split_column": "s"}, "column 's' decides nothing in a random split: add --split time or"),
        ({}, {"split": "time", "split_column": "s"}, "has no column 's' to split by; columns: smiles, y"),
        (
            {"s": ["a"] * 60},
            {"split": "given", "split_column": "s"},
            "holds 'a' and the like where --split given",
        ),
        ({"s": ["train"] * 60}, {"split": "given", "split_column": "s"}, "puts no usable row into val"),
        ({"s": ["2020"] * 60}, {"split": "time", "split_column": "s"}, "holds 1 distinct times"),
        (
            {"y": [">3"] * 40 + ["1", "2"] * 10, "s": SIDES},
            {"split": "given", "split_column": "s"},
            "'y' has only bounds as labels among the training rows",
        ),
        (
            {"y": ["1", "2"] * 25 + [">3"] * 10, "s": SIDES},
            {"split": "given", "split_column": "s"},
            "the test rows have only bounds as labels",
        ),
        ({"y": ["yes", "no"] * 30}, {"transform": "log10"}, "holds classes, which have no log10"),
        ({}, {"transform": "pIC50"}, "pIC50 of 'y' needs its unit of concentration"),
    ],
)
def test_what_cannot_be_split_or_learnt_is_one_line(
    assay: Assay, columns: dict[str, list[str]], values: dict[str, Any], said: str
) -> None:
    with pytest.raises(GroundworkError, match=said) as error:
        assay.learn({"y": numbers(), **columns}, **values)
    assert "\n" not in str(error.value)


def test_a_molecule_on_two_given_sides_is_named(assay: Assay) -> None:
    smiles = [*assay.smiles[:50], assay.smiles[0]]
    sides = ["train"] * 30 + ["val"] * 10 + ["test"] * 11
    with pytest.raises(GroundworkError, match=r"puts .* into train and test: give all rows of one thing one"):
        assay.learn({"smiles": smiles, "y": numbers(51), "split": sides}, split="given", split_column="split")
