"""Linear probes: a head on what a frozen encoder makes of samples, solved rather than stepped.

The encoder answers each sample once. What is left is convex, so that L-BFGS (Liu & Nocedal 1989) finds its
minimum; how strongly weights are held back (ridge, Hoerl & Kennard 1970) is chosen by the validation rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch

from domains.contract import GroundworkError
from models.encoder import parameter_count
from models.progress import Interrupted, Progress
from models.training import TrainingResult, stoppable
from models.tuning import Head, TaskModel

PENALTIES = 10.0 ** np.arange(1, -6.5, -0.5)
"""Of the mean loss, per squared weight of a standardised embedding: from strong to weak."""
WITHOUT_GAIN = 3
"""So many weaker penalties in a row that serve the validation rows no better end the search."""
MOST_ITERATIONS = 200


class Answered(NamedTuple):
    """What an encoder makes of n samples, and what is known of them."""

    embeddings: torch.Tensor
    """float64 [n, D], as the head norms them."""
    labels: torch.Tensor
    """float64 [n, targets], NaN where not measured."""
    signs: torch.Tensor
    """int8 [n, targets], see ``TaskModel.loss``."""


def solve(
    model: TaskModel,
    training: Sequence[Any],
    validation: Sequence[Any],
    *,
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    batch_size: int,
    report: Callable[[Progress], None],
) -> TrainingResult:
    """Give the linear head of ``model``, in place, the weights that suit the training items best.

    ``training`` and ``validation`` hold items that ``collate`` turns into ``batch``, ``labels`` and
    ``signs``. Of the penalties the one with the least validation loss is kept. Raises Interrupted after
    SIGTERM or SIGINT, and GroundworkError for a loss that is not a number.
    """
    started = perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).eval()
    total = -(-len(training) // batch_size) - (-len(validation) // batch_size)
    done = 0

    def answered(items: Sequence[Any]) -> Answered:
        nonlocal done
        parts = []
        for start in range(0, len(items), batch_size):
            if stop.signum is not None:
                raise Interrupted(stop.signum)
            chosen = range(start, min(start + batch_size, len(items)))
            parts.append(_answered(model, collate([items[place] for place in chosen]), device))
            done += 1
            report(Progress(done, total, {}))
        return Answered(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    with stoppable() as stop:
        known, asked = answered(training), answered(validation)
        best = _search(model, known, asked, lambda found: report(Progress(total, total, found)))
    seconds = perf_counter() - started
    return TrainingResult(
        steps=total,
        seconds=seconds,
        best_loss=best,
        samples_per_second=(len(training) + len(validation)) / seconds,
        trainable_parameters=parameter_count(model, trainable_only=True),
        device=str(device),
    )


def _answered(model: TaskModel, inputs: dict[str, Any], device: torch.device) -> Answered:
    batch = {name: tensor.to(device) for name, tensor in inputs["batch"].items()}
    with torch.no_grad():
        normed = _head(model).norm(model.encoder(batch).pooled)
    return Answered(normed.double().cpu(), inputs["labels"].double(), inputs["signs"])


def _search(
    model: TaskModel, known: Answered, asked: Answered, report: Callable[[dict[str, float]], None]
) -> float:
    """The least validation loss of all penalties, with whose weights the head is left."""
    model.cpu()
    head = _head(model).from_embedding
    centre, spread = known.embeddings.mean(0), known.embeddings.std(0, correction=0)
    # A feature that never varies says nothing, whatever it is later.
    spread = torch.where(spread > 1e-8, spread, torch.inf)
    known, asked = (it._replace(embeddings=(it.embeddings - centre) / spread) for it in (known, asked))
    weight = torch.zeros(
        sum(target.outputs for target in model.targets), len(centre), dtype=torch.float64, requires_grad=True
    )
    bias = torch.zeros(len(weight), dtype=torch.float64, requires_grad=True)
    best, without_gain = np.inf, 0
    for penalty in PENALTIES:
        _minimise(model, known, weight, bias, float(penalty))
        with torch.no_grad():
            loss = float(model.loss(asked.embeddings @ weight.T + bias, asked.labels, asked.signs))
        if not np.isfinite(loss):
            raise GroundworkError("the validation loss is not a number: look for extreme target values")
        report({"eval_loss": loss, "penalty": float(penalty)})
        if loss < best:
            best, without_gain = loss, 0
            with torch.no_grad():
                head.weight.copy_(weight / spread)
                head.bias.copy_(bias - (weight / spread) @ centre)
        else:
            without_gain += 1
            if without_gain == WITHOUT_GAIN:
                break
    return best


def _minimise(
    model: TaskModel, known: Answered, weight: torch.Tensor, bias: torch.Tensor, penalty: float
) -> None:
    solver = torch.optim.LBFGS([weight, bias], max_iter=MOST_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        fit = model.loss(known.embeddings @ weight.T + bias, known.labels, known.signs)
        loss = fit + penalty * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)


def _head(model: TaskModel) -> Head:
    if not isinstance(model.head, Head) or not model.linear_head:
        raise TypeError("only a linear head on embeddings of samples is a probe")
    return model.head
