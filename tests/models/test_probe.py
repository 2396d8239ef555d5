"""A probe is the minimum of its loss, under the penalty that validation favours."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from small_models import LOGP, PHASE, TOXIC, samples_of, task_model

from models import probe
from models.progress import Interrupted, Progress
from models.tuning import TaskModel, prepare

SMILES = [
    *("CCO", "c1ccccc1", "CC(=O)O", "CCN", "CCCCCC", "OCC(O)CO", "CC(C)O", "CCCl", "c1ccncc1", "CC#N"),
    *("CCOCC", "CC(C)=O", "NCCO", "CCS", "C1CCCCC1", "OC(=O)c1ccccc1", "CCCCO", "CC(N)=O", "CBr", "C=CC"),
]
Item = tuple[Any, np.ndarray, np.ndarray]


def items(labels: np.ndarray) -> list[Item]:
    samples = samples_of(SMILES)[: len(labels)]
    return [(sample, row, np.zeros(len(row), np.int8)) for sample, row in zip(samples, labels, strict=True)]


def collate_for(model: TaskModel) -> Any:
    def collate(chosen: Sequence[Item]) -> dict[str, Any]:
        samples, labels, signs = zip(*chosen, strict=True)
        return {
            "batch": model.encoder.collate(samples),
            "labels": torch.from_numpy(np.stack(labels)).float(),
            "signs": torch.from_numpy(np.stack(signs)),
        }

    return collate


def solved(model: TaskModel, known: list[Item], asked: list[Item]) -> tuple[float, list[Progress]]:
    prepare(model, "probe", 4)
    seen: list[Progress] = []
    result = probe.solve(model, known, asked, collate=collate_for(model), batch_size=7, report=seen.append)
    return result.best_loss, seen


def normed(model: TaskModel) -> np.ndarray:
    """Standardised, as the probe sees them, of the first twelve."""
    with torch.no_grad():
        found = model.head.norm(model.encoder(model.encoder.collate(samples_of(SMILES))).pooled).numpy()
    return (found - found[:12].mean(0)) / found[:12].std(0)


def answers(model: TaskModel) -> np.ndarray:
    with torch.no_grad():
        return model(model.encoder.collate(samples_of(SMILES)))["logits"].numpy()


def test_it_is_the_logistic_regression_of_that_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PENALTIES", np.array([0.01]))
    labels = np.random.default_rng(0).integers(0, 3, (20, 1)).astype(float)
    model = task_model(PHASE, linear_head=True)
    known, asked = items(labels)[:12], items(labels)[12:]
    solved(model, known, asked)
    peer = LogisticRegression(C=1 / (2 * 0.01 * 12), max_iter=10_000, tol=1e-8)
    peer.fit(normed(model)[:12], labels[:12, 0])
    expected = peer.predict_proba(normed(model))
    np.testing.assert_allclose(torch.softmax(torch.from_numpy(answers(model)), 1), expected, atol=2e-3)


def test_small_errors_of_numbers_are_those_of_ridge_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one spread the loss is half the square."""
    monkeypatch.setattr(probe, "PENALTIES", np.array([0.1]))
    labels = np.random.default_rng(1).uniform(-0.9, 0.9, (20, 1))
    model = task_model(LOGP, linear_head=True)
    solved(model, items(labels)[:12], items(labels)[12:])
    peer = Ridge(alpha=2 * 0.1 * 12).fit(normed(model)[:12], labels[:12, 0])
    np.testing.assert_allclose(answers(model)[:, 0], peer.predict(normed(model)), atol=2e-3)


def test_the_penalty_is_the_one_that_validation_favours() -> None:
    labels = np.random.default_rng(2).integers(0, 2, (20, 1)).astype(float)
    model = task_model(TOXIC, linear_head=True)
    known, asked = items(labels)[:12], items(labels)[12:]
    best, seen = solved(model, known, asked)
    losses = [it.metrics["eval_loss"] for it in seen if "eval_loss" in it.metrics]
    assert best == min(losses)
    truth = torch.from_numpy(labels[12:]).float()
    assert float(model.loss(torch.from_numpy(answers(model)[12:]), truth)) == pytest.approx(best, abs=1e-4)
    # Labels by chance: the stronger the penalty, the better, and weaker ones are not tried for ever.
    assert len(losses) < len(probe.PENALTIES)


def test_gaps_and_several_targets_are_taken_as_they_come() -> None:
    chance = np.random.default_rng(3)
    labels = np.stack([chance.normal(size=20), chance.integers(0, 2, 20)], 1)
    labels[::3, 0] = np.nan
    labels[:12:4, 1] = np.nan
    model = task_model(LOGP, TOXIC, linear_head=True)
    best, _ = solved(model, items(labels)[:12], items(labels)[12:])
    assert np.isfinite(best)
    assert np.isfinite(answers(model)).all()


def test_it_stops_when_it_is_asked_to() -> None:
    assert threading.current_thread() is threading.main_thread()
    model = task_model(LOGP, linear_head=True)
    labels = np.zeros((20, 1))
    with pytest.raises(Interrupted):
        probe.solve(
            model, items(labels), items(labels), collate=collate_for(model), batch_size=4,
            report=lambda _: signal.raise_signal(signal.SIGTERM),
        )  # fmt: skip
