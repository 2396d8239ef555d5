"""Fine-tuning: an encoder with a head for one task, by linear probe, LoRA or full training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from domains.contract import GroundworkError, Sample, Target, TargetSpec
from models.encoder import Batch, Encoder
from models.pixel_head import LinearPixelHead, PixelHead
from models.pretraining import OUTLIER, unpack_bits
from models.settings import Mode
from models.targets import is_pixel_task

SMOOTHING = 0.1
"""Share of a label that is spread over all classes."""


class Head(nn.Module):
    """Pooled embedding [B, D], and what was computed of each sample [B, F] -> raw outputs [B, outputs]."""

    def __init__(self, width: int, outputs: int, dropout: float, linear: bool, computed: int = 0) -> None:
        super().__init__()
        self.is_linear = linear
        self.norm = nn.LayerNorm(width)
        hidden = outputs if linear else width
        self.from_embedding = nn.Linear(width, hidden)
        self.from_computed = nn.Linear(computed, hidden, bias=False) if computed else None
        if self.from_computed is not None:
            # The embedding speaks first: what was computed comes in as far as it helps.
            nn.init.zeros_(self.from_computed.weight)
        self.dropout = nn.Dropout(dropout)
        self.decide: nn.Module = nn.Identity()
        if not linear:
            self.decide = nn.Sequential(nn.GELU(), self.dropout, nn.Linear(width, outputs))

    def forward(self, pooled: torch.Tensor, computed: torch.Tensor | None = None) -> torch.Tensor:
        embedded = self.norm(pooled)
        hidden = self.from_embedding(self.dropout(embedded) if self.is_linear else embedded)
        if self.from_computed is not None:
            hidden = hidden + self.from_computed(self.dropout(computed))
        return self.decide(hidden)


class ComputedFeatures(nn.Module):
    """What a domain computes of whole samples, as features: standardised, with gaps at the mean.

    The values are those that pretraining predicts; a head may do better with the values themselves.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, targets: Sequence[TargetSpec]) -> None:
        super().__init__()
        self.targets = tuple(targets)
        self.size = sum(target.size for target in self.targets)
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("scale", torch.ones(self.size))

    def fit(self, samples: Sequence[Sample]) -> None:
        """Measure mean and spread in training samples."""
        values = np.stack([self._raw(sample) for sample in samples]).astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a column without a value is no surprise
            mean, scale = np.nan_to_num(np.nanmean(values, 0)), np.nan_to_num(np.nanstd(values, 0))
        self.get_buffer("mean").copy_(torch.from_numpy(mean))
        # A feature that never varies says nothing, whatever it is later. Rare bits are not to shout.
        is_bit = np.repeat(
            [target.kind == "bits" for target in self.targets], [target.size for target in self.targets]
        )
        spread = np.where(scale > 1e-6, np.where(is_bit, 1.0, scale), np.inf)
        self.get_buffer("scale").copy_(torch.from_numpy(spread))

    def _raw(self, sample: Sample) -> np.ndarray:
        return np.concatenate(
            [
                np.unpackbits(sample[target.name])[: target.size]
                if target.kind == "bits"
                else sample[target.name]
                for target in self.targets
            ]
        )

    def forward(self, batch: Batch) -> torch.Tensor:
        values = torch.cat(
            [
                unpack_bits(batch[target.name], target.size) if target.kind == "bits" else batch[target.name]
                for target in self.targets
            ],
            -1,
        )
        return ((values - self.mean) / self.scale).nan_to_num(0.0).clamp(-OUTLIER, OUTLIER)


