"""What a domain may be able to do beyond its contract: whoever needs an ability asks whether it is there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from domains.contract import EncodingSpec, Record, Resampling, Sample, Source, Target, TaskName


@runtime_checkable
class DrawsWeights(Protocol):
    """A domain whose drawings can show what each atom of a record adds to an answer."""

    def draw_weights(self, record: Record, caption: str, weights: Sequence[float]) -> bytes:
        """One record as SVG, its atoms coloured by ``weights``, in the order of its sample."""
        ...


@dataclass(frozen=True)
class Reconstruction:
    """A sample of which a part was hidden and filled in again, each time with the arrays of a sample."""

    seen: Sample
    masked: Sample
    """NaN where it was hidden."""
    filled: Sample


@runtime_checkable
class DrawsReconstructions(Protocol):
    """A domain whose samples can be looked at, and so what is filled into them."""

    def draw_reconstructions(self, shown: Sequence[tuple[EncodingSpec, Reconstruction]]) -> bytes:
        """PNG with a row for each sample, encoded as its spec says: as seen, masked, filled in."""
        ...


@runtime_checkable
class PacksSamples(Protocol):
    """A domain whose samples take less room in a store than where they are used."""

    def pack(self, record: Record, spec: EncodingSpec) -> Sample:
        """What ``unpack`` makes ``encode(record, spec)`` of, bit by bit."""
        ...

    def unpack(self, packed: Sample) -> Sample:
        """The sample that was packed. Arrays that it never packs stay as they are."""
        ...


Place = np.ndarray
"""Where a record lies: the corners of its outline in order, float64 [4, 3], in metres from the middle of the
Earth (EPSG:4978), where neither the date line nor a map's scale distorts a distance."""


@runtime_checkable
class LocatesRecords(Protocol):
    """A domain whose records lie somewhere on the Earth, so that it matters how near they are."""

    def place(self, record: Record) -> Place | None:
        """Where a record lies; None where that is not known."""
        ...


@dataclass(frozen=True)
class WrittenMap:
    """A map that answers a scene."""

    path: Path
    quick_look: bytes
    """PNG with a legend, at most about a thousand pixels wide."""
    shares: Mapping[str, float]
    """Share of the pixels with an answer by class; empty for a regression."""


@runtime_checkable
class ReadsForTask(Protocol):
    """A domain whose records hold more for some tasks than for others."""

    def encoding_for(self, task: TaskName, spec: EncodingSpec) -> EncodingSpec:
        """``spec``, as what is to be opened for ``task`` must be read (a change shows on two dates)."""
        ...


@runtime_checkable
class OpensDocuments(Protocol):
    """A domain that reads data at web addresses, and documents that list where data lie."""

    documents: tuple[str, ...]
    """Suffixes of such documents (``.json``)."""

    def open_document(
        self,
        start: str,
        spec: EncodingSpec,
        hosts: Collection[str] | None,
        input_column: str | None = None,
    ) -> Source:
        """Open what lies at ``start``, a web address or the path of a document; otherwise as ``Domain.open``.

        Nothing is asked of any host but ``hosts`` (``name`` or ``name:port``; None is any), and no file is
        read outside the folder of the document.
        """
        ...


@runtime_checkable
class Resamples(Protocol):
    """A domain that brings pixels of one size to those of another where that is asked for."""

    def resampling(self, spec: EncodingSpec, method: Resampling) -> EncodingSpec:
        """The ``spec`` of a model as one with which ``open`` brings records to what the model reads."""
        ...


@runtime_checkable
class MapWriter(Protocol):
    """A domain whose tasks of pixel level can answer a whole scene with a map."""

    polygons_suffix: str
    """Of the file that holds the patches of a map (``.gpkg``)."""

    def write_map(
        self,
        source: Source,
        target: Target,
        predict: Callable[[Sequence[Sample]], np.ndarray],
        path: Path,
        tags: Mapping[str, str],
        progress: Callable[[float], None],
        polygons: Path | None = None,
    ) -> WrittenMap:
        """Stream the scene of ``source`` through ``predict`` into a map at ``path``.

        ``predict`` takes samples and gives float32 [n, pixels, outputs]: probabilities or values, NaN where
        there is no data. ``tags`` say where the map comes from and are kept in it; ``progress`` hears the
        fraction done. ``polygons`` is a file for the patches of a map of classes (its suffix is
        ``polygons_suffix``). Raises GroundworkError for a source that is not one scene, or does not fit
        ``source.encoding``, and leaves nothing half-written behind.
        """
        ...
