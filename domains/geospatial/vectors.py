"""Vector files of labels: GeoJSON (RFC 7946) and GeoPackage (OGC 12-128r19), read as features.

A GeoPackage is an SQLite database whose geometries are WKB behind a short header: both are read here, since
a library that does would bring a second GDAL.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError

from domains.contract import GroundworkError

LARGEST = 1 << 27
"""Bytes of a file: it is read whole."""
MOST_FEATURES = 1_000_000
LONGITUDE_LATITUDE = "EPSG:4326"
MAGIC = b"SQLite format 3\0"
LOGGED = slice(18, 20)
"""Bytes of a database that are 2 where changes are logged beside it, else 1 (SQLite's file format, 1.3)."""
DEEPEST = 2
"""How deep geometries of geometries are followed: a multipolygon holds polygons."""


@dataclass(frozen=True)
class Features:
    """Geometries with what is said of each."""

    crs: str
    """WKT."""
    geometries: Sequence[Mapping[str, Any]]
    """As GeoJSON writes them."""
    properties: Sequence[Mapping[str, str]]
    """Of each geometry, as text; empty where there is no value."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every property, in order of appearance."""
        return tuple(dict.fromkeys(name for each in self.properties for name in each))

    @property
    def are_points(self) -> bool:
        """Whether they are points, or else areas. Raises GroundworkError where they are both, or lines."""
        kinds = {str(geometry["type"]) for geometry in self.geometries}
        if kinds <= {"Point"}:
            return True
        if kinds <= {"Polygon", "MultiPolygon"}:
            return False
        raise GroundworkError(f"it holds {', '.join(sorted(kinds))}: labels are polygons, or points")


def read_features(data: bytes, suffix: str) -> Features:
    """The features of a file. Raises GroundworkError for one that is damaged, empty or says no place."""
    features = _of_geopackage(data) if suffix == ".gpkg" else _of_geojson(data)
    if not features.geometries:
        raise GroundworkError("it holds no feature with a geometry")
    if len(features.geometries) > MOST_FEATURES:
        raise GroundworkError(f"it holds over {MOST_FEATURES:,} features: keep those on the scenes")
    return features


# --------------------------------------------------------------------------------------------- GeoJSON


def _of_geojson(data: bytes) -> Features:
    try:
        told = json.loads(data)
        features = told["features"] if told["type"] == "FeatureCollection" else [told]
        if any("assets" in feature for feature in features):
            raise GroundworkError("it lists STAC items, not labels: name it by itself to read its scenes")
        placed = [
            feature
            for feature in features
            if feature.get("geometry") and _holds_a_number(feature["geometry"]["coordinates"])
        ]
        geometries = [{key: each["geometry"][key] for key in ("type", "coordinates")} for each in placed]
        properties = [
            {str(name): _text(value) for name, value in (each.get("properties") or {}).items()}
            for each in placed
        ]
        named = ((told.get("crs") or {}).get("properties") or {}).get("name", "")
        is_in_degrees = all(_is_in_degrees(geometry["coordinates"]) for geometry in geometries)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise GroundworkError("it is no GeoJSON with features") from error
    if not named and not is_in_degrees:
        raise GroundworkError(
            "it holds coordinates beyond 180° and 90° and names no CRS, so that they are to be longitude and "
            "latitude: save it as EPSG:4326"
        )
    return Features(_crs(str(named) or LONGITUDE_LATITUDE).to_wkt(), geometries, properties)


def _holds_a_number(coordinates: Any) -> bool:
    """Whether a geometry has any corner: programs write empty ones, too."""
    if isinstance(coordinates, list | tuple):
        return any(map(_holds_a_number, coordinates))
    return bool(coordinates == coordinates)  # an empty point of a GeoPackage is NaN


def _is_in_degrees(coordinates: Any) -> bool:
    if not coordinates:
        return True
    if isinstance(coordinates[0], list):
        return all(map(_is_in_degrees, coordinates))
    longitude, latitude = coordinates[:2]
    return bool(-360 <= longitude <= 360 and -90 <= latitude <= 90)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else str(value)


def _crs(name: str) -> CRS:
    try:
        # CRS84 is EPSG:4326 with longitude first, as all coordinates are read here.
        return CRS.from_user_input(LONGITUDE_LATITUDE if name.endswith("CRS84") else name)
    except CRSError as error:
        raise GroundworkError(f"its CRS {name[:60]!r} cannot be understood") from error


# ------------------------------------------------------------------------------------------ GeoPackage


def _of_geopackage(data: bytes) -> Features:
    if not data.startswith(MAGIC):
        raise GroundworkError("it is damaged or no GeoPackage")
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            if data[LOGGED] == b"\2\2":  # as QGIS leaves them; in memory there is nothing beside it
                data = data[: LOGGED.start] + b"\1\1" + data[LOGGED.stop :]
            database.deserialize(data)
            database.execute("PRAGMA trusted_schema = OFF")
            return _of_layer(database)
    except (sqlite3.Error, OverflowError) as error:
        raise GroundworkError(f"it is damaged or no GeoPackage: {error}") from error


def _of_layer(database: sqlite3.Connection) -> Features:
    layers = database.execute(
        "SELECT table_name, column_name, g.srs_id FROM gpkg_geometry_columns AS g "
        "JOIN sqlite_master ON name = table_name AND type = 'table'"
    ).fetchall()
    if len(layers) != 1:
        names = ", ".join(str(name) for name, _, _ in layers) or "none"
        raise GroundworkError(f"it holds {len(layers)} layers of features ({names}): keep one")
    [(table, column, reference)] = layers
    found = database.execute(
        "SELECT organization, organization_coordsys_id, definition FROM gpkg_spatial_ref_sys "
        "WHERE srs_id = ?",
        (reference,),
    ).fetchone()
    if found is None or reference in (0, -1):
        raise GroundworkError("it does not say in which CRS its coordinates are")
    organization, code, definition = found
    crs = _crs(f"EPSG:{code}" if str(organization).upper() == "EPSG" else str(definition))
    rows = database.execute(f"SELECT * FROM {_quoted(table)} LIMIT {MOST_FEATURES + 1}")  # noqa: S608 -- quoted
    columns = [str(description[0]) for description in rows.description]
    keys = {str(told[1]) for told in database.execute(f"PRAGMA table_info({_quoted(table)})") if told[5]}
    geometries, properties = [], []
    for row in rows:
        cells = dict(zip(columns, row, strict=True))
        geometry = _geometry(cells.pop(column))
        if geometry is not None:
            geometries.append(geometry)
            properties.append({name: _text(cell) for name, cell in cells.items() if name not in keys})
    return Features(crs.to_wkt(), geometries, properties)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


ENVELOPES = (0, 32, 48, 48, 64)
"""Bytes of the envelope in a header, by its kind."""


def _geometry(blob: Any) -> Mapping[str, Any] | None:
    """The geometry in a cell of a GeoPackage; None where there is none, or an empty one."""
    if blob is None:
        return None
    try:
        magic, flags = blob[:2], blob[3]
        if magic != b"GP":
            raise ValueError(f"magic {magic!r}")
        if flags & 0b10000:
            return None
        geometry = _Wkb(blob, 8 + ENVELOPES[flags >> 1 & 0b111]).geometry()
    except (TypeError, ValueError, IndexError, struct.error) as error:
        raise GroundworkError(f"a geometry in it is damaged: {error}") from error
    return geometry if _holds_a_number(geometry["coordinates"]) else None


class _Wkb:
    """Reads well-known binary (OGC 06-103r4), and drops heights and measures."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._place = data, start

    def geometry(self, depth: int = 0) -> Mapping[str, Any]:
        if depth > DEEPEST:
            raise ValueError("geometries within geometries")
        order = "<" if self._data[self._place] else ">"
        self._place += 1
        [code] = self._take(f"{order}I")
        kind, numbers = code % 1000, 2 + (0, 1, 1, 2)[code // 1000]
        if kind == 1:
            return {"type": "Point", "coordinates": self._take(f"{order}{numbers}d")[:2]}
        if kind == 3:
            rings = [list(self._points(order, numbers)) for _ in range(*self._take(f"{order}I"))]
            return {"type": "Polygon", "coordinates": rings}
        if kind == 6:
            parts = [self.geometry(depth + 1) for _ in range(*self._take(f"{order}I"))]
            return {"type": "MultiPolygon", "coordinates": [part["coordinates"] for part in parts]}
        raise ValueError(f"kind {kind}; labels are polygons, or points")

    def _points(self, order: str, numbers: int) -> Iterator[tuple[float, float]]:
        [count] = self._take(f"{order}I")
        flat = self._take(f"{order}{count * numbers}d")
        return zip(flat[::numbers], flat[1::numbers], strict=True)

    def _take(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(layout, self._data, self._place)
        self._place += struct.calcsize(layout)
        return found
