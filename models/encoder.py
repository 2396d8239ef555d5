"""The contract of an encoder: collate, a sealed forward, and a forward over masked input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from domains.contract import Sample, TargetSpec, load_encoder_class

# A version is one small file: a bar for each load would only litter logs and terminals.
disable_progress_bar()

Batch = dict[str, torch.Tensor]
"""Collated samples. Always holds ``size`` (int64 [B], tokens of each sample)."""


class Embeddings(NamedTuple):
    """What an encoder makes of a batch of B samples with at most N tokens, D wide."""

    tokens: torch.Tensor
    """[B, N, D], zero where ``mask`` is False."""
    pooled: torch.Tensor
    """[B, D]"""
    mask: torch.Tensor
    """bool [B, N], True for a token that exists."""


class Masked(NamedTuple):
    """What remains visible of a masked batch, lined up with what was hidden.

    Both are keyed by the name of a ``TargetSpec``: ``features[name]`` is [M, D] for the M hidden
    tokens, hidden relations or whole samples that the target is scored on; ``targets[name]`` is
    int64 [M] for classes and float32 [M, size] for reals.
    """

    features: dict[str, torch.Tensor]
    targets: dict[str, torch.Tensor]


class Encoder(PreTrainedModel):
    """Base of every encoder: a ``transformers`` model whose forward takes raw codes and values.

    ``forward`` is sealed: whatever scaling the input needs is inside, so that no caller can forget
    it. What comes out for one sample does not depend on its neighbours in the batch.
    """

    presets: ClassVar[dict[str, dict[str, int]]]
    """Sizes by name (``tiny``, ``small``, ``base``), as keyword arguments of the configuration."""
    lora_modules: ClassVar[list[str]]
    """Names of the linear layers that low-rank adaptation adds to."""

    @classmethod
    def create(cls, preset: str, **overrides: Any) -> Encoder:
        """A freshly initialised encoder of a preset size."""
        make_config: Any = cls.config_class
        return cls(make_config(**{**cls.presets[preset], **overrides}))

    @staticmethod
    def tokens(sample: Sample) -> int:
        """How many tokens a sample becomes; batches group samples of like size."""
        raise NotImplementedError

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join samples into one batch."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Embeddings:
        raise NotImplementedError

    def masked_forward(
        self,
        batch: Batch,
        targets: Sequence[TargetSpec],
        ratio: float,
        generator: torch.Generator | None = None,
    ) -> Masked:
        """Hide ``ratio`` of the tokens and relations and embed the rest.

        Sample-level targets are read from the batch under their own name (float32 [B, size]).
        """
        raise NotImplementedError


class EncoderConfig(PreTrainedConfig):
    """Base of every encoder's configuration; ``hidden_size`` is the width D of its embeddings."""

    hidden_size: int = 128


def create_encoder(domain: str, preset: str) -> Encoder:
    """A fresh encoder for a domain. Raises GroundworkError for an unknown domain."""
    created: Encoder = load_encoder_class(domain).create(preset)
    return created


def parameter_count(module: torch.nn.Module, trainable_only: bool = False) -> int:
    """Number of parameters of a module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)


def join_ragged(arrays: Sequence[np.ndarray], dtype: torch.dtype) -> torch.Tensor:
    """Concatenate arrays along their first axis into one tensor."""
    return torch.from_numpy(np.concatenate(arrays)).to(dtype)
