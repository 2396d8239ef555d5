"""Labels in a table beside the images, or around points."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.warp import transform
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

from domains.contract import GroundworkError
from domains.geospatial.label_tables import table_of_csv

# ------------------------------------------------------------------------------------------------ images


def chips(folder: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        write_tiff(folder / name, reflectances(height=32, width=32, seed=seed), BURN_BANDS)
    return folder


def cells(folder: Path, *columns: str) -> dict[str, list[str]]:
    return {row.fields["image"]: [row.fields[name] for name in columns] for row in opened(folder).stream()}


def test_a_table_labels_images_by_path_name_or_stem(tmp_path: Path) -> None:
    folder = chips(tmp_path / "set", "images/a.tif", "images/b.tif", "images/north/c.tif", "images/d.tif")
    (folder / "labels.csv").write_text("path,label,split\nimages/a.tif,3.5,train\nb,4,val\nc.tif,5,test\n")
    source = opened(folder)
    assert (source.columns[3:], source.targets, source.pixel_targets) == (("label", "split"), ("label",), ())
    assert source.split_columns == {"given": "split"}
    assert cells(folder, "label", "split") == {
        "images/a.tif": ["3.5", "train"], "images/b.tif": ["4", "val"],
        "images/north/c.tif": ["5", "test"], "images/d.tif": ["", ""],
    }  # fmt: skip
    assert opened(zipped(folder, tmp_path / "set.zip")).digest == source.digest
    (folder / "labels.csv").write_text("path,label\na,1\n")
    assert opened(folder).digest != source.digest


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_is_read_as_spreadsheets_write_it(tmp_path: Path, encoding: str, mark: str) -> None:
    folder = chips(tmp_path, "a.tif", "b.tif")
    text = "path,label\r\na.tif,forêt\r\nb.tif,eau\r\n".replace(",", mark)
    (folder / "labels.csv").write_bytes(text.encode(encoding))
    assert cells(folder, "label") == {"a.tif": ["forêt"], "b.tif": ["eau"]}


def test_a_list_of_labels_becomes_a_column_for_each(tmp_path: Path) -> None:
    folder = chips(tmp_path, "a.tif", "b.tif", "c.tif")
    (folder / "labels.csv").write_text("File;labels\na.tif;forest | lake\nb.tif;lake\nc.tif;\n")
    assert opened(folder).targets == ("forest", "lake")
    assert cells(folder, "forest", "lake") == {"a.tif": ["1", "1"], "b.tif": ["0", "1"], "c.tif": ["", ""]}


def test_columns_of_0_and_1_are_labels_together(tmp_path: Path) -> None:
    folder = chips(tmp_path, "a.tif", "b.tif")
    (folder / "labels.csv").write_text("image,forest,lake,date\na.tif,1,0,2020-01-01\nb.tif,0,,2021-01-01\n")
    source = opened(folder)
    assert (source.targets, source.split_columns) == (("forest", "lake"), {"time": "date"})
    (folder / "labels.csv").write_text("image,height,note\na.tif,1.5,tall\nb.tif,0.5,\n")
    assert (opened(folder).targets, opened(folder).columns[3:]) == ((), ("height", "note"))


def test_rows_that_fit_no_image_are_rejects(tmp_path: Path) -> None:
    folder = chips(tmp_path, "x/a.tif", "y/a.tif", "y/b.tif", "y/c.tif")
    (folder / "labels.csv").write_text(
        "path,label\na.tif,1\nmissing.tif,2\ny/b.tif,3\ny/b.tif,4\nc,5,6\nx/a.tif,7\n./y/c.tif,8\ny\\c.tif,8\n"
    )
    records, rejects = read_all(opened(folder))
    assert {record.fields["image"]: record.fields["label"] for record in records} == {
        "x/a.tif": "7", "y/a.tif": "", "y/c.tif": "8",
    }  # fmt: skip
    assert [(reject.original, reject.reason) for reject in rejects] == [
        ("y/b.tif", "labelled twice, each time otherwise"),
        ("c,5,6", "line 6 has 3 cells where the header names 2: quote cells with separators"),
        ("a.tif", "no image of that name, or several"),
        ("missing.tif", "no image of that name, or several"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column that names images (path, image, file, filename, file_name) or places"),
        ("id,label\n1,2\n", "but id, label"),
        ("path,label\n", "a header but no rows"),
        ("path,a,a\nx,1,2\n", "names a column twice"),
        ("path,mask\na.tif,2\n", "rename its column 'mask'"),
        ("path,image,label\na.tif,7,2\n", "rename its column 'image'"),
        ("path,labels,lake\na.tif,lake,2\n", "the label 'lake' is also the name of a column"),
        (
            "path,label\nz.tif,2\n",
            "none of its 1 rows names an image of the dataset, such as 'z.tif' where 'a.tif'",
        ),
        ('path,label\na.tif,"x\n', "quote"),
    ],
)
def test_a_table_that_labels_nothing_is_refused(tmp_path: Path, text: str, words: str) -> None:
    chips(tmp_path, "a.tif")
    (tmp_path / "labels.csv").write_text(text)
    if words == "quote":  # the csv module takes the rest for one cell
        assert cells(tmp_path, "label") == {"a.tif": ["x\n"]}
        return
    assert words in error_of(tmp_path)
    assert error_of(tmp_path).startswith("labels.csv: ")


def test_one_file_of_labels_and_no_more(tmp_path: Path) -> None:
    chips(tmp_path, "a.tif", "deep/b.tif")
    (tmp_path / "labels.csv").write_text("path,label\na,1\n")
    (tmp_path / "deep/labels.csv").write_text("path,label\nb,1\n")
    assert "deep/labels.csv beside some of its images" in opened(tmp_path).remarks[0]
    write_geojson(tmp_path / "labels.geojson", [(box(0, 0, 1, 1), {"class": "a"})])
    assert "holds labels.csv and labels.geojson: keep one of them" in error_of(tmp_path)


def test_masks_are_what_is_learnt_where_there_are_both(tmp_path: Path) -> None:
    chips(tmp_path, "images/a.tif")
    write_tiff(tmp_path / "masks/a.tif", reflectances(1, 32, 32).astype(np.uint8) % 2)
    (tmp_path / "labels.csv").write_text("path,label,split\na,1,test\n")
    source = opened(tmp_path)
    assert (source.targets, source.columns[3:]) == (("mask",), ("mask", "label", "split"))
    write_geojson(tmp_path / "labels.geojson", [(box(0, 0, 1, 1), {"class": "a"})])
    (tmp_path / "labels.csv").unlink()
    assert "labels.geojson: the images have masks already" in error_of(tmp_path)


@given(st.text(max_size=300))
def test_any_text_is_a_table_or_refused(text: str) -> None:
    try:
        table = table_of_csv(text.encode())
    except GroundworkError:
        return
    assert len(table.rows) == len(table.paths or table.points)
    assert set(table.targets) <= set(table.columns)


# ------------------------------------------------------------------------------------------------ points

CENTRE = (PLACE.c + 20 * 20 + 10, PLACE.f - 24 * 20 - 10)
"""The middle of pixel 24, 20."""
EDGE = (PLACE.c + 10, PLACE.f - 10)


@pytest.mark.parametrize("kind", ["degrees", "metres", "geojson", "gpkg"])
def test_points_label_the_chips_around_them(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "set"
    pixels = reflectances()
    write_tiff(folder / "a.tif", pixels, BURN_BANDS)
    places = [(CENTRE, "oak"), (EDGE, "elm"), ((PLACE.c - 5000, PLACE.f), "far")]
    if kind in ("geojson", "gpkg"):
        features = [(point(*place), {"class": name}) for place, name in places]
        if kind == "gpkg":
            write_geopackage(folder / "labels.gpkg", features)
        else:
            write_geojson(
                folder / "labels.geojson", [(in_degrees(each, UTM), said) for each, said in features]
            )
    else:
        x, y = zip(*(place for place, _ in places), strict=True)
        if kind == "degrees":
            x, y = transform(UTM, "EPSG:4326", x, y)
        head = "lat,lon" if kind == "degrees" else "y,x"
        lines = [f"{up!r},{across!r},{name}" for across, up, (_, name) in zip(x, y, places, strict=True)]
        (folder / "labels.csv").write_text("\n".join([f"{head},class", *lines, "north,7,none"]))
    source = opened(folder)
    assert (source.targets, source.columns[3:]) == (("class",), ("class",))
    (oak, elm), (far, *faulty) = read_all(source)
    assert (oak.fields["class"], oak.fields["row"], oak.fields["column"]) == ("oak", "8", "4")
    np.testing.assert_array_equal(oak.value.pixels, pixels[:, 8:40, 4:36])
    assert (elm.fields["class"], elm.value.row) == ("elm", -16)
    assert np.isnan(elm.value.pixels[:, :16]).all()
    np.testing.assert_array_equal(elm.value.pixels[:, 16:, 16:], pixels[:, :16, :16])
    at = r"x 495000 and y 5000000 .* at x 500000 to 500800 and y 4999040 to 5000000$"
    in_degrees_at = (
        r"longitude 8\.93\d+ and latitude 45\.1\d+ .* at longitude 9 to 9\.01\d+ and latitude 45\.1"
    )
    is_in_degrees = kind in ("degrees", "geojson")
    assert re.match(in_degrees_at if is_in_degrees else at, far.reason), far.reason
    if kind not in ("geojson", "gpkg"):
        assert [reject.original for reject in faulty] == ["7, north"]


def test_a_point_on_several_scenes_labels_a_chip_of_each(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", reflectances(seed=1), BURN_BANDS)
    write_tiff(tmp_path / "b.tif", reflectances(seed=2), BURN_BANDS)
    (tmp_path / "labels.csv").write_text(f"x,y,label\n{CENTRE[0]},{CENTRE[1]},1.5\n")
    records, _ = read_all(opened(tmp_path))
    assert [(record.fields["image"], record.fields["label"]) for record in records] == [
        ("a.tif", "1.5"), ("b.tif", "1.5"),
    ]  # fmt: skip


def test_points_are_found_however_longitudes_are_counted(tmp_path: Path) -> None:
    place = from_origin(350, 50, 0.001, 0.001)
    write_tiff(tmp_path / "a.tif", reflectances(), BURN_BANDS, crs="EPSG:4326", transform=place)
    (tmp_path / "labels.csv").write_text("lon,lat,label\n-9.9795,49.9795,a\n350.0205,49.9795,b\n")
    records, rejects = read_all(opened(tmp_path))
    assert not rejects
    assert [(record.value.row, record.value.column) for record in records] == [(20 - 16, 20 - 16)] * 2


def test_points_that_the_system_of_a_scene_does_not_reach_are_on_none(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", reflectances(), BURN_BANDS)
    (tmp_path / "labels.csv").write_text("lon,lat,label\n9.001,45.15,here\n-81,0,there\n189,-45,yonder\n")
    (record,), rejects = read_all(opened(tmp_path))
    assert record.fields["label"] == "here"
    assert [reject.original for reject in rejects] == ["-81, 0", "189, -45"]
    assert all("is on none of the scenes, which lie at longitude 9 to" in each.reason for each in rejects)


def test_coordinates_of_no_known_system_are_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", reflectances(), BURN_BANDS)
    write_tiff(tmp_path / "b.tif", reflectances(), BURN_BANDS, crs="EPSG:32633")
    (tmp_path / "labels.csv").write_text("x,y,label\n1,2,3\n")
    assert "the scenes lie in 2 systems of coordinates" in error_of(tmp_path)
    (tmp_path / "labels.csv").write_text("lon,lat,label\n500000,2,3\n")
    assert "none of its 1 rows can be used; the first: no longitude and latitude in" in error_of(tmp_path)
