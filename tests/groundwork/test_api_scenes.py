"""Scenes over HTTP: archives and rasters in, with their settings, and nothing that an archive could hide."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from api_fakes import one_model, put, running, wait_for
from small_scenes import labelled, mask, tiff, zipped

from domains.contract import Record, Row, load_domain
from flows.home import Home
from flows.sources import find_file
from groundwork.api import zips
from groundwork.api.app import create_app
from groundwork.api.registry import MlflowRegistry


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("service") / "datasets"
    with running(one_model(), folder) as url:
        yield url, folder


@pytest.fixture
def url(service: tuple[str, Path]) -> str:
    return service[0]


@pytest.fixture
def folder(service: tuple[str, Path]) -> Path:
    """Where uploads go, empty."""
    folder = service[1]
    for path in folder.glob("*"):
        path.unlink()
    return folder


GEOSPATIAL = {"domain": "geospatial"}
ZIP = {**GEOSPATIAL, "format": "zip"}


def test_a_zip_of_scenes_and_masks_comes_in(url: str, folder: Path) -> None:
    response = put(url, "scars.zip", content=zipped(labelled()), params=GEOSPATIAL)
    assert response.status_code == 201, response.text
    answer = response.json()
    assert answer["columns"] == ["image", "row", "column", "mask"]
    assert (answer["rows"], answer["remarks"], answer["use"]) == (2, [], 'dataset: "scars"')
    assert [path.name for path in folder.iterdir()] == ["scars.zip"]


def test_what_to_know_of_it_is_told(url: str, folder: Path) -> None:
    files = {**labelled(), "scars/before/a.tif": tiff(seed=7), "scars/images/c.tif": tiff()}
    answer = put(
        url, "scars", content=zipped(files), headers={"content-type": "application/zip"}, params=GEOSPATIAL
    )
    aside, unusable = answer.json()["remarks"]
    assert aside == "Beside images/ and masks/, scars.zip holds before/: left alone."
    assert unusable == (
        "1 of 3 rows cannot be used, the first 'scars/images/c.tif': no mask of the same name in masks/."
    )


def test_single_rasters_come_in(url: str, folder: Path, tmp_path: Path) -> None:
    assert put(url, "scene.tif", content=tiff(), params=GEOSPATIAL).json()["rows"] == 1
    steps = {"x": np.arange(0.0, 400, 10), "y": np.arange(400.0, 0, -10), "time": [0, 1]}
    data = np.random.default_rng(0).uniform(100, 4000, (2, 40, 40)).astype("float32")
    cube = xr.Dataset(dict.fromkeys(("B2", "B8A"), (("time", "y", "x"), data)), steps)
    cube.to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
    content = (tmp_path / "cube.nc").read_bytes()
    answer = put(url, "cube", content=content, params={**GEOSPATIAL, "format": "nc"})
    assert answer.json().get("rows") == 2, answer.text
    assert sorted(path.name for path in folder.iterdir()) == ["cube.nc", "scene.tif"]


def test_bands_that_the_files_do_not_tell_are_told_by_a_setting(url: str, folder: Path) -> None:
    ambiguous = zipped(labelled(names=("B2", "B3", "B4")))
    refused = put(url, "scars", content=ambiguous, params=ZIP)
    assert refused.status_code == 422
    assert "landsat-7 or landsat-8: say which with --sensor" in refused.json()["error"]
    assert list(folder.iterdir()) == []
    answer = put(url, "scars", content=ambiguous, params={**ZIP, "sensor": "sentinel-2"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["use"] == 'dataset: "scars", sensor: sentinel-2'


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("scars", {**ZIP, "sensor": "hubble"}, "sensor"),
        ("scars", {**ZIP, "chip": "60", "patch": "16"}, "chip of 60"),
        ("scars", {**ZIP, "bands": "[]"}, "'bands' is no setting"),
        ("scars", {**ZIP, "colour": "red"}, "has chip, patch, resample, sensor"),
        ("scars", {**GEOSPATIAL, "format": "csv"}, "reads no .csv"),
        ("scars", {**GEOSPATIAL, "format": "vrt"}, "reads no .vrt"),
        ("bands.yaml", GEOSPATIAL, "reads no .yaml"),
        ("scars", GEOSPATIAL, "zip, tif"),
        ("scars.zip", {}, "molecules reads no .zip file: add ?domain=geospatial"),
        ("scars.csv", GEOSPATIAL, "geospatial reads no .csv file: add ?domain=molecules"),
        ("simulated-scenes", ZIP, "comes with geospatial"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused_before_its_body(
    url: str, folder: Path, name: str, params: dict, words: str
) -> None:
    response = put(url, name, content=zipped(labelled()), params=params)
    assert response.status_code == 422
    assert words in response.json()["error"]
    assert list(folder.glob("*")) == []


def locked() -> bytes:
    content = bytearray(zipped(labelled(), zipfile.ZIP_STORED))
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # the flag of a password, in the table of contents
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: zipped({}), "holds no raster"),
        (lambda: b"PK\x03\x04 and no more", "no zip archive"),
        (lambda: zipped(labelled())[:-30], "no zip archive"),
        (lambda: zipped({**labelled(), "../c.tif": tiff()}), "outside itself"),
        (lambda: zipped({**labelled(), "/etc/c.tif": tiff()}), "outside itself"),
        (lambda: zipped({**labelled(), "more.zip": zipped(labelled())}), "another archive"),
        (lambda: zipped({**labelled(), "more.TAR.gz": b"x"}), "another archive"),
        (locked, "password"),
        (lambda: zipped({**labelled(), "zeros.tif": bytes(2_000_000)}), "20 times its size"),
        (lambda: zipped({f"{number:0500}.txt": b"" for number in range(20)}), "table of contents"),
        (lambda: zipped({"images/a.tif": tiff(), "masks/b.tif": mask()}), "same name"),
        (lambda: zipped({"a.tif": b"no raster"}), "a.tif"),
    ],
)  # fmt: skip
def test_an_archive_that_cannot_be_used_is_refused_and_leaves_nothing(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[], bytes], words: str
) -> None:
    monkeypatch.setattr(zips, "ALWAYS_UNPACKED", 1_000_000)
    monkeypatch.setattr(zips, "LARGEST_CONTENTS", 10_000)
    response = put(url, "scars", content=content(), params=ZIP)
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    assert words in error
    assert ".part" not in error
    assert "\n" not in error
    assert list(folder.iterdir()) == []


def test_no_disk_is_held_by_a_refused_or_replaced_archive(url: str, folder: Path) -> None:
    """A deleted file takes its space for as long as it is open."""
    before = opened_in(folder)  # by tests that read what they had sent
    for content in (zipped(labelled(names="xyz")), zipped(labelled(1)), zipped(labelled(2))):
        put(url, "scars", content=content, params=ZIP)
    wait_for(lambda: opened_in(folder) <= before)


def opened_in(folder: Path) -> int:
    """How many files of a folder this process holds open."""
    numbers = os.listdir("/proc/self/fd")
    return sum(os.path.realpath(f"/proc/self/fd/{number}").startswith(str(folder)) for number in numbers)


def test_an_archive_is_replaced_by_the_same_name(url: str, folder: Path, tmp_path: Path) -> None:
    domain, home = load_domain("geospatial"), Home(tmp_path)
    home.datasets.symlink_to(folder)
    digests, pixels = [], []
    for seed in (0, 5):
        response = put(url, "scars", content=zipped(labelled(seed)), params=ZIP)
        assert response.status_code == (201 if seed == 0 else 200)
        found = find_file("scars", home, trusted=False)
        source = domain.open(found, domain.encoding())
        record = domain.read(next(iter(source.stream())), source.encoding)
        assert isinstance(record, Record)
        digests.append((response.json()["digest"], source.digest))
        pixels.append(record.value.pixels)
    assert [given == opened for given, opened in digests] == [True, True]
    assert digests[0] != digests[1]
    assert not np.array_equal(pixels[0], pixels[1], equal_nan=True)
    assert put(url, "scars.tif", content=tiff(), params=GEOSPATIAL).status_code == 200
    assert [path.name for path in folder.iterdir()] == ["scars.tif"]


def test_the_examples_on_the_page_are_valid_inputs(tmp_path: Path) -> None:
    page = create_app(MlflowRegistry(), datasets=tmp_path).openapi()
    path = page["paths"]["/v1/models/{name}/predict"]["post"]
    examples = path["requestBody"]["content"]["application/json"]["examples"]
    for name, domain in (("molecules", load_domain("molecules")), ("rasters", load_domain("geospatial"))):
        for value in examples[name]["value"]["inputs"]:
            assert isinstance(domain.read(Row(0, value), domain.encoding()), Record)
    upload = page["paths"]["/v1/datasets/{name}"]["put"]["parameters"]
    assert [parameter["name"] for parameter in upload] == ["name", "format", "domain", "settings"]
