"""Where and when chips were taken: a part of their samples only where it is asked for, and no guess."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasters_on_disk import BURN_BANDS, PLACE, UTM, opened, read_all, reflectances, write_tiff
from scenes_to_map import BIOMASS, nothing

from domains.contract import Row, Sample, Source
from domains.geospatial import GEOSPATIAL, maps

SEEN = {"whereabouts": True}


def samples(source: Source) -> list[Sample]:
    return [GEOSPATIAL.encode(record, source.encoding) for record in read_all(source)[0]]


def test_a_chip_says_where_and_when_it_was_taken_if_that_is_asked_for(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a_2020-02-29.tif", reflectances(), BURN_BANDS)
    assert all(sample.keys() == {"pixels"} for sample in samples(opened(path)))
    first, *_, last = samples(opened(path, **SEEN))
    for sample, (row, column) in ((first, (0, 0)), (last, (32, 32))):
        x, y = PLACE @ (column + 16, row + 16)
        [longitude], [latitude] = rasterio.warp.transform(UTM, "EPSG:4326", [x], [y])
        np.testing.assert_allclose(sample["place"], [longitude, latitude], rtol=1e-6)
        assert sample["day"].tolist() == [60.0]
        assert (sample["place"].dtype, sample["day"].dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("name", ["a.tif", "2020.tif"])
def test_what_is_not_known_is_not_a_number(tmp_path: Path, name: str) -> None:
    path = write_tiff(tmp_path / name, reflectances(), BURN_BANDS, crs=None)
    for sample in samples(opened(path, **SEEN)):
        assert np.isnan(sample["place"]).all()
        assert np.isnan(sample["day"]).all()


def test_each_date_of_a_pair_has_its_day(tmp_path: Path) -> None:
    for folder, time in (("images_before", "2019:01:02 00:00:00"), ("images", "2020:02:01 00:00:00")):
        path = write_tiff(tmp_path / f"set/{folder}/a.tif", reflectances(), BURN_BANDS)
        with rasterio.open(path, "r+") as file:
            file.update_tags(TIFFTAG_DATETIME=time)
    found = samples(opened(tmp_path / "set", dates=2, **SEEN))
    assert {tuple(sample["day"].tolist()) for sample in found} == {(2.0, 32.0)}


def test_an_image_that_is_sent_says_what_its_tags_tell(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", reflectances(5, 32, 32), BURN_BANDS)
    with rasterio.open(path, "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2021:12:31 05:06:07")
    source = opened(path, **SEEN)
    sent = "data:image/tiff;base64," + base64.b64encode(path.read_bytes()).decode()
    record = GEOSPATIAL.read(Row(0, sent), source.encoding)
    [expected] = samples(source)
    sample = GEOSPATIAL.encode(record, source.encoding)  # type: ignore[arg-type]
    assert sample["day"].tolist() == expected["day"].tolist() == [365.0]
    np.testing.assert_array_equal(sample["place"], expected["place"])


def test_the_date_line_is_no_seam(tmp_path: Path) -> None:
    east, across = 179.99, 180.0 - 16 * 0.001
    places = {}
    for name, left in (("east", east), ("across", across), ("west", -180.0)):
        path = write_tiff(
            tmp_path / f"{name}.tif", reflectances(5, 32, 32), BURN_BANDS,
            crs="EPSG:4326", transform=from_origin(left, 10, 0.001, 0.001),
        )  # fmt: skip
        [sample] = samples(opened(path, **SEEN))
        places[name] = np.radians(sample["place"].astype(np.float64))
    on_sphere = {name: np.exp(1j * longitude) for name, (longitude, _) in places.items()}
    assert abs(on_sphere["east"] - on_sphere["west"]) < np.radians(0.03)
    assert abs(on_sphere["across"] + 1) < np.radians(0.001)


def test_each_tile_of_a_map_has_its_place_and_the_day_of_the_scene(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(maps, "draw_quick_look", lambda *_: b"")
    path = write_tiff(tmp_path / "a_2020-02-29.tif", reflectances(5, 80, 64), BURN_BANDS)
    source, asked = opened(path, **SEEN), []

    def predict(tiles: list[Sample]) -> np.ndarray:
        asked.extend(tiles)
        return np.zeros((len(tiles), 32 * 32, 1), np.float32)

    GEOSPATIAL.write_map(source, BIOMASS, predict, tmp_path / "map.tif", {}, nothing)  # type: ignore[arg-type]
    by_pixels = {tile["pixels"].tobytes(): tile for tile in asked}
    assert len(by_pixels) == len(asked) > 4
    known = [by_pixels[sample["pixels"].tobytes()] for sample in samples(source)[:1]]
    np.testing.assert_array_equal(known[0]["place"], samples(source)[0]["place"])
    assert len({tuple(tile["place"]) for tile in asked}) == len(asked)
    assert all(tile["day"].tolist() == [60.0] for tile in asked)
