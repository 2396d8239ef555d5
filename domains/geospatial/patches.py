"""The patches of a map of classes as polygons with their area, in a GeoPackage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError
from pyogrio.raw import write as write_layer
from rasterio.features import shapes
from rasterio.windows import Window
from scipy import ndimage

from domains.contract import GroundworkError
from domains.geospatial.ground import pixel_areas
from domains.geospatial.rasters import one_line

SIDE = 1024
"""Pixels on a side of the squares in which a map is read."""
AT_ONCE = 20_000
"""Polygons that are written together."""
HECTARE = 10_000.0


@dataclass
class Patch:
    """Connected pixels of one class, or what is known of them so far."""

    value: int
    area: float
    """m²"""
    percent: float
    """Sum of the probabilities of its pixels."""
    pixels: int
    parts: list[shapely.Polygon] = field(default_factory=list)
    """In pixels of the map: whole numbers, which fit one another exactly."""

    def absorb(self, other: Patch) -> None:
        self.area += other.area
        self.percent += other.percent
        self.pixels += other.pixels
        self.parts += other.parts


def write_polygons(made: Path, names: Mapping[int, str], path: Path) -> int:
    """Write the patches of the map ``made`` to a GeoPackage at ``path``; gives how many there are.

    A patch is pixels of one class that share edges. Its row says ``class``, ``class_name`` (from ``names``),
    ``area_ha`` on the ellipsoid of the map's CRS, ``mean_probability`` and ``pixels``. The map is read in
    squares, and a patch is kept no longer than the next row of squares may add to it, so that memory grows
    with the largest patches and not with the map. Raises GroundworkError where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    partial.unlink(missing_ok=True)
    count = 0
    try:
        waiting: list[Patch] = []
        with rasterio.open(made) as file:
            place, crs = file.transform, file.crs.to_wkt()
            for patch in _patches(file):
                waiting.append(patch)
                if len(waiting) == AT_ONCE:
                    _write(waiting, names, place, crs, partial, append=count > 0)
                    count += len(waiting)
                    waiting = []
        if waiting:
            _write(waiting, names, place, crs, partial, append=count > 0)
        os.replace(partial, path)
    except (OSError, DataSourceError, DataLayerError, FeatureError) as error:
        raise GroundworkError(f"{path} cannot be written: {one_line(error)}") from error
    finally:
        partial.unlink(missing_ok=True)
    return count + len(waiting)


def _patches(file: rasterio.DatasetReader) -> Iterator[Patch]:
    """The patches of a map, each once it is whole."""
    patches: dict[int, Patch] = {}
    roots: dict[int, int] = {}

    def root_of(label: int) -> int:
        while roots[label] != label:
            roots[label] = label = roots[roots[label]]
        return label

    above = np.zeros(file.width, np.int64)  # labels of the last row of the squares above
    first = 1
    for row in range(0, file.height, SIDE):
        left = np.zeros(0, np.int64)
        below = np.zeros(file.width, np.int64)
        for column in range(0, file.width, SIDE):
            window = Window(column, row, min(SIDE, file.width - column), min(SIDE, file.height - row))
            labels, found = _square(file, window, first)
            first += len(found)
            across = slice(column, column + window.width)
            edges = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
            open_labels = set(edges.tolist())
            for label, patch in found.items():
                if label in open_labels:
                    patches[label], roots[label] = patch, label
                else:
                    yield patch
            for one, other in ((above[across], labels[0]), (left, labels[:, 0])):
                for before, here in _touching(one, other, patches, root_of):
                    kept, gone = root_of(before), root_of(here)
                    if kept != gone:
                        patches[kept].absorb(patches.pop(gone))
                        roots[gone] = kept
            below[across], left = labels[-1], labels[:, -1]
        reached = {root_of(label) for label in np.unique(below[below > 0]).tolist()}
        for label in [label for label in patches if label not in reached]:
            yield patches.pop(label)
        roots = {label: root_of(label) for label in np.unique(below[below > 0]).tolist()}
        roots |= {root: root for root in reached}
        above = below
    yield from patches.values()


def _square(file: rasterio.DatasetReader, window: Window, first: int) -> tuple[np.ndarray, dict[int, Patch]]:
    """Labels of a square's pixels, int64 from ``first`` on with 0 for no data, and its patches by label."""
    classes, percent = file.read((1, 2), window=window)
    local = np.zeros(classes.shape, np.int32)
    values: list[int] = []
    for value in np.unique(classes[classes != file.nodata]).tolist():
        labels, count = ndimage.label(classes == value)  # pixels that share edges, as ``shapes`` has it
        np.copyto(local, labels + len(values), where=labels > 0)
        values += [value] * count
    areas = pixel_areas(
        file.crs.to_wkt(), file.transform, window.row_off, window.col_off, window.height, window.width
    )
    flat, count = local.ravel(), len(values) + 1
    area, sums = (np.bincount(flat, each.ravel(), count) for each in (areas, percent))
    pixels = np.bincount(flat, minlength=count)
    found = {
        first + place: Patch(value, area[place + 1], sums[place + 1], int(pixels[place + 1]))
        for place, value in enumerate(values)
    }
    moved = rasterio.Affine.translation(window.col_off, window.row_off)
    for outline, label in shapes(local, mask=local > 0, transform=moved):
        rings = outline["coordinates"]
        found[first + int(label) - 1].parts.append(shapely.Polygon(rings[0], rings[1:]))
    return np.where(local > 0, local.astype(np.int64) + first - 1, 0), found


def _touching(
    one: np.ndarray, other: np.ndarray, patches: Mapping[int, Patch], root_of: Callable[[int], int]
) -> Iterator[tuple[int, int]]:
    """Pairs of labels of one class that lie side by side along the border of two squares."""
    if not len(one):
        return
    pairs = np.unique(np.stack([one, other])[:, (one > 0) & (other > 0)], axis=1)
    for before, here in pairs.T.tolist():
        if patches[root_of(before)].value == patches[root_of(here)].value:
            yield before, here


def _write(
    patches: Sequence[Patch],
    names: Mapping[int, str],
    place: rasterio.Affine,
    crs: str,
    path: Path,
    append: bool,
) -> None:
    whole = np.array(
        [shapely.union_all(patch.parts) if len(patch.parts) > 1 else patch.parts[0] for patch in patches]
    )
    scale, shift = np.array([[place.a, place.d], [place.b, place.e]]), np.array([place.c, place.f])
    columns = {
        "class": np.array([patch.value for patch in patches], np.int32),
        "class_name": np.array([names.get(patch.value, "") for patch in patches], object),
        "area_ha": np.array([patch.area / HECTARE for patch in patches]),
        "mean_probability": np.array([patch.percent / patch.pixels / 100 for patch in patches]),
        "pixels": np.array([patch.pixels for patch in patches], np.int64),
    }
    write_layer(
        str(path),
        shapely.to_wkb(shapely.transform(whole, lambda points: points @ scale + shift)),
        list(columns.values()),
        list(columns),
        driver="GPKG",
        layer="patches",
        geometry_type="Polygon",
        crs=crs,
        append=append,
    )
