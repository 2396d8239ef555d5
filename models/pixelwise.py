"""What each pixel says by itself: a linear model of its contrasts, beside a network that sees more.

A network of a few scenes learns much of what surroundings looked like there, and errs where others look
otherwise; ratios of bands mean the same everywhere. Both err differently, so that their mean errs less.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn
from torch.nn import functional as F

from domains.contract import Target

MOST_PIXELS = 30_000
"""Training pixels that it is fitted on: neighbours say much the same."""
WEAKNESS, MOST_STEPS = 0.1, 1000
"""C of the logistic regression on standardised contrasts, and at most how many steps it takes."""
PENALTY = 10.0
"""Of the ridge regression."""
UNSEEN = -10.0
"""Raw output for a class of which no pixel was drawn."""


class PixelwiseModel(nn.Module):
    """Contrasts [B, R, H, W] -> raw outputs [B, H * W, outputs], as those of the network beside it.

    ``share`` is how far it is believed: 0 before it is fitted, when the network answers alone.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    share: torch.Tensor

    def __init__(self, contrasts: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(outputs, contrasts))
        self.register_buffer("bias", torch.zeros(outputs))
        self.register_buffer("share", torch.zeros(()))

    def forward(self, contrasts: torch.Tensor) -> torch.Tensor:
        # Contrasts are much alike, and weights that are large and opposite would lose their sum to bfloat16.
        with torch.autocast(contrasts.device.type, enabled=False):
            return F.linear(contrasts.flatten(2).movedim(1, 2).float(), self.weight, self.bias)

    def beside(self, logits: torch.Tensor, contrasts: torch.Tensor) -> torch.Tensor:
        """The network's raw outputs and its own, mixed by ``share``.

        For classes that is the logarithmic opinion pool (Genest & Zidek, Stat. Sci. 1986, 1, 114).
        """
        return torch.lerp(logits, self(contrasts), self.share)

    def fit(self, target: Target, contrasts: np.ndarray, truth: np.ndarray) -> None:
        """Learn from pixels: contrasts float32 [n, R], truth float32 [n].

        ``truth`` holds codes of classes, or values that are standardised as the network's are. Classes count
        the same, however rare they are: where contrasts tell nothing, all are as likely, and the network
        decides. It stays as it is where ``truth`` is one and the same everywhere.
        """
        if len(np.unique(truth)) < 2:
            return
        mean, spread = contrasts.mean(0), contrasts.std(0)
        spread = np.where(spread > 1e-6, spread, np.inf)  # what never varies says nothing
        scaled = ((contrasts - mean) / spread).astype(np.float64)
        weight = np.zeros(self.weight.shape)
        bias = np.full(self.bias.shape, UNSEEN)
        if target.kind == "regression":
            line = Ridge(alpha=PENALTY).fit(scaled, truth)
            weight[0], bias[0] = line.coef_, line.intercept_
        else:
            curve = LogisticRegression(C=WEAKNESS, class_weight="balanced", max_iter=MOST_STEPS)
            curve.fit(scaled, truth.astype(int))
            rows, offsets = curve.coef_, curve.intercept_
            if len(rows) == 1:  # of two classes: one against the other
                rows, offsets = np.concatenate([-rows, rows]) / 2, np.concatenate([-offsets, offsets]) / 2
            if target.kind == "binary":
                weight[0], bias[0] = rows[1] - rows[0], offsets[1] - offsets[0]
            else:
                weight[curve.classes_], bias[curve.classes_] = rows, offsets
        weight /= spread
        self.weight.copy_(torch.from_numpy(weight))
        self.bias.copy_(torch.from_numpy(bias - weight @ mean))
