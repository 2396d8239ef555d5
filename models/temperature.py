"""One number that makes the probabilities of a network as sure as they come true: temperature scaling.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

WIDTH = 0.5
"""Of the normal prior on the temperature's logarithm: a few rows that are all right ask for no certainty."""
MOST_ITERATIONS = 50


def temperature_of(logits: torch.Tensor, truth: torch.Tensor) -> float:
    """What raw outputs [n, members, classes] are to be divided by, given codes [n] of the truth; of none, 1.

    The members' probabilities are averaged, and it is the mean that is to be right.
    """
    log = torch.zeros((), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([log], max_iter=MOST_ITERATIONS, line_search_fn="strong_wolfe")
    logits, truth = logits.double(), truth.long()

    def closure() -> torch.Tensor:
        solver.zero_grad()
        chances = torch.log_softmax(logits * torch.exp(-log), -1).logsumexp(1) - math.log(logits.shape[1])
        fit = F.nll_loss(chances, truth, reduction="sum")
        loss = fit + 0.5 * (log / WIDTH) ** 2
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    return float(log.detach().exp())
