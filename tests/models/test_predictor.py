"""A version in a folder answers as the model did that was saved, wherever it is loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import LOGP, PHASE, TOXIC, contract_of, samples_of, small_encoder, task_model

from domains.contract import GroundworkError, Target
from models.predictor import CONTRACT, ENCODER, GOLDEN, HEAD, Predictor

TARGETS = (LOGP, TOXIC, PHASE)
RAW = ["CCO", "not a molecule", "c1ccccc1O", "", "C[C@H](N)C(=O)O", "CCO", "CC" * 40]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "version"
    model = task_model(*TARGETS)
    model.fit_scaling(np.array([[-100.0, 0, 0], [300.0, 1, 1]]))
    Predictor.save(folder, contract_of(TARGETS), model)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "version"))


def test_loaded_it_answers_as_the_model_that_was_saved(saved: Path) -> None:
    model = task_model(*TARGETS)
    model.fit_scaling(np.array([[-100.0, 0, 0], [300.0, 1, 1]]))
    samples = samples_of([RAW[0], RAW[2], RAW[4]])
    with torch.no_grad():
        expected = model.outputs(model(model.encoder.collate(samples))["logits"]).numpy()
    np.testing.assert_allclose(Predictor.load(saved).predict(samples), expected, atol=1e-5, rtol=1e-5)


def test_rows_that_cannot_be_read_are_rejected_in_their_place(saved: Path) -> None:
    answers = Predictor.load(saved).answer_values([*RAW, 7, None])
    assert [reason is None for reason in answers.reasons] == [
        True, False, True, False, True, True, True, False, False,
    ]  # fmt: skip
    assert answers.reasons[3] == "empty"
    assert np.isnan(answers.outputs[[1, 3, 7, 8]]).all()
    assert np.isfinite(answers.outputs[[0, 2, 4, 5, 6]]).all()
    assert answers.outputs.shape == (9, 5)


def test_only_rejected_rows_and_no_rows(saved: Path) -> None:
    predictor = Predictor.load(saved)
    assert np.isnan(predictor.answer_values(["", "x("]).outputs).all()
    assert predictor.answer_values([]).outputs.shape == (0, 5)


def test_batch_size_and_neighbours_change_nothing(
    saved: Path, molecules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.load(saved)
    together = predictor.answer_values(molecules).outputs
    scale = np.maximum(np.abs(together), 1)
    for size in (1, 7):
        monkeypatch.setattr("models.predictor.BATCH", size)
        other = predictor.answer_values(molecules).outputs
        assert (np.abs(other - together) / scale).max() < 1e-5
    monkeypatch.undo()
    backwards = predictor.answer_values(molecules[::-1]).outputs[::-1]
    assert (np.abs(backwards - together) / scale).max() < 1e-5


FRESH = """
import json, sys
from pathlib import Path
from models.predictor import Predictor
answers = Predictor.load(Path(sys.argv[1])).answer_values(json.load(sys.stdin))
json.dump([answers.outputs.tolist(), answers.reasons], sys.stdout)
"""


@pytest.mark.slow
def test_a_fresh_process_answers_raw_rows_alike(saved: Path, tmp_path: Path) -> None:
    here = Predictor.load(saved).answer_values(RAW)
    command = [sys.executable, "-c", FRESH, str(saved)]
    answered = subprocess.run(
        command, input=json.dumps(RAW), capture_output=True, text=True, check=True, cwd=tmp_path
    )
    outputs, reasons = json.loads(answered.stdout)
    np.testing.assert_allclose(np.array(outputs, np.float32), here.outputs, atol=1e-5, rtol=1e-5)
    assert reasons == here.reasons


def test_a_version_is_safetensors_and_json(saved: Path) -> None:
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert len(files) == 5
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())


def test_golden_answers_hold_and_fail_once_weights_change(copied: Path) -> None:
    Predictor.load(copied).check_golden()
    weights = load_file(copied / ENCODER / "model.safetensors")
    weights["read_out.weight"] = weights["read_out.weight"].flip(0).contiguous()
    save_file(weights, copied / ENCODER / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GroundworkError, match="golden answers"):
        Predictor.load(copied).check_golden()


def test_another_encoding_is_refused_with_the_code_to_use(copied: Path) -> None:
    contract = json.loads((copied / CONTRACT).read_text())
    contract["encoding_digest"] = "0" * 16
    (copied / CONTRACT).write_text(json.dumps(contract))
    with pytest.raises(GroundworkError, match=r"another encoding of molecules .* 1234567") as error:
        Predictor.load(copied)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (CONTRACT, b"{"),
        (CONTRACT, b"{}"),
        (GOLDEN, b"\xff"),
        (HEAD, b"\x80\x04garbage"),
        (f"{ENCODER}/model.safetensors", b"PK\x03\x04"),
        (f"{ENCODER}/config.json", b"[]"),
        (HEAD, None),
        (f"{ENCODER}/model.safetensors", None),
    ],
)
def test_a_damaged_version_is_one_line_that_says_what_to_do(
    copied: Path, name: str, content: bytes | None
) -> None:
    if content is None:
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(content)
    with pytest.raises(GroundworkError, match=r"cannot be read .*fetch it again") as error:
        Predictor.load(copied)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", [HEAD, f"{ENCODER}/model.safetensors"])
def test_weights_that_lack_a_tensor_are_refused(copied: Path, part: str) -> None:
    """A tensor that is not there would be left at its random start, and answer nonsense."""
    weights = load_file(copied / part)
    name = next(name for name in weights if name.endswith("weight"))
    del weights[name]
    save_file(weights, copied / part, metadata={"format": "pt"})
    with pytest.raises(GroundworkError, match="cannot be read"):
        Predictor.load(copied)


def test_a_foundation_answers_with_embeddings(tmp_path: Path) -> None:
    encoder = small_encoder()
    predictor = Predictor.save(tmp_path / "version", contract_of(None), encoder)
    answers = predictor.answer_values(["CCO", "x("])
    assert answers.outputs.shape == (2, 32)
    assert list(predictor.columns(answers.outputs))[:2] == ["embedding_0", "embedding_1"]
    assert predictor.answer(answers.outputs[0])["embedding"]["prediction"] == pytest.approx(
        answers.outputs[0].tolist()
    )


def test_answers_in_words(saved: Path) -> None:
    predictor = Predictor.load(saved)
    answer = predictor.answer(np.array([-2.5, 0.75, 0.1, 0.7, 0.2], np.float32))
    assert answer["logp"] == {"prediction": -2.5, "unit": "log units"}
    assert answer["toxic"]["label"] == "yes"
    assert answer["toxic"]["probabilities"] == pytest.approx({"no": 0.25, "yes": 0.75})
    assert (answer["phase"]["prediction"], answer["phase"]["label"]) == ("liquid", "liquid")


def test_answers_as_columns(saved: Path) -> None:
    outputs = np.array([[1.5, 0.2, 0.1, 0.2, 0.7], [np.nan] * 5], np.float32)
    table = Predictor.load(saved).columns(outputs)
    of_classes = [f"phase_probability_{name}" for name in ("gas", "liquid", "solid")]
    assert list(table) == ["logp_prediction", "toxic_prediction", "phase_prediction", *of_classes]
    assert table["phase_prediction"].tolist() == ["solid", None]
    assert [table[name][0] for name in of_classes] == pytest.approx([0.1, 0.2, 0.7])
    assert np.isnan(table["logp_prediction"][1])


def test_a_column_of_transformed_values_says_so(saved: Path) -> None:
    predictor = Predictor.load(saved)
    assert predictor.contract.task is not None
    _, *others = predictor.contract.task.targets
    potency = Target(name="IC50_nM", kind="regression", unit="pIC50", transform="pIC50", cell_unit="nM")
    task = predictor.contract.task.model_copy(update={"targets": (potency, *others)})
    predictor.contract = predictor.contract.model_copy(update={"task": task})
    assert next(iter(predictor.columns(np.zeros((1, 5), np.float32)))) == "IC50_nM_pIC50_prediction"
