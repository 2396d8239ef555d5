"""The one training loop: transformers' Trainer with progress, checkpoints and a clean stop."""

from __future__ import annotations

import ctypes
import json
import logging
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from domains.contract import GroundworkError
from models.checkpoints import TRAINER_STATE, corrupt, last_checkpoint
from models.encoder import Encoder, parameter_count
from models.progress import Interrupted, Progress
from models.settings import Kept, TrainingSettings

logger = logging.getLogger("groundwork.training")

LONGEST_UNSAVED = 300.0
"""Seconds of training that a process that is killed may lose."""
STEPS_BETWEEN_TRIMS = 20


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training cost and reached."""

    steps: int
    seconds: float
    best_loss: float
    samples_per_second: float
    trainable_parameters: int
    device: str


class _Samples(Dataset):
    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class _Buckets(LengthGroupedSampler):
    """Batches of like lengths in an order that seed and epoch alone decide.

    So a run resumed within an epoch goes on with the batches that it had not seen.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()


class _BucketingTrainer(Trainer):
    """Trainer whose batches hold samples of like size, so that little is padded."""

    def __init__(self, *args: Any, lengths: Sequence[int], rates: Mapping[str, float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lengths = [int(length) for length in lengths]
        self._rates = rates

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if getattr(self, "optimizer", None) is None and self._rates:
            learning = model or self.model
            decaying = set(self.get_decay_parameter_names(learning))
            groups: dict[tuple[float, float], list[nn.Parameter]] = {}
            for name, weights in learning.named_parameters():
                if weights.requires_grad:
                    decay = self.args.weight_decay if name in decaying else 0.0
                    groups.setdefault((self._rates[name], decay), []).append(weights)
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, learning)
            told = [
                {"params": weights, "lr": rate * self.args.learning_rate, "weight_decay": decay}
                # The full rate first: it is the one that is logged.
                for (rate, decay), weights in sorted(groups.items(), key=lambda group: -group[0][0])
            ]
            self.optimizer = kind(told, **options)
        return super().create_optimizer(model)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return _Buckets(batch, self._lengths, self.args.seed)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, None, None]:
        # The trainer takes a batch without labels for one without a loss; self-supervised ones have one.
        with torch.no_grad(), self.compute_loss_context_manager():
            loss: Any = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach().mean(), None, None


