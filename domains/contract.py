"""The contract between data and models: what a domain provides, and the words both sides use.

A domain is found by its name through the entry-point group ``groundwork.domains``; the encoder that
learns from it through ``groundwork.encoders``. Nothing else in the project names a domain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict


class GroundworkError(Exception):
    """An error that the user can mend: one line that says what is wrong and what to do next."""


def digest_of(value: Any) -> str:
    """Short, stable content digest (16 hex digits of SHA-256) of anything JSON can express."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Row:
    """One raw entry of a source, before the domain has looked at it. Cheap to stream and to pickle."""

    index: int
    """Zero-based position in the source; every answer and every reject keeps it."""
    value: Any
    """What the domain reads: SMILES text, a mol block, a list of numbers."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Every column as text, exactly as the source wrote it, the input column among them."""


@dataclass(frozen=True)
class Record:
    """One row that could be used, with its identity."""

    row: int
    identity: str
    """Equal for two records that are the same thing (canonical SMILES, scene and window)."""
    value: Any
    """What the domain encodes (an RDKit molecule, an array)."""
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reject:
    """One row that could not be used. Never dropped silently, never fatal."""

    row: int
    reason: str
    original: str


@dataclass(frozen=True)
class Source:
    """Rows that can be streamed any number of times, and where they came from."""

    name: str
    origin: str
    """Path, or the package and table the rows come from: kept as lineage."""
    digest: str
    """Content digest: equal content, equal digest, wherever the file lies."""
    columns: tuple[str, ...]
    """Every column in the order of the source, the input column among them."""
    stream: Callable[[], Iterator[Row]]
    input_column: str = ""
    """Column that ``Row.value`` comes from; empty where the source is no table (SDF)."""
    targets: tuple[str, ...] = ()
    """Columns that are measured values, where the source knows them; the first is the default target."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Unit of a target, where the source knows it (``K``)."""


Sample = Mapping[str, np.ndarray]
"""An encoded record: named arrays of physical values and codes, never normalised.

The first axis of every array may differ from sample to sample; dtype and other axes may not.
"""


class EncodingSpec(BaseModel):
    """How records become samples. Frozen: it travels with every store and every model version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def digest(self) -> str:
        return digest_of({"encoding": type(self).__name__, **self.model_dump(mode="json")})


# ----------------------------------------------------------------------------------------- objectives


@dataclass(frozen=True)
class TargetSpec:
    """Something that pretraining predicts.

    ``level`` says what carries the target: a ``token`` of the sample (atom, patch), a ``relation``
    between two tokens (bond), or the whole ``sample``. ``kind`` says how it is scored: ``classes``
    are integer codes below ``size``; ``reals`` are ``size`` numbers, standardised by the loss, with
    NaN where there is no value.
    """

    name: str
    level: Literal["token", "relation", "sample"]
    kind: Literal["classes", "reals"]
    size: int


# ----------------------------------------------------------------------------------------------- tasks

TargetKind = Literal["regression", "binary", "multiclass"]


class Target(BaseModel):
    """One column that a task predicts."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: TargetKind
    unit: str = ""
    classes: tuple[str, ...] = ()
    """Labels in code order; for a binary target the second is the positive class."""

    @property
    def outputs(self) -> int:
        """How many numbers a head emits for this target."""
        return len(self.classes) if self.kind == "multiclass" else 1


class SplitSpec(BaseModel):
    """How rows are held out. Recorded with every figure, because figures of two splits never compare."""

    model_config = ConfigDict(frozen=True)

    method: str
    seed: int
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)


class TaskSpec(BaseModel):
    """What is predicted, from what, and which rows are held out."""

    model_config = ConfigDict(frozen=True)

    domain: str
    targets: tuple[Target, ...]
    split: SplitSpec

    @property
    def outputs(self) -> int:
        return sum(target.outputs for target in self.targets)


@dataclass(frozen=True)
class Floor:
    """A baseline without learning of representations: what a model must beat to be worth its cost."""

    name: str
    features: Callable[[Sequence[Record]], np.ndarray]
    """Records -> matrix [n, f] of finite numbers."""
    estimator: Literal["forest", "neighbours"]


# ---------------------------------------------------------------------------------------------- domain


@runtime_checkable
class Domain(Protocol):
    """One kind of data. Every method is pure; every array is physical values and codes."""

    name: str
    """As in ``groundwork finetune NAME`` and in deployment names (``molecules``)."""
    noun: str
    """One record in the user's words (``molecule``)."""
    input_column: str
    """Name of the input in model signatures and answers (``smiles``)."""
    encoding: type[EncodingSpec]
    """The settings of the encode path, with defaults; drawn into every form."""
    split_methods: tuple[str, ...]
    """What ``groups`` understands; the first is the default."""
    corpus: str
    """Name of the embedded corpus that pretraining uses by default."""
    example: tuple[Any, ...]
    """A few valid input values, for signatures and golden answers."""

    def embedded(self) -> Mapping[str, Callable[[], Source]]:
        """Datasets that come with the domain, by name."""
        ...

    def open(self, path: Path, input_column: str | None = None) -> Source:
        """Open a file of the user's. Raises GroundworkError for one that cannot be read."""
        ...

    def read(self, row: Row, spec: EncodingSpec) -> Record | Reject:
        """Parse and standardise one row."""
        ...

    def encode(self, record: Record, spec: EncodingSpec) -> Sample:
        """THE encode path: training and serving call this one and no other."""
        ...

    def pretraining_targets(self, spec: EncodingSpec) -> Sequence[TargetSpec]:
        """What pretraining can predict. Token and relation targets are arrays of the sample."""
        ...

    def describe(self, record: Record, spec: EncodingSpec) -> Sample:
        """Values of the sample-level pretraining targets, each float32 [size]."""
        ...

    def groups(self, records: Sequence[Record], method: str) -> np.ndarray:
        """Group of each record, int64 [n]: no split may put one group on two sides."""
        ...

    def floors(self, task: TaskSpec) -> Sequence[Floor]:
        """The baselines that stand beside every model of this domain."""
        ...

    def draw(self, record: Record, caption: str) -> bytes:
        """One record with an answer as SVG."""
        ...


@cache
def load_domain(name: str) -> Domain:
    """The domain registered under ``name``. Raises GroundworkError when there is none."""
    return _load("groundwork.domains", name)


def domain_names() -> tuple[str, ...]:
    """Names of every registered domain, sorted."""
    return tuple(sorted(point.name for point in entry_points(group="groundwork.domains")))


def _load(group: str, name: str) -> Any:
    matches = entry_points(group=group, name=name)
    if not matches:
        known = ", ".join(sorted({point.name for point in entry_points(group=group)})) or "none"
        raise GroundworkError(f"no domain is called {name!r}; installed domains: {known}")
    return next(iter(matches)).load()


def load_encoder_class(name: str) -> Any:
    """The encoder class that learns from the domain ``name`` (a ``models.encoder.Encoder``)."""
    return _load("groundwork.encoders", name)
