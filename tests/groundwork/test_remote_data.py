"""What `--remote` sends: a folder as one archive, always the same one, and a file as it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from api_fakes import one_model, running
from rich.console import Console
from small_scenes import labelled, tiff

import groundwork.remote
from domains.contract import GroundworkError, load_domain
from flows.home import Home
from flows.settings import FlowSettings
from groundwork import execution
from groundwork.packing import pack


@pytest.fixture
def scars(tmp_path: Path) -> Path:
    """A folder of scenes and masks whose bands two sensors have, with what does not belong to it."""
    folder = tmp_path / "Burn scars"
    hidden = {".DS_Store": b"x", ".cache/a.tif": b"x", "images/.b.tif.swp": b"x"}
    for name, content in {**labelled(names=("B2", "B3", "B4")), **hidden}.items():
        path = folder / name.removeprefix("scars/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_a_packed_folder_is_the_same_dataset_and_the_same_file(scars: Path, tmp_path: Path) -> None:
    domain = load_domain("geospatial")
    encoding = domain.encoding.model_validate({"sensor": "sentinel-2"})
    packed = [tmp_path / name for name in ("first.zip", "second.zip")]
    pack(scars, packed[0], Console())
    for path in scars.rglob("*.tif"):
        path.touch()
    pack(scars, packed[1], Console())
    assert packed[0].read_bytes() == packed[1].read_bytes()
    opened = domain.open(packed[0], encoding)
    assert opened.digest == domain.open(scars, encoding).digest
    assert not opened.remarks
    (tmp_path / "empty").mkdir()
    with pytest.raises(GroundworkError, match="holds no file"):
        pack(tmp_path / "empty", packed[0], Console())


class Asked(FlowSettings):
    """The settings that count here."""

    dataset: str = ""
    name: str = ""
    model: str = ""
    sensor: str = "auto"


class Deployments:
    """Stands for Prefect: notes what would be run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        monkeypatch.setattr(groundwork.remote, "run_deployment", self._run)

    def _run(self, deployment: str, parameters: dict[str, Any], *_: Any) -> SimpleNamespace:
        self.asked.append((deployment, parameters))
        return SimpleNamespace(tables=[])


def test_a_folder_and_a_file_are_sent_and_named(
    scars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, deployments = Home(tmp_path / "home"), Deployments(monkeypatch)
    scene = tmp_path / "scene.tif"
    scene.write_bytes(tiff())
    with running(one_model(), home.datasets) as url:

        def finetune(domain: str = "geospatial", **settings: str) -> None:
            addresses: Any = SimpleNamespace(api_url=url)
            execution._run_remotely("finetune", domain, Asked(**settings), home, addresses)

        finetune(dataset=str(scars), sensor="sentinel-2")
        finetune(dataset=str(scars), sensor="sentinel-2")
        finetune(dataset=str(scene))
        finetune(dataset="simulated-scenes")
        with pytest.raises(GroundworkError, match="say which with --sensor"):
            finetune(dataset=str(scars))
        with pytest.raises(GroundworkError, match="is a folder"):
            finetune("molecules", dataset=str(scars))
    (name, first), (_, second), (_, third), (_, fourth) = deployments.asked
    assert name == "finetune-geospatial"
    assert first == second
    assert first["name"] == "burn-scars"
    assert first["dataset"].startswith("burn-scars-")
    assert third["dataset"].startswith("scene-")
    assert fourth["dataset"] == "simulated-scenes"
    kept = sorted(path.name for path in home.datasets.iterdir())
    assert kept == [f"{first['dataset']}.zip", f"{third['dataset']}.tif"]
