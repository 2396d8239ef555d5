"""Retraining in one process: what is left alone, what is carried over, what is promoted and what refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from domains.contract import GroundworkError, load_domain
from flows import heldout, recipes
from flows.dispatch import run
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.recipes import Fingerprint
from flows.retrain import Outcome, retrain
from flows.settings import settings_class
from models import registry
from models.registry import Version

pytestmark = pytest.mark.slow

MOLECULES = load_domain("molecules")
LEARNING = {"epochs": 8, "batch_size": 16, "learning_rate": 3e-3, "split": "random", "size": "tiny"}


class FormJournal(ConsoleJournal):
    """A journal of a run that a schedule started: paths are confined, words can be read back."""

    trusted = False

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.tables: dict[str, list[dict[str, Any]]] = {}

    def say(self, message: str) -> None:
        self.said.append(message)

    def table(self, key: str, title: str, rows: Any) -> None:
        self.tables[key] = [dict(row) for row in rows]


def upload(home: Home, rows: list[tuple[str, str]]) -> None:
    """What an upload of the name ``logp`` leaves behind."""
    home.create()
    text = "".join(f"{smiles},{cell}\n" for smiles, cell in rows)
    (home.datasets / "logp.csv").write_text(f"smiles,logp\n{text}")


def again(home: Home, **values: Any) -> tuple[Outcome, FormJournal]:
    journal = FormJournal()
    [outcome] = retrain(MOLECULES, settings_class("retrain", "molecules")(**values), home, journal)
    return outcome, journal


@pytest.fixture(scope="module")
def rows(properties: Any) -> list[tuple[str, str]]:
    return list(zip(properties["smiles"], properties["logp"], strict=True))


@pytest.fixture(scope="module")
def first(module_home: Home, rows: list[tuple[str, str]]) -> Version:
    """Learnt from a form's upload of half the rows, poorly."""
    upload(module_home, rows[:70])
    made = settings_class("finetune", "molecules")(dataset="logp", name="logp", **LEARNING)
    return run("finetune", MOLECULES, made, module_home, FormJournal())


@pytest.fixture(scope="module")
def unchanged(module_home: Home, first: Version) -> tuple[Outcome, FormJournal]:
    again(module_home)
    return again(module_home, model=["logp"])


@pytest.fixture(scope="module")
def better(module_home: Home, unchanged: Any, rows: list[tuple[str, str]]) -> tuple[Outcome, FormJournal]:
    upload(module_home, rows)
    return again(module_home)


@pytest.fixture(scope="module")
def worse(module_home: Home, better: Any, rows: list[tuple[str, str]]) -> tuple[Outcome, FormJournal]:
    smiles, cells = zip(*rows, strict=True)
    shuffled = np.random.default_rng(0).permutation(cells)
    upload(module_home, list(zip(smiles, shuffled, strict=True)))
    return again(module_home)


def kept(version: Version) -> dict[str, str]:
    held = heldout.held_out_for(version)
    assert held is not None
    return held.sides


def test_a_version_keeps_what_it_was_made_from(first: Version, rows: list[tuple[str, str]]) -> None:
    recipe = recipes.recipe_of(first)
    assert recipe.dataset == "logp"
    assert recipe.settings.items() <= LEARNING.items()  # only what differs from the presets
    assert recipe.settings["epochs"] == 8
    assert list(kept(first).values()).count("test") == 7
    made_from = Fingerprint.kept_by(first)
    assert made_from is not None
    assert made_from.data == first.tags["dataset_digest"]


def test_nothing_runs_when_nothing_has_changed(
    unchanged: tuple[Outcome, FormJournal], first: Version
) -> None:
    outcome, journal = unchanged
    why = "neither data, configuration nor code has changed since logp/1"
    assert outcome == Outcome("logp", "unchanged", "logp/1", why)
    assert f"logp: {why}" in journal.said
    assert journal.tables["retraining-molecules"][0]["outcome"] == "unchanged"
    assert [row["what"] for row in journal.tables["history-logp"]] == ["unchanged", "first"]
    assert "2 times" in journal.tables["history-logp"][0]["reason"]


def test_better_data_are_promoted(better: tuple[Outcome, FormJournal]) -> None:
    outcome, _ = better
    assert (outcome.outcome, outcome.version) == ("promoted", "logp/2"), outcome.reason
    assert outcome.reason.startswith("data changed since logp/1; mae")
    assert "of logp/1 on the same" in outcome.reason
    version = registry.resolve("logp")
    assert version.tags["warm_start"] == "logp/1"
    assert version.tags["foundation"] == "none"
    assert registry.history("logp")[0].values.keys() == {"challenger", "champion", "floor"}
    assert mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path="promotion.png")


