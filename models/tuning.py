"""Fine-tuning: an encoder with a head for one task, by linear probe, LoRA or full training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import BaseModel, Field
from torch import nn
from torch.nn import functional as F

from domains.contract import GroundworkError, Target
from models.encoder import Batch, Encoder

Mode = Literal["probe", "lora", "full"]

LEARNING_RATES: dict[Mode, float] = {"probe": 1e-2, "lora": 2e-3, "full": 5e-4}
"""Peak rates by mode: the fewer weights learn, the larger their steps may be."""


class TuningSettings(BaseModel):
    """How an encoder is adapted to a task."""

    mode: Annotated[
        Mode,
        Field(
            description="What learns: probe = a linear head on the frozen encoder; lora = low-rank "
            "additions and the head; full = every weight"
        ),
    ] = "full"
    head_dropout: Annotated[
        float, Field(ge=0, lt=1, description="Dropout in the head (fraction of its inputs)")
    ] = 0.1
    lora_rank: Annotated[int, Field(ge=1, le=256, description="Rank of the low-rank additions (lora)")] = 8
    patience: Annotated[
        int, Field(ge=1, le=1000, description="Epochs without a better validation loss before stopping")
    ] = 8


class Head(nn.Module):
    """Pooled embedding [B, D] -> raw outputs [B, outputs]."""

    def __init__(self, width: int, outputs: int, dropout: float, linear: bool) -> None:
        super().__init__()
        hidden: list[nn.Module] = [] if linear else [nn.Linear(width, width), nn.GELU()]
        self.layers = nn.Sequential(
            nn.LayerNorm(width), *hidden, nn.Dropout(dropout), nn.Linear(width, outputs)
        )

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.layers(pooled)


class TaskModel(nn.Module):
    """Encoder, head and the scaling of the targets.

    ``forward`` gives ``logits`` float32 [B, outputs] (each target's outputs side by side, in task
    order) and, with labels, the ``loss``. Labels are float32 [B, targets]: the value in the target's
    unit, or the code of the class; NaN where not measured.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, encoder: Encoder, targets: Sequence[Target], *, linear_head: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.encoder: nn.Module = encoder
        self.targets = tuple(targets)
        self.linear_head = linear_head
        outputs = sum(target.outputs for target in self.targets)
        self.head = Head(encoder.config.hidden_size, outputs, dropout, linear_head)
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("scale", torch.ones(outputs))

    def fit_scaling(self, labels: np.ndarray) -> None:
        """Set mean and scale of the regression outputs from training labels [n, targets]."""
        for column, (target, outputs) in enumerate(self.slices()):
            if target.kind == "regression":
                self.mean[outputs] = float(np.nanmean(labels[:, column]))
                self.scale[outputs] = max(float(np.nanstd(labels[:, column])), 1e-8)

    def slices(self) -> list[tuple[Target, slice]]:
        """Each target with the columns of its outputs."""
        placed, start = [], 0
        for target in self.targets:
            placed.append((target, slice(start, start + target.outputs)))
            start += target.outputs
        return placed

    def forward(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.head(self.encoder(batch).pooled).float()
        if labels is None:
            return {"logits": logits}
        return {"loss": self.loss(logits, labels), "logits": logits}

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over targets of the mean loss over measured labels."""
        losses = []
        for column, (target, outputs) in enumerate(self.slices()):
            measured = torch.isfinite(labels[:, column])
            if not measured.any():
                continue
            predicted, truth = logits[measured, outputs], labels[measured, column]
            if target.kind == "regression":
                scaled = (truth - self.mean[outputs]) / self.scale[outputs]
                losses.append(F.smooth_l1_loss(predicted[:, 0], scaled))
            elif target.kind == "binary":
                losses.append(F.binary_cross_entropy_with_logits(predicted[:, 0], truth))
            else:
                losses.append(F.cross_entropy(predicted, truth.long()))
        return torch.stack(losses).mean() if losses else logits.sum() * 0

    def outputs(self, logits: torch.Tensor) -> torch.Tensor:
        """Raw outputs -> values in the target's unit, or probabilities; float32 [B, outputs]."""
        values = logits * self.scale + self.mean
        for target, outputs in self.slices():
            if target.kind == "binary":
                values[:, outputs] = torch.sigmoid(logits[:, outputs])
            elif target.kind == "multiclass":
                values[:, outputs] = torch.softmax(logits[:, outputs], -1)
        return values


def prepare(model: TaskModel, mode: Mode, lora_rank: int) -> None:
    """Choose what learns, in place."""
    encoder = model.encoder
    if not isinstance(encoder, Encoder):
        raise TypeError("the model is prepared already")
    if mode == "probe":
        encoder.requires_grad_(False)
    elif mode == "lora":
        model.encoder = get_peft_model(
            encoder,
            LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules=list(encoder.lora_modules)),
        )


