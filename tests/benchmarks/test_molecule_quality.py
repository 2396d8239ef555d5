"""The arithmetic of the quality benchmark, and what makes another cell of its ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import molecule_quality, peers
from benchmarks.finetunings import DataSet, figures, open_set, rmse_draws
from benchmarks.label_curve import curve_of, draw_rows, matching_labels
from benchmarks.molecule_quality import OPTIONS, Cells, mean_ranks, spread, summary
from domains.contract import GroundworkError, Target
from flows.home import Home
from flows.settings import settings_class
from models.results import SampleResults

LOGS = Target(name="logs", kind="regression")
TOXIC = Target(name="toxic", kind="binary", classes=("0", "1"))
OTHER = Target(name="other", kind="binary", classes=("0", "1"))


def line(value: float, metric: str = "rmse", **more: Any) -> dict[str, Any]:
    return {"metric": metric, "value": value, "row_error": 0.0, "test_rows": 100, **more}


# -------------------------------------------------------------------------------------------- arithmetic


def entry(metric: str, **means: float) -> dict[str, Any]:
    return {"metric": metric, "models": {model: {"mean": mean} for model, mean in means.items()}}


def test_the_best_has_rank_one_whichever_way_its_metric_goes() -> None:
    sets = {
        "esol": entry("rmse", ours=0.7, forest=0.9, probe=1.1),
        "bbbp": entry("auroc", ours=0.8, forest=0.9, probe=0.6),
    }
    assert mean_ranks(sets) == {"ours": 1.5, "forest": 1.5, "probe": 3.0}


def test_ties_share_their_ranks() -> None:
    assert mean_ranks({"esol": entry("rmse", a=1.0, b=0.5, c=1.0)}) == {"a": 2.5, "b": 1.0, "c": 2.5}


def test_only_models_that_every_set_has_are_ranked() -> None:
    sets = {"esol": entry("rmse", ours=0.7, chemprop=0.5), "bbbp": entry("auroc", ours=0.8)}
    assert mean_ranks(sets) == {"ours": 1.0}


def test_more_seeds_take_away_the_error_of_the_seeds_alone() -> None:
    values = [0.5, 0.6, 0.7]
    found = spread([line(value, row_error=0.03, seconds=10.0) for value in values])
    reach = 1.96 * np.sqrt(0.03**2 + np.var(values, ddof=1) / 3)
    assert found["mean"] == 0.6
    assert found["interval"] == pytest.approx([0.6 - reach, 0.6 + reach], abs=1e-4)
    assert found["seconds"] == 10.0
    assert spread([line(0.9, "auroc", row_error=0.1)])["interval"] == pytest.approx([0.704, 1.0])
    assert spread([line(0.5, row_error=0.1)])["interval"] == pytest.approx([0.304, 0.696], abs=1e-4)


def test_the_summary_says_where_ours_is_ahead() -> None:
    def models(metric: str, **means: float) -> dict[str, list[dict[str, Any]]]:
        return {model: [line(mean, metric), line(mean, metric)] for model, mean in means.items()}

    told = summary({
        "esol": models("rmse", ours=0.7, from_scratch=0.8),
        "bbbp": models("auroc", ours=0.7, from_scratch=0.8),
        "bace": models("auroc", ours=0.9, from_scratch=0.8),
    })  # fmt: skip
    assert told["ahead_of_from_scratch"] == ["esol", "bace"]
    assert "ahead_of_chemprop" not in told
    assert told["sets"]["bbbp"]["metric"] == "auroc"
    assert told["mean_rank"] == {"ours": pytest.approx(1.33), "from_scratch": pytest.approx(1.67)}


def test_a_figure_is_that_of_the_test_rows_and_its_error_that_of_a_mean() -> None:
    random = np.random.default_rng(0)
    error = random.normal(size=400)
    truth = random.normal(size=400)
    found = figures(SampleResults((LOGS,), truth[:, None], (truth + error)[:, None]), "regression")
    assert found["metric"] == "rmse"
    assert found["value"] == pytest.approx(np.sqrt(np.mean(error**2)), abs=1e-5)
    # Of n normal errors the root of the mean square has a standard error of 1 / √(2 n).
    assert found["row_error"] == pytest.approx(1 / np.sqrt(800), rel=0.2)
    assert found["test_rows"] == 400


def test_auroc_is_the_mean_over_targets_that_show_both_classes() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, (200, 3)).astype(float)
    truth[:, 1] = 0
    truth[::3, 2] = np.nan
    predicted = random.random((200, 3))
    measured = np.isfinite(truth[:, 2])
    expected = np.mean([
        roc_auc_score(truth[:, 0], predicted[:, 0]),
        roc_auc_score(truth[measured, 2], predicted[measured, 2]),
    ])  # fmt: skip
    third = Target(name="third", kind="binary", classes=("0", "1"))
    found = figures(SampleResults((TOXIC, OTHER, third), truth, predicted), "binary")
    assert found["value"] == pytest.approx(expected, abs=1e-5)
    assert 0.01 < found["row_error"] < 0.06


def test_a_draw_counts_rows_as_often_as_it_holds_them() -> None:
    truth, predicted = np.array([[0.0], [0.0], [np.nan]]), np.array([[1.0], [3.0], [9.0]])
    results = SampleResults((LOGS,), truth, predicted)
    counts = np.array([[3.0, 0.0, 0.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(rmse_draws(results, counts), [1.0, 3.0, np.sqrt(5)])


# ------------------------------------------------------------------------------------------------ curves


def rows(number: int = 400, positive: float = 0.05) -> pd.DataFrame:
    random = np.random.default_rng(1)
    return pd.DataFrame({
        "smiles": ["C" * (1 + index) for index in range(number)],
        "side": np.where(np.arange(number) < number - 50, "train", "test"),
        "toxic": (random.random(number) < positive).astype(float),
    })  # fmt: skip


@pytest.mark.parametrize("draw", range(5))
def test_a_draw_has_as_many_labels_as_it_says_and_all_test_rows(draw: int) -> None:
    whole = rows()
    drawn = draw_rows(whole, ["toxic"], "binary", 25, draw)
    assert drawn["side"].value_counts().to_dict() == {"train": 20, "val": 5, "test": 50}
    pd.testing.assert_frame_equal(drawn[drawn["side"] == "test"], whole[whole["side"] == "test"])
    for side in ("train", "val"):
        assert drawn.loc[drawn["side"] == side, "toxic"].nunique() == 2
    assert drawn["smiles"].is_unique


def test_a_larger_draw_holds_the_smaller_one_side_by_side() -> None:
    few, more = (draw_rows(rows(), ["toxic"], "binary", size, 0) for size in (25, 100))
    both = few.merge(more, on="smiles", suffixes=("_few", "_more"))
    assert len(both) == len(few)
    assert (both["side_few"] == both["side_more"]).all()


def test_draws_differ_and_can_be_repeated() -> None:
    first, again, other = (draw_rows(rows(), ["toxic"], "regression", 25, draw) for draw in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert set(first["smiles"]) != set(other["smiles"])


def test_a_molecule_with_several_rows_lies_on_one_side() -> None:
    twice = pd.concat([rows(60), rows(60)])
    drawn = draw_rows(twice, ["toxic"], "regression", 9, 0)
    assert drawn.loc[drawn["side"] != "test", "smiles"].is_unique


@pytest.mark.parametrize(
    ("means", "reference", "higher", "expected"),
    [
        ([1.2, 1.0, 0.8], 0.8, False, 400),
        ([1.2, 1.0, 0.8], 0.9, False, 200),  # half-way in the logarithm from 100 to 400
        ([0.6, 0.7, 0.8], 0.75, True, 200),
        ([0.6, 0.7, 0.8], 0.5, True, 25),
        ([0.6, 0.7, 0.8], 0.9, True, None),
        ([1.2, 1.0, 0.8], 0.7, False, None),
    ],
)
def test_where_the_curve_reaches_the_reference(
    means: list[float], reference: float, higher: bool, expected: int | None
) -> None:
    assert matching_labels([25, 100, 400], means, reference, higher) == expected


def test_a_curve_tells_in_how_many_draws_ours_is_ahead() -> None:
    told = curve_of(
        {
            400: {"ours": [line(0.5)], "from_scratch": [line(0.7)]},
            100: {"ours": [line(0.8), line(0.6)], "from_scratch": [line(0.7), line(1.1)]},
        },
        higher_is_better=False,
    )
    assert told["labels"] == [100, 400]
    assert told["ours"] == [0.7, 0.5]
    assert told["from_scratch"] == [0.9, 0.7]
    assert told["draws_ahead"] == [1, 1]
    assert told["labels_that_match_from_scratch_on_all"] == 100


# ------------------------------------------------------------------------------------------------ ledger


class FakeTunings:
    """Answers as a fine-tuning would, and counts how often it is asked."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder).create()
        self.asked: list[dict[str, Any]] = []

    def settings(self, data: DataSet, seed: int, **options: Any) -> Any:
        return settings_class("finetune", "molecules")(dataset=str(data.path), seed=seed, **options)

    def digest(self, settings: Any) -> str:
        return json.dumps(settings.model_dump(mode="json", exclude={"dataset", "seed", "name"}))

    def rows_digest(self, settings: Any) -> str:
        return str(settings.split)

    def run(self, data: DataSet, seed: int, **options: Any) -> Any:
        self.asked.append({"seed": seed, "file": data.path.name, **options})
        truth = np.array([[0.0], [1.0], [2.0]])
        return SimpleNamespace(
            kind="regression", targets=(LOGS,), rows=rows().rename(columns={"toxic": "logs"}),
            split_id="split", seconds=1.0,
            results=lambda floor="": SampleResults((LOGS,), truth, truth + (2.0 if floor else 1.0)),
        )  # fmt: skip

    def rows_of(self, data: DataSet, seed: int) -> Any:
        return self.run(data, seed, cheap=True)


