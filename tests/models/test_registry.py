"""The registry on a real MLflow database: names, aliases, files, and the same answers through MLflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from small_models import LOGP, TOXIC, contract_of, small_encoder, task_model

from domains.contract import GroundworkError
from flows.home import Home
from models import registry
from models.predictor import Predictor
from models.registry import Promotion, UnknownModel, Version

RAW = ["CCO", "not a molecule", "c1ccccc1O", "", "C[C@H](N)C(=O)O"]
Register = Callable[..., Version]


@pytest.fixture
def register(home: Home, tmp_path: Path) -> Register:
    mlflow.set_experiment(
        experiment_id=mlflow.create_experiment("test", home.mlflow_artifacts.joinpath("test").as_uri())
    )
    count = iter(range(100))

    def register(name: str = "logp", foundation: bool = False, **tags: str) -> Version:
        place = next(count)
        if foundation:
            model, contract = small_encoder(place), contract_of(None)
        else:
            model, contract = task_model(LOGP, TOXIC, seed=place), contract_of([LOGP, TOXIC])
        folder = tmp_path / str(place) / registry.FOLDER
        folder.parent.mkdir()
        predictor = Predictor.save(folder, contract, model)
        run = mlflow.MlflowClient().create_run(mlflow.get_experiment_by_name("test").experiment_id)
        return registry.register(name, folder, predictor, run.info.run_id, tags)

    return register


def test_nothing_is_registered_yet(home: Home) -> None:
    assert registry.names() == []
    assert registry.champion("logp") is None
    with pytest.raises(
        UnknownModel, match="no model is called 'logp'; registered: none yet; run `groundwork"
    ):
        registry.resolve("logp")
    with pytest.raises(UnknownModel):
        registry.versions("logp")


def test_promoted_versions_are_champions_and_others_challengers(register: Register) -> None:
    first = registry.promote(register(beats_floor="false"), Promotion(True, "first version"))
    assert (first.version, first.aliases, first.beats_floor) == (1, ("champion",), False)
    second = registry.promote(register(), Promotion(False, "mae 2, not better than 1"))
    assert second.aliases == ("challenger",)
    assert second.tags["promotion"] == "mae 2, not better than 1"
    assert registry.champion("logp").version == 1
    third = registry.promote(register(), Promotion(True, "mae 0.5, better than 1"))
    assert third.aliases == ("champion",)
    listed = registry.versions("logp")
    assert [version.version for version in listed] == [3, 2, 1]
    assert [version.aliases for version in listed] == [("champion",), (), ()]


def test_references(register: Register) -> None:
    registry.promote(register(), Promotion(True, "first"))
    registry.promote(register(), Promotion(False, "worse"))
    register("melting")
    assert registry.resolve("logp").version == 1
    assert registry.resolve("logp@champion").reference == "logp/1"
    assert registry.resolve("logp@challenger").reference == "logp/2"
    assert registry.resolve("logp/2").aliases == ("challenger",)
    assert registry.names() == ["logp", "melting"]


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("lopg", "no model is called 'lopg'; registered: logp"),
        ("logp@staging", "'logp@staging' is not registered; known: logp/1, logp@champion"),
        ("logp/7", "'logp/7' is not registered; known: logp/1, logp@champion"),
        ("logp/seven", "'logp/seven' is not registered; known: logp/1, logp@champion"),
        ("", "no model is called ''; registered: logp"),
        ("a/b/c", "no model is called 'a'; registered: logp"),
        ("../etc", "no model is called '..'; registered: logp"),
    ],
)
def test_what_is_unknown_is_answered_with_what_there_is(
    register: Register, reference: str, said: str
) -> None:
    registry.promote(register(), Promotion(True, "first"))
    with pytest.raises(UnknownModel) as error:
        registry.resolve(reference)
    assert str(error.value) == said


def test_a_name_without_a_champion_says_so(register: Register) -> None:
    register()
    with pytest.raises(UnknownModel, match="'logp' is not registered; known: logp/1"):
        registry.resolve("logp")


def test_names_that_mlflow_refuses(register: Register) -> None:
    with pytest.raises(GroundworkError, match="cannot be a model's name") as error:
        register("a/b")
    assert "\n" not in str(error.value)


def test_fetched_it_is_the_version_that_was_saved(register: Register) -> None:
    made = register()
    version, predictor = registry.load("logp/1")
    assert version == made
    predictor.check_golden()
    files = [path.name for path in registry.fetch(version).rglob("*") if path.is_file()]
    assert sorted(files) == [
        "config.json", "contract.json", "golden.json", "head.safetensors", "model.safetensors",
    ]  # fmt: skip


def test_nothing_that_mlflow_keeps_is_pickled(register: Register, home: Home) -> None:
    register()
    suffixes = {path.suffix for path in home.mlflow_artifacts.rglob("*") if path.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".joblib", ".bin", ".pt", ".pth"}
    [described] = home.mlflow_artifacts.rglob("MLmodel")
    assert "loader_module: mlflow.pyfunc.loaders.code_model" in described.read_text()
    assert (described.parent / "pyfunc.py").is_file()


def test_signature_and_example_travel_with_the_version(register: Register) -> None:
    register()
    info = mlflow.models.get_model_info("models:/logp/1")
    assert info.signature.inputs.input_names() == ["smiles"]
    assert info.signature.outputs.input_names() == ["logp_prediction", "toxic_prediction", "status", "reason"]
    example = mlflow.pyfunc.load_model("models:/logp/1").input_example
    assert example["smiles"].iloc[0] == "CCO"


def test_files_that_are_gone_are_one_line(register: Register, home: Home) -> None:
    version = register()
    [contract] = home.mlflow_artifacts.rglob("contract.json")
    for path in sorted(contract.parent.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    contract.parent.rmdir()
    with pytest.raises(GroundworkError, match=r"the files of logp/1 cannot be fetched") as error:
        registry.fetch(version)
    assert "\n" not in str(error.value)


def test_mlflow_loads_it_with_the_same_answers(register: Register) -> None:
    registry.promote(register(), Promotion(True, "first"))
    expected = registry.load("logp")[1].answer_values(RAW)
    model = mlflow.pyfunc.load_model("models:/logp@champion")
    table = model.predict(pd.DataFrame({"smiles": RAW})).to_dict("list")
    assert table["status"] == ["ok", "rejected", "ok", "rejected", "ok"]
    assert table["reason"] == [reason or "" for reason in expected.reasons]
    for column, name in enumerate(["logp_prediction", "toxic_prediction"]):
        values = np.array(table[name], np.float64)
        np.testing.assert_allclose(values, expected.outputs[:, column], atol=1e-5, rtol=1e-5)


def test_a_foundation_is_a_model_of_mlflow_too(register: Register) -> None:
    register("foundation", foundation=True)
    table = mlflow.pyfunc.load_model("models:/foundation/1").predict([{"smiles": "CCO"}])
    assert table.shape == (1, 34)
    assert table["status"].tolist() == ["ok"]
