"""From scene to map: a scene of any size streams through a model, a row of tiles at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine

from domains.contract import GroundworkError, Sample, Source, Target, WrittenMap
from domains.geospatial.bands import RasterEncoding
from domains.geospatial.blending import RowBlend, tile_starts
from domains.geospatial.geotiffs import GeoTiff
from domains.geospatial.map_file import Georeference, MapFile
from domains.geospatial.map_layers import layers_of
from domains.geospatial.opened import open_raster
from domains.geospatial.quick_look import Composite, QuickLook, draw_quick_look
from domains.geospatial.rasters import explained
from domains.geospatial.reading import scene_of
from domains.geospatial.scenes import Scene

Predict = Callable[[Sequence[Sample]], np.ndarray]

SUFFIXES = (".tif", ".tiff")

BATCH_BYTES = 32 * 2**20
MOST_TILES = 64
"""Bounds of what is predicted in one call: pixels and answers in memory, and tiles."""

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
) -> WrittenMap:
    """Answer the scene of ``source`` with a cloud-optimised GeoTIFF at ``path``, and a quick look.

    The scene is read in chips as the model was trained on, each a quarter over the next; where they overlap,
    their answers are blended. ``predict`` takes samples ``{"pixels": float32 [bands, chip, chip]}`` (of
    a pair of dates [2, bands, chip, chip]) and gives float32 [n, chip × chip, outputs]; one output of a
    binary target is the probability of its second class.
    The map has the CRS, transform (or control points) and shape of the scene, and no data where the scene
    has none. Classes: the class as the masks write it and its probability in percent, with names and
    colours (a style for QGIS and the names lie beside the map); a regression: float32 with NaN.
    ``tags`` are kept in the map; ``model`` among them, and ``SIMULATED`` = ``yes``, show in the quick look.
    Memory grows with the width of the scene, not with its height. Raises GroundworkError where the source is
    not one scene, does not fit its encoding or has no data, and where the map cannot be written; nothing is
    left behind then.
    """
    scene = scene_of(source)
    encoding = source.encoding
    if not isinstance(encoding, RasterEncoding):
        raise TypeError(f"a map is made with a RasterEncoding, not {type(encoding).__name__}")
    _check_path(path, scene)
    layers = layers_of(target)
    if source.simulated:
        tags = {**tags, **SIMULATED}
    place, cache = _survey(scene)
    composite = Composite(scene.height, scene.width, encoding.bands)
    counts = np.zeros(len(layers.classes), dtype=np.int64)
    answered = 0
    with rasterio.Env(GDAL_CACHEMAX=cache), MapFile(path, place, layers, tags) as file:
        row = 0
        for pixels, answers in _answered_rows(scene, encoding, target.outputs, predict):
            composite.add(row, pixels if scene.before is None else pixels[-1])
            written = layers.encode(answers)
            file.append(written)
            counts += layers.count(written)
            answered += int(np.isfinite(answers).all(axis=2).sum())
            row += len(answers)
            progress(STREAMED * row / scene.height)
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
        file.publish()
    progress(1.0)
    return WrittenMap(
        path=path,
        quick_look=quick_look,
        shares={item.name: float(share) for item, share in zip(layers.classes, shares, strict=True)},
    )


def _answered_rows(
    scene: Scene, encoding: RasterEncoding, outputs: int, predict: Predict
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of the scene from the top: pixels as ``Scene.read`` and answers [rows, width, outputs]."""
    chip = encoding.chip
    blend = RowBlend(scene.width, chip, outputs)
    bytes_of_tile = 4 * chip * chip * (len(encoding.bands) * encoding.dates + outputs)
    batch = max(1, min(MOST_TILES, BATCH_BYTES // bytes_of_tile))
    columns = tile_starts(scene.width, chip)
    rows = tile_starts(scene.height, chip)
    for row, below in zip(rows, [*rows[1:], scene.height], strict=True):
        strip = scene.read(row, 0, chip, max(scene.width, chip), encoding.bands)
        with_data = [column for column in columns if np.isfinite(strip[..., column : column + chip]).any()]
        for start in range(0, len(with_data), batch):
            chosen = with_data[start : start + batch]
            tiles = [{"pixels": np.ascontiguousarray(strip[..., at : at + chip])} for at in chosen]
            for column, answer in zip(chosen, predict(tiles), strict=True):
                blend.add(column, answer.reshape(chip, chip, outputs))
        pixels = strip[..., : below - row, : scene.width]
        answers = blend.take(below - row)
        answers[np.isnan(pixels).all(axis=tuple(range(pixels.ndim - 2)))] = np.nan
        yield pixels, answers


def _survey(scene: Scene) -> tuple[Georeference, int]:
    """Where the file says that the scene lies, and the bytes of GDAL's cache that hold one row of its blocks.

    With less, every block would be read and decoded again for each row of tiles that crosses it.
    """
    with explained(scene.name):
        raster = open_raster(scene.path)
        cache = min(max(LEAST_CACHE, 5 * raster.header.block_row_bytes // 4), MOST_CACHE)
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
    return place, cache


def _check_path(path: Path, scene: Scene) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise GroundworkError(f"a map is a GeoTIFF: give it a name that ends in .tif, not {path.name!r}")
    if not path.parent.is_dir():
        raise GroundworkError(f"there is no folder {path.parent}: make it, or write the map elsewhere")
    if path.is_dir():
        raise GroundworkError(f"{path} is a folder: give the map another name")
    if path.exists() and Path(scene.path).exists() and path.samefile(scene.path):
        raise GroundworkError(f"{path} is the scene itself: give the map another name")


def _title(scene: Scene, target: Target, tags: Mapping[str, str]) -> str:
    parts = [scene.name, target.name, tags.get("model", "")]
    if SIMULATED.items() <= tags.items():
        parts.append("simulated")
    return "  ·  ".join(part for part in parts if part)
