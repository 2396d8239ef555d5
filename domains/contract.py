"""The contract between data and models: what a domain provides, and the words both sides use.

A domain is found by its name through the entry-point group ``groundwork.domains``; the encoder that
learns from it through ``groundwork.encoders``. Nothing else in the project names a domain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError


class GroundworkError(Exception):
    """An error that the user can mend: one line that says what is wrong and what to do next."""


class RejectedLabel(GroundworkError):
    """A label that does not fit its record; the record becomes a reject with this reason."""


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


Sample = Mapping[str, np.ndarray]
"""An encoded record: named arrays of physical values and codes, never normalised.

The first axis of every array may differ from sample to sample; dtype and other axes may not.
"""


FROM_DATA: dict[str, Any] = {"from_data": True}
"""``json_schema_extra`` of an encoding's field that the data tell."""


class EncodingSpec(BaseModel):
    """How records become samples. Frozen: it travels with every store and every model version.

    A field marked with ``FROM_DATA`` is completed from the data when a source is opened, and asked of
    nobody.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def digest(self) -> str:
        return digest_of({"encoding": type(self).__name__, **self.model_dump(mode="json")})


def first_fault(error: ValidationError) -> str:
    """What is wrong with settings, in a line: the field, if it is one alone, and the first reason."""
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"]))
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {reason}" if where else reason


@dataclass(frozen=True)
class ClassSpec:
    """A class as the data write it."""

    value: float
    """What stands for it in a label raster."""
    name: str
    colour: str = ""
    """``#rrggbb``, where the data say it."""


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
    encoding: EncodingSpec
    """The settings it was opened with, completed by what only the data tell (the bands of its scenes)."""
    input_column: str = ""
    """Column that ``Row.value`` comes from; empty where the source is no table (SDF)."""
    targets: tuple[str, ...] = ()
    """Columns that are measured values, where the source knows them; the first is the default target."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Unit of a target, where the source knows it (``K``)."""
    pixel_targets: tuple[str, ...] = ()
    """Those of ``targets`` that hold a value for each pixel; their cells say where that is written."""
    classes: Mapping[str, tuple[ClassSpec, ...]] = field(default_factory=dict)
    """Classes of a target in code order, where the source declares them; other values are faults then."""
    split: str = ""
    """Split method that suits these rows where none is asked for; empty = the domain's first."""
    split_columns: Mapping[str, str] = field(default_factory=dict)
    """Column that decides in a split by ``time`` or ``given``, where the source knows it."""
    marking: Mapping[str, str] = field(default_factory=dict)
    """What decides in a split by ``time`` or ``given``, in words, where it need be no column of a table."""
    remarks: tuple[str, ...] = ()
    """What whoever learns from these rows must know, in whole sentences: said, and kept with the run."""
    row_remarks: tuple[str, ...] = ()
    """What whoever reads answers to these rows must know, in whole sentences: what a row is."""
    whole_numbers: tuple[str, ...] = ()
    """Columns that hold whole numbers, and are written as such into tables of answers."""
    simulated: bool = False
    """Whether the rows were made up by a program: whatever is made from them says so."""
    map_suffix: str = ""
    """Suffix of the map that the rows make together (``.tif``), where they are the chips of one scene."""


# ----------------------------------------------------------------------------------------- objectives


@dataclass(frozen=True)
class TargetSpec:
    """Something that pretraining predicts.

    ``level`` says what carries the target: a ``token`` of the sample (atom, patch), a ``relation``
    between two tokens (bond), a ``channel`` (band), or the whole ``sample``. ``kind`` says how it is
    scored: ``classes`` are integer codes below ``size``; ``reals`` are ``size`` numbers, standardised by
    the loss, with NaN where there is no value; ``bits`` are ``size`` zeros and ones, of samples only,
    packed eight to a byte with the first the highest (as ``numpy.packbits`` does).
    """

    name: str
    level: Literal["token", "relation", "channel", "sample"]
    kind: Literal["classes", "reals", "bits"]
    size: int


# ----------------------------------------------------------------------------------------------- tasks

TargetKind = Literal["regression", "binary", "multiclass"]

TargetLevel = Literal["sample", "pixel"]

TaskName = Literal["regression", "classification", "multilabel", "segmentation", "change"]
"""What a user asks for: numbers, a class for each record, several that each hold or not, a class for each
pixel, or what became otherwise between two dates, of a record or of each pixel."""

Transform = Literal["none", "log10", "pIC50"]
"""What is learnt of the numbers in a column: themselves, their decimal logarithm, or −log10(mol/L)."""

Resampling = Literal["no", "nearest", "bilinear", "cubic"]
"""How pixels of one size become pixels of another; ``no`` is to refuse them."""

ReplicateRule = Literal["median", "mean", "first", "keep"]
"""What becomes of rows that are the same thing: one label for all of them, or each its own."""


