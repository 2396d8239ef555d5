"""The training loop is stopped, killed, resumed and starved, and the result is what it would have been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from training_run import signal_at, train_small_model

from domains.contract import GroundworkError
from models.checkpoints import checkpoint_step, last_checkpoint
from models.molecules.graph_transformer import GraphTransformerBlock
from models.progress import Interrupted, Progress
from models.settings import TrainingSettings
from models.training import train

SCRIPT = Path(__file__).with_name("training_run.py")
SETTINGS = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.05)


class Line(nn.Module):
    """y = a x + b."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.layer(x)[:, 0] - labels) ** 2).mean()}


def collate(items: Sequence[tuple[float, float]]) -> dict[str, Any]:
    x, labels = torch.tensor(items).T
    return {"x": x[:, None], "labels": labels}


POINTS = [(x, 2 * x + 1) for x in np.linspace(-1, 1, 16).tolist()]


def fit(
    folder: Path,
    points: Sequence[tuple[float, float]] = POINTS,
    *,
    settings: TrainingSettings = SETTINGS,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    **options: Any,
) -> tuple[Line, Any]:
    model = Line()
    result = train(
        model, points, points, collate=collate, lengths=[1] * len(points), settings=settings, folder=folder,
        resume=resume, report=report, **options,
    )  # fmt: skip
    return model, result


def test_it_learns_and_reports(tmp_path: Path) -> None:
    seen: list[Progress] = []
    settings = SETTINGS.model_copy(update={"epochs": 20})
    model, result = fit(tmp_path / "run", settings=settings, report=seen.append)
    assert model.layer.weight.item() == pytest.approx(2, abs=0.5)
    assert result.steps == 80
    assert result.trainable_parameters == 2
    assert {progress.total_steps for progress in seen} == {80}
    assert seen[-1].step == 80
    losses = [progress.metrics["eval_loss"] for progress in seen if "eval_loss" in progress.metrics]
    assert len(losses) == 20
    assert losses[-1] < 0.1 * losses[0]
    assert result.best_loss == pytest.approx(min(losses))


def test_gradient_checkpointing_changes_nothing_but_the_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = 0

    def counted(*arguments: Any, **named: Any) -> torch.Tensor:
        nonlocal computed
        computed += 1
        return attend(*arguments, **named)

    attend = GraphTransformerBlock.attention
    monkeypatch.setattr(GraphTransformerBlock, "attention", counted)
    model = train_small_model(tmp_path / "plain", print)
    once, computed = computed, 0
    again = train_small_model(tmp_path / "again", print, gradient_checkpointing=True)
    assert computed > 1.3 * once
    for name, weights in model.state_dict().items():
        torch.testing.assert_close(weights, again.state_dict()[name], atol=1e-6, rtol=1e-5)
    assert not any(getattr(part, "gradient_checkpointing", False) for part in again.modules())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_model_learns_the_same_and_is_saved_under_the_same_names(tmp_path: Path) -> None:
    plain, _ = fit(tmp_path / "plain")
    compiled, _ = fit(tmp_path / "compiled", settings=SETTINGS.model_copy(update={"compile": True}))
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for name, weights in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], weights, atol=1e-5, rtol=1e-5)
    resumed, _ = fit(
        tmp_path / "compiled",
        settings=SETTINGS.model_copy(update={"compile": True, "epochs": 4}),
        resume=True,
    )
    assert resumed.state_dict().keys() == plain.state_dict().keys()


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    one, again, other = (
        fit(tmp_path / str(place), settings=SETTINGS.model_copy(update={"seed": seed}))[0].layer.weight.item()
        for place, seed in enumerate((1, 1, 2))
    )
    assert one == again != other


