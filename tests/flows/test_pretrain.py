"""Pretraining on real compounds: a foundation with its loss, its data and its place in the registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest

from domains.contract import GroundworkError, load_domain
from flows.dispatch import run
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.settings import settings_class
from models import registry
from models.registry import Version

MOLECULES = load_domain("molecules")


def learn(home: Home, journal: Any, dataset: Path | str, **values: Any) -> Version:
    values = {"epochs": 2, "batch_size": 32, "dataset": str(dataset), **values}
    return run("pretrain", MOLECULES, settings_class("pretrain", "molecules")(**values), home, journal)


@pytest.fixture(scope="module")
def foundation(module_home: Home, tables: Path) -> Version:
    return learn(module_home, ConsoleJournal(), tables / "smiles.csv")


def test_the_first_foundation_is_champion(foundation: Version) -> None:
    assert (foundation.reference, foundation.aliases) == ("molecules-foundation/1", ("champion",))
    assert (foundation.tags["kind"], foundation.tags["metric"]) == ("foundation", "heldout_loss")
    assert foundation.beats_floor is None
    assert foundation.tags["promotion"] == "first version of molecules-foundation"


def test_the_run_holds_losses_settings_and_data(foundation: Version) -> None:
    run = mlflow.MlflowClient().get_run(foundation.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["heldout_loss"] == pytest.approx(float(foundation.tags["value"]), rel=1e-5)
    assert (run.data.params["mask_ratio"], run.data.params["epochs"]) == ("0.4", "2")
    history = mlflow.MlflowClient().get_metric_history(foundation.run_id, "eval_loss")
    assert len(history) == 2
    [described] = run.inputs.dataset_inputs
    assert described.dataset.digest == foundation.tags["dataset_digest"]
    assert json.loads(described.dataset.profile)["rows"] == 140


def test_what_the_frozen_encoder_is_worth_is_logged_after_each_epoch(foundation: Version) -> None:
    worth = mlflow.MlflowClient().get_metric_history(foundation.run_id, "frozen_r2_melting-points")
    assert len(worth) == 2
    assert worth[0].step < worth[1].step
    assert all(0 < it.value < 1 for it in worth)


@pytest.mark.parametrize("at_once", [4096, 40])
def test_kin_of_what_it_will_be_tested_on_is_left_out(
    home: Home, tables: Path, journal: Any, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Also where the rows are so many that processes share them."""
    monkeypatch.setattr("flows.pretrain.ROWS_AT_ONCE", at_once)
    rows = (tables / "smiles.csv").read_text().splitlines()[1:]
    salts = [f"{row.partition(',')[0]}.Cl" for row in rows[:9]]
    tested_on = home.root / "tested-on.csv"
    tested_on.write_text("\n".join(["smiles", *salts, "not a molecule"]) + "\n")
    version = learn(home, journal, tables / "smiles.csv", epochs=1, exclude=[str(tested_on)])
    assert f"9 molecules are left out: they are kin to what is in {tested_on}" in journal.text
    run = mlflow.MlflowClient().get_run(version.run_id)
    assert str(tested_on) in run.data.params["exclude"]
    with pytest.raises(GroundworkError, match="there is no file"):
        learn(home, journal, tables / "smiles.csv", exclude=["nothing.csv"])


def test_it_embeds(foundation: Version) -> None:
    answers = registry.load("molecules-foundation")[1].answer_values(["CCO", "c1ccccc1"])
    assert answers.outputs.shape == (2, 32)


@pytest.mark.slow
def test_only_a_lower_loss_on_the_same_rows_takes_the_alias(
    module_home: Home, foundation: Version, tables: Path, journal: Any
) -> None:
    better = learn(module_home, journal, tables / "smiles.csv", epochs=4, learning_rate=3e-3)
    assert better.aliases == ("champion",)
    assert "better than" in better.tags["promotion"]
    worse = learn(module_home, journal, tables / "smiles.csv", epochs=1, learning_rate=1e-7)
    assert worse.aliases == ("challenger",)
    assert "not better than" in worse.tags["promotion"]
    assert worse.tags["promotion"] in journal.text
    other = learn(module_home, journal, tables / "smiles.csv", epochs=1, max_records=100)
    assert "was held to other rows: their losses do not compare" in other.tags["promotion"]
    assert registry.champion("molecules-foundation").version == better.version


def test_fewer_rows_than_a_loss_can_be_held_to(home: Home, tmp_path: Path, journal: Any) -> None:
    table = tmp_path / "few.csv"
    table.write_text("smiles\n" + "".join("C" * length + "\n" for length in range(1, 20)))
    with pytest.raises(GroundworkError, match="only 19 records can be used; pretraining needs at least 64"):
        learn(home, journal, table)


def test_max_records_is_drawn_with_the_seed(home: Home, tables: Path) -> None:
    from domains.mixture import Mixture
    from domains.store import build
    from flows.pretrain import _drawn
    from flows.settings import LimitSettings

    spec = MOLECULES.encoding()
    store = build("molecules", MOLECULES.open(tables / "smiles.csv", spec), spec, home.stores)
    one, again, other = (
        _drawn(Mixture([store]), LimitSettings(max_records=80), seed).parts()[0].rows.tolist()
        for seed in (1, 1, 2)
    )
    assert one == again != other
    assert len(set(one)) == 80
