"""What each atom adds to an answer: integrated gradients on the atom embeddings.

Sundararajan, Taly & Yan, Axiomatic Attribution for Deep Networks, ICML 2017. The path leads from a molecule
whose atoms are all hidden, as masked pretraining hides them, to the molecule itself; its graph stays, and so
does what a head sees beside the embedding. The attributions of the atoms add up to the difference of the two
answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
from torch import nn

from domains.contract import GroundworkError, Sample, Target
from models.molecules.graph_transformer import CodeEmbedding, GraphTransformer
from models.tuning import TaskModel

STEPS = (32, 128, 512)
"""Points of the path (Gauss-Legendre), as many as are needed. A usual molecule takes the fewest; the
embedding of one of a few atoms can turn about within a small part of the path, where it is normalised."""
TOLERANCE = 1e-3
"""Largest difference of the sum from what it must be, relative to that."""
PAIRS = 100_000
"""Pairs of atoms that are answered at once: attention's memory grows with them."""


@dataclass(frozen=True)
class Attribution:
    """Why a model answers as it does."""

    atoms: np.ndarray
    """What each atom adds, float32 [atoms]: in the target's unit; for classes in log-odds (logits)."""
    output: float
    """The answer for the molecule, on the same scale."""
    baseline: float
    """The answer for the molecule with every atom hidden."""


def can_attribute(model: object) -> TypeGuard[TaskModel]:
    """Whether a model's answers can be shared out among atoms."""
    return isinstance(model, TaskModel) and isinstance(model.encoder, GraphTransformer)


def attribute_atoms(
    model: TaskModel, sample: Sample, target: Target, chosen: int | None = None
) -> Attribution:
    """Share the answer for one molecule out among its atoms.

    Of a target of several classes, the logit of the class ``chosen``, or of the one that is most probable to
    this model. Raises GroundworkError for a model without an encoder of molecules.
    """
    columns = next(columns for known, columns in model.slices() if known == target)
    if chosen is not None:
        columns = slice(columns.start + chosen, columns.start + chosen + 1)
    was_training = model.training
    model.eval()
    try:
        for steps in STEPS:
            found = _integrate(model, sample, columns, steps)
            difference = found.output - found.baseline
            if abs(float(found.atoms.sum()) - difference) <= TOLERANCE * abs(difference):
                break
    finally:
        model.train(was_training)
    return found


def _integrate(model: TaskModel, sample: Sample, columns: slice, steps: int) -> Attribution:
    encoders = [module for module in model.modules() if isinstance(module, GraphTransformer)]
    if not encoders:
        raise GroundworkError("only models of molecules tell what an atom adds")
    device = next(model.parameters()).device
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    # Both ends of the path come along: the molecule, and what it is compared with.
    along = torch.tensor([1.0, 0.0, *(nodes + 1) / 2], dtype=torch.float32, device=device)
    share = torch.tensor([0.0, 0.0, *weights / 2], dtype=torch.float32, device=device)
    atoms = torch.zeros(len(sample["atoms"]), device=device)
    answers: list[torch.Tensor] = []
    column = None
    at_once = max(1, PAIRS // len(sample["atoms"]) ** 2)
    for points, shares in zip(along.split(at_once), share.split(at_once), strict=True):
        batch = encoders[0].collate([sample] * len(points))
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        paths = [_Path(encoder.atom_embedding, points) for encoder in encoders]
        try:
            with torch.enable_grad():
                logits = model(batch)["logits"]
                if column is None:
                    column = columns.start + int(logits[0, columns].argmax())
                # One answer of the batch depends on its own copy only: the sum's gradient is each one's.
                gradients = torch.autograd.grad(logits[:, column].sum(), [path.points for path in paths])
        finally:
            for path in paths:
                path.remove()
        answers.append(logits[:, column].detach())
        for path, gradient in zip(paths, gradients, strict=True):
            atoms += (path.difference * gradient * shares[:, None, None]).sum((0, 2))
    answered = torch.cat(answers) * model.scale[column] + model.mean[column]
    added = (atoms * model.scale[column]).float().cpu().numpy()
    return Attribution(added, float(answered[0]), float(answered[1]))


class _Path:
    """Puts points of the path from hidden atoms to the real ones in the place of an embedding's answer."""

    points: torch.Tensor
    """[points, atoms, D]"""
    difference: torch.Tensor
    """From hidden to real, [points, atoms, D]; equal for all points."""

    def __init__(self, embedding: CodeEmbedding, along: torch.Tensor) -> None:
        self._along = along[:, None, None]
        self._handle = embedding.register_forward_hook(self._replace)

    def _replace(
        self, embedding: nn.Module, inputs: tuple[torch.Tensor], embedded: torch.Tensor
    ) -> torch.Tensor:
        assert isinstance(embedding, CodeEmbedding)  # noqa: S101 - narrows the type
        with torch.no_grad():
            # Called below its hooks: this one would call itself.
            hidden = embedding.forward(embedding.hidden[None])
            self.difference = embedded.view(len(self._along), -1, embedded.shape[-1]) - hidden
            start = hidden + self._along * self.difference
        self.points = start.requires_grad_()
        return self.points.view_as(embedded)

    def remove(self) -> None:
        self._handle.remove()