def test_the_split_is_carried_over(better: Any, first: Version, rows: list[tuple[str, str]]) -> None:
    before, after = kept(first), kept(registry.resolve("logp/2"))
    assert len(after) > len(before)
    assert {identity: after[identity] for identity in before} == before
    assert list(after.values()).count("test") == len(after) // 10


def test_worse_data_are_refused_though_the_labels_of_the_test_rows_are_worse_too(
    worse: tuple[Outcome, FormJournal],
) -> None:
    outcome, _ = worse
    assert (outcome.outcome, outcome.version) == ("refused", "logp/3")
    assert "worse by" in outcome.reason
    assert "by the label that logp/2 was tested by" in outcome.reason
    assert registry.champion("logp").version == 2
    assert [entry.action for entry in registry.history("logp")] == [
        "refused", "promoted", "unchanged", "first",
    ]  # fmt: skip


def test_what_was_refused_is_not_tried_again(worse: Any, module_home: Home) -> None:
    outcome, _ = again(module_home)
    assert outcome.outcome == "unchanged"
    assert outcome.reason.endswith("since logp/3")


def test_what_was_rolled_back_from_is_not_made_again(
    worse: Any, module_home: Home, rows: list[tuple[str, str]]
) -> None:
    registry.rollback("logp", reason="the new rows are of another laboratory")
    upload(module_home, rows[:70])
    outcome, _ = again(module_home)
    assert (outcome.outcome, outcome.version) == ("unchanged", "logp/1")
    registry.rollback("logp", to=2)


def test_presets_that_move_are_a_change(
    worse: Any,
    module_home: Home,
    rows: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from flows import settings

    upload(module_home, rows)
    (tmp_path / "finetune-molecules.yaml").write_text("weight_decay: 0.2\n")
    with monkeypatch.context() as patch:
        patch.setattr(settings, "CONFIGS", tmp_path)
        settings_class.cache_clear()
        outcome, _ = again(module_home)
    settings_class.cache_clear()
    assert outcome.reason.startswith("data and configuration changed since logp/3")


def test_a_split_that_cannot_be_carried_over_starts_afresh(
    worse: Any, module_home: Home, rows: list[tuple[str, str]]
) -> None:
    champion = registry.champion("logp")
    client = mlflow.MlflowClient()
    folder = Path(client.get_run(champion.run_id).info.artifact_uri.removeprefix("file://"))
    (folder / "split.parquet").rename(folder / "split.gone")
    upload(module_home, rows[:120])
    _, journal = again(module_home)
    (folder / "split.gone").rename(folder / "split.parquet")
    said = "which rows were held out for it is no longer known): a fresh split, and a start from none"
    assert any(said in line for line in journal.said)
    assert "warm_start" not in registry.versions("logp")[0].tags


def test_a_dataset_out_of_reach_does_not_keep_others_from_it(
    home: Home, tables: Path, rows: list[tuple[str, str]]
) -> None:
    # By hand from a file of the user's own, which a schedule may not read.
    trusted = ConsoleJournal()
    for name, dataset in (("mine", str(tables / "ring.csv")), ("gone", str(tables / "both.csv"))):
        made = settings_class("finetune", "molecules")(
            dataset=dataset,
            name=name,
            epochs=1,
            target=["ring" if name == "mine" else "logp"],
            split="random",
        )
        run("finetune", MOLECULES, made, home, trusted)
    journal = FormJournal()
    outcomes = retrain(MOLECULES, settings_class("retrain", "molecules")(), home, journal)
    assert [(it.model, it.outcome) for it in outcomes] == [("gone", "skipped"), ("mine", "skipped")]
    assert all("upload it, put its file into" in it.reason for it in outcomes)
    trusting = retrain(MOLECULES, settings_class("retrain", "molecules")(), home, trusted)
    assert [it.outcome for it in trusting] == ["unchanged", "unchanged"]
    with pytest.raises(
        GroundworkError, match="1 of 1 models could not be retrained: nothing: nothing has no"
    ):
        retrain(MOLECULES, settings_class("retrain", "molecules")(model=["nothing"]), home, journal)


def test_labels_are_compared_as_the_champion_knew_them() -> None:
    table = pd.DataFrame(
        {"identity": ["a", "b", "a", "c"], "side": ["test"] * 4, "label: y": [1.0, 2.0, 3.0, np.nan]}
    )
    held = heldout.HeldOut(table)
    now = np.array([[9.0], [9.0], [9.0], [9.0], [9.0], [np.nan]])
    then = held.labels_then(["a", "c", "new", "a", "a", "b"], now)
    np.testing.assert_array_equal(then[:, 0], [1.0, 9.0, 9.0, 3.0, 9.0, np.nan])
