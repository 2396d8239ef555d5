"""From scene to map: a scene of any size streams through a model, a row of tiles at a time.

While a row is answered, the next one is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
import rasterio
from rasterio import Affine

from domains.abilities import WrittenMap
from domains.contract import GroundworkError, Sample, Source, Target, digest_of
from domains.geospatial.bands import RasterEncoding
from domains.geospatial.blending import RowBlend, Section, sections, tile_starts
from domains.geospatial.chips import chip_of
from domains.geospatial.encoding import sample_of
from domains.geospatial.geotiffs import GeoTiff
from domains.geospatial.ground import pixel_areas
from domains.geospatial.map_file import Georeference, MapFile
from domains.geospatial.map_layers import MapLayers, layers_of
from domains.geospatial.opened import file_of, open_raster
from domains.geospatial.quick_look import Composite, QuickLook, draw_quick_look
from domains.geospatial.rasters import explained
from domains.geospatial.reading import scene_of
from domains.geospatial.scenes import Scene
from domains.geospatial.unfinished import Progress

Predict = Callable[[Sequence[Sample]], np.ndarray]
Item = TypeVar("Item")

SUFFIXES = (".tif", ".tiff")

BATCH_BYTES = 32 * 2**20
MOST_TILES = 64
"""Bounds of what is predicted in one call: pixels and answers in memory, and tiles."""

SECTION_BYTES = 64 * 2**20
"""Of a row of blocks and a row of tiles together: where they would take more, columns are answered in
sections, so that memory does not grow with the width of a scene."""

LEAST_CACHE = 16 * 2**20
MOST_CACHE = 512 * 2**20
"""Bytes of GDAL's cache of blocks."""

SIMULATED = {"SIMULATED": "yes"}
"""Tag of what was made from made-up data."""

STREAMED = 0.9
"""Share of the work that is done when every pixel has its answer; the rest is writing the map."""


def write_map(
    source: Source,
    target: Target,
    predict: Predict,
    path: Path,
    tags: Mapping[str, str],
    progress: Callable[[float], None],
    polygons: Path | None = None,
) -> WrittenMap:
    """Answer the scene of ``source`` with a cloud-optimised GeoTIFF at ``path``, and a quick look.

    The scene is read in chips as the model was trained on, each a quarter over the next; where they overlap,
    their answers are blended. ``predict`` takes samples as ``encoding.sample_of`` makes them and gives
    float32 [n, chip × chip, outputs]; one output of a binary target is the probability of its second class.
    The map has the CRS, transform (or control points) and shape of the scene, and no data where the scene
    has none. A scene that is brought to the pixel size of the model gives a map with such pixels, from the
    upper left corner of the scene on. Classes: the class as the masks write it and its probability in
    percent, with names and colours (a style for QGIS and the names lie beside the map); a regression: float32
    with NaN. ``tags`` are kept in the map; ``model`` among them, and ``SIMULATED`` = ``yes``, show in the
    quick look. ``polygons`` is a GeoPackage for the patches of a map of classes, see ``write_polygons``.
    A run that was killed or told to stop is gone on with by the next one of the same scene, encoding, target
    and ``tags``, which answers again only what was not recorded yet, a few seconds' work. Memory does not
    grow with the scene where its blocks are tiles; where they are rows, it does with its width. Raises
    GroundworkError where the source is not one scene, does not fit its encoding or has no data, and where
    the map cannot be written; nothing is left behind then.
    """
    scene = scene_of(source)
    encoding = source.encoding
    if not isinstance(encoding, RasterEncoding):
        raise TypeError(f"a map is made with a RasterEncoding, not {type(encoding).__name__}")
    _check_path(path, scene)
    layers = layers_of(target)
    if source.simulated:
        tags = {**tags, **SIMULATED}
    place, reading = _survey(scene, encoding, target.outputs)
    if polygons is not None:
        _check_polygons(layers, place, scene)
    made_of = [source.digest, encoding.digest, target.model_dump(mode="json"), dict(tags), str(place)]
    composite = Composite(scene.height, scene.width, encoding.bands)
    counts = np.zeros(len(layers.classes), dtype=np.int64)
    answered = 0
    with (
        rasterio.Env(GDAL_CACHEMAX=reading.cache),
        MapFile(path, place, layers, tags, digest_of(made_of)) as file,
    ):
        answering = _Answering(
            scene, encoding, target.outputs, predict, layers, file, reading.columns, composite
        )
        for block in answering:
            counts += layers.count(block.written)
            answered += layers.answered(block.written)
            progress(STREAMED * block.done)
        if not answered:
            raise GroundworkError(
                f"{scene.name} has no pixel with data in all of its bands: there is nothing to map"
            )
        file.finish()
        shares = counts / answered
        quick_look = draw_quick_look(
            composite.image(),
            QuickLook(
                title=_title(scene, target, tags),
                answer=file.decimated(composite.shape),
                label=target.name + (f" ({target.unit})" if target.unit else ""),
                classes=layers.classes,
                shares=shares.tolist(),
            ),
            place,
        )
        if polygons is not None:
            from domains.geospatial.patches import write_polygons  # with a GDAL of its own

            write_polygons(file.finished, {item.value: item.name for item in layers.classes}, polygons)
        file.publish()
    progress(1.0)
    return WrittenMap(
        path=path,
        quick_look=quick_look,
        shares={item.name: float(share) for item, share in zip(layers.classes, shares, strict=True)},
    )


