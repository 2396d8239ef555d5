"""Rasters at web addresses and STAC documents: read in parts, from hosts and folders that were declared."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import from_origin
from rasters_on_disk import BURN_BANDS, SPEC, read_all, reflectances, write_tiff
from web_server import Web, serving

from domains.contract import GroundworkError, Source
from domains.geospatial import GEOSPATIAL
from domains.geospatial.bands import REFLECTANCE_10000
from domains.geospatial.reading import scene_of
from domains.geospatial.remote import locate

BAND = {"B02": (0.49, "blue", 10), "B04": (0.665, "red", 10), "B8A": (0.865, "nir08", 20)}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "web").mkdir()
    with serving(tmp_path / "web") as web:
        yield web


def opened(start: str, hosts: frozenset[str] | None = None, **spec: Any) -> Source:
    return GEOSPATIAL.open_document(start, SPEC.model_copy(update=spec), hosts)


def scene_at(folder: Path, side: int = 400) -> Path:
    return write_tiff(
        folder / "scene.tif",
        reflectances(5, side, side),
        BURN_BANDS,
        tiled=True,
        blockxsize=64,
        blockysize=64,
    )


# --------------------------------------------------------------------------------------------- addresses


def test_a_scene_is_read_in_parts_and_equals_the_file(web: Web) -> None:
    file = scene_at(web.folder, 1600)
    source, local = opened(f"{web.url}/scene.tif"), GEOSPATIAL.open(file, SPEC)
    assert source.encoding == local.encoding
    assert (source.name, source.origin, source.map_suffix) == ("scene.tif", f"{web.url}/scene.tif", ".tif")
    scene, other = scene_of(source), scene_of(local)
    np.testing.assert_array_equal(
        scene.read(700, 300, 64, 64, scene.bands), other.read(700, 300, 64, 64, other.bands)
    )
    assert scene.crs == other.crs


def test_its_digest_is_that_of_what_the_host_says_of_the_content(web: Web) -> None:
    scene_at(web.folder)
    before = opened(f"{web.url}/scene.tif").digest
    assert opened(f"{web.url}/scene.tif?key=secret").digest == before
    write_tiff(web.folder / "scene.tif", reflectances(5, 400, 400, seed=1), BURN_BANDS)
    after = opened(f"{web.url}/scene.tif?key=secret")
    assert after.digest != before
    assert "secret" not in after.origin + after.name


def test_only_declared_hosts_are_asked(web: Web, tmp_path: Path) -> None:
    scene_at(web.folder)
    host = web.url.removeprefix("http://")
    assert len(read_all(opened(f"{web.url}/scene.tif", frozenset([host])))[0]) == 169
    assert opened(f"{web.url}/scene.tif", frozenset(["127.0.0.1"])).name == "scene.tif"
    asked = len(web.asked)
    with pytest.raises(GroundworkError, match=r"127\.0\.0\.1:\d+ is not among the hosts .*\(earth.org\)"):
        opened(f"{web.url}/scene.tif", frozenset(["earth.org"]))
    assert len(web.asked) == asked


def test_a_redirection_is_followed_to_declared_hosts_only(web: Web, tmp_path: Path) -> None:
    with serving(web.folder) as other:
        scene_at(web.folder)
        there = f"{web.url}/to?there={other.url}/scene.tif"
        hosts = {url.removeprefix("http://") for url in (web.url, other.url)}
        # The address that is opened is the last one, so that nothing is followed again.
        moved = GEOSPATIAL.open_document(f"{other.url}/scene.tif", SPEC, frozenset(hosts))
        assert scene_of(moved).path == f"{other.url}/scene.tif"
        asked = len(other.asked)
        assert locate(there, frozenset(hosts)).url == f"{other.url}/scene.tif"
        with pytest.raises(GroundworkError, match="is not among the hosts that may be asked"):
            locate(there, frozenset([web.url.removeprefix("http://")]))
        assert len(other.asked) == asked + 1
        with pytest.raises(GroundworkError, match="more than 5 redirections"):
            locate(f"{web.url}/to", None)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/nothing.tif", r"nothing.tif: there is nothing \(HTTP 404\)"),
        ("/whole/scene.tif", "its host gives files only whole, not in parts"),
        ("/broken.tif", "broken.tif is damaged or not what its suffix says"),
        ("/item.json", "item.json is no STAC document"),
        ("/list.json", "list.json is no STAC document"),
    ],
)
def test_what_is_not_there_or_broken_is_one_line(web: Web, address: str, words: str) -> None:
    scene_at(web.folder)
    (web.folder / "broken.tif").write_bytes(b"II*\0" + b"x" * 200)
    (web.folder / "item.json").write_text('{"type": "Feature"}')
    (web.folder / "list.json").write_text("[1, 2]")
    with pytest.raises(GroundworkError, match=words) as error:
        opened(web.url + address)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:9/scene.tif", "cannot be reached"),
        ("https://me:secret@earth.org/scene.tif", "a name and a password"),
        ("http:///scene.tif", "is no web address"),
    ],
)
def test_an_address_that_cannot_be_asked(address: str, words: str) -> None:
    with pytest.raises(GroundworkError, match=words) as error:
        opened(address)
    assert "secret" not in str(error.value)


# -------------------------------------------------------------------------------------------------- STAC


def item(
    folder: Path,
    name: str = "S2B_32TQM_20230801",
    properties: Mapping[str, Any] | None = None,
    raster: Mapping[str, Any] | None = None,
    base: str = ".",
) -> dict[str, Any]:
    """A STAC item of three bands and a scene classification, whose files hold 3000."""
    assets: dict[str, Any] = {}
    for band, (wavelength, common, gsd) in BAND.items():
        side = 640 // gsd
        place = from_origin(600_000, 5_000_000, gsd, gsd)
        pixels = np.full((1, side, side), 3000, np.uint16)
        write_tiff(folder / name / f"{band}.tif", pixels, transform=place, nodata=0)
        described = {"name": band, "common_name": common, "center_wavelength": wavelength}
        assets[common] = {
            "href": f"{base}/{name}/{band}.tif", "type": "image/tiff; application=geotiff",
            "roles": ["data", "reflectance"], "eo:bands": [described],
            **({"raster:bands": [dict(raster)]} if raster else {}),
        }  # fmt: skip
    classes = np.full((1, 32, 32), 4, np.uint8)
    classes[:, :, :5] = 9
    write_tiff(folder / name / "SCL.tif", classes, transform=from_origin(600_000, 5_000_000, 20, 20))
    assets["scl"] = {"href": f"{base}/{name}/SCL.tif", "type": "image/tiff; application=geotiff"}
    assets["thumbnail"] = {"href": f"{base}/{name}/none.jpg", "roles": ["thumbnail"]}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "bbox": [10, 45, 11, 46], "links": [],
        "geometry": {"type": "Point", "coordinates": [10.5, 45.5]}, "assets": assets,
        "properties": {
            "datetime": "2023-08-01T10:16:09Z", "constellation": "sentinel-2", "platform": "sentinel-2b",
            **(properties or {}),
        },
    }  # fmt: skip


def written(path: Path, document: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(document))
    return path


def value_of(source: Source) -> float:
    scene = scene_of(source)
    [value] = {float(it) for it in scene.read(0, 20, 40, 40, scene.bands).ravel()}
    return value


def test_an_item_is_a_scene_whose_clouds_are_hidden(web: Web) -> None:
    written(web.folder / "item.json", item(web.folder))
    source = opened(f"{web.url}/item.json", resample="bilinear")
    scene = scene_of(source)
    assert [band.name for band in scene.bands] == ["B2", "B8A", "B4"]
    assert {band.unit for band in scene.bands} == {REFLECTANCE_10000}
    assert (scene.name, scene.height, source.map_suffix) == ("S2B_32TQM_20230801", 64, ".tif")
    pixels = scene.read(0, 0, 64, 64, source.encoding.bands)
    assert np.isnan(pixels[:, :, :10]).all()
    assert np.isfinite(pixels[:, :, 10:]).all()


@pytest.mark.parametrize(
    ("properties", "raster", "value"),
    [
        ({}, None, 3000),
        ({"s2:processing_baseline": "05.09"}, None, 2000),
        ({"s2:processing_baseline": "03.01"}, None, 3000),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}, None, 3000),
        ({"s2:processing_baseline": "05.09"}, {"scale": 0.0001, "offset": -0.1, "nodata": 0}, 2000),
        ({}, {"scale": 0.0001, "offset": 0}, 3000),
    ],
)
def test_the_numbers_are_what_the_item_says(
    tmp_path: Path, properties: dict[str, Any], raster: dict[str, Any] | None, value: float
) -> None:
    document = item(tmp_path, properties=properties, raster=raster)
    del document["assets"]["nir08"]
    assert value_of(opened(str(written(tmp_path / "item.json", document)))) == value


def test_bands_are_written_in_the_way_of_version_1_1_too(tmp_path: Path) -> None:
    document = item(tmp_path)
    for asset in document["assets"].values():
        for band in asset.pop("eo:bands", ()):
            asset["bands"] = [{
                "name": band["name"], "eo:center_wavelength": band["center_wavelength"],
                "raster:scale": 0.0001, "raster:offset": -0.1,
            }]  # fmt: skip
    document["stac_version"] = "1.1.0"
    assert value_of(opened(str(written(tmp_path / "item.json", document)), resample="nearest")) == 2000


def test_a_sensor_that_is_not_known_describes_its_bands_itself(tmp_path: Path) -> None:
    document = item(tmp_path, raster={"scale": 0.0001, "offset": 0})
    document["properties"] = {"datetime": "2023-08-01T10:16:09Z", "platform": "planetscope"}
    del document["assets"]["nir08"]
    bands = scene_of(opened(str(written(tmp_path / "item.json", document)))).bands
    assert [(band.name, band.wavelength) for band in bands] == [("B02", 490.0), ("B04", 665.0)]
    for asset in document["assets"].values():
        asset.pop("raster:bands", None)
    with pytest.raises(GroundworkError, match="has no asset that says which bands it holds"):
        opened(str(written(tmp_path / "item.json", document)))


def test_only_the_bands_of_a_model_are_asked_for(tmp_path: Path) -> None:
    path = str(written(tmp_path / "item.json", item(tmp_path)))
    with pytest.raises(GroundworkError, match="pixels of 20 m in B8A beside others of 10 m"):
        opened(path)
    wanted = opened(path, resample="nearest").encoding.bands
    fine = opened(path, bands=tuple(band for band in wanted if band.name != "B8A"))
    assert [band.name for band in scene_of(fine).bands] == ["B2", "B4"]


def test_a_catalogue_and_pages_of_a_search_are_many_scenes(web: Web) -> None:
    items = [item(web.folder, f"scene-{place}") for place in range(3)]
    for each in items:
        del each["assets"]["nir08"]
        written(web.folder / f"{each['id']}.json", each)
    links = [{"rel": "item", "href": f"./{each['id']}.json"} for each in items]
    catalogue = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "all",
        "description": "all",
        "links": links,
    }
    written(web.folder / "catalog.json", catalogue)
    source = opened(f"{web.url}/catalog.json")
    names = {record.value.scene for record in read_all(source)[0]}
    assert names == {"scene-0", "scene-1", "scene-2"}
    assert source.map_suffix == ""

    page = {"type": "FeatureCollection", "features": items[:2]}
    following = {"rel": "next", "href": f"{web.url}/page2.json"}
    written(web.folder / "search.json", {**page, "links": [following]})
    written(web.folder / "page2.json", {**page, "features": items[2:], "links": []})
    searched = opened(f"{web.url}/search.json")
    assert {record.value.scene for record in read_all(searched)[0]} == names
    written(web.folder / "empty.json", {**page, "features": []})
    with pytest.raises(GroundworkError, match="lists no items: widen the search"):
        opened(f"{web.url}/empty.json")


@pytest.mark.parametrize("href", ["../secret.tif", "/etc/passwd.tif", "file:///etc/passwd.tif"])
def test_a_document_reaches_no_file_outside_its_folder(tmp_path: Path, href: str) -> None:
    document = item(tmp_path / "folder")
    write_tiff(tmp_path / "secret.tif", np.full((1, 64, 64), 3000, np.uint16))
    document["assets"]["red"]["href"] = href
    with pytest.raises(GroundworkError, match="lies outside of its own folder"):
        opened(str(written(tmp_path / "folder" / "item.json", document)))


def test_a_document_leads_to_no_other_host(web: Web, tmp_path: Path) -> None:
    document = item(web.folder)
    document["assets"]["red"]["href"] = "http://169.254.169.254/meta.tif"
    written(web.folder / "item.json", document)
    with pytest.raises(GroundworkError, match=r"169\.254\.169\.254 is not among the hosts"):
        opened(f"{web.url}/item.json", frozenset(["127.0.0.1"]))
    document["assets"]["red"]["href"] = write_tiff(tmp_path / "own.tif", reflectances(1)).as_uri()
    written(web.folder / "item.json", document)
    with pytest.raises(GroundworkError, match="lies outside of its own folder"):
        opened(f"{web.url}/item.json")


def test_addresses_travel_to_other_processes(web: Web) -> None:
    scene_at(web.folder)
    source = pickle.loads(pickle.dumps(scene_of(opened(f"{web.url}/scene.tif"))))  # noqa: S301 - our own
    assert source.read(0, 0, 8, 8, source.bands).shape == (5, 8, 8)
