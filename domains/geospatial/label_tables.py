"""Labels as a table: ``labels.csv`` with a row for each image or each point, or points of a vector file."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from domains.contract import GroundworkError
from domains.geospatial.vectors import LONGITUDE_LATITUDE, Features
from domains.tables import Unreadable

LARGEST = 1 << 27
"""Bytes of a table: it is read whole."""
PATHS = ("path", "image", "file", "filename", "file_name")
"""Columns that name the image of a row; the first that is there does."""
COORDINATES = ((("lon", "longitude", "lng"), ("lat", "latitude")), (("x", "easting"), ("y", "northing")))
"""Columns that say where a point lies: in degrees, or in the coordinates of the scenes."""
LISTED = "labels"
"""Column of several names in a cell, each of which becomes a column of 0 and 1."""
SEPARATORS = r"[;|]"
TARGETS = ("label", "class", "target")
SPLIT_COLUMNS = {"given": ("split",), "time": ("time", "date", "datetime")}
"""Columns that say which rows are held out, by the method that goes by them."""
RESERVED = ("image", "row", "column", "mask")
"""What every row of rasters has."""
MOST_COLUMNS = 10_000


@dataclass(frozen=True)
class LabelTable:
    """Rows of labels, and what each belongs to."""

    columns: tuple[str, ...]
    """Those of ``rows``: labels, and what else is said."""
    targets: tuple[str, ...]
    """The columns that are labels, where that is plain."""
    rows: tuple[Mapping[str, str], ...]
    paths: tuple[str, ...] = ()
    """Image of each row; empty where rows are points."""
    points: tuple[tuple[float, float], ...] = ()
    """Coordinates x, y of each row; empty where rows are images."""
    crs: str = ""
    """WKT of the points; empty where they are in that of the scenes."""
    faults: tuple[Unreadable, ...] = ()
    """Rows that cannot be used."""
    split_columns: Mapping[str, str] = field(default_factory=dict)
    """Column that decides in a split by each method that a column decides."""


def table_of_csv(data: bytes) -> LabelTable:
    """A table of text, separated by ``,`` ``;`` or tabs.

    Raises GroundworkError where it has no rows, or neither a column of paths nor of coordinates.
    """
    header, *lines = _cells(data) or [[]]
    columns = [name.strip() for name in header]
    if len(columns) > MOST_COLUMNS or len(set(columns)) < len(columns):
        raise GroundworkError("it names a column twice, or too many: give each column one name of its own")
    lower = {name.lower(): name for name in reversed(columns)}
    path = next((lower[name] for name in PATHS if name in lower), None)
    coordinates = _coordinates(lower)
    if path is None and coordinates is None:
        raise GroundworkError(
            f"it has no column that names images ({', '.join(PATHS)}) or places (lon and lat, or x and y), "
            f"but {', '.join(columns[:20]) or 'none'}"
        )
    keys = {*([path] if path else []), *(coordinates or ())}
    rows, faults = [], []
    for number, line in enumerate(lines, start=2):
        if len(line) > len(columns) and any(line[len(columns) :]):
            reason = f"line {number} has {len(line)} cells where the header names {len(columns)}"
            faults.append(Unreadable(f"{reason}: quote cells with separators", ",".join(line)[:500]))
            continue
        rows.append(dict(zip(columns, [*line, *[""] * len(columns)], strict=False)))
    if not rows:
        raise GroundworkError(faults[0].reason if faults else "it has a header but no rows")
    others = [name for name in columns if name not in keys]
    if path is not None:
        paths = tuple(row[path].strip() for row in rows)
        return _described(others, rows, faults, paths=paths)
    assert coordinates is not None  # noqa: S101 - narrows the type: one of both is there
    return _of_places(others, rows, faults, coordinates)


def table_of_points(features: Features) -> LabelTable:
    """A table of the points of a vector file."""
    columns = features.columns
    rows = [{name: told.get(name, "") for name in columns} for told in features.properties]
    points = tuple(
        (float(each["coordinates"][0]), float(each["coordinates"][1])) for each in features.geometries
    )
    return _described(columns, rows, [], points=points, crs=features.crs)


def _cells(data: bytes) -> list[list[str]]:
    """Rows of cells; blank ones are none."""
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Excel's "Unicode text"
    try:
        text = data.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    header = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = next((mark for mark in ",;\t" if mark in header), ",")
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        return [row for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise GroundworkError(f"{error}; look for a quote that is not closed") from error


def _coordinates(lower: Mapping[str, str]) -> tuple[str, str] | None:
    for across, up in COORDINATES:
        x = next((lower[name] for name in across if name in lower), None)
        y = next((lower[name] for name in up if name in lower), None)
        if x and y:
            return x, y
    return None


def _of_places(
    others: Sequence[str],
    rows: Iterable[Mapping[str, str]],
    faults: list[Unreadable],
    coordinates: tuple[str, str],
) -> LabelTable:
    kept, points = [], []
    is_in_degrees = coordinates[0].lower() in COORDINATES[0][0]
    for row in rows:
        written = [row[name].strip() for name in coordinates]
        try:
            x, y = map(float, written)
        except ValueError:
            faults.append(Unreadable(f"{' and '.join(coordinates)} are no two numbers", ", ".join(written)))
            continue
        if is_in_degrees and not (-360 <= x <= 360 and -90 <= y <= 90):
            faults.append(Unreadable("no longitude and latitude in degrees", ", ".join(written)))
            continue
        kept.append(row)
        points.append((x, y))
    if not kept:
        raise GroundworkError(f"none of its {len(faults)} rows can be used; the first: {faults[0].reason}")
    crs = LONGITUDE_LATITUDE if is_in_degrees else ""
    return _described(others, kept, faults, points=tuple(points), crs=crs)


def _described(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    faults: Sequence[Unreadable],
    paths: tuple[str, ...] = (),
    points: tuple[tuple[float, float], ...] = (),
    crs: str = "",
) -> LabelTable:
    lower = {name.lower(): name for name in columns}
    named = (
        (method, [lower[name] for name in names if name in lower]) for method, names in SPLIT_COLUMNS.items()
    )
    split_columns = {method: found[0] for method, found in named if found}
    targets: Sequence[str]
    if LISTED in lower:
        columns, rows, targets = _spread(columns, rows, lower[LISTED])
    else:
        targets = _targets([name for name in columns if name not in split_columns.values()], rows)
    if taken := [name for name in columns if name.lower() in RESERVED]:
        raise GroundworkError(f"rename its column {taken[0]!r}: every chip has one of that name already")
    kept = tuple({name: row[name] for name in columns} for row in rows)
    return LabelTable(tuple(columns), tuple(targets), kept, paths, points, crs, tuple(faults), split_columns)


def _spread(
    columns: Sequence[str], rows: Sequence[Mapping[str, str]], listed: str
) -> tuple[list[str], list[dict[str, str]], list[str]]:
    """The column of several names as a column of 0 and 1 for each; an empty cell says nothing of any."""
    cells = [list(_names_in(row[listed])) for row in rows]
    names = sorted({name for cell in cells for name in cell})
    if clash := set(names) & set(columns):
        raise GroundworkError(f"the label {min(clash)!r} is also the name of a column: rename one of them")
    if len(names) > MOST_COLUMNS:
        raise GroundworkError(f"its column {listed!r} holds {len(names):,} distinct names: are they labels?")
    spread = [
        {**row, **{name: str(int(name in cell)) if cell else "" for name in names}}
        for row, cell in zip(rows, cells, strict=True)
    ]
    return [*(name for name in columns if name != listed), *names], spread, names


def _names_in(cell: str) -> Iterator[str]:
    return (name.strip() for name in re.split(SEPARATORS, cell) if name.strip())


def _targets(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> Sequence[str]:
    """The column that is called a label, the only column, or all where all are 0 and 1; else none."""
    named = [name for name in columns if name.lower() in TARGETS]
    if len(named) == 1 or len(columns) == 1:
        return named[:1] or columns
    are_marks = all(row[name].strip() in ("0", "1", "") for row in rows for name in columns)
    return columns if are_marks else ()
