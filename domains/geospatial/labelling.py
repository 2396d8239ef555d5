"""The one file of labels beside a dataset's images: whose labels they are, and where points lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import numpy as np
from pyproj import Transformer
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.warp import transform as convert
from rasterio.warp import transform_bounds

from domains.contract import GroundworkError
from domains.geospatial.archives import VECTOR_SUFFIXES, File, read_path
from domains.geospatial.label_tables import LARGEST, LabelTable, table_of_csv, table_of_points
from domains.geospatial.layout import IMAGES, Entry, Layout
from domains.geospatial.polygons import read_labels
from domains.geospatial.rasters import explained, parsed_crs
from domains.geospatial.scenes import Scene
from domains.tables import Unreadable


@dataclass(frozen=True)
class Points:
    """Places with labels."""

    places: np.ndarray
    """float64 [n, 2]: x, y."""
    crs: str
    """WKT or name; empty where the places are in that of the scenes."""
    fields: tuple[Mapping[str, str], ...]

    def on(self, scene: Scene) -> Iterator[tuple[int, int, int]]:
        """Number, row and column of those that lie on the scene."""
        if not scene.crs and self.crs:
            return
        x, y = self.places.T
        if self.crs and scene.crs:
            x, y = _converted(self.crs, scene.crs, x, y)
        a, b, c, d, e, f = scene.transform
        if scene.crs and parsed_crs(scene.crs).is_geographic:  # 350° and -10° are one place
            middle = c + (a * scene.width + b * scene.height) / 2
            x = x + 360 * np.round((middle - x) / 360)
        columns, rows = np.linalg.solve(np.array([[a, b], [d, e]]), np.array([x - c, y - f]))
        inside = (rows >= 0) & (rows < scene.height) & (columns >= 0) & (columns < scene.width)
        for number in np.flatnonzero(inside).tolist():
            yield number, int(rows[number]), int(columns[number])

    def why_nowhere(self, numbers: Sequence[int], scenes: Sequence[Scene]) -> Iterator[str]:
        """Why points that lie on none of the ``scenes`` cannot be used: where they are, and where those."""
        reach = self._reach(scenes) if numbers else ()
        where = f", which lie at {self._described(*reach)}" if reach else ": they have no location"
        for number in numbers:
            place = self.places[number].tolist()
            yield f"{self._described(*place, *place)} is on none of the scenes{where}"

    def _reach(self, scenes: Sequence[Scene]) -> tuple[float, ...]:
        """Least x and y of the scenes, as the points count them, and greatest; empty where none has any."""
        found = []
        for scene in scenes:
            if self.crs and not scene.crs:
                continue
            a, b, c, d, e, f = scene.transform
            columns, rows = np.array([[0, 1, 0, 1], [0, 0, 1, 1]]) * [[scene.width], [scene.height]]
            x, y = a * columns + b * rows + c, d * columns + e * rows + f
            box = (x.min(), y.min(), x.max(), y.max())
            found.append(transform_bounds(parsed_crs(scene.crs), self.crs, *box) if self.crs else box)
        if not found:
            return ()
        left, bottom, right, top = zip(*found, strict=True)
        return min(left), min(bottom), max(right), max(top)

    def _described(self, left: float, bottom: float, right: float, top: float) -> str:
        in_degrees = bool(self.crs) and CRS.from_user_input(self.crs).is_geographic
        names = ("longitude", "latitude") if in_degrees else ("x", "y")
        return " and ".join(
            f"{name} {low:.7g}" + (f" to {high:.7g}" if high != low else "")
            for name, low, high in zip(names, (left, bottom), (right, top), strict=True)
        )


def _converted(crs: str, wanted: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in another system, not finite where it does not reach: a zone of UTM ends somewhere."""
    try:
        found = convert(crs, parsed_crs(wanted), x, y)
    except CPLE_BaseError:  # GDAL gives none of them where one is beyond
        found = Transformer.from_crs(crs, wanted, always_xy=True).transform(x, y)
    return np.array(found[0]), np.array(found[1])


@dataclass(frozen=True)
class Labelling:
    """What the file says, laid upon the images."""

    layout: Layout
    columns: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    split_columns: Mapping[str, str] = field(default_factory=dict)
    strays: tuple[Unreadable, ...] = ()
    """Rows of the file that belong to no image."""
    points: Points | None = None


def labelled(layout: Layout) -> Labelling:
    """Read the file of labels of ``layout``: polygons become the masks of its images, a table their columns.

    Raises GroundworkError for a file that cannot be read, or says neither.
    """
    file = layout.labels
    if file is None:
        return Labelling(layout)
    with explained(file.name):
        if file.suffix not in VECTOR_SUFFIXES:
            table = table_of_csv(read_path(file.path, LARGEST))
        elif not (features := read_labels(file)).are_points:
            return Labelling(_under_polygons(layout, file))
        else:
            table = table_of_points(features)
        if table.points:
            points = Points(np.array(table.points), table.crs, table.rows)
            return Labelling(layout, table.columns, table.targets, table.split_columns, table.faults, points)
        return _with_columns(layout, table)


def _under_polygons(layout: Layout, file: File) -> Layout:
    if layout.has_masks:
        raise GroundworkError("the images have masks already: keep one of both")
    entries = tuple(replace(entry, mask=file) for entry in layout.entries)
    return replace(layout, entries=entries, has_masks=True)


def _with_columns(layout: Layout, table: LabelTable) -> Labelling:
    places = _places_by_name(layout)
    rows: dict[int, Mapping[str, str]] = {}
    twice: set[int] = set()
    strays = list(table.faults)
    for path, row in zip(table.paths, table.rows, strict=True):
        place = places.get(_plain(path))
        if place is None:
            strays.append(Unreadable("no image of that name, or several", path))
        elif rows.setdefault(place, row) != row:
            twice.add(place)
    if not rows:
        raise GroundworkError(
            f"none of its {len(table.paths)} rows names an image of the dataset, such as {table.paths[0]!r} "
            f"where {layout.entries[0].image.name!r} is"
        )
    nothing = dict.fromkeys(table.columns, "")
    entries = [
        replace(
            entry,
            fields={**entry.fields, **rows.get(place, nothing)},
            fault=entry.fault or ("labelled twice, each time otherwise" if place in twice else ""),
        )
        for place, entry in enumerate(layout.entries)
    ]
    layout = replace(layout, entries=tuple(entries))
    return Labelling(layout, table.columns, table.targets, table.split_columns, tuple(strays))


def _places_by_name(layout: Layout) -> dict[str, int]:
    """Position of each image by every name that means it alone, with or without folders and suffix."""
    names = [list(_names(entry, layout.top)) for entry in layout.entries]
    counts = Counter(name for each in names for name in each)
    return {name: place for place, each in enumerate(names) for name in each if counts[name] == 1}


def _names(entry: Entry, top: str) -> Sequence[str]:
    whole = entry.image.name
    below = whole.removeprefix(top)
    found = [whole, below, below.removeprefix(f"{IMAGES}/"), PurePosixPath(whole).name]
    return list(dict.fromkeys([*found, *(str(PurePosixPath(name).with_suffix("")) for name in found)]))


def _plain(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./")