@pytest.fixture
def tunings(tmp_path: Path) -> FakeTunings:
    return FakeTunings(tmp_path / "state")


@pytest.fixture
def cells(tunings: FakeTunings, tmp_path: Path) -> Callable[..., Cells]:
    def make(foundation: str = "f", again: bool = False) -> Cells:
        fake: Any = tunings
        return Cells(fake, tmp_path, foundation, again, tmp_path / "ledger")

    return make


ESOL = DataSet("esol", Path("esol.csv"), ("logs",), "digest")


def test_a_cell_is_computed_once(cells: Callable[..., Cells], tunings: FakeTunings) -> None:
    for _ in range(2):
        for model in (*OPTIONS, "ecfp_forest", "descriptors_forest"):
            assert cells().plain(ESOL, model, 0)["value"] == (2.0 if "forest" in model else 1.0)
    assert [{**OPTIONS["ours"]}, dict(OPTIONS["from_scratch"]), dict(OPTIONS["probe"])] == [
        {key: value for key, value in asked.items() if key not in ("seed", "file")}
        for asked in tunings.asked[:3]
    ]
    assert len(tunings.asked) == 5
    cells(again=True).plain(ESOL, "ours", 0)
    assert len(tunings.asked) == 6


def test_another_foundation_makes_other_cells_of_what_starts_from_it(
    cells: Callable[..., Cells], tunings: FakeTunings
) -> None:
    for foundation in ("f", "g"):
        for model in ("ours", "from_scratch", "probe", "ecfp_forest"):
            cells(foundation).plain(ESOL, model, 0)
    assert len(tunings.asked) == 6  # ours and the probe twice


