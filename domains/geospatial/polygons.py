"""Polygons as labels: drawn onto the grid of a scene window by window, as a label raster would be read."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.features import bounds, rasterize
from rasterio.warp import transform_bounds, transform_geom

from domains.contract import ClassSpec, GroundworkError, RejectedLabel
from domains.geospatial.archives import File, read_path
from domains.geospatial.opened import file_of
from domains.geospatial.rasters import explained, parsed_crs
from domains.geospatial.vectors import LARGEST, Features, read_features

ATTRIBUTES = ("class", "label", "category")
"""Properties that name the class of a polygon, where a ``bands.yaml`` names none."""
Shape = tuple[Mapping[str, Any], int]
"""A polygon as GeoJSON has it, and its code."""
STEPS = 16
"""Parts of a scene's height between which edges of polygons are straight in any system."""
MOST_CORNERS = 4096
"""Along one edge."""
TURNS = (-360, 0, 360)
"""Degrees that lead to the same place."""
LOG = "-wal"
"""Added to the name of a GeoPackage: what SQLite has still to write into it."""
LARGEST_CODE = 65535
"""Classes are drawn as uint16, 0 for none."""


@dataclass(frozen=True)
class PolygonLabels:
    """Polygons on a scene. Cheap to pickle: the file is read anew in each process."""

    path: str
    name: str
    crs: str
    """WKT of the scene."""
    transform: tuple[float, ...]
    height: int
    width: int
    attribute: str
    codes: tuple[tuple[str, float], ...]
    """What the attribute says, and the value that stands for it."""
    background: float | None = None
    """What stands where there is no polygon; None where nothing is known there."""

    def read(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """Labels of a window, float32 [height, width]; NaN where there is none, and outside.

        A pixel is what the polygon over its centre says; where polygons of several classes lie over it, it
        has no label. Raises RejectedLabel where the file cannot be read.
        """
        try:
            with explained(self.name):
                shapes = _on_scene(self, _version(self.path))
                return self._drawn(shapes, row, column, height, width)
        except GroundworkError as error:
            raise RejectedLabel(str(error)) from error

    def _drawn(self, shapes: _Shapes, row: int, column: int, height: int, width: int) -> np.ndarray:
        to_ground = Affine(*self.transform) @ Affine.translation(column, row)
        corners = [to_ground @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
        near = shapes.near(*np.min(corners, axis=0), *np.max(corners, axis=0))
        nothing = np.nan if self.background is None else self.background
        labels = np.full((height, width), nothing, np.float32)
        if near:
            values = np.array([nothing, *(value for _, value in self.codes)], np.float32)
            # Of two polygons the later is drawn over the earlier one.
            with rasterio.Env():
                highest = _burnt(near, (height, width), to_ground)
                is_one = near[0][1] == near[-1][1]
                lowest = highest if is_one else _burnt(near[::-1], (height, width), to_ground)
            labels = np.where(lowest == highest, values[highest], np.float32(np.nan))
        rows, columns = row + np.arange(height), column + np.arange(width)
        labels[(rows < 0) | (rows >= self.height)] = np.nan
        labels[:, (columns < 0) | (columns >= self.width)] = np.nan
        return labels


def _burnt(shapes: Sequence[Shape], size: tuple[int, int], to_ground: Affine) -> np.ndarray:
    return rasterize(shapes, size, transform=to_ground, fill=0, dtype=np.uint16)


class _Shapes:
    """Polygons in the CRS of a scene, with their codes, in the order of these."""

    def __init__(self, polygons: Sequence[Shape]) -> None:
        self._polygons = sorted(polygons, key=lambda each: each[1])
        self._boxes = np.array([bounds(geometry) for geometry, _ in self._polygons]).reshape(-1, 4)

    def near(self, left: float, low: float, right: float, high: float) -> list[Shape]:
        """Those whose boxes touch a box."""
        west, south, east, north = self._boxes.T
        touches = (west <= right) & (east >= left) & (south <= high) & (north >= low)
        return [self._polygons[place] for place in np.flatnonzero(touches)]


def read_labels(file: File) -> Features:
    """The features of a file of labels. Raises GroundworkError for one that cannot be read."""
    with explained(file.name):
        return _features(file.path, _version(file.path))


def _version(path: str) -> int:
    return os.stat(file_of(path)).st_mtime_ns


@lru_cache(maxsize=8)
def _features(path: str, version: int) -> Features:
    """The features of a file, which ``version`` tells from what it held before."""
    if os.path.isfile(path + LOG) and os.path.getsize(path + LOG):
        raise GroundworkError(
            "a program such as QGIS has it open, and its last changes are not in it yet: close it there"
        )
    return read_features(read_path(path, LARGEST), os.path.splitext(path)[1].lower())


@lru_cache(maxsize=8)
def _on_scene(labels: PolygonLabels, version: int) -> _Shapes:
    """The polygons that may lie on the scene, in its CRS."""
    features = _features(labels.path, version)
    codes = {text: code for code, (text, _) in enumerate(labels.codes, start=1)}
    chosen = [
        (geometry, codes[told[labels.attribute]])
        for geometry, told in zip(features.geometries, features.properties, strict=True)
        if told.get(labels.attribute)
    ]
    theirs, ours = parsed_crs(features.crs), parsed_crs(labels.crs)
    a, b, c, d, e, f = labels.transform
    ends = [(a * x + b * y + c, d * x + e * y + f) for x in (0, labels.width) for y in (0, labels.height)]
    box = (*np.min(ends, axis=0), *np.max(ends, axis=0))
    if theirs != ours:
        there = transform_bounds(ours, theirs, *box)
        places = sorted({place for place, _ in _touching(chosen, there, theirs)})
        # The height of the scene is as good a measure as any, and no date line crosses it.
        step = (there[3] - there[1]) / STEPS
        straight = [_straight(chosen[place][0], step) for place in places]
        moved = transform_geom(theirs, ours, straight) if straight else []
        chosen = [(geometry, chosen[place][1]) for geometry, place in zip(moved, places, strict=True)]
    if ours.is_geographic:
        touching = [(*chosen[place], turn) for place, turn in _touching(chosen, box, ours)]
        chosen = [
            ({**geometry, "coordinates": _turned(geometry["coordinates"], turn)} if turn else geometry, code)
            for geometry, code, turn in touching
        ]
    return _Shapes(chosen)


def _touching(shapes: Sequence[Shape], box: Sequence[float], crs: CRS) -> Iterator[tuple[int, int]]:
    """Places of the shapes whose boxes touch ``box``, and the degrees by which they are turned to do so."""
    west, south, east, north = box
    boxes = np.array([bounds(geometry) for geometry, _ in shapes]).reshape(-1, 4)
    is_level = (boxes[:, 1] <= north) & (boxes[:, 3] >= south)
    if west > east:  # a scene across the date line ends west of where it begins
        east += 360
    for turn in TURNS if crs.is_geographic else (0,):  # 350° and -10° are one place
        is_beside = (boxes[:, 2] + turn >= west) & (boxes[:, 0] + turn <= east)
        yield from ((place, turn) for place in np.flatnonzero(is_level & is_beside).tolist())


def _straight(geometry: Mapping[str, Any], step: float) -> Mapping[str, Any]:
    """``geometry`` with corners along its long edges: what is straight in one system is bent in another."""
    return {**geometry, "coordinates": _with_corners(geometry["coordinates"], step)}


def _with_corners(coordinates: Any, step: float) -> Any:
    if not coordinates or not coordinates[0] or isinstance(coordinates[0][0], list | tuple):
        return [_with_corners(each, step) for each in coordinates]
    ring = np.array([corner[:2] for corner in coordinates], np.float64)
    lengths = np.abs(np.diff(ring, axis=0)).max(axis=1, initial=0)
    counts = np.clip(np.ceil(lengths / step), 1, MOST_CORNERS).astype(int)
    if (counts == 1).all():
        return coordinates
    at = np.concatenate([[0], np.cumsum(counts)])  # where the corners come to stand
    x, y = (np.interp(np.arange(at[-1] + 1), at, axis) for axis in ring.T)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _turned(coordinates: Any, turn: int) -> Any:
    if coordinates and not isinstance(coordinates[0], list | tuple):
        return (coordinates[0] + turn, *coordinates[1:])
    return [_turned(each, turn) for each in coordinates]


# --------------------------------------------------------------------------------------------- classes


@dataclass(frozen=True)
class PolygonClasses:
    """Which property of polygons names their class, and the classes that there are."""

    attribute: str
    codes: tuple[tuple[str, float], ...]
    classes: tuple[ClassSpec, ...]
    background: float | None


def polygon_classes(
    features: Sequence[Features], attribute: str, declared: Sequence[ClassSpec], background: str
) -> PolygonClasses:
    """The classes of all ``features`` of a dataset together.

    Those ``declared`` are taken by their name or their value; without them, whole numbers stand for
    themselves, and names are numbered from 1 in their order. ``background`` names the class of what no
    polygon covers, 0 unless it is declared. Raises GroundworkError where no property or several may name the
    class, and for a class that is not declared.
    """
    columns = list(dict.fromkeys(name for each in features for name in each.columns))
    attribute = attribute or _named(columns)
    if attribute not in columns:
        raise GroundworkError(
            f"no polygon has the property {attribute!r}: they have {', '.join(columns[:20])}"
        )
    texts = sorted({told.get(attribute, "") for each in features for told in each.properties} - {""})
    if not texts:
        raise GroundworkError(f"the property {attribute!r} is empty in every polygon")
    specs = list(declared) or _numbered(texts, background)
    codes = tuple((text, _value_of(text, specs)) for text in texts)
    if len(codes) > LARGEST_CODE:
        raise GroundworkError(f"the property {attribute!r} holds {len(codes):,} classes: is it a name?")
    value = next((spec.value for spec in specs if spec.name == background), None)
    if background and value is None:
        raise GroundworkError(f"the background {background!r} is none of the declared classes")
    return PolygonClasses(attribute, codes, tuple(specs), value)


def _named(columns: Collection[str]) -> str:
    """The property that names the class."""
    likely = [name for name in columns if name.lower() in ATTRIBUTES] or list(columns)
    if len(likely) != 1:
        raise GroundworkError(
            f"the polygons have the properties {', '.join(likely[:20]) or 'none'}: say in bands.yaml which "
            "one names the class, such as: attribute: landcover"
        )
    return likely[0]


def _numbered(texts: Sequence[str], background: str) -> list[ClassSpec]:
    others = [text for text in texts if text != background]
    first = [ClassSpec(0.0, background)] if background else []
    if all(text.isdecimal() for text in others) and not (background and "0" in others):
        return first + [ClassSpec(float(text), text) for text in sorted(others, key=int)]
    return first + [ClassSpec(float(place), text) for place, text in enumerate(others, start=1)]


def _value_of(text: str, specs: Sequence[ClassSpec]) -> float:
    for spec in specs:
        if text in (spec.name, f"{spec.value:g}"):
            return spec.value
    raise GroundworkError(
        f"a polygon is of class {text[:40]!r}, where the declared classes are "
        f"{', '.join(spec.name for spec in specs[:20])}"
    )
