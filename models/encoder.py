"""The contract of an encoder: collate, a sealed forward, and a forward over masked input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from domains.abilities import Reconstruction
from domains.contract import EncodingSpec, GroundworkError, Sample, TargetSpec, load_encoder_class
from models.settings import Size

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


class DenseFeatures(NamedTuple):
    """What a head of pixel level works on: a batch of B images of H × W pixels in C channels."""

    tokens: torch.Tensor
    """[B, ``dense_width``, h, w]: embeddings on the grid of tokens, each of which covers as many pixels."""
    pixels: torch.Tensor
    """[B, C, H, W]: the scaled input and what follows from it at each pixel, zero where there is no data."""
    valid: torch.Tensor
    """bool [B, H, W], True where there is data."""


class Masked(NamedTuple):
    """What remains visible of a masked batch, lined up with what was hidden.

    Both are keyed by the name of a ``TargetSpec``: ``features[name]`` is [M, D] for the M hidden
    tokens, hidden relations, channels or whole samples that the target is scored on; ``targets[name]`` is
    int64 [M] for classes and float32 [M, size] for reals.
    """

    features: dict[str, torch.Tensor]
    targets: dict[str, torch.Tensor]
    views: tuple[torch.Tensor, torch.Tensor] | None = None
    """Embeddings [B, D] of two parts of each sample, where they were asked for."""


class Encoder(PreTrainedModel):
    """Base of every encoder: a ``transformers`` model whose forward takes raw codes and values.

    ``forward`` is sealed: whatever scaling the input needs is inside, so that no caller can forget
    it. What comes out for one sample does not depend on its neighbours in the batch.
    """

    presets: ClassVar[dict[Size, dict[str, int]]]
    """Keyword arguments of the configuration by size."""
    lora_modules: ClassVar[list[str]]
    """Names of the linear layers that low-rank adaptation adds to."""
    top_modules: ClassVar[list[str]]
    """Names of what comes after the last of ``blocks``, a ModuleList; all else comes before the first. For
    encoders whose layers can learn at rates of their own."""
    has_large_products: ClassVar[bool] = False
    """Whether its products are so large that its training gains where a CPU multiplies bfloat16 natively."""

    @classmethod
    def create(cls, preset: Size, encoding: EncodingSpec | None = None, **overrides: Any) -> Encoder:
        """A freshly initialised encoder of a preset size, for input encoded by ``encoding``.

        Raises GroundworkError for a size that this encoder does not come in.
        """
        if preset not in cls.presets:
            raise GroundworkError(f"{cls.__name__} comes in the sizes {', '.join(cls.presets)}, not {preset}")
        make_config: Any = cls.config_class
        known = {} if encoding is None else encoding.model_dump(mode="json")
        return cls(make_config(**{**cls.presets[preset], "encoding": known, **overrides}))

    def fit_input(self, encoding: EncodingSpec, samples: Sequence[Sample]) -> None:
        """Make ready for input encoded by ``encoding``, of which ``samples`` are for training.

        An encoder whose scaling depends on its input measures what it does not know yet, and keeps what
        it knows. Raises GroundworkError for input that its weights cannot take, naming both sides.
        """
        asked = encoding.model_dump(mode="json")
        if self.config.encoding and self.config.encoding != asked:
            differing = [name for name in asked if asked[name] != self.config.encoding.get(name)]
            sides = [{name: side.get(name) for name in differing} for side in (self.config.encoding, asked)]
            raise GroundworkError(
                f"the encoder was made for other encoding settings ({sides[0]}, here {sides[1]}): "
                "use the same here, or another foundation"
            )
        self.config.encoding = asked

    def fit_inputs(self, inputs: Sequence[tuple[EncodingSpec, Sequence[Sample]]]) -> None:
        """Make ready for samples of several sources, the first of which is the one it is registered for.

        ``sample["source"]`` says then which of them a sample is of. Raises GroundworkError as ``fit_input``.
        """
        for encoding, samples in inputs:
            self.fit_input(encoding, samples)

    def fit_targets(self, samples: Sequence[Sample]) -> None:
        """Measure in training samples what ``masked_forward`` is to predict, where it is not in a sample."""

    def tokens(self, sample: Sample) -> int:
        """How many tokens a sample becomes; batches group samples of like size."""
        raise NotImplementedError

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join samples into one batch."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Embeddings:
        raise NotImplementedError

    def discard_decoder(self) -> None:
        """Let go of what only ``masked_forward`` needs, before the encoder is tuned to a task."""

    def restore_decoder(self) -> None:
        """Make anew what ``discard_decoder`` let go of, before the encoder is pretrained again."""

    def augment(self, batch: Batch, labels: torch.Tensor | None = None) -> tuple[Batch, torch.Tensor | None]:
        """The samples as they might as well have been seen, with labels of pixels [B, H * W] along with them.

        What is drawn follows torch's seed. Here: as they are.
        """
        return batch, labels

    @property
    def varies(self) -> bool:
        """Whether ``augment`` shows samples ever differently."""
        return type(self).augment is not Encoder.augment

    @property
    def dense_width(self) -> int:
        """Channels of ``DenseFeatures.tokens``; for encoders of images only."""
        raise NotImplementedError

    @property
    def pixel_channels(self) -> int:
        """Channels of ``DenseFeatures.pixels``; for encoders of images only."""
        raise NotImplementedError

    def dense(self, batch: Batch) -> DenseFeatures:
        """Features for heads of pixel level; for encoders of images only."""
        raise NotImplementedError

    def asked_width(self, target: TargetSpec) -> int:
        """Width k of the features [M, k] of a target that ``masked_forward`` gives."""
        return int(self.config.hidden_size)

    def masked_forward(
        self,
        batch: Batch,
        targets: Sequence[TargetSpec],
        ratio: float,
        generator: torch.Generator | None = None,
        *,
        views: bool = False,
    ) -> Masked:
        """Hide ``ratio`` of the tokens and relations and embed the rest.

        Sample-level targets are read from the batch under their own name (float32 [B, size]). ``views`` asks
        for two views of each sample; encoders that have none leave them out.
        """
        raise NotImplementedError


@runtime_checkable
class Reconstructs(Protocol):
    """An encoder that can show what it fills into a sample of which a part is hidden."""

    def reconstruct(
        self, sample: Sample, ratio: float, heads: torch.nn.ModuleDict, generator: torch.Generator
    ) -> Reconstruction:
        """Hide ``ratio`` of the tokens and fill them in with the pretraining ``heads``, by target."""
        ...


class EncoderConfig(PreTrainedConfig):
    """Base of every encoder's configuration.

    ``hidden_size`` is the width D of its embeddings; ``encoding`` the settings of the input it takes, as
    JSON, empty until they are known.
    """

    hidden_size: int = 128
    encoding: dict[str, Any] | None = None


def create_encoder(domain: str, preset: Size, encoding: EncodingSpec) -> Encoder:
    """A fresh encoder for a domain's data. Raises GroundworkError for an unknown domain."""
    created: Encoder = load_encoder_class(domain).create(preset, encoding)
    return created


def parameter_count(module: torch.nn.Module, trainable_only: bool = False) -> int:
    """Number of parameters of a module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)


def join_ragged(arrays: Sequence[np.ndarray], dtype: torch.dtype) -> torch.Tensor:
    """Concatenate arrays along their first axis into one tensor."""
    return torch.from_numpy(np.concatenate(arrays)).to(dtype)