class _Listener(TrainerCallback):
    """Reports progress, and has a checkpoint written at the end of a step when it is time, or to stop."""

    def __init__(self, report: Callable[[Progress], None], stop: _Stop) -> None:
        self.report = report
        self.stop = stop
        self.saved = monotonic()
        self.started = False
        """Whether a step was begun: all of a checkpoint has been read by then."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved = monotonic()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        metrics = {name: float(value) for name, value in (logs or {}).items() if name != "epoch"}
        self.report(Progress(state.global_step, state.max_steps, metrics))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % STEPS_BETWEEN_TRIMS == 0:
            _give_back_memory()
        # An epoch of a large corpus takes hours: a process that is killed must not lose all of it.
        control.should_save |= monotonic() - self.saved > LONGEST_UNSAVED
        if self.stop.signum is not None:
            control.should_save = True
            control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # The trainer takes a stop within an epoch for its end: it would evaluate there, and save again
        # with the random numbers that this used up, so that a resumed run would draw others.
        if self.stop.signum is not None and state.epoch % 1:
            control.should_evaluate = control.should_save = False


class _Patience(TrainerCallback):
    """Ends a training whose validation loss has not improved for some epochs.

    It counts in the history that checkpoints hold: transformers' own callback begins anew on resuming, so
    that a resumed run would go on for longer than an undisturbed one.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def _is_spent(self, state: Any) -> bool:
        losses = _validation_losses(state)
        return bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= self.epochs

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= self._is_spent(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # True here only where the process had died between its last checkpoint and its end.
        control.should_training_stop |= self._is_spent(state)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._is_spent(state):
            control.should_evaluate = control.should_save = False


def _validation_losses(state: Any) -> list[float]:
    """One for each epoch that is over, those before a resumption among them."""
    return [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]


@dataclass
class _Stop:
    signum: int | None = None


@contextmanager
def stoppable() -> Iterator[_Stop]:
    """Collect SIGTERM and SIGINT instead of dying in the middle of an optimiser step."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals only ever reach the main thread
        return

    def request(signum: int, _frame: Any) -> None:
        stop.signum = signum

    previous = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _checkpointed(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Where ``wanted``, let the encoder keep no activations within its layers (Chen et al. 2016).

    The Trainer's own option reaches only a model that is one of transformers', not one within another.
    """
    encoders = [part for part in model.modules() if isinstance(part, PreTrainedModel)] if wanted else []
    for encoder in encoders:
        encoder.activation_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        for encoder in encoders:
            encoder.activation_checkpointing_disable()


def train(
    model: nn.Module,
    training: Sequence[Any],
    validation: Sequence[Any],
    *,
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    lengths: Sequence[int],
    settings: TrainingSettings,
    folder: Path,
    resume: bool,
    report: Callable[[Progress], None],
    patience: int | None = None,
    rates: Mapping[str, float] | None = None,
    keeps: Kept = "best",
) -> TrainingResult:
    """Train ``model`` in place and leave it with the weights of its best validation loss, or its last.

    ``training`` and ``validation`` hold items that ``collate`` turns into the model's keyword
    arguments; the model returns ``{"loss": scalar}``. ``lengths`` are the tokens of each training
    item. With ``patience``, training ends after that many epochs without improvement; ``rates`` are
    shares of the learning rate by parameter, where not all learn at the same. Checkpoints
    go to ``folder``; with ``resume`` the newest is continued, and the result equals that of an
    undisturbed run. Raises Interrupted after SIGTERM or SIGINT once a checkpoint is written, and
    GroundworkError for a checkpoint that cannot be read or a loss that is not a number.
    """
    if not settings.learning_rate or not settings.batch_size:
        raise ValueError("whoever knows what learns chooses its learning rate and its batches")
    steps_per_epoch = -(-len(training) // settings.batch_size)
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and _gains_from_bf16(model))
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=min(steps_per_epoch, max(1, steps_per_epoch * settings.epochs // 10)),
        max_grad_norm=1.0,
        seed=settings.seed,
        bf16=bf16,
        use_cpu=bf16 and not torch.cuda.is_available(),
        torch_compile=settings.compile,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=keeps == "best",
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=max(1, min(20, steps_per_epoch // 4)),
        prediction_loss_only=True,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        log_level="error",
    )
    checkpoint = last_checkpoint(folder) if resume else None
    if checkpoint is None:
        for old in folder.glob("checkpoint-*"):
            shutil.rmtree(old, ignore_errors=True)
    else:
        _find_best_again(checkpoint)
    with stoppable() as stop, _checkpointed(model, settings.gradient_checkpointing):
        listener = _Listener(report, stop)
        trainer = _BucketingTrainer(
            model,
            arguments,
            data_collator=collate,
            train_dataset=_Samples(training),
            eval_dataset=_Samples(validation),
            lengths=lengths,
            rates=rates or {},
            callbacks=[listener] + ([_Patience(patience)] if patience is not None else []),
        )
        for callback in list(trainer.callback_handler.callbacks):
            if type(callback).__name__ == "PrinterCallback":
                trainer.remove_callback(callback)
        output = _run(trainer, listener, checkpoint, folder)
        if stop.signum is not None:
            raise Interrupted(stop.signum)
    best = trainer.state.best_metric
    # Weights that went astray after the best epoch are the last ones, too.
    kept = best if keeps == "best" else next(reversed(_validation_losses(trainer.state)), None)
    if best is None or kept is None or not np.isfinite([best, kept]).all():
        raise GroundworkError(
            "the validation loss is not a number: lower the learning rate, or look for extreme target values"
        )
    # Kept by the trainer for restoring its arguments; nothing here reads a pickle.
    for leftover in folder.glob("checkpoint-*/training_args.bin"):
        leftover.unlink()
    return TrainingResult(
        steps=trainer.state.global_step,
        seconds=float(output.metrics["train_runtime"]),
        best_loss=float(best),
        samples_per_second=float(output.metrics["train_samples_per_second"]),
        trainable_parameters=parameter_count(model, trainable_only=True),
        device=str(arguments.device),
    )


def _gains_from_bf16(model: nn.Module) -> bool:
    """Whether ``model`` learns faster here where its products are in bfloat16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    found = torch.cpu.get_capabilities()
    multiplies_it = bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return multiplies_it and any(
        isinstance(part, Encoder) and part.has_large_products for part in model.modules()
    )


def _give_back_memory() -> None:
    """Return freed memory to the system, where the C library is glibc.

    Batches of ever other sizes leave gaps that glibc keeps: a training that needs 0.4 GB grew to 5 GB in an
    hour.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _find_best_again(checkpoint: Path) -> None:
    """Let a checkpoint know the best one by where it is now: the state folder may have been moved."""
    path = checkpoint / TRAINER_STATE
    try:
        state = json.loads(path.read_text())
        best = path.parents[1] / Path(state["best_model_checkpoint"] or ".").name
    except (OSError, ValueError, KeyError, TypeError):
        return  # told of when it is read
    if best.name and best.is_dir() and str(best) != state["best_model_checkpoint"]:
        moved = path.with_suffix(".moved")
        moved.write_text(json.dumps({**state, "best_model_checkpoint": str(best)}, indent=2))
        moved.replace(path)


def _run(trainer: Trainer, listener: _Listener, checkpoint: Path | None, folder: Path) -> Any:
    try:
        return trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except OSError as error:
        if error.errno == 28:
            raise GroundworkError(
                f"no space left to write a checkpoint in {folder}: free some disk space, then resume"
            ) from error
        raise
    except Exception as error:
        if checkpoint is not None and not listener.started:
            raise corrupt(checkpoint, error) from error
        raise