def merge(model: TaskModel) -> None:
    """Fold low-rank additions into the weights, in place: a version is an ordinary encoder again."""
    if isinstance(model.encoder, PeftModel):
        model.encoder = model.encoder.merge_and_unload()
    model.encoder.requires_grad_(True)


MOST_CLASSES = 100
"""More distinct texts than this are names, not classes."""

MOSTLY = 0.9
"""Share of numbers that makes a column numeric; its other cells are reported, not learnt."""


def infer_target(
    name: str, cells: Sequence[str], kind: Literal["auto", "regression", "classification"], unit: str = ""
) -> Target:
    """Say what a column of text cells is.

    The rule of ``auto``: a column of which at least nine measured cells in ten are numbers is a
    regression target, unless they are exactly the two numbers 0 and 1, which make it binary; any
    other column is a classification target, binary with two distinct texts and multiclass with 3 to
    100. A classification target by request takes its distinct cells as classes. Empty cells and
    ``nan`` are not measured. Raises GroundworkError for a column that is empty, constant or neither.
    """
    measured = [cell.strip() for cell in cells if not is_missing(cell)]
    if not measured:
        raise GroundworkError(f"target {name!r} has no value in any usable row: choose another column")
    numbers = [number_of(cell) for cell in measured]
    distinct_numbers = sorted({number for number in numbers if number is not None})
    numeric = sum(number is not None for number in numbers) >= MOSTLY * len(measured)
    if kind == "auto":
        kind = "regression" if numeric and distinct_numbers != [0.0, 1.0] else "classification"
    if kind == "regression":
        if not numeric:
            odd = next(cell for cell, number in zip(measured, numbers, strict=True) if number is None)
            raise GroundworkError(
                f"target {name!r} holds text such as {odd[:40]!r} where numbers are needed: "
                "clean it or use --task classification"
            )
        if len(distinct_numbers) == 1:
            raise GroundworkError(f"target {name!r} is constant ({measured[0]}): there is nothing to learn")
        return Target(name=name, kind="regression", unit=unit)
    # "0", "0.0" and "0." are one class; the shortest way to write the number names it.
    distinct = sorted(
        {class_label(cell) for cell in measured}, key=lambda label: (number_of(label) or 0, label)
    )
    if len(distinct) == 1:
        raise GroundworkError(f"target {name!r} is constant ({distinct[0]}): there is nothing to learn")
    if len(distinct) > MOST_CLASSES:
        raise GroundworkError(
            f"target {name!r} has {len(distinct)} distinct values, more than {MOST_CLASSES} classes: "
            "is it a name rather than a target? use --task regression for numbers"
        )
    return Target(name=name, kind="binary" if len(distinct) == 2 else "multiclass", classes=tuple(distinct))


def is_missing(cell: str) -> bool:
    """Whether a cell says that nothing was measured."""
    return cell.strip().lower() in {"", "nan", "na", "n/a", "null", "none"}


def number_of(cell: str) -> float | None:
    """The finite number a cell writes, or None."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def class_label(cell: str) -> str:
    """The label that a cell of a classification target writes."""
    number = number_of(cell)
    return cell.strip() if number is None else f"{number:g}"


def label_matrix(targets: Sequence[Target], columns: Sequence[Sequence[str]]) -> np.ndarray:
    """Text cells by target -> float64 [n, targets].

    Holds values or class codes; NaN where not measured or where the cell does not fit the target.
    """
    labels = np.full((len(columns[0]), len(targets)), np.nan)
    for index, (target, cells) in enumerate(zip(targets, columns, strict=True)):
        codes = {label: float(code) for code, label in enumerate(target.classes)}
        for row, cell in enumerate(cells):
            if is_missing(cell):
                continue
            value = number_of(cell) if target.kind == "regression" else codes.get(class_label(cell))
            if value is not None:
                labels[row, index] = value
    return labels
