"""A Gaussian process is the textbook's, and stays what it was when it is saved and loaded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rdkit import DataStructs
from rdkit.Chem import MolFromSmiles, rdFingerprintGenerator
from safetensors.torch import load_file
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from small_models import (
    LOGP,
    MOLECULES,
    PHASE,
    SPEC,
    TOXIC,
    contract_of,
    samples_of,
    small_encoder,
    task_model,
)

from domains.contract import Sample, Target, TargetSpec
from models.gaussian_process import GaussianProcess, Part, extended, fit, sum_of_kernels
from models.predictor import Predictor

NUMBERS = (TargetSpec("numbers", "sample", "reals", 2),)
VALUE = Target(name="value", kind="regression")


def collate(samples: list[Sample]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.stack([it[name] for it in samples])) for name in samples[0]}


def points(values: np.ndarray) -> list[Sample]:
    return [{"numbers": row.astype(np.float32)} for row in values]


@pytest.fixture(scope="module")
def wave() -> tuple[list[Sample], np.ndarray]:
    random = np.random.default_rng(0)
    places = random.normal(size=(80, 2))
    return points(places), (np.sin(2 * places[:, 0]) + 0.1 * random.normal(size=80))[:, None]


@pytest.fixture(scope="module")
def process(wave: tuple[list[Sample], np.ndarray]) -> GaussianProcess:
    return fit([VALUE], NUMBERS, None, *wave, collate, seed=0)


def textbook(process: GaussianProcess) -> GaussianProcessRegressor:
    """The same kernel with the same parameters, on the rows that the process keeps."""
    share, rate, linear, noise = process.get_buffer("logs")[0].exp().tolist()
    # Distances and products are means over the two numbers here, and sums there.
    kernel = (
        ConstantKernel(share) * RBF((2 / rate) ** 0.5)
        + ConstantKernel(linear / 2) * DotProduct(0)
        + WhiteKernel(noise)
    )
    return GaussianProcessRegressor(kernel, optimizer=None, alpha=1e-6)


def test_it_answers_as_a_textbook_process_does(
    process: GaussianProcess, wave: tuple[list[Sample], np.ndarray]
) -> None:
    samples, labels = wave
    asked = points(np.random.default_rng(1).normal(size=(20, 2)))
    rows = np.stack([sample["numbers"] for sample in samples])
    mean, spread = rows.mean(0), rows.std(0)
    peer = textbook(process).fit((rows - mean) / spread, (labels - labels.mean()) / labels.std())
    expected = peer.predict((np.stack([it["numbers"] for it in asked]) - mean) / spread)
    answered = process(collate(asked))[:, 0].numpy()
    np.testing.assert_allclose(answered, expected * labels.std() + labels.mean(), atol=1e-4)
    assert np.corrcoef(answered, [np.sin(2 * it["numbers"][0]) for it in asked])[0, 1] > 0.95


def test_no_other_parameters_are_more_likely(
    process: GaussianProcess, wave: tuple[list[Sample], np.ndarray]
) -> None:
    samples, labels = wave
    rows = np.stack([sample["numbers"] for sample in samples])
    peer = textbook(process).fit((rows - rows.mean(0)) / rows.std(0), (labels - labels.mean()) / labels.std())
    found = peer.log_marginal_likelihood_value_
    freely = GaussianProcessRegressor(peer.kernel, alpha=1e-6, n_restarts_optimizer=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its bounds
        best = freely.fit(peer.X_train_, peer.y_train_).log_marginal_likelihood_value_
    assert found > best - 2  # the prior has its share


def test_what_is_left_out_is_answered_from_the_others(wave: tuple[list[Sample], np.ndarray]) -> None:
    samples, labels = wave[0][:15], wave[1][:15]
    process = fit([VALUE], NUMBERS, None, samples, labels, collate, seed=0)
    scaled = torch.from_numpy((labels - labels.mean()) / labels.std())
    everyone = np.arange(15)
    left_out = process.left_out(0, everyone, scaled, process.solve(0, everyone, scaled))
    others = np.arange(1, 15)
    process.solve(0, others, scaled[1:])
    process.get_buffer("solved")[0] = 0  # the first is not among the others
    assert float(left_out[0, 0]) == pytest.approx(float(process(collate(samples[:1]))), abs=1e-4)


def test_likeness_of_bits_is_rdkits(molecules: list[str]) -> None:
    parsed = [MolFromSmiles(text) for text in molecules[:20]]
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(molecule) for molecule in parsed]
    bits = torch.tensor(np.stack([np.array(it) for it in prints]), dtype=torch.float32)
    found = Part("fingerprint", 2048).kernel(bits[:1], bits)(torch.zeros(1, dtype=torch.float64))
    expected = DataStructs.BulkTanimotoSimilarity(prints[0], prints)
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    nothing = Part("fingerprint", 8).kernel(torch.zeros(1, 8), torch.zeros(1, 8))
    assert float(nothing(torch.zeros(1, dtype=torch.float64))) == 1.0


@pytest.fixture(scope="module")
def learnt(molecules: list[str]) -> tuple[GaussianProcess, list[Sample], np.ndarray]:
    """Three kinds of targets with gaps, told by the number of atoms."""
    samples = samples_of(molecules[:120], described=True)
    atoms = np.array([len(sample["atoms"]) for sample in samples], float)
    labels = np.stack(
        [atoms, atoms > np.median(atoms), np.digitize(atoms, np.quantile(atoms, [0.3, 0.6]))], 1
    )
    labels = labels.astype(float)
    labels[::7, 0] = labels[3::5, 1] = np.nan
    encoder = small_encoder()
    made = fit(
        (LOGP, TOXIC, PHASE), tuple(MOLECULES.computed(SPEC)), encoder, samples, labels, encoder.collate, 0
    )
    return made, samples, labels


def test_every_kind_of_target_is_answered_in_its_own_words(learnt: Any) -> None:
    process, samples, labels = learnt
    answered = process(small_encoder().collate(samples)).numpy()
    assert answered.shape == (len(samples), 5)
    assert np.abs(answered[:, 0] - [len(it["atoms"]) for it in samples]).mean() < 1
    known = np.isfinite(labels[:, 1])
    assert ((answered[known, 1] > 0.5) == labels[known, 1]).mean() > 0.95
    np.testing.assert_allclose(answered[:, 2:].sum(1), 1, atol=1e-6)
    assert (answered[:, 2:].argmax(1) == labels[:, 2]).mean() > 0.9
    assert (answered[:, 1:] >= 0).all()


def test_answers_do_not_depend_on_batch_mates(learnt: Any) -> None:
    process, samples, _ = learnt
    encoder = small_encoder()
    together = process(encoder.collate(samples)).numpy()
    alone = np.concatenate([process(encoder.collate([sample])).numpy() for sample in samples[:20]])
    np.testing.assert_allclose(alone, together[:20], atol=1e-5, rtol=1e-5)


def test_more_rows_are_taken_in_without_learning_anew(learnt: Any) -> None:
    process, samples, labels = learnt
    few = extended(process, samples[:40], labels[:40], small_encoder().collate, 0)
    again = extended(few, samples, labels, small_encoder().collate, 0)
    batch = small_encoder().collate(samples)
    assert torch.equal(few.get_buffer("logs"), process.get_buffer("logs"))
    assert not torch.allclose(few(batch), process(batch), atol=1e-2)
    torch.testing.assert_close(again(batch), process(batch))


def test_of_many_rows_some_are_kept(wave: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.gaussian_process.MOST_ROWS", 30)
    monkeypatch.setattr("models.gaussian_process.ROWS_TO_FIT_BY", 20)
    process = fit([VALUE], NUMBERS, None, *wave, collate, seed=0)
    assert process.get_buffer("rows_numbers").shape == (30, 2)
    assert np.isfinite(process(collate(wave[0])).numpy()).all()


def test_many_targets_share_kernels_and_keep_fewer_rows(wave: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.gaussian_process.MANY_TARGETS", 2)
    monkeypatch.setattr("models.gaussian_process.MOST_ROWS", 80)
    samples, labels = wave
    names = [Target(name=str(place), kind="regression") for place in range(4)]
    columns = np.hstack([labels, labels**2, labels, 3 * labels + 5])
    columns[40:, 2] = columns[30:, 3] = np.nan
    process = fit(names, NUMBERS, None, samples, columns, collate, seed=0)
    logs = process.get_buffer("logs")
    assert len(process.get_buffer("rows_numbers")) == int(80 * 0.5 ** (1 / 3))
    torch.testing.assert_close(logs[2], logs[:2].mean(0))
    torch.testing.assert_close(logs[3], logs[2])
    assert not torch.allclose(logs[0], logs[1])
    kernels_made: list[torch.Tensor] = []

    def counted(parts: Any, kernels: Any, parameters: torch.Tensor) -> torch.Tensor:
        kernels_made.append(parameters)
        return sum_of_kernels(parts, kernels, parameters)

    monkeypatch.setattr("models.gaussian_process.sum_of_kernels", counted)
    answered = process(collate(samples)).numpy()
    assert len(kernels_made) == 3
    assert np.corrcoef(answered[:, 0], labels[:, 0])[0, 1] > 0.95
    assert np.corrcoef(answered[:, 3], 3 * labels[:, 0])[0, 1] > 0.8
    assert answered[:, 3].mean() == pytest.approx(5, abs=1)


@pytest.mark.parametrize("labels", [[1.0] * 6, [np.nan] * 5 + [1.0], [np.nan] * 6])
def test_of_a_constant_little_is_claimed(labels: list[float]) -> None:
    samples = points(np.random.default_rng(0).normal(size=(6, 2)))
    for target in (VALUE, TOXIC):
        process = fit([target], NUMBERS, None, samples, np.array(labels)[:, None], collate, seed=0)
        answered = process(collate(samples)).numpy()
        assert np.isfinite(answered).all()
        seen = np.isfinite(labels).sum()
        if target is VALUE:
            np.testing.assert_allclose(answered, min(1, seen), atol=1e-6)
        else:
            np.testing.assert_allclose(answered, (seen + 0.5) / (seen + 1), atol=1e-6)


def test_a_version_answers_with_both(learnt: Any, tmp_path: Path) -> None:
    process, samples, _ = learnt
    process.get_buffer("weight").copy_(torch.tensor([1.0, 0.0, 0.25]))
    targets = (LOGP, TOXIC, PHASE)
    model = task_model(*targets)
    contract = contract_of(targets, gaussian_process=True)
    Predictor.save(tmp_path / "version", contract, model, process=process)
    loaded = Predictor.load(tmp_path / "version")
    loaded.check_golden()
    batch = model.encoder.collate(samples)
    with torch.no_grad():
        network = model.outputs(model(batch)["logits"])
    expected = torch.cat(
        [process(batch)[:, :1], network[:, 1:2], 0.75 * network[:, 2:] + 0.25 * process(batch)[:, 2:]], 1
    )
    np.testing.assert_allclose(loaded.predict(samples), expected.numpy(), atol=1e-4, rtol=1e-4)
    state = load_file(tmp_path / "version" / "gaussian_process" / "gaussian_process.safetensors")
    assert state.keys() == process.tensors.keys()
