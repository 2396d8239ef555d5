"""Polygons as labels: which pixels they cover, which classes there are, and what is refused."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.warp import transform, transform_geom
from rasters_on_disk import (
    BURN_BANDS,
    PLACE,
    UTM,
    error_of,
    opened,
    read_all,
    reflectances,
    write_tiff,
    zipped,
)
from vector_files import box, in_degrees, point, write_geojson, write_geopackage

from domains.contract import ClassSpec, GroundworkError, Source
from domains.geospatial import GEOSPATIAL, RasterEncoding
from domains.geospatial.vectors import read_features

WEST, NORTH = PLACE.c, PLACE.f
FOREST = box(WEST, NORTH - 20 * 20, WEST + 10 * 20, NORTH)
"""Columns 0 to 9 of rows 0 to 19."""
LAKE = box(WEST + 10 * 20, NORTH - 20 * 20, WEST + 30 * 20, NORTH)
"""Columns 10 to 29 of these rows."""


def scene(folder: Path, name: str = "a.tif", **where: Any) -> Path:
    return write_tiff(folder / name, reflectances(), BURN_BANDS, **where)


def drawn(source: Source) -> np.ndarray:
    """The labels of the one scene of 48 × 40 pixels in chips of 32, put together."""
    labels = np.full((64, 64), np.nan, np.float32)
    records, rejects = read_all(source)
    assert not rejects
    for record in records:
        row, column = record.value.row, record.value.column
        labels[row : row + 32, column : column + 32] = GEOSPATIAL.labels(record, ["mask"])["mask"].reshape(
            32, 32
        )
    assert np.isnan(labels[48:]).all()
    assert np.isnan(labels[:, 40:]).all()
    return labels[:48, :40]


def expected(nothing: float = math.nan) -> np.ndarray:
    labels = np.full((48, 40), nothing, np.float32)
    labels[:20, :10], labels[:20, 10:30] = 1, 2
    return labels


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
def test_polygons_beside_scenes_label_the_pixels_under_them(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "set"
    scene(folder)
    features = [(FOREST, {"class": "forest", "id": 1}), (LAKE, {"class": "lake", "id": 2})]
    if suffix == ".gpkg":
        write_geopackage(folder / "labels.gpkg", features, heights=True)
    else:
        shapes = [(in_degrees(shape, UTM), said) for shape, said in features]
        write_geojson(folder / "labels.geojson", shapes)
    source = opened(folder)
    assert source.targets == source.pixel_targets == ("mask",)
    assert source.classes == {"mask": (ClassSpec(1, "forest"), ClassSpec(2, "lake"))}
    np.testing.assert_array_equal(drawn(source), expected())
    archived = opened(zipped(folder, tmp_path / "set.zip"))
    assert archived.digest == source.digest
    np.testing.assert_array_equal(drawn(archived), expected())


def test_a_background_is_what_no_polygon_covers(tmp_path: Path) -> None:
    scene(tmp_path)
    write_geopackage(tmp_path / "labels.gpkg", [(FOREST, {"kind": 1}), (LAKE, {"kind": 2})], envelope=False)
    (tmp_path / "bands.yaml").write_text("background: other\n")
    source = opened(tmp_path)
    assert source.classes["mask"] == (ClassSpec(0, "other"), ClassSpec(1, "1"), ClassSpec(2, "2"))
    np.testing.assert_array_equal(drawn(source), expected(0))


def test_declared_classes_are_taken_by_name_or_value(tmp_path: Path) -> None:
    scene(tmp_path)
    write_geopackage(tmp_path / "labels.gpkg", [(FOREST, {"class": "wood"}), (LAKE, {"class": 20})])
    classes = [{"value": 10, "name": "wood", "colour": "#00ff00"}, {"value": 20, "name": "water"}]
    (tmp_path / "bands.yaml").write_text(yaml.safe_dump({"classes": classes}))
    source = opened(tmp_path)
    assert source.classes["mask"] == (ClassSpec(10, "wood", "#00ff00"), ClassSpec(20, "water"))
    np.testing.assert_array_equal(drawn(source), expected() * 10)


def test_each_image_may_have_polygons_of_its_own(tmp_path: Path) -> None:
    far = from_origin(WEST + 50_000, NORTH, 20, 20)
    scene(tmp_path / "images")
    scene(tmp_path / "images", "b.tif", transform=far)
    scene(tmp_path / "images", "c.tif")
    write_geopackage(tmp_path / "labels/a.gpkg", [(FOREST, {"class": "forest"})])
    there = box(far.c, far.f - 400, far.c + 200, far.f)
    write_geojson(tmp_path / "labels/b.geojson", [(in_degrees(there, UTM), {"class": "lake"})])
    source = opened(tmp_path)
    assert source.classes["mask"] == (ClassSpec(1, "forest"), ClassSpec(2, "lake"))
    records, (reject,) = read_all(source)
    assert (reject.original, reject.reason) == ("images/c.tif", "no mask of the same name in labels/")
    values = {record.value.scene: set() for record in records}
    for record in records:
        values[record.value.scene] |= set(np.unique(GEOSPATIAL.labels(record, ["mask"])["mask"])[:1])
    assert (1 in values["images/a.tif"], 2 in values["images/b.tif"]) == (True, True)


def test_where_classes_overlap_nothing_is_known(tmp_path: Path) -> None:
    scene(tmp_path)
    over = box(WEST + 5 * 20, NORTH - 20 * 20, WEST + 10 * 20, NORTH)
    again = [(FOREST, {"class": "a"}), (over, {"class": "b"}), (over, {"class": "a"}), (LAKE, {"class": "b"})]
    write_geopackage(tmp_path / "labels.gpkg", again)
    labels = drawn(opened(tmp_path))
    assert (labels[:20, :5] == 1).all()
    assert np.isnan(labels[:20, 5:10]).all()
    assert (labels[:20, 10:30] == 2).all()


def test_holes_and_several_parts_are_drawn(tmp_path: Path) -> None:
    scene(tmp_path)
    hole = box(WEST + 40, NORTH - 160, WEST + 120, NORTH - 80)["coordinates"][0][::-1]
    parts = {"type": "MultiPolygon", "coordinates": [[*FOREST["coordinates"], hole], LAKE["coordinates"]]}
    write_geopackage(tmp_path / "labels.gpkg", [(parts, {"class": "a"})], heights=True)
    (tmp_path / "bands.yaml").write_text("background: none")
    labels = drawn(opened(tmp_path))
    assert (labels[4:8, 2:6] == 0).all()
    assert labels.sum() == 20 * 30 - 16


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
@pytest.mark.parametrize(
    "empty",
    [
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[]]},
        {"type": "MultiPolygon", "coordinates": []},
        {"type": "MultiPolygon", "coordinates": [[[]]]},
    ],
    ids=str,
)
def test_an_empty_geometry_is_none(tmp_path: Path, empty: Any, suffix: str) -> None:
    scene(tmp_path)
    features = [(empty, {"class": "a"}), (FOREST, {"class": "forest"}), (LAKE, {"class": "lake"})]
    if suffix == ".gpkg":
        write_geopackage(tmp_path / "labels.gpkg", features)
    else:
        shapes = [(in_degrees(shape, UTM) if shape is not empty else shape, said) for shape, said in features]
        write_geojson(tmp_path / "labels.geojson", shapes)
    np.testing.assert_array_equal(drawn(opened(tmp_path)), expected())


def test_polygons_across_the_date_line_lie_on_the_scene(tmp_path: Path) -> None:
    place = from_origin(800_000, 20_000, 100, 100)  # 180° east is near 834,000 in UTM zone 60 at the equator
    scene(tmp_path, crs="EPSG:32660", transform=from_origin(832_000, 20_000, 100, 100))
    east = box(179.98, 0.0, 180.0, 1.0)
    west = box(-180.0, 0.0, -179.9, 1.0)
    write_geojson(tmp_path / "labels.geojson", [(east, {"class": "east"}), (west, {"class": "west"})])
    assert place.c < 832_000
    labels = drawn(opened(tmp_path))
    assert {1.0, 2.0} <= set(labels.ravel())
    assert labels[:, 0].max() == 1
    assert labels[:, -1].min() == 2


@pytest.mark.parametrize("half", [0.2, 0.5, 4, 80])
def test_long_edges_are_straight_in_the_system_of_their_file(tmp_path: Path, half: float) -> None:
    scene(tmp_path)
    write_geojson(tmp_path / "labels.geojson", [(box(9 - half, 45.1492, 9 + half, 46), {"class": "a"})])
    (tmp_path / "bands.yaml").write_text("background: none")
    x, y = WEST + 20 * (np.arange(40) + 0.5), NORTH - 20 * (np.arange(48) + 0.5)
    across, down = np.meshgrid(x, y)
    longitudes, latitudes = map(np.array, transform(UTM, "EPSG:4326", across.ravel(), down.ravel()))
    inside = (latitudes > 45.1492) & (longitudes < 9 + half)
    np.testing.assert_array_equal(drawn(opened(tmp_path)), inside.reshape(48, 40))


@pytest.mark.parametrize(
    ("west", "turn", "system"),
    [(350, -360, ""), (-10, 360, ""), (350, -360, "EPSG:4258"), (350, 0, "EPSG:32629"), (179.98, -360, "")],
)
def test_longitudes_count_from_anywhere(tmp_path: Path, west: float, turn: float, system: str) -> None:
    """350° east is 10° west, and a scene may go on beyond 180°."""
    scene(tmp_path, crs="EPSG:4326", transform=from_origin(west, 50, 0.001, 0.001))
    fields = [(box(west + 0.0201 + turn, 49.9, west + 0.0301 + turn, 50), {"class": "a"})]
    if system:
        fields = [(transform_geom("EPSG:4326", system, shape), said) for shape, said in fields]
        write_geopackage(tmp_path / "labels.gpkg", fields, crs=system)
    else:
        write_geojson(tmp_path / "labels.geojson", fields)
    (tmp_path / "bands.yaml").write_text("background: none")
    labels = drawn(opened(tmp_path))
    np.testing.assert_array_equal(labels[10], np.isin(np.arange(40), range(20, 30)))


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([(FOREST, {"a": 1, "b": 2})], "the properties a, b: say in bands.yaml which one names the class"),
        ([(FOREST, {"class": None})], "the property 'class' is empty in every polygon"),
        ([], "it holds no feature with a geometry"),
        (
            [({"type": "LineString", "coordinates": [(0, 0), (1, 1)]}, {"class": 1})],
            "kind 2; labels are polygons",
        ),
    ],
)
def test_what_names_no_class_is_refused(tmp_path: Path, features: Any, words: str) -> None:
    scene(tmp_path)
    write_geopackage(tmp_path / "labels.gpkg", features)
    assert words in error_of(tmp_path)


def test_an_undeclared_class_and_an_unknown_background_are_refused(tmp_path: Path) -> None:
    scene(tmp_path)
    write_geopackage(tmp_path / "labels.gpkg", [(FOREST, {"class": "wood"})])
    (tmp_path / "bands.yaml").write_text("classes: [{value: 1, name: lake}, {value: 2, name: sea}]")
    assert "a polygon is of class 'wood', where the declared classes are lake, sea" in error_of(tmp_path)
    (tmp_path / "bands.yaml").write_text("{classes: [{value: 1, name: wood}], background: land}")
    assert "the background 'land' is none of the declared classes" in error_of(tmp_path)
    (tmp_path / "bands.yaml").write_text("attribute: cover")
    assert "no polygon has the property 'cover': they have class" in error_of(tmp_path)


def test_files_that_do_not_say_one_place_are_refused(tmp_path: Path) -> None:
    scene(tmp_path)
    path = write_geojson(tmp_path / "labels.geojson", [(FOREST, {"class": "a"})])
    assert "coordinates beyond 180° and 90° and names no CRS" in error_of(tmp_path)
    named = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    write_geojson(path, [(FOREST, {"class": "a"}), (LAKE, {"class": "b"})], crs=named)
    np.testing.assert_array_equal(drawn(opened(tmp_path)), expected())
    write_geojson(path, [(FOREST, {"class": "a"}), (point(WEST, NORTH), {"class": "b"})], crs=named)
    assert "it holds Point, Polygon" in error_of(tmp_path)
    path.write_text("{")
    assert "labels.geojson: it is no GeoJSON with features" in error_of(tmp_path)
    path.unlink()
    layered = write_geopackage(tmp_path / "labels.gpkg", [(FOREST, {"class": "a"})], layers=("a", "b"))
    assert "2 layers of features (a, b): keep one" in error_of(tmp_path)
    layered.write_bytes(layered.read_bytes()[:3000])
    assert "labels.gpkg: it is damaged or no GeoPackage" in error_of(tmp_path)


def test_a_geopackage_that_logs_its_changes_is_read_once_it_is_closed(tmp_path: Path) -> None:
    scene(tmp_path)
    path = write_geopackage(tmp_path / "labels.gpkg", [(FOREST, {"class": "a"}), (LAKE, {"class": "b"})])
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("UPDATE fields SET class = 'c' WHERE class = 'a'")
        database.commit()
        assert "its last changes are not in it yet: close it there" in error_of(tmp_path)
    source = opened(tmp_path)
    assert [spec.name for spec in source.classes["mask"]] == ["b", "c"]
    np.testing.assert_array_equal(
        drawn(source), np.select([expected() == 1, expected() == 2], [2, 1], np.nan)
    )


def test_a_scene_without_a_place_is_a_reject(tmp_path: Path) -> None:
    scene(tmp_path)
    scene(tmp_path, "b.tif", crs=None)
    write_geopackage(tmp_path / "labels.gpkg", [(FOREST, {"class": "a"})])
    _, (reject,) = read_all(opened(tmp_path))
    assert reject.reason == "no location, where labels.gpkg says where its polygons lie"


def test_a_collection_of_stac_items_is_told_from_labels(tmp_path: Path) -> None:
    scene(tmp_path)
    labels = write_geojson(tmp_path / "labels.geojson", [(box(8, 45, 9, 46), {"class": "a"})])
    with pytest.raises(
        GroundworkError, match=r"labels\.geojson lists features without assets, which are labels"
    ):
        GEOSPATIAL.open_document(str(labels), RasterEncoding(), None)
    told = json.loads(labels.read_text())
    told["features"][0]["assets"] = {}
    labels.write_text(json.dumps(told))
    assert "it lists STAC items, not labels" in error_of(tmp_path)


@given(st.binary(max_size=200), st.sampled_from([".geojson", ".gpkg"]))
def test_any_bytes_are_features_or_refused(data: bytes, suffix: str) -> None:
    with pytest.raises(GroundworkError):
        read_features(data, suffix)


@given(st.data())
def test_damaged_geometries_are_refused(data: st.DataObject) -> None:
    from vector_files import _blob

    from domains.geospatial.vectors import _geometry

    blob = bytearray(_blob(FOREST, envelope=False, heights=True))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = _geometry(bytes(blob[: data.draw(st.integers(0, len(blob)))]))
    except GroundworkError:
        return
    assert found is None or found["type"] in ("Point", "Polygon", "MultiPolygon")
