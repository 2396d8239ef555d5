"""What each pixel says by itself: a linear model of its contrasts, beside a network that sees more.

A network of a few scenes learns much of what surroundings looked like there, and errs where others look
otherwise; ratios of bands mean the same everywhere. Both err differently, so that their mean errs less.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from models.pretraining import OUTLIER

MOST_PIXELS = 30_000
"""Training pixels that it is fitted on: neighbours say much the same."""
WEAKNESS, MOST_STEPS = 0.1, 1000
"""C of the logistic regression on standardised contrasts, and at most how many steps it takes."""
UNSEEN = -0.5 * float(np.log(MOST_PIXELS))
"""Raw output for a class of which no pixel was drawn: it is rarer than one in all that are."""


class PixelwiseModel(nn.Module):
    """Contrasts [B, R, H, W] -> raw outputs [B, H * W, outputs], as those of the network beside it.

    A contrast that is not known (NaN) is taken for the mean. ``share`` is how far all of it is believed: 0
    before it is fitted, when the network answers alone.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    share: torch.Tensor

    def __init__(self, contrasts: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(contrasts))
        self.register_buffer("spread", torch.ones(contrasts))
        self.register_buffer("weight", torch.zeros(outputs, contrasts))
        self.register_buffer("bias", torch.zeros(outputs))
        self.register_buffer("share", torch.zeros(()))

    def forward(self, contrasts: torch.Tensor) -> torch.Tensor:
        scaled = self._scaled(contrasts.flatten(2).movedim(1, 2).float())
        # Contrasts are much alike, and weights that are large and opposite would lose their sum to bfloat16.
        with torch.autocast(contrasts.device.type, enabled=False):
            return F.linear(scaled, self.weight, self.bias)

    def _scaled(self, contrasts: torch.Tensor) -> torch.Tensor:
        """[..., R], standardised: a pixel that is like none of training is not to outvote the network."""
        return ((contrasts - self.mean) / self.spread).nan_to_num(0.0).clamp(-OUTLIER, OUTLIER)

    def beside(self, logits: torch.Tensor, contrasts: torch.Tensor) -> torch.Tensor:
        """The network's raw outputs and its own, mixed by ``share``.

        That is the logarithmic opinion pool (Genest & Zidek, Stat. Sci. 1986, 1, 114).
        """
        return torch.lerp(logits, self(contrasts), self.share)

    def fit(self, contrasts: np.ndarray, codes: np.ndarray) -> None:
        """Learn classes from pixels: contrasts float32 [n, R], codes of the truth [n].

        Classes count by the root of how frequent they are: half the way from what is most often right, where
        a rare class would hardly be answered, to all of them being as likely. Where all pixels are of one
        class there is nothing to learn.
        """
        counts = np.bincount(codes.astype(int))
        seen = np.flatnonzero(counts)
        if len(seen) < 2:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a contrast without a value is no surprise
            mean, spread = np.nan_to_num(np.nanmean(contrasts, 0)), np.nan_to_num(np.nanstd(contrasts, 0))
        self.mean.copy_(torch.from_numpy(mean))
        # What never varies says nothing, whatever it is later.
        self.spread.copy_(torch.from_numpy(np.where(spread > 1e-6, spread, np.inf)))
        curve = LogisticRegression(
            C=WEAKNESS,
            class_weight={code: (len(codes) / counts[code]) ** 0.5 for code in seen},
            max_iter=MOST_STEPS,
        ).fit(self._scaled(torch.from_numpy(contrasts)).double().numpy(), codes.astype(int))
        weight, bias = torch.from_numpy(curve.coef_).float(), torch.from_numpy(curve.intercept_).float()
        if len(self.weight) == 1:
            self.weight.copy_(weight)
            self.bias.copy_(bias)
            return
        if len(weight) == 1:  # of two classes that were seen: one against the other
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        self.bias.fill_(UNSEEN)
        self.weight[seen], self.bias[seen] = weight, bias
