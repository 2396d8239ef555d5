"""What a dataset says of its own split: folders of sides, columns, and when scenes were taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasters_on_disk import BURN_BANDS, PLACE, burn_scars, opened, read_all, reflectances, write_tiff
from vector_files import box, write_geopackage

from domains.geospatial.times import time_of_name, time_of_tags


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("images/CLEAR_20240626.tif", "2024-06-26"),
        ("images/2024-06-26_a.tif", "2024-06-26"),
        ("2019.tif", "2019"),
        ("20240626/B4.tif", "2024-06-26"),
        ("20240626/20250101/b.tif", "2025-01-01"),
        ("20240626T101530_x.tif", "2024-06-26T10:15:30"),
        ("S2A_MSIL2A_20200817T185921_N0214_R013_T10TEK_20200817T231157.SAFE", "2020-08-17T18:59:21"),
        ("LC08_L2SP_044034_20200817_20200823_02_T1", "2020-08-17"),
        ("HLS.S30.T10TEK.2020230T184919.v2.0", "2020-08-17"),
        ("cube.nc 2020-01-03T00:00:00", "2020-01-03T00:00:00"),
        ("a_20240626_20240627.tif", ""),
        ("20241399.tif", ""),
        ("tile_1234567890.tif", ""),
        ("19010101.tif", ""),
        ("scene_0007.tif", ""),
    ],
)
def test_names_tell_when_a_scene_was_taken(name: str, time: str) -> None:
    assert time_of_name(name) == time


def test_tags_tell_it_where_names_do_not(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "set/a.tif", reflectances(), BURN_BANDS)
    write_tiff(tmp_path / "set/b_20200102.tif", reflectances(seed=1), BURN_BANDS)
    write_tiff(tmp_path / "set/c.tif", reflectances(seed=2), BURN_BANDS)
    with rasterio.open(path, "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2021:03:04 05:06:07")
    source = opened(tmp_path / "set")
    assert (source.columns, source.split_columns) == (("image", "row", "column", "time"), {"time": "time"})
    times = {row.fields["image"]: row.fields.get("time", "") for row in source.stream()}
    assert times == {"a.tif": "2021-03-04T05:06:07", "b_20200102.tif": "2020-01-02", "c.tif": ""}
    assert time_of_tags({"TIFFTAG_DATETIME": "yesterday"}) == ""


@given(st.text(max_size=60))
def test_any_name_tells_a_time_or_none(name: str) -> None:
    time = time_of_name(name)
    assert time == "" or time[:4].isdecimal()


def test_folders_of_sides_say_what_is_held_out(tmp_path: Path) -> None:
    for side in ("train", "val", "test"):
        burn_scars(tmp_path / f"set/{side}", scenes=2)
    source = opened(tmp_path / "set")
    assert (source.split, source.split_columns, source.targets) == ("given", {"given": "split"}, ("mask",))
    assert source.remarks == ("Test chips of set are those that its 'split' marks (--split given).",)
    records, rejects = read_all(source)
    assert not rejects
    assert len(records) == 3 * 2 * 4
    assert all(record.fields["image"].startswith(record.fields["split"]) for record in records)
    assert all(record.fields["mask"].startswith(record.fields["split"]) for record in records)


def test_sides_may_hold_class_folders(tmp_path: Path) -> None:
    for place, name in enumerate(("train/a/1", "train/b/2", "test/a/1", "test/b/9")):
        write_tiff(tmp_path / f"set/{name}.tif", reflectances(seed=place), BURN_BANDS)
    source = opened(tmp_path / "set")
    assert (source.split, source.targets, source.split_columns) == ("", ("class",), {"given": "split"})
    assert {row.fields["image"]: (row.fields["class"], row.fields["split"]) for row in source.stream()} == {
        "train/a/1.tif": ("a", "train"), "train/b/2.tif": ("b", "train"),
        "test/a/1.tif": ("a", "test"), "test/b/9.tif": ("b", "test"),
    }  # fmt: skip


def test_sides_may_hold_polygons(tmp_path: Path) -> None:
    for place, side in enumerate(("train", "valid")):
        write_tiff(tmp_path / f"set/{side}/images/a.tif", reflectances(seed=place), BURN_BANDS)
        shape = box(PLACE.c, PLACE.f - 100, PLACE.c + 100, PLACE.f)
        write_geopackage(tmp_path / f"set/{side}/labels/a.gpkg", [(shape, {"class": side})])
    source = opened(tmp_path / "set")
    assert [spec.name for spec in source.classes["mask"]] == ["train", "valid"]
    assert {row.fields["mask"] for row in source.stream()} == {"train/labels/a.gpkg", "valid/labels/a.gpkg"}


def test_a_column_of_sides_is_the_split(tmp_path: Path) -> None:
    lines = ["path,label,split"]
    for place, side in enumerate(("train", "VAL", "test")):
        write_tiff(tmp_path / f"{place}.tif", reflectances(seed=place), BURN_BANDS)
        lines.append(f"{place},{place},{side}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    assert opened(tmp_path).split == "given"
    (tmp_path / "labels.csv").write_text("\n".join(lines[:3]))
    source = opened(tmp_path)
    assert (source.split, source.split_columns) == ("", {"given": "split"})
    assert np.isfinite([record.value.pixels.size for record in read_all(source)[0]]).all()
