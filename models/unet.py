"""A small U-Net that learns a task from its own chips alone: what is reached without pretraining.

Ronneberger et al., MICCAI 2015 (LNCS 9351, 234), with three levels and a few channels. It is a floor and is
never kept; a foundation that does not beat it is not worth its cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from domains.contract import Target
from models.settings import TrainingSettings
from models.training import train

WIDTHS = (16, 32, 64)
"""Channels by level: about 120,000 parameters."""
LEARNING_RATE, BATCH, PATIENCE = 2e-3, 8, 8
MOST_VALUES = 1 << 26
"""Numbers of training images that are kept in memory, 256 MiB; beyond, as many images as fit are drawn."""
MOST_VALIDATION = 200
"""Validation images that say when to stop."""


class Image(NamedTuple):
    """What one record shows."""

    pixels: np.ndarray
    """float32 [channels, h, w], NaN where there is no data."""
    labels: np.ndarray
    """float32 [h, w], the value or the code of the class, NaN where not known."""


class DrawnImages:
    """Images of one side of a split as records come by; some of them where not all fit into memory."""

    def __init__(self, records: int, seed: int, most: int = MOST_VALUES) -> None:
        """``records`` will be offered; at most ``most`` are kept, and ``MOST_VALUES`` numbers."""
        self.images: list[Image] = []
        self.most = most
        self.order = np.random.default_rng(seed).permutation(records)
        self.offered = 0

    def offer(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        """pixels [channels, h, w], labels [h × w]."""
        most = max(1, min(self.most, MOST_VALUES // max(1, pixels.size)))
        if self.order[self.offered] < most:
            self.images.append(Image(pixels, labels.reshape(pixels.shape[-2:])))
        self.offered += 1


class UNet(nn.Module):
    """Standardises its input, puts gaps at the mean, and sees where they are: a channel is the share of bands
    with data at each pixel."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, target: Target, mean: np.ndarray, scale: np.ndarray, middle: float, spread: float):
        """``mean`` and ``scale`` [channels] are of the input, ``middle`` and ``spread`` of the labels."""
        super().__init__()
        self.target, self.middle, self.spread = target, middle, spread
        self.register_buffer("mean", torch.from_numpy(mean).float()[:, None, None])
        self.register_buffer("scale", torch.from_numpy(scale).float()[:, None, None])
        sizes = (len(mean) + 1, *WIDTHS)
        self.down = nn.ModuleList(map(_convolutions, sizes, WIDTHS))
        self.up = nn.ModuleList(_convolutions(low + high, low) for low, high in pairwise(WIDTHS))
        self.decide = nn.Conv2d(WIDTHS[0], target.outputs, 1)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [B, channels, h, w] -> raw outputs [B, outputs, h, w]."""
        known = torch.isfinite(pixels)
        scaled = ((pixels - self.mean) / self.scale).masked_fill(~known, 0.0)
        hidden = torch.cat([scaled, known.float().mean(1, keepdim=True)], 1)
        passed = []
        for level, convolutions in enumerate(self.down):
            hidden = convolutions(F.max_pool2d(hidden, 2) if level else hidden)
            passed.append(hidden)
        for level in reversed(range(len(self.up))):
            # To the size of the level above rather than to twice its own: sides may be odd.
            larger = F.interpolate(hidden, size=passed[level].shape[-2:], mode="nearest")
            hidden = self.up[level](torch.cat([passed[level], larger], 1))
        return self.decide(hidden).float()

    def forward(self, pixels: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The mean loss over labelled pixels, as that of a tuned model: see ``tuning.TaskModel.loss``."""
        known = torch.isfinite(labels) & torch.isfinite(pixels).any(1)
        logits = self.logits(pixels).movedim(1, -1)[known]
        truth = labels[known]
        if not len(truth):
            return {"loss": logits.sum() * 0}
        if self.target.kind == "regression":
            return {"loss": F.smooth_l1_loss(logits[:, 0], (truth - self.middle) / self.spread)}
        if self.target.kind == "binary":
            return {"loss": F.binary_cross_entropy_with_logits(logits[:, 0], truth)}
        return {"loss": F.cross_entropy(logits, truth.long())}

    @torch.inference_mode()
    def answer(self, pixels: np.ndarray) -> np.ndarray:
        """One image [channels, h, w] -> values or probabilities [pixels, outputs], NaN without data."""
        asked = torch.from_numpy(np.array(pixels, np.float32)).to(self.mean.device)
        logits = self.logits(asked[None])[0].flatten(1).T
        if self.target.kind == "regression":
            answered = logits * self.spread + self.middle
        else:
            answered = logits.sigmoid() if self.target.kind == "binary" else logits.softmax(-1)
        return answered.masked_fill(~torch.isfinite(asked).any(0).flatten()[:, None], torch.nan).cpu().numpy()


def train_unet(
    target: Target, training: Sequence[Image], validation: Sequence[Image], *, epochs: int, seed: int
) -> UNet:
    """A network with the weights of its best validation loss, after at most ``epochs`` passes.

    Training images are turned and mirrored at random. Raises Interrupted as ``models.training.train``.
    """
    torch.manual_seed(seed)
    mean, scale = _input_scaling(training)
    labels = np.concatenate([image.labels[np.isfinite(image.labels)] for image in training])
    is_number = target.kind == "regression"
    middle, spread = (float(labels.mean()), float(labels.std()) or 1.0) if is_number else (0.0, 1.0)
    model = UNet(target, mean, scale, middle, spread)
    settings = TrainingSettings(
        epochs=epochs, batch_size=BATCH, learning_rate=LEARNING_RATE, seed=seed, precision="fp32"
    )
    with TemporaryDirectory() as folder:
        train(
            model,
            _Turned(training, seed),
            validation,
            collate=_collate,
            lengths=[1] * len(training),
            settings=settings,
            folder=Path(folder),
            resume=False,
            report=lambda progress: None,
            patience=PATIENCE,
        )
    return model.eval()


def _convolutions(inputs: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for size in (inputs, outputs):
        layers += [nn.Conv2d(size, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def _input_scaling(images: Sequence[Image]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, float64 [channels]; 0 and 1 for one without spread."""
    channels = len(images[0].pixels)
    counted, total, squared = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    for image in images:
        values = image.pixels.reshape(channels, -1).astype(np.float64)
        counted += np.isfinite(values).sum(1)
        total += np.nansum(values, 1)
        squared += np.nansum(values**2, 1)
    mean = total / np.maximum(counted, 1)
    variance = squared / np.maximum(counted, 1) - mean**2
    return mean, np.sqrt(np.where(variance > 1e-12, variance, 1.0))


def _collate(images: Sequence[Image]) -> dict[str, Any]:
    return {
        name: torch.from_numpy(np.stack([getattr(image, name) for image in images]).astype(np.float32))
        for name in Image._fields
    }


class _Turned(Sequence[Image]):
    """Images, each time in another of the eight positions that a square can lie in."""

    def __init__(self, images: Sequence[Image], seed: int) -> None:
        self.images = images
        self.random = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        image = self.images[index]
        turns, is_mirrored = int(self.random.integers(4)), bool(self.random.integers(2))
        turned = [np.rot90(values, turns, (-2, -1)) for values in image]
        return Image(*(values[..., ::-1] if is_mirrored else values for values in turned))