class Target(BaseModel):
    """What a task predicts: a column, or a label raster."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: TargetKind
    unit: str = ""
    """Of what is learnt and answered: after the transform, if there is one (``pIC50``)."""
    transform: Transform = "none"
    cell_unit: str = ""
    """Unit of the column's cells where a transform makes another one of it (``nM``)."""
    classes: tuple[str, ...] = ()
    """Labels in code order; for a binary target the second is the positive class."""
    level: TargetLevel = "sample"
    """Whether a record has one value or one for each of its pixels."""
    values: tuple[float, ...] = ()
    """What stands for each class in a label raster, and in the maps that answer; pixel level only."""
    colours: tuple[str, ...] = ()
    """``#rrggbb`` of each class, where the data say it; pixel level only."""

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
    column: str = ""
    """Column that tells the time or the side of each row; of the methods ``time`` and ``given`` only."""
    buffer: float = 0.0
    """Metres around test rows within which no row is learnt from; of domains that know of places."""


class TaskSpec(BaseModel):
    """What is predicted, from what, and which rows are held out."""

    model_config = ConfigDict(frozen=True)

    domain: str
    targets: tuple[Target, ...]
    split: SplitSpec
    replicates: ReplicateRule = "keep"

    @property
    def outputs(self) -> int:
        return sum(target.outputs for target in self.targets)


EstimatorName = Literal["forest", "neighbours", "linear", "threshold", "unet"]
"""What is fitted on features: a random forest, the nearest neighbours, a ridge or logistic regression; a cut
through one feature that parts two classes; a small network of convolutions that learns from images."""


@dataclass(frozen=True)
class Floor:
    """A baseline without learning from unlabelled data: what a model must beat to be worth its cost."""

    name: str
    features: Callable[[Record], np.ndarray]
    """Record -> finite numbers [f]; for a task of pixel level [pixels, f], NaN where there is no data.

    For ``unet``, of tasks of pixel level only, an image float32 [channels, h, w] with gaps as NaN.
    """
    estimator: EstimatorName


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
    yardstick: str
    """Name of the embedded dataset by whose first target pretraining is watched; empty = none."""
    tasks: tuple[TaskName, ...]
    """What can be asked of its data."""
    shard_rows: int
    """Rows whose samples are encoded and written together: what a killed build may have to do again."""
    formats: Mapping[str, str]
    """What ``open`` reads that is whole in one file, so that it can be sent: its suffix (``.csv``,
    ``.csv.gz``) -> the media type that means it, empty where none does."""

    def example(self, spec: EncodingSpec) -> tuple[Any, ...]:
        """A few valid input values for models of ``spec``, for signatures and golden answers."""
        ...

    def embedded(self) -> Mapping[str, Callable[[EncodingSpec], Source]]:
        """Datasets that come with the domain, by name; opened with the settings of the encoding."""
        ...

    def open(self, path: Path, spec: EncodingSpec, input_column: str | None = None) -> Source:
        """Open a file or folder of the user's, and complete ``spec`` from it.

        What ``spec`` holds already (that of a model) is kept: rows that do not fit it become rejects
        when they are read. Raises GroundworkError for what cannot be read.
        """
        ...

    def read(self, row: Row, spec: EncodingSpec) -> Record | Reject:
        """Parse and standardise one row."""
        ...

    def encode(self, record: Record, spec: EncodingSpec) -> Sample:
        """THE encode path: training and serving call this one and no other."""
        ...

    def kinship(self, record: Record) -> str:
        """Equal for records so near to one another that to have learnt from one is to know the other.

        Stereoisomers, salts; it is wider than ``identity``, and what a foundation is tested on must not share
        it with what it has learnt from.
        """
        ...

    def pretraining_targets(self, spec: EncodingSpec) -> Sequence[TargetSpec]:
        """What pretraining can predict; those of sample level are ``computed``, others the encoder knows."""
        ...

    def computed(self, spec: EncodingSpec) -> Sequence[TargetSpec]:
        """What ``describe`` computes of a whole record, for heads to see beside an embedding."""
        ...

    def describe(self, record: Record, spec: EncodingSpec) -> Sample:
        """Values of what is ``computed``: reals float32 [size], bits uint8 [size / 8]."""
        ...

    def labels(self, record: Record, targets: Sequence[str]) -> Sample:
        """Values of targets of pixel level by name, float32 [pixels] each, NaN where there is none.

        Row by row, as the pixels of the sample. Raises RejectedLabel for a label that does not
        fit its record.
        """
        ...

    def groups(self, records: Iterable[Record], method: str) -> np.ndarray:
        """Group of each record, int64 [n]: no split may put one group on two sides.

        The records come one at a time, and need not be kept.
        """
        ...

    def floors(self, task: TaskSpec, spec: EncodingSpec) -> Sequence[Floor]:
        """The baselines that stand beside every model of this task on records of ``spec``."""
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