def test_code_that_changes_meanwhile_is_not_measured_under_its_new_name(
    cells: Callable[..., Cells], monkeypatch
) -> None:
    made = cells()
    made.plain(ESOL, "ours", 0)
    monkeypatch.setattr(molecule_quality, "code_digest", lambda code: "other")
    with pytest.raises(GroundworkError, match="the code has changed since this benchmark was started"):
        made.plain(ESOL, "ours", 1)


def test_seeds_and_data_make_other_cells(cells: Callable[..., Cells], tunings: FakeTunings) -> None:
    cells().plain(ESOL, "ours", 0)
    cells().plain(ESOL, "ours", 1)
    cells().plain(DataSet("esol", ESOL.path, ESOL.targets, "other"), "ours", 0)
    assert len(tunings.asked) == 3


def test_few_labels_are_given_as_a_file_with_sides(cells: Callable[..., Cells], tunings: FakeTunings) -> None:
    first = cells().few(ESOL, "ours", 25, 3)
    assert cells().few(ESOL, "ours", 25, 3) == first
    assert (first["labels"], first["seed"], first["training_labels"]) == (25, 3, 350)
    assert tunings.asked[-1] == {
        "seed": 3, "file": "esol-25-3.csv", "split": "given", "split_column": "side",
    }  # fmt: skip
    written = pd.read_csv(tunings.home.inbox / "esol-25-3.csv")
    assert list(written.columns) == ["smiles", "side", "logs"]
    assert (written["side"] != "test").sum() == 25
    asked = len(tunings.asked)
    cells().few(ESOL, "ours", 50, 3)
    assert len(tunings.asked) == asked + 2  # the rows and the fine-tuning