@dataclass(frozen=True)
class _Row:
    """A row of tiles of a section."""

    number: int
    """Of the section."""
    section: Section
    first: int
    """The row of the scene that it begins with."""
    below: int
    """The first row that the tiles below answer."""


@dataclass(frozen=True)
class _Block:
    """A part of a map."""

    written: np.ndarray
    """As the map holds it, [layers, rows, columns]."""
    done: float
    """Share of the scene that is answered."""


@dataclass(frozen=True)
class _Answering:
    """Answers a scene section by section, each from top to bottom, into a map that may have been begun."""

    scene: Scene
    encoding: RasterEncoding
    outputs: int
    predict: Predict
    layers: MapLayers
    file: MapFile
    columns: int
    """Of a section, about."""
    composite: Composite
    """Which hears of every pixel that is read."""

    def __iter__(self) -> Iterator[_Block]:
        scene = self.scene
        begun = self.file.unfinished.progress or Progress(0, 0, np.empty(0))
        done_rows, blend = 0, None
        for row, strip in _one_ahead(self._strips()):
            section = row.section
            if blend is None or row.first == 0:
                done_rows = scene.height if row.number < begun.section else 0
                blend = RowBlend(section, self.encoding.chip, self.outputs)
                if row.number == begun.section and begun.row:
                    done_rows = begun.row
                    blend.resume(begun.carried)
            pixels = self._final(row, strip)
            if row.first < done_rows:
                written = self.file.read(row.first, section.left, *pixels.shape[-2:])
            else:
                written = self._answer(blend, row, strip, pixels)
            area = section.left * scene.height + row.below * section.answered
            yield _Block(written, area / (scene.height * scene.width))
            if row.below == scene.height:
                self.file.unfinished.drop_margin(row.number - 1)

    def _strips(self) -> Iterator[tuple[_Row, np.ndarray]]:
        """Each row of tiles, section by section, with its pixels as ``Scene.read`` gives them."""
        scene, chip = self.scene, self.encoding.chip
        firsts = tile_starts(scene.height, chip)
        for number, section in enumerate(sections(scene.width, chip, self.columns)):
            for first, below in zip(firsts, [*firsts[1:], scene.height], strict=True):
                row = _Row(number, section, first, below)
                strip = scene.read(first, section.left, chip, max(section.width, chip), self.encoding.bands)
                pixels = self._final(row, strip)
                self.composite.add(first, section.left, pixels if scene.before is None else pixels[-1])
                yield row, strip

    def _final(self, row: _Row, strip: np.ndarray) -> np.ndarray:
        """The pixels of a strip whose answers no later tile touches."""
        section = row.section
        columns = min(section.answered, self.scene.width - section.left)
        return strip[..., : row.below - row.first, :columns]

    def _answer(self, blend: RowBlend, row: _Row, strip: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Answer a row of tiles and keep what is final of it: pixels of the map [layers, rows, columns]."""
        unfinished, chip, section = self.file.unfinished, self.encoding.chip, row.section
        for column, answer in self._tiles(section, row.first, strip):
            blend.add(column, answer.reshape(chip, chip, self.outputs))
        before, rows = None, row.below - row.first
        if section.left_margin:
            shape = (rows, section.left_margin, self.outputs + 1)
            before = unfinished.read_margin(row.number - 1, row.first, shape)
        answers, margin = blend.take(rows, before)
        if section.margin:
            unfinished.write_margin(row.number, row.first, margin)
        answers[np.isnan(pixels).all(axis=tuple(range(pixels.ndim - 2)))] = np.nan
        written = self.layers.encode(answers)
        self.file.write(row.first, section.left, written)
        if row.below == self.scene.height:
            self.file.record(Progress(row.number + 1, 0, blend.carried(0)))
        elif unfinished.is_due:
            self.file.record(Progress(row.number, row.below, blend.carried(chip - rows)))
        return written

    def _tiles(self, section: Section, row: int, strip: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """First columns and answers of the tiles that hold data, in batches."""
        chip = self.encoding.chip
        numbers = len(self.encoding.bands) * self.encoding.dates + self.outputs
        batch = max(1, min(MOST_TILES, BATCH_BYTES // (4 * chip * chip * numbers)))
        tiles = ((column, strip[..., column - section.left :][..., :chip]) for column in section.tiles)
        with_data = [(column, tile) for column, tile in tiles if np.isfinite(tile).any()]
        for start in range(0, len(with_data), batch):
            chosen = with_data[start : start + batch]
            answers = self.predict([self._sample(row, column, tile) for column, tile in chosen])
            yield from zip((column for column, _ in chosen), answers, strict=True)

    def _sample(self, row: int, column: int, tile: np.ndarray) -> Sample:
        pixels = np.ascontiguousarray(tile)
        return sample_of(chip_of(self.scene, row, column, pixels, self.encoding.bands), self.encoding)


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items, of which the next one is made, in a thread of its own, while one is in use."""
    with ThreadPoolExecutor(1, "reading") as reader:
        coming = reader.submit(next, items, None)
        try:
            while (item := coming.result()) is not None:
                coming = reader.submit(next, items, None)
                yield item
        finally:
            del coming  # whose error would hold this frame, and that the error: and with them an open raster


@dataclass(frozen=True)
class _Reading:
    """How a scene is read so that every block is decoded once, in bounded memory."""

    columns: int
    """Of a section, about."""
    cache: int
    """Bytes of GDAL's cache of blocks, which hold one row of those of a section."""


def _survey(scene: Scene, encoding: RasterEncoding, outputs: int) -> tuple[Georeference, _Reading]:
    """Where the file says that the scene lies, and how it is read."""
    with explained(scene.name):
        raster = open_raster(scene.path)
        header = raster.header
        crs, transform, points = scene.crs, scene.transform, ()
        if isinstance(raster, GeoTiff):
            crs, transform, points = raster.place()
    place = Georeference(
        height=scene.height,
        width=scene.width,
        crs=crs,
        transform=Affine(*transform),
        control_points=points,
    )
    columns, block_column = scene.width, header.block_row_bytes // scene.width
    if header.has_tiles:
        tile_column = encoding.chip * (4 * len(encoding.bands) * encoding.dates + 8 * (outputs + 1))
        columns = min(columns, SECTION_BYTES // (block_column + tile_column))
    # With less, every block would be decoded again for each row of tiles that crosses it.
    cache = min(max(LEAST_CACHE, 5 * block_column * columns // 4), MOST_CACHE)
    return place, _Reading(columns, cache)


def _check_path(path: Path, scene: Scene) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise GroundworkError(f"a map is a GeoTIFF: give it a name that ends in .tif, not {path.name!r}")
    if not path.parent.is_dir():
        raise GroundworkError(f"there is no folder {path.parent}: make it, or write the map elsewhere")
    if path.is_dir():
        raise GroundworkError(f"{path} is a folder: give the map another name")
    if path.exists() and Path(file_of(scene.path)).exists() and path.samefile(file_of(scene.path)):
        raise GroundworkError(f"{path} is the scene itself: give the map another name")


def _check_polygons(layers: MapLayers, place: Georeference, scene: Scene) -> None:
    if not layers.classes:
        raise GroundworkError("a map of numbers has no patches: leave out --polygons")
    if not place.crs or not place.transformed:
        raise GroundworkError(
            f"{scene.name} says no place by CRS and transform, so its patches have no area: leave out "
            "--polygons, or give the scene a place with gdalwarp"
        )
    # What cannot be measured at the corners is told before hours of answers, not after them.
    for row, column in product((0, place.height - 1), (0, place.width - 1)):
        try:
            pixel_areas(place.crs, place.transform, row, column, 1, 1)
        except GroundworkError as error:
            raise GroundworkError(f"{scene.name}: {error}; leave out --polygons") from error


def _title(scene: Scene, target: Target, tags: Mapping[str, str]) -> str:
    parts = [scene.name, target.name, tags.get("model", "")]
    if SIMULATED.items() <= tags.items():
        parts.append("simulated")
    return "  ·  ".join(part for part in parts if part)