def test_it_ends_with_the_best_weights_not_the_last(tmp_path: Path) -> None:
    """A rate far too high for the second half: validation gets worse, and the best epoch is kept."""
    seen: list[Progress] = []
    settings = TrainingSettings(epochs=6, batch_size=4, learning_rate=1.0, weight_decay=0)
    model, result = fit(tmp_path, settings=settings, report=seen.append)
    losses = [progress.metrics["eval_loss"] for progress in seen if "eval_loss" in progress.metrics]
    assert losses[-1] > min(losses)
    with torch.no_grad():
        assert model(**collate(POINTS))["loss"].item() == pytest.approx(min(losses), rel=1e-4)
    assert result.best_loss == pytest.approx(min(losses))

    last, result = fit(tmp_path, settings=settings, keeps="last")
    with torch.no_grad():
        assert last(**collate(POINTS))["loss"].item() == pytest.approx(losses[-1], rel=1e-4)
    assert result.best_loss == pytest.approx(min(losses))  # told all the same


def test_patience_ends_a_training_that_no_longer_improves(tmp_path: Path) -> None:
    flat = [(0.0, 1.0), (0.0, -1.0)] * 8  # nothing to learn beyond the mean
    settings = TrainingSettings(epochs=50, batch_size=16, learning_rate=1e-6)
    _, result = fit(tmp_path / "a", [(x, float("1e3") * y) for x, y in flat], settings=settings, patience=2)
    assert result.steps < 50
    _, patient = fit(tmp_path / "b", flat, settings=SETTINGS, patience=50)
    assert patient.steps == 12


def test_parameters_learn_at_rates_of_their_own(tmp_path: Path) -> None:
    start = Line().layer
    model, _ = fit(tmp_path, rates={"layer.weight": 1.0, "layer.bias": 1e-6})
    assert abs(model.layer.weight.item() - start.weight.item()) > 0.1
    assert model.layer.bias.item() == pytest.approx(start.bias.item(), abs=1e-4)


def test_a_loss_that_is_not_a_number_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GroundworkError, match="not a number: lower the learning rate") as error:
        fit(tmp_path, [(x, float("nan")) for x, _ in POINTS])
    assert "\n" not in str(error.value)


