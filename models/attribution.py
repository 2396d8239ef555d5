"""What each atom adds to an answer: integrated gradients on the atom embeddings.

Sundararajan, Taly & Yan, Axiomatic Attribution for Deep Networks, ICML 2017. The path leads from a molecule
whose atoms are all hidden, as masked pretraining hides them, to the molecule itself; its graph stays. The
attributions of the atoms add up to the difference of the two answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from domains.contract import GroundworkError, Sample, Target
from models.graph_transformer import CodeEmbedding, GraphTransformer
from models.tuning import TaskModel

STEPS = 32
"""Points of the path (Gauss-Legendre). The integrand is smooth: with these the sum is met to about 1e-3."""


@dataclass(frozen=True)
class Attribution:
    """Why a model answers as it does."""

    atoms: np.ndarray
    """What each atom adds, float32 [atoms]: in the target's unit; for classes in log-odds (logits)."""
    output: float
    """The answer for the molecule, on the same scale."""
    baseline: float
    """The answer for the molecule with every atom hidden."""


def attribute_atoms(model: TaskModel, sample: Sample, target: Target) -> Attribution:
    """Share the answer for one molecule out among its atoms.

    Of a target of several classes, the logit of the most probable one. Raises GroundworkError for a model
    without an encoder of molecules.
    """
    encoders = [module for module in model.modules() if isinstance(module, GraphTransformer)]
    if not encoders:
        raise GroundworkError("only models of molecules tell what an atom adds")
    columns = next(columns for known, columns in model.slices() if known == target)
    device = next(model.parameters()).device
    nodes, weights = np.polynomial.legendre.leggauss(STEPS)
    # Both ends of the path come along, so that all is answered in one batch.
    along = torch.tensor([0.0, 1.0, *(nodes + 1) / 2], dtype=torch.float32, device=device)
    share = torch.tensor([0.0, 0.0, *weights / 2], dtype=torch.float32, device=device)
    batch = encoders[0].collate([sample] * len(along))
    batch = {name: tensor.to(device) for name, tensor in batch.items()}

    paths: list[_Path] = [_Path(encoder.atom_embedding, along) for encoder in encoders]
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            logits = model(batch)["logits"]
            column = columns.start + int(logits[1, columns].argmax())
            answers = logits[:, column]
            # One answer of the batch depends on its own copy only, so the sum's gradient is each one's.
            gradients = torch.autograd.grad(answers.sum(), [path.points for path in paths])
    finally:
        model.train(was_training)
        for path in paths:
            path.remove()
    added = sum(
        (path.difference * (gradient * share[:, None, None])).sum((0, 2))
        for path, gradient in zip(paths, gradients, strict=True)
    )
    scale, mean = model.scale[column], model.mean[column]
    answers = answers.detach() * scale + mean
    atoms = (torch.as_tensor(added) * scale).float().cpu().numpy()
    return Attribution(atoms, float(answers[1]), float(answers[0]))


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