class TaskModel(nn.Module):
    """Encoder, head and the scaling of the targets.

    ``forward`` gives ``logits`` float32 [B, outputs] (each target's outputs side by side, in task
    order) and, with labels, the ``loss``. Labels are float32 [B, targets]: the value in the target's
    unit, or the code of the class; NaN where not measured.
    A task of pixel level has one target; its logits are [B, H * W, outputs], its labels [B, H * W], and
    ``valid`` bool [B, H * W] says which pixels hold data.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        encoder: Encoder,
        targets: Sequence[Target],
        *,
        linear_head: bool,
        dropout: float = 0.0,
        computed: Sequence[TargetSpec] = (),
    ) -> None:
        super().__init__()
        self.encoder: nn.Module = encoder
        self.targets = tuple(targets)
        self.linear_head = linear_head
        outputs = sum(target.outputs for target in self.targets)
        width = encoder.config.hidden_size
        self.head: nn.Module
        if self.answers_pixels:
            of_pixels = LinearPixelHead if linear_head else PixelHead
            self.head = of_pixels(encoder.dense_width, encoder.pixel_channels, outputs, dropout)
        else:
            self.head = Head(width, outputs, dropout, linear_head, sum(target.size for target in computed))
        self.computed = ComputedFeatures(computed) if computed else None
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("scale", torch.ones(outputs))

    @property
    def answers_pixels(self) -> bool:
        """Whether it answers each pixel rather than each sample."""
        return is_pixel_task(self.targets)

    def fit_scaling(self, labels: np.ndarray) -> None:
        """Set mean and scale of the regression outputs from training labels [n, targets].

        Classes have 0 and 1, or the inverse of a temperature as their scale.
        """
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

    def forward(
        self, batch: Batch, labels: torch.Tensor | None = None, signs: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        encoder: Any = self.encoder
        if self.training:
            batch, turned = encoder.augment(batch, labels if self.answers_pixels else None)
            labels = turned if self.answers_pixels else labels
        if self.answers_pixels:
            features = encoder.dense(batch)
            logits, valid = self.head(features).float(), features.valid.flatten(1)
            if labels is None:
                return {"logits": logits, "valid": valid}
            labels = torch.where(valid, labels, torch.nan)
            return {"loss": self.loss(logits.flatten(0, 1), labels.reshape(-1, 1)), "logits": logits}
        computed = None if self.computed is None else self.computed(batch)
        logits = self.head(self.encoder(batch).pooled, computed).float()
        if labels is None:
            return {"logits": logits}
        return {"loss": self.loss(logits, labels, signs), "logits": logits}

    def loss(
        self, logits: torch.Tensor, labels: torch.Tensor, signs: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean over targets of the mean loss over measured labels.

        In training, labels of several classes of samples are smoothed (Szegedy et al., CVPR 2016), so that
        surer answers are not for ever better. Probabilities are too modest then; ``scale`` makes up for it.
        ``signs`` int8, shaped as ``labels``, is +1 where the truth is at least the label, -1 where at most:
        there, a prediction beyond the label costs nothing (a one-sided loss, as of a Tobit model).
        """
        losses = []
        for column, (target, outputs) in enumerate(self.slices()):
            measured = torch.isfinite(labels[:, column])
            if not measured.any():
                continue
            predicted, truth = logits[measured, outputs], labels[measured, column]
            if target.kind == "regression":
                scaled = (truth - self.mean[outputs]) / self.scale[outputs]
                if signs is not None:
                    sign, beyond = signs[measured, column], predicted[:, 0].detach()
                    scaled = torch.where(sign > 0, torch.maximum(scaled, beyond), scaled)
                    scaled = torch.where(sign < 0, torch.minimum(scaled, beyond), scaled)
                losses.append(F.smooth_l1_loss(predicted[:, 0], scaled))
            elif target.kind == "binary":
                losses.append(F.binary_cross_entropy_with_logits(predicted[:, 0], truth))
            else:
                smoothed = SMOOTHING if self.training and not self.answers_pixels else 0.0
                losses.append(F.cross_entropy(predicted, truth.long(), label_smoothing=smoothed))
        return torch.stack(losses).mean() if losses else logits.sum() * 0

    def outputs(self, logits: torch.Tensor) -> torch.Tensor:
        """Raw outputs -> values in the target's unit, or probabilities; float32 [..., outputs]."""
        values = logits * self.scale + self.mean
        for target, outputs in self.slices():
            if target.kind == "binary":
                values[..., outputs] = torch.sigmoid(values[..., outputs])
            elif target.kind == "multiclass":
                values[..., outputs] = torch.softmax(values[..., outputs], -1)
        return values


def prepare(model: TaskModel, mode: Mode, lora_rank: int) -> None:
    """Choose what learns, in place."""
    encoder = model.encoder
    if not isinstance(encoder, Encoder):
        raise TypeError("the model is prepared already")
    if mode == "probe":
        encoder.requires_grad_(False)
    elif mode == "lora":
        from peft import LoraConfig, get_peft_model  # here: serving and the other modes do without it

        adapted = LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules=list(encoder.lora_modules))
        model.encoder = get_peft_model(encoder, adapted)


def layer_rates(model: TaskModel, decay: float) -> dict[str, float]:
    """Share of the learning rate by parameter name: 1 for the head, ``decay`` times that per layer below.

    What lies deep in a pretrained encoder is general, and is changed least (Howard & Ruder, ULMFiT, ACL 2018;
    Clark et al., ELECTRA, ICLR 2020). Raises GroundworkError for an encoder without ``blocks``.
    """
    encoder: Any = model.encoder
    if not hasattr(encoder, "blocks"):
        raise GroundworkError(
            f"{type(encoder).__name__} has no layers that could learn at rates of their own"
        )
    layers = len(encoder.blocks)

    def share(name: str) -> float:
        part, _, rest = name.removeprefix("encoder.").partition(".")
        if not name.startswith("encoder."):
            return 1.0
        if part in encoder.top_modules:
            return decay
        below = layers - int(rest.partition(".")[0]) if part == "blocks" else layers + 1
        return decay ** (1 + below)

    return {name: share(name) for name, _ in model.named_parameters()}


def merge(model: TaskModel) -> None:
    """Fold low-rank additions into the weights, in place: a version is an ordinary encoder again."""
    if not isinstance(model.encoder, Encoder):  # adapted by ``prepare``
        adapted: Any = model.encoder
        model.encoder = adapted.merge_and_unload()
    model.encoder.requires_grad_(True)