class Asked:
    """Stands for the processes that cells are shared among."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self.jobs: list[list[tuple[str, str, int]]] = []

    def measure(self, jobs: Any) -> None:
        self.jobs += [[(cell.set, cell.model, cell.seed) for cell in job] for job in jobs]


def test_large_sets_come_first_and_floors_with_a_fine_tuning(
    cells: Callable[..., Cells], tmp_path: Path
) -> None:
    (tmp_path / "esol.csv").write_text("smiles,y\nC,1\n")
    (tmp_path / "tox.csv").write_text("smiles,y\nC,1\nCC,2\n")
    asked: Any = Asked(cells())
    molecule_quality._measure_plain(asked, ["esol", "tox"], ["ours", "probe", "ecfp_forest"], range(2))
    assert asked.jobs == [
        [("tox", "ours", 0), ("tox", "ecfp_forest", 0)], [("tox", "probe", 0)],
        [("tox", "ours", 1), ("tox", "ecfp_forest", 1)], [("tox", "probe", 1)],
        [("esol", "ours", 0), ("esol", "ecfp_forest", 0)], [("esol", "probe", 0)],
        [("esol", "ours", 1), ("esol", "ecfp_forest", 1)], [("esol", "probe", 1)],
    ]  # fmt: skip
    alone: Any = Asked(cells())
    molecule_quality._measure_plain(alone, ["esol"], ["ecfp_forest"], range(1))
    assert alone.jobs == [[("esol", "ecfp_forest", 0)]]


# ------------------------------------------------------------------------------------------------- peers


def peer(cache: Path, script: str) -> None:
    """A program in the place of Chemprop, in an environment that is there already."""
    folder = cache / "environments" / peers.CHEMPROP
    (folder / "bin").mkdir(parents=True)
    (folder / ".installed").touch()
    program = folder / "bin" / "chemprop"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


PEER_ROWS = pd.DataFrame(
    {"smiles": ["C", "CC", "CCC", "CCCC"], "side": ["train", "val", "test", "test"], "y": [1, 2, 3, 4]}
)


def test_a_peer_gets_the_rows_and_its_answers_come_back(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(peers, "CACHE", tmp_path)
    asked = tmp_path / "asked"
    peer(
        tmp_path,
        f"echo $@ > {asked}; cat rows.csv >> {asked}; mkdir -p trained/model_0\n"
        "printf 'smiles,y\\nCCC,0.5\\nCCCC,0.25\\n' > trained/model_0/test_predictions.csv",
    )
    answered = peers.chemprop_predictions(PEER_ROWS, ["y"], "regression", 7)
    assert answered["y"].tolist() == [0.5, 0.25]
    words, *lines = asked.read_text().splitlines()
    assert "--task-type regression" in words
    assert "--pytorch-seed 7" in words
    assert "--splits-column side" in words
    assert lines == ["smiles,side,y", "C,train,1", "CC,val,2", "CCC,test,3", "CCCC,test,4"]


def test_a_peer_that_fails_or_answers_other_rows_is_an_error(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(peers, "CACHE", tmp_path / "failing")
    peer(tmp_path / "failing", "echo starting; echo no such column >&2; exit 2")
    with pytest.raises(GroundworkError, match="chemprop failed: no such column"):
        peers.chemprop_predictions(PEER_ROWS, ["y"], "regression", 0)
    monkeypatch.setattr(peers, "CACHE", tmp_path / "other")
    peer(
        tmp_path / "other",
        "mkdir -p trained/model_0; printf 'smiles,y\\nCCC,0.5\\n' > trained/model_0/test_predictions.csv",
    )
    with pytest.raises(GroundworkError, match="answers other rows"):
        peers.chemprop_predictions(PEER_ROWS, ["y"], "regression", 0)


def test_a_set_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "bace.csv").write_text("mol,Class,weight\nCCO,1,2\nCC,0,1\n")
    assert open_set("bace", tmp_path).targets == ("Class", "weight")
    assert open_set("bace", tmp_path, ("Class",)).targets == ("Class",)
    with pytest.raises(
        GroundworkError, match=r"there is no esol.csv in .*: name the folder of the sets with"
    ):
        open_set("esol", tmp_path)
