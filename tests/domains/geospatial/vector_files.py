"""Vector files as programs write them, for the tests of this folder."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rasterio.crs import CRS
from rasterio.warp import transform_geom

Feature = tuple[Mapping[str, Any], Mapping[str, Any]]
"""A geometry as GeoJSON has it, and its properties."""


def box(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    return {"type": "Polygon", "coordinates": [ring]}


def point(x: float, y: float) -> dict[str, Any]:
    return {"type": "Point", "coordinates": (x, y)}


def in_degrees(geometry: Mapping[str, Any], crs: str) -> Mapping[str, Any]:
    moved: Mapping[str, Any] = transform_geom(crs, "EPSG:4326", geometry)
    return moved


def write_geojson(path: Path, features: Sequence[Feature], **members: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [{"type": "Feature", "geometry": shape, "properties": said} for shape, said in features]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": listed, **members}))
    return path


def write_geopackage(
    path: Path,
    features: Sequence[Feature],
    crs: str = "EPSG:32632",
    *,
    envelope: bool = True,
    heights: bool = False,
    layers: Sequence[str] = ("fields",),
) -> Path:
    """A GeoPackage with the tables that the standard requires, as QGIS and GDAL write them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = sorted({name for _, said in features for name in said})
    code = CRS.from_user_input(crs).to_epsg()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT, srs_id INTEGER PRIMARY KEY, "
            "organization TEXT, organization_coordsys_id INTEGER, definition TEXT)"
        )
        wkt = CRS.from_user_input(crs).to_wkt()
        database.execute("INSERT INTO gpkg_spatial_ref_sys VALUES ('it', ?, 'EPSG', ?, ?)", (code, code, wkt))
        database.execute(
            "CREATE TABLE gpkg_geometry_columns (table_name TEXT, column_name TEXT, geometry_type_name TEXT, "
            "srs_id INTEGER, z TINYINT, m TINYINT)"
        )
        for layer in layers:
            cells = "".join(f', "{name}"' for name in columns)
            database.execute(f'CREATE TABLE "{layer}" (fid INTEGER PRIMARY KEY, geom BLOB{cells})')
            database.execute(
                "INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', 'GEOMETRY', ?, 0, 0)", (layer, code)
            )
            for geometry, said in features:
                database.execute(
                    f'INSERT INTO "{layer}" (geom{cells}) VALUES (?{", ?" * len(columns)})',  # noqa: S608
                    (_blob(geometry, envelope, heights), *(said.get(name) for name in columns)),
                )
    return path


def _blob(geometry: Mapping[str, Any], envelope: bool, heights: bool) -> bytes:
    kind = 1 if envelope else 0
    head = b"GP" + bytes([0, kind << 1 | 1]) + struct.pack("<i", 0) + b"\0" * (32 * envelope)
    return head + _wkb(geometry, heights)


def _wkb(geometry: Mapping[str, Any], heights: bool) -> bytes:
    codes = {"Point": 1, "LineString": 2, "Polygon": 3, "MultiPolygon": 6}
    start = b"\1" + struct.pack("<I", codes[geometry["type"]] + 1000 * heights)

    def place(corner: Sequence[float]) -> bytes:
        return struct.pack(f"<{2 + heights}d", *corner[:2], *([7.0] * heights))

    def points(corners: Sequence[Sequence[float]]) -> bytes:
        return struct.pack("<I", len(corners)) + b"".join(map(place, corners))

    told = geometry["coordinates"]
    if geometry["type"] == "Point":
        return start + place(told)
    if geometry["type"] == "LineString":
        return start + points(told)
    if geometry["type"] == "Polygon":
        return start + struct.pack("<I", len(told)) + b"".join(map(points, told))
    parts = [_wkb({"type": "Polygon", "coordinates": part}, heights) for part in told]
    return start + struct.pack("<I", len(parts)) + b"".join(parts)
