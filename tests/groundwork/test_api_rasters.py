"""A version that answers pixels, asked over HTTP with images."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from api_fakes import FakeRegistry, running
from small_scenes import tiff

import groundwork.client
import models.registry
from domains.contract import Record, SplitSpec, Target, TaskSpec, load_domain
from groundwork import Client, ServiceError, execution
from groundwork.api import serving
from models.encoder import create_encoder
from models.predictor import Lineage, Predictor, VersionContract
from models.tuning import TaskModel

AMBIGUOUS = ("B2", "B3", "B4")
TARGET = Target(
    name="mask", kind="multiclass", classes=("land", "water", "ice"), level="pixel", values=(0, 1, 2)
)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained version whose bands were told by a setting."""
    folder = tmp_path_factory.mktemp("version")
    (folder / "scene.tif").write_bytes(tiff(AMBIGUOUS))
    domain = load_domain("geospatial")
    asked = domain.encoding.model_validate({"chip": 32, "sensor": "sentinel-2"})
    source = domain.open(folder / "scene.tif", asked)
    encoding = source.encoding
    records = [domain.read(row, encoding) for row in source.stream()]
    samples = [domain.encode(record, encoding) for record in records if isinstance(record, Record)]
    torch.manual_seed(0)
    encoder = create_encoder("geospatial", "tiny", encoding)
    encoder.fit_input(encoding, samples)
    contract = VersionContract(
        kind="task",
        domain="geospatial",
        encoding=encoding.model_dump(mode="json"),
        encoding_digest=encoding.digest,
        task=TaskSpec(domain="geospatial", targets=(TARGET,), split=SplitSpec(method="block", seed=0)),
        split_id="split",
        lineage=Lineage(
            dataset="scene.tif", dataset_origin="/scene.tif", dataset_digest="abc", rows=3, rejects=0,
            foundation="none", code="1234567", mlflow_run="run", flow_run="",
        ),
    )  # fmt: skip
    Predictor.save(folder / "version", contract, TaskModel(encoder, (TARGET,), linear_head=False))
    return folder / "version"


@pytest.fixture(scope="module")
def client(version: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    predictors: Any = {"water": {1: Predictor.load(version)}}
    with running(FakeRegistry(predictors, {"water": 1}), tmp_path_factory.mktemp("empty")) as url:
        yield Client(url)


def test_images_are_answered_with_shares_and_paths_are_read_by_the_client(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip, scene = tmp_path / "chip.tif", tmp_path / "scene.tif"
    chip.write_bytes(tiff(AMBIGUOUS, side=32))
    scene.write_bytes(tiff(AMBIGUOUS, side=40))
    sent = "data:image/tiff;base64," + base64.b64encode(chip.read_bytes()).decode()
    monkeypatch.setattr(groundwork.client, "TEXT_PER_REQUEST", len(sent))  # each in a request of its own
    results = client.predict("water", [chip, sent, scene, str(chip), 5, "data:image/tiff;base64,AAAA"])
    assert [result["status"] for result in results] == ["ok", "ok"] + ["rejected"] * 4
    answer = results[0]["predictions"]["mask"]
    assert answer == results[1]["predictions"]["mask"]
    assert sum(answer["shares"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["prediction"] == max(answer["shares"], key=answer["shares"].get)
    assert [result["index"] for result in results] == list(range(6))
    large, path, number, damaged = (result["reason"] for result in results[2:])
    assert "40 × 40 pixels" in large
    assert "paths are not opened" in path
    assert "not an image" in number
    assert "the image" in damaged


def test_large_samples_are_few_at_a_time(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.load(version)
    assert serving._inputs_at_once(predictor) == serving.MOST_AT_ONCE
    monkeypatch.setattr(serving, "BYTES_AT_ONCE", 3 * 32 * 32 * 4 * 5)
    assert serving._inputs_at_once(predictor) == 5
    monkeypatch.setattr(serving, "BYTES_AT_ONCE", 1)
    assert serving._inputs_at_once(predictor) == 1


def test_a_file_too_large_for_one_input_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "scene.tif").open("wb") as file:
        file.truncate(groundwork.client.LARGEST_FILE + 1)
    with pytest.raises(ServiceError, match="groundwork predict"):
        Client().predict("water", [tmp_path / "scene.tif"])
    with pytest.raises(ServiceError, match="not a file"):
        Client().predict("water", [tmp_path / "none.tif"])


def test_a_version_tells_the_bands_of_scenes_that_it_is_sent(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = tmp_path / "scene.tif"
    scene.write_bytes(tiff(AMBIGUOUS))
    monkeypatch.setattr(models.registry, "resolve", lambda reference: reference)
    monkeypatch.setattr(models.registry, "fetch", lambda reference: version)
    domain, encoding = execution._asked_model("water@champion")
    with running(FakeRegistry({}, {}), tmp_path / "datasets") as url:
        addresses: Any = SimpleNamespace(api_url=url)
        name = execution._upload(scene, "scene", domain, execution._given(encoding, domain), addresses)
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == [f"{name}.tif"]