def test_last_weights_that_are_no_numbers_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best epoch was well, and would be kept; a later step has ruined the weights."""
    forward, steps = Line.forward, iter(range(1000))

    def ruined(model: Line, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        answered = forward(model, x, labels)
        is_spoilt = model.training and next(steps) % 12 == 7  # of three epochs of four steps, in the second
        return {"loss": answered["loss"] * (float("nan") if is_spoilt else 1.0)}

    monkeypatch.setattr(Line, "forward", ruined)
    model, _ = fit(tmp_path / "best")
    assert model.layer.weight.isfinite().all()
    with pytest.raises(GroundworkError, match="not a number"):
        fit(tmp_path / "last", keeps="last")


def test_no_pickled_arguments_are_left(tmp_path: Path) -> None:
    fit(tmp_path)
    assert last_checkpoint(tmp_path) is not None
    assert not list(tmp_path.rglob("training_args.bin"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_and_the_handlers_as_they_were(tmp_path: Path, signum: int) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as stopped:
        fit(tmp_path, report=signal_at(signum, 5))
    assert stopped.value.signum == signum
    assert signal.getsignal(signum) is before
    checkpoint = last_checkpoint(tmp_path)
    assert checkpoint is not None
    assert 5 <= checkpoint_step(checkpoint) <= 6


def test_without_resume_old_checkpoints_do_not_count(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, report=signal_at(signal.SIGTERM, 5))
    seen: list[int] = []
    fit(tmp_path, report=lambda progress: seen.append(progress.step))
    assert seen[0] == 1


@pytest.mark.parametrize("name", ["trainer_state.json", "optimizer.pt", "model.safetensors", "scheduler.pt"])
def test_a_corrupt_checkpoint_is_one_line_that_says_what_to_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, report=signal_at(signal.SIGTERM, 5))
    checkpoint = last_checkpoint(tmp_path)
    assert checkpoint is not None
    (checkpoint / name).write_bytes(b"\0garbage")
    with pytest.raises(GroundworkError, match="delete that folder") as error:
        fit(tmp_path, resume=True)
    assert str(checkpoint) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, report=signal_at(signal.SIGTERM, 5))
    complete = last_checkpoint(tmp_path)
    assert complete is not None
    half = tmp_path / "checkpoint-9"
    shutil.copytree(complete, half)
    (half / "trainer_state.json").unlink()
    (half / "model.safetensors").write_bytes(b"")
    assert last_checkpoint(tmp_path) == complete
    step = checkpoint_step(complete)
    seen: list[int] = []
    _, result = fit(tmp_path, resume=True, report=lambda progress: seen.append(progress.step))
    assert seen[0] == step + 1
    assert result.steps == 12


def test_a_checkpoint_holding_code_does_not_run_it(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, report=signal_at(signal.SIGTERM, 5))
    checkpoint = last_checkpoint(tmp_path)
    assert checkpoint is not None
    torch.save(Payload(str(tmp_path / "ran")), checkpoint / "optimizer.pt")
    with pytest.raises(GroundworkError, match="cannot be read"):
        fit(tmp_path, resume=True)
    assert not (tmp_path / "ran").exists()


class Payload:
    """Unpickling it would make a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of the run that nothing disturbed."""
    return train_small_model(tmp_path_factory.mktemp("undisturbed"), lambda progress: None).state_dict()


def resume_and_compare(folder: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    checkpoint = last_checkpoint(folder)
    assert checkpoint is not None
    step = checkpoint_step(checkpoint)
    seen: list[int] = []
    resumed = train_small_model(folder, lambda progress: seen.append(progress.step), resume=True)
    assert step < seen[0] <= step + 2
    for name, tensor in resumed.state_dict().items():
        torch.testing.assert_close(tensor, undisturbed[name], atol=1e-6, rtol=0)


def test_resumed_within_an_epoch_it_equals_an_undisturbed_run(
    undisturbed: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train_small_model(tmp_path, signal_at(signal.SIGTERM, 14))
    resume_and_compare(tmp_path, undisturbed)


def test_within_a_long_epoch_checkpoints_are_written_too(
    undisturbed: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.LONGEST_UNSAVED", 0.0)

    def die(progress: Progress) -> None:
        if progress.step == 14:
            raise RuntimeError("as if the power had failed")

    with pytest.raises(RuntimeError):
        train_small_model(tmp_path, die)
    checkpoint = last_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint_step(checkpoint) == 13  # an epoch ends at 9
    resume_and_compare(tmp_path, undisturbed)


@pytest.mark.parametrize("step", [6, 8, 10])
def test_patience_is_not_renewed_by_resuming(tmp_path: Path, step: int) -> None:
    """Validation rows contradict training rows: the first epoch stays the best, two more are tried."""
    settings = SETTINGS.model_copy(update={"epochs": 20})
    apart = [(x, -2 * x - 1) for x, _ in POINTS]

    def run(folder: str, resume: bool = False, report: Any = lambda progress: None) -> int:
        result = train(
            Line(), POINTS, apart, collate=collate, lengths=[1] * 16, settings=settings,
            folder=tmp_path / folder, resume=resume, report=report, patience=2,
        )  # fmt: skip
        return result.steps

    assert run("undisturbed") == 12
    with pytest.raises(Interrupted):
        run("disturbed", report=signal_at(signal.SIGTERM, step))
    assert run("disturbed", resume=True) == 12


def test_a_training_that_had_ended_before_it_was_moved_ends_alike(tmp_path: Path) -> None:
    """With the weights of its first epoch: the validation rows contradict the training rows."""
    apart = [(x, -2 * x - 1) for x, _ in POINTS]

    def weight(folder: Path, resume: bool) -> float:
        model = Line()
        train(
            model, POINTS, apart, collate=collate, lengths=[1] * 16, settings=SETTINGS, folder=folder,
            resume=resume, report=lambda progress: None,
        )  # fmt: skip
        return model.layer.weight.item()

    best = weight(tmp_path / "here", resume=False)
    (tmp_path / "here").rename(tmp_path / "there")
    assert weight(tmp_path / "there", resume=True) == best


@pytest.mark.slow
def test_a_killed_process_can_be_resumed(undisturbed: dict[str, torch.Tensor], tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(int(signal.SIGKILL)), "14"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    resume_and_compare(tmp_path, undisturbed)
