"""What is asked of a dataset is held against it before any row is encoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scene_files import write_scene

from domains.contract import GroundworkError, Source, load_domain
from domains.store import build
from flows.asked import check_targets, choose_targets, chosen_split
from flows.labelled import describe_task, label
from flows.settings import TaskSettings

GEOSPATIAL, MOLECULES = load_domain("geospatial"), load_domain("molecules")
SPEC = GEOSPATIAL.encoding(chip=16, patch=8)


def scenes(folder: Path, *names: str) -> Path:
    """Scenes of one chip under these names, each by itself on the ground."""
    for index, name in enumerate(names):
        pixels = np.random.default_rng(index).integers(100, 4000, (3, 16, 16)).astype(np.uint16)
        write_scene(folder / f"{name}.tif", pixels, ("B2", "B3", "B8A"), index)
    return folder


def check(source: Source, **asked: Any) -> None:
    settings = TaskSettings(**asked)
    domain = GEOSPATIAL if source.input_column == "image" else MOLECULES
    check_targets(domain, source, settings, choose_targets(source, settings))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"task": "multilabel"}, "'kinds' holds 14 distinct values, where each of several labels is there"),
        ({"task": "regression"}, "'kinds' holds text where numbers are needed, such as"),
        ({"target": ["empty"]}, "'empty' has no value in any usable row"),
    ],
)
def test_a_column_that_is_no_target_is_told_with_those_that_there_are(
    tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    folder = scenes(tmp_path / "set", *(f"{index}" for index in range(14)))
    lines = ["path,kinds,empty", *(f"{index},a|{index}," for index in range(14))]
    (folder / "labels.csv").write_text("\n".join(lines))
    source = GEOSPATIAL.open(folder, SPEC)
    with pytest.raises(GroundworkError, match=said) as error:
        check(source, **{"target": ["kinds"], **asked})
    assert str(error.value).endswith("; columns of set: row, column, kinds, empty")


def test_what_rows_that_cannot_be_used_say_is_no_fault(tmp_path: Path, molecules: list[str]) -> None:
    rows = [*(f"{smiles},{place}" for place, smiles in enumerate(molecules[:60])), *["xx,failed"] * 20]
    (tmp_path / "assay.csv").write_text("\n".join(["smiles,y", *rows]))
    check(MOLECULES.open(tmp_path / "assay.csv", MOLECULES.encoding()), task="regression")
    (tmp_path / "assay.csv").write_text("\n".join(["smiles,y", "xx,failed", "yy,failed"]))
    check(
        MOLECULES.open(tmp_path / "assay.csv", MOLECULES.encoding())
    )  # that no row can be used is told later


def test_rows_that_a_split_by_time_leaves_out_are_told_with_what_to_do(tmp_path: Path) -> None:
    dated = [f"{kind}/{index}_2020-{index:02}-01" for kind in "ab" for index in range(1, 13)]
    source = GEOSPATIAL.open(scenes(tmp_path / "set", *dated, "a/undated", "b/undated"), SPEC)
    settings = TaskSettings()
    split = chosen_split(GEOSPATIAL, source, settings, "time", 0)
    store = build("geospatial", source, SPEC, tmp_path / "stores", keep=("class",))
    task = describe_task(GEOSPATIAL, source, store, settings, ("class",), split)
    data = label(GEOSPATIAL, source, store, source.encoding, task)
    assert len(data.rejects) == 2
    assert data.remark == (
        "2 rows left out of a time split, which goes by a date in the name of a scene, in its tags or its "
        "STAC item, or a column time in labels.csv: they have nothing of it; add it, or use another --split"
    )


@pytest.mark.parametrize(
    ("names", "method", "said"),
    [
        (
            ("train/a/1", "train/b/2", "test/a/3", "test/b/4"),
            "given",
            "set marks rows for train, test and puts no usable row into val: --split given goes by folders "
            "train, val and test around all files, or a column split in labels.csv; mark some, or leave out "
            r"--split \(blocks then\)",
        ),
        (("a/1", "b/2"), "given", "goes by folders train, val and test .* set has nothing of it: add it, or"),
        (("a/1", "b/2"), "time", "--split time goes by a date in the name of a scene"),
    ],
)
def test_a_split_that_a_dataset_does_not_have_is_told_with_what_would_make_it(
    tmp_path: Path, names: tuple[str, ...], method: str, said: str
) -> None:
    source = GEOSPATIAL.open(scenes(tmp_path / "set", *names), SPEC)
    with pytest.raises(GroundworkError, match=said):
        chosen_split(GEOSPATIAL, source, TaskSettings(), method, 0)
