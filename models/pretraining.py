"""Self-supervised pretraining: one loss over target specifications, whatever the domain.

Masked prediction follows BERT and its graph form (Hu et al. 2020, attribute masking); regression of
computed descriptors from the whole sample follows CheMeleon (Burns et al. 2025), and that of the bits of a
fingerprint KPGT (Li et al. 2023). Two views of a sample are to know one another among those of the others of
their batch (van den Oord et al. 2018, InfoNCE; Chen et al. 2020, SimCLR).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from domains.contract import GroundworkError, Sample, TargetSpec
from models.encoder import Batch, Encoder

TEMPERATURE = 0.1
VIEW_WIDTH = 128

OUTLIER = 5.0
"""Standardised reals are clipped here: descriptors have tails that would rule the loss."""


class PretrainingModel(nn.Module):
    """An encoder with one small head per target.

    Shapes as in ``Encoder.masked_forward``; ``forward`` returns a scalar loss (mean over targets,
    each the mean over its observed elements; and ``contrast`` times that of two views) under ``loss``, as the
    trainer expects.
    """

    def __init__(
        self, encoder: Encoder, targets: Sequence[TargetSpec], mask_ratio: float, contrast: float = 0.0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.targets = tuple(targets)
        self.mask_ratio = mask_ratio
        self.contrast = contrast
        width = encoder.config.hidden_size
        self.project = _head(width, VIEW_WIDTH) if contrast else None
        self.heads = nn.ModuleDict(
            {target.name: _head(encoder.asked_width(target), target.size) for target in self.targets}
        )
        for target in self.targets:
            if target.kind == "reals":
                self.register_buffer(f"mean_{target.name}", torch.zeros(target.size))
                self.register_buffer(f"scale_{target.name}", torch.ones(target.size))
            elif target.kind == "bits":
                self.register_buffer(f"log_odds_{target.name}", torch.zeros(target.size))
                self.register_buffer(f"entropy_{target.name}", torch.tensor(math.log(2.0)))

    def fit_scaling(self, samples: Sequence[Sample]) -> None:
        """Set the scaling of every sample-level target of reals or bits from training samples."""
        self.encoder.fit_targets(samples)
        for target in self.targets:
            if target.kind == "bits":
                self._fit_bits(target, samples)
            if target.kind != "reals" or target.level != "sample" or target.name not in samples[0]:
                continue
            values = np.stack([sample[target.name] for sample in samples]).astype(np.float64)
            with warnings.catch_warnings():
                # A column without a single value is expected, and has nothing to be scaled.
                warnings.simplefilter("ignore", RuntimeWarning)
                mean = np.nan_to_num(np.nanmean(values, axis=0))
                scale = np.nan_to_num(np.nanstd(values, axis=0))
            # A constant column carries nothing: a scale of 1 leaves its standardised value at 0.
            scale[scale < 1e-8] = 1.0
            self.get_buffer(f"mean_{target.name}").copy_(torch.from_numpy(mean))
            self.get_buffer(f"scale_{target.name}").copy_(torch.from_numpy(scale))

    def _fit_bits(self, target: TargetSpec, samples: Sequence[Sample]) -> None:
        """Begin with how often each bit is set, so that only what a sample tells is left to learn."""
        counts = np.zeros(target.size)
        for sample in samples:
            counts += np.unpackbits(sample[target.name])[: target.size]
        often = torch.from_numpy((counts + 0.5) / (len(samples) + 1))
        self.get_buffer(f"log_odds_{target.name}").copy_(torch.logit(often))
        entropy = -(often * often.log() + (1 - often) * (1 - often).log())
        self.get_buffer(f"entropy_{target.name}").copy_(entropy.mean())

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        if self.training:
            batch, _ = self.encoder.augment(batch)
        views = self.project is not None
        masked = self.encoder.masked_forward(batch, self.targets, self.mask_ratio, views=views)
        losses = [
            self.loss(
                target, self.heads[target.name](masked.features[target.name]), masked.targets[target.name]
            )
            for target in self.targets
        ]
        loss = torch.stack(losses).mean()
        if self.project is not None:
            if masked.views is None:
                raise GroundworkError(
                    f"{type(self.encoder).__name__} has no two views of a sample: set contrast to 0"
                )
            loss = loss + self.contrast * likeness_loss(*map(self.project, masked.views))
        return {"loss": loss}

    def loss(self, target: TargetSpec, predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Mean loss over what was observed; zero, with a gradient, where nothing was."""
        if not len(truth):
            return predicted.sum()
        predicted = predicted.float()
        if target.kind == "classes":
            return F.cross_entropy(predicted, truth)
        if target.kind == "bits":
            logits = predicted + self.get_buffer(f"log_odds_{target.name}")
            # A loss of 1 is to know no more than how often each bit is set.
            error = F.binary_cross_entropy_with_logits(logits, unpack_bits(truth, target.size))
            return error / self.get_buffer(f"entropy_{target.name}")
        truth = (truth - self.get_buffer(f"mean_{target.name}")) / self.get_buffer(f"scale_{target.name}")
        observed = torch.isfinite(truth)
        error = F.smooth_l1_loss(
            predicted, torch.where(observed, truth, 0).clamp(-OUTLIER, OUTLIER), reduction="none"
        )
        return (error * observed).sum() / observed.sum().clamp(min=1)


def _head(width: int, size: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, size))


def likeness_loss(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """InfoNCE of views [B, k] that belong together row by row: the mean surprise at whose is whose."""
    # In single precision: to bfloat16 a cosine near 1 is 1, and what it is short of it is all that is learnt.
    with torch.autocast(one.device.type, enabled=False):
        ones, others = (F.normalize(views.float(), dim=1) for views in (one, other))
        scores = ones @ others.T / TEMPERATURE
    whose = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, whose) + F.cross_entropy(scores.T, whose)) / 2


def unpack_bits(packed: torch.Tensor, size: int) -> torch.Tensor:
    """Bytes uint8 [M, size / 8] -> float32 [M, size] of zeros and ones, the highest bit of a byte first."""
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    return ((packed[..., None] >> places) & 1).flatten(-2)[..., :size].float()
