"""Satellite and aerial rasters: scenes in, chips of physical values with bands, units and place out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from domains.abilities import Place, Reconstruction, WrittenMap
from domains.contract import (
    EncodingSpec,
    Floor,
    Record,
    Reject,
    Resampling,
    Row,
    Sample,
    Source,
    Target,
    TargetSpec,
    TaskName,
    TaskSpec,
)
from domains.geospatial import (
    archives,
    blocks,
    chips,
    drawing,
    encoding,
    floors,
    pixels,
    placing,
    reading,
    simulate,
)
from domains.geospatial.bands import BandSpec, RasterEncoding
from domains.geospatial.chips import Chip, ChipReference
from domains.geospatial.reading import Scene

__all__ = ["GEOSPATIAL", "BandSpec", "Chip", "ChipReference", "Geospatial", "RasterEncoding", "Scene"]


STATISTICS = "statistics"

EDGES = 32
"""Of strengths of edges in a patch, by direction and cell, as the encoder computes them."""

BAND_STATISTICS = 10
"""Of mean, spread, texture and the like, as the encoder computes them."""

BAG_OF_WORDS = 512
"""Of how often visual words occur in a chip, as the encoder finds them."""


class Geospatial:
    """The domain of rasters; see ``domains.contract.Domain`` for what each method owes."""

    name = "geospatial"
    noun = "chip"
    input_column = reading.IMAGE
    encoding: type[EncodingSpec] = RasterEncoding
    split_methods = blocks.SPLIT_METHODS
    corpus = "simulated-scenes"
    yardstick = ""
    tasks: tuple[TaskName, ...] = ("classification", "multilabel", "segmentation", "regression", "change")
    shard_rows = 1024
    formats: Mapping[str, str] = archives.FORMATS
    documents = (".json", ".geojson")
    polygons_suffix = ".gpkg"

    def example(self, spec: EncodingSpec) -> tuple[str, ...]:
        return chips.example(cast(RasterEncoding, spec))

    def embedded(self) -> Mapping[str, Callable[[EncodingSpec], Source]]:
        return simulate.embedded()

    def open(self, path: Path, spec: EncodingSpec, input_column: str | None = None) -> Source:
        return reading.open_source(path, cast(RasterEncoding, spec), input_column)

    def encoding_for(self, task: TaskName, spec: EncodingSpec) -> EncodingSpec:
        """A change is seen on two dates; see ``domains.abilities.ReadsForTask``."""
        return spec.model_copy(update={"dates": 2}) if task == "change" else spec

    def open_document(
        self,
        start: str,
        spec: EncodingSpec,
        hosts: Collection[str] | None,
        input_column: str | None = None,
    ) -> Source:
        """A GeoTIFF at an address, or a STAC document; see ``domains.abilities.OpensDocuments``."""
        return reading.open_document(start, cast(RasterEncoding, spec), hosts, input_column)

    def resampling(self, spec: EncodingSpec, method: Resampling) -> EncodingSpec:
        """Bands go to the finest of their product, and scenes to the pixel size of the model's bands."""
        return spec.model_copy(update={"resample": method, "resample_scenes": True})

    def read(self, row: Row, spec: EncodingSpec) -> Record | Reject:
        return chips.read(row, cast(RasterEncoding, spec))

    def encode(self, record: Record, spec: EncodingSpec) -> Sample:
        return encoding.sample_of(record.value, cast(RasterEncoding, spec))

    def pack(self, record: Record, spec: EncodingSpec) -> Sample:
        """Integers as in the file; see ``domains.abilities.PacksSamples``."""
        return encoding.packed_sample_of(record.value, cast(RasterEncoding, spec))

    def unpack(self, packed: Sample) -> Sample:
        return pixels.unpacked(packed)

    def kinship(self, record: Record) -> str:
        return record.identity

    def pretraining_targets(self, spec: EncodingSpec) -> Sequence[TargetSpec]:
        """The pixels of each patch in a band, its edges, what a band looks like on the whole, and words."""
        its = cast(RasterEncoding, spec)
        return (
            TargetSpec("patch", "token", "reals", its.patch**2),
            TargetSpec("edges", "token", "reals", EDGES),
            TargetSpec("band", "channel", "reals", BAND_STATISTICS),
            TargetSpec("words", "sample", "reals", BAG_OF_WORDS),
        )

    def computed(self, spec: EncodingSpec) -> Sequence[TargetSpec]:
        """What a chip looks like on the whole."""
        its = cast(RasterEncoding, spec)
        count = floors.count_statistics(len(its.bands), its.dates)
        return (TargetSpec(STATISTICS, "sample", "reals", count),)

    def describe(self, record: Record, spec: EncodingSpec) -> Sample:
        return {STATISTICS: floors.image_statistics(record)}

    def labels(self, record: Record, targets: Sequence[str]) -> Sample:
        return chips.labels(record, targets)

    def groups(self, records: Iterable[Record], method: str) -> np.ndarray:
        return blocks.group_records(records, method)

    def place(self, record: Record) -> Place | None:
        """The corners of a chip; see ``domains.abilities.LocatesRecords``."""
        return placing.place_of(record.value)

    def floors(self, task: TaskSpec, spec: EncodingSpec) -> Sequence[Floor]:
        return floors.raster_floors(task, cast(RasterEncoding, spec))

    def draw(self, record: Record, caption: str) -> bytes:
        return drawing.draw_chip(record, caption)

    def draw_reconstructions(self, shown: Sequence[tuple[EncodingSpec, Reconstruction]]) -> bytes:
        """Chips in natural colour; see ``domains.abilities.DrawsReconstructions``."""
        return drawing.draw_reconstructions(shown)

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
        """A cloud-optimised GeoTIFF; see ``domains.abilities.MapWriter``."""
        from domains.geospatial import maps  # with its pictures; the rest needs no matplotlib

        return maps.write_map(source, target, predict, path, tags, progress, polygons)


GEOSPATIAL = Geospatial()
