"""What a dataset of rasters says decides what is learnt from it: changes, several labels, points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import rasterio
from scene_files import write_scene

from domains.contract import GroundworkError, load_domain
from flows import dispatch
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.settings import settings_class
from models import registry
from models.registry import Version

GEOSPATIAL = load_domain("geospatial")
BANDS = ("B3", "B4", "B8")
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
CHIP = {"chip": 16, "patch": 8, "batch_size": 8}
SIDE, SCENES = 32, 14


@pytest.fixture(scope="module", autouse=True)
def small_raster_encoders() -> Iterator[None]:
    from models.rasters.vit import RasterViT

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RasterViT.presets, "tiny", SMALL)
        yield


def run(kind: Any, home: Home, **values: Any) -> Any:
    settings = settings_class(kind, "geospatial")(**values)
    return dispatch.run(kind, GEOSPATIAL, settings, home, ConsoleJournal())


def finetune(home: Home, folder: Path, **values: Any) -> Version:
    made: Version = run("finetune", home, dataset=str(folder), foundation="none", **{**CHIP, **values})
    return made


# ------------------------------------------------------------------------------------------------ change


def fire(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Before and after, uint16 [3, 32, 32], and where it burnt. What is dark in both was dark before."""
    random = np.random.default_rng(seed)
    before = np.where(random.random((SIDE, 1)) < 0.5, 1200, 2600) + random.normal(0, 100, (3, SIDE, SIDE))
    burnt = np.zeros((SIDE, SIDE), bool)
    top, left = random.integers(0, SIDE // 2, 2)
    burnt[top : top + 16, left : left + 16] = True
    after = np.where(burnt, before * 0.4, before) + random.normal(0, 50, (3, SIDE, SIDE))
    return before.clip(100).astype(np.uint16), after.clip(100).astype(np.uint16), burnt.astype(np.uint8)[None]


@pytest.fixture(scope="module")
def fires(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "fires"
    for index in range(SCENES):
        before, after, burnt = fire(index)
        write_scene(folder / f"images/{index:02}.tif", after, BANDS, index)
        write_scene(folder / f"masks/{index:02}.tif", burnt, (), index)
        if index:
            write_scene(folder / f"images_before/{index:02}.tif", before, BANDS, index)
    return folder


@pytest.fixture(scope="module")
def changed(module_home: Home, fires: Path) -> Version:
    return finetune(module_home, fires, task="change", name="changed", epochs=20, batch_size=0)


def test_a_change_is_learnt_from_pairs_beside_its_floor(changed: Version) -> None:
    assert (changed.tags["metric"], changed.tags["task"]) == ("miou", "binary")
    assert float(changed.tags["value"]) > 0.6
    rejects = mlflow.artifacts.load_text(f"runs:/{changed.run_id}/rejects.csv")
    assert "images/00.tif" in rejects
    assert "no image of the same name in images_before/" in rejects
    _, predictor = registry.load("changed")
    assert predictor.spec.dates == 2  # type: ignore[attr-defined]


def test_what_was_left_open_is_chosen_and_recorded(changed: Version) -> None:
    params = mlflow.get_run(changed.run_id).data.params
    chosen = [params[f"chosen_{name}"] for name in ("epochs", "batch_size", "learning_rate")]
    assert chosen == ["20", "8", "0.0005"]
    assert params["batch_size"] == "0"


def test_a_change_of_a_whole_chip_is_its_class(module_home: Home, fires: Path, tmp_path: Path) -> None:
    for index in range(1, SCENES):
        for kind in ("images", "images_before"):
            # Of every other pair nothing has changed: the earlier date is both.
            name = f"images_before/{index:02}.tif" if index % 2 else f"{kind}/{index:02}.tif"
            target = tmp_path / f"set/{kind}/{'same' if index % 2 else 'burnt'}/{index:02}.tif"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((fires / name).read_bytes())
    made = finetune(module_home, tmp_path / "set", task="change", split="scene", name="whole", epochs=2)
    assert (made.tags["metric"], made.tags["task"]) == ("auroc", "binary")


def test_a_pair_becomes_a_map_of_what_has_changed(
    changed: Version, fires: Path, module_home: Home, tmp_path: Path
) -> None:
    before, after, burnt = fire(100)
    write_scene(tmp_path / "pair/before.tif", before, BANDS, 50)
    scene = write_scene(tmp_path / "pair/after.tif", after, BANDS, 50)
    made = run(
        "predict", module_home, model="changed", dataset=str(scene.parent), output=str(tmp_path / "map.tif")
    )
    with rasterio.open(made.path) as file, rasterio.open(scene) as source:
        assert (file.transform, file.crs, file.shape) == (source.transform, source.crs, source.shape)
        assert (file.read(1) == burnt[0]).mean() > 0.8
    with pytest.raises(GroundworkError, match=r"name a folder that holds before\.tif and after\.tif"):
        run("predict", module_home, model="changed", dataset=str(scene))


# ------------------------------------------------------------------------------------------- several labels


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chips on which red says one label, the near infrared another; the table holds the last back."""
    folder = tmp_path_factory.mktemp("data") / "tiles"
    random = np.random.default_rng(0)
    lines = ["path,labels,split"]
    for index in range(60):
        bright = random.random(2) < 0.5
        level = np.where([False, *bright], 4000, 800)[:, None, None] + random.normal(0, 200, (3, 16, 16))
        write_scene(folder / f"{index:02}.tif", level.clip(100).astype(np.uint16), BANDS, index)
        names = [name for name, there in zip(("soil", "plants"), bright, strict=True) if there]
        side = "test" if index >= 48 else "val" if index >= 40 else "train"
        lines.append(f"{index:02}.tif,{'|'.join([*names, 'land'][: len(names) + index % 2])},{side}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def test_several_labels_are_learnt_together(module_home: Home, tiles: Path) -> None:
    asked = {"task": "multilabel", "split": "given", "target": ["soil", "plants"]}
    made = finetune(module_home, tiles, name="tiles", epochs=15, **asked)
    figures = mlflow.MlflowClient().get_run(made.run_id).data.metrics
    assert (made.tags["metric"], figures["test_auroc"] > 0.9) == ("auroc", True)
    assert {"test_auprc", "test_f1", "floor_image_statistics___random_forest_f1"} <= set(figures)
    answers = pd.read_parquet(run("predict", module_home, model="tiles", dataset=str(tiles)).path)
    assert {"soil_prediction", "plants_prediction", "status"} <= set(answers.columns)
    said = mlflow.artifacts.load_text(f"runs:/{made.run_id}/rejects.csv")
    assert "no label" in said


def test_what_has_more_than_two_classes_is_no_multilabel(module_home: Home, tiles: Path) -> None:
    with pytest.raises(GroundworkError, match="holds 3 distinct values, where each of several labels"):
        finetune(module_home, tiles, task="multilabel", target=["split"], name="no")


# ------------------------------------------------------------------------------------------ several classes


def test_each_of_several_classes_is_as_probable_as_validation_chips_say(
    module_home: Home, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    lines = ["path,cover,split"]
    for index in range(60):
        level = [800, 2400, 4000][index % 3] + random.normal(0, 200, (3, 16, 16))
        write_scene(tmp_path / f"{index:02}.tif", level.clip(100).astype(np.uint16), BANDS, index)
        side = "test" if index >= 48 else "val" if index >= 30 else "train"
        lines.append(f"{index:02}.tif,{['water', 'plants', 'soil'][index % 3]},{side}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    ensemble = {"mode": "ensemble", "members": 2}
    made = finetune(
        module_home, tmp_path, name="cover", split="given", target=["cover"], epochs=15, **ensemble
    )
    _, predictor = registry.load("cover")
    logged = mlflow.get_run(made.run_id).data.metrics
    assert logged["test_accuracy"] == 1
    for model in predictor.models:
        np.testing.assert_allclose(model.get_buffer("scale"), 1 / logged["temperature_0"], rtol=1e-6)
    # Smoothed labels alone would never say more than nine in ten.
    assert logged["temperature_0"] < 0.95
    answers = pd.read_parquet(run("predict", module_home, model="cover", dataset=str(tmp_path)).path)
    chances = answers[[f"cover_probability_{name}" for name in ("water", "plants", "soil")]]
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-5)


# -------------------------------------------------------------------------------------------- split by time


def test_scenes_are_split_by_when_they_were_taken(module_home: Home, fires: Path, tmp_path: Path) -> None:
    for month in range(1, 13):
        for kind in ("images", "masks"):
            target = tmp_path / f"fires/{kind}/fire_2020{month:02}15.tif"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((fires / f"{kind}/{month:02}.tif").read_bytes())
    finetune(module_home, tmp_path / "fires", split="time", mode="probe", name="times", epochs=1)
    version, predictor = registry.load("times")
    task = predictor.contract.task
    assert task is not None
    assert (task.split.method, task.split.column) == ("time", "time")
    answered = mlflow.artifacts.download_artifacts(f"runs:/{version.run_id}/test_predictions.parquet")
    assert set(pd.read_parquet(answered)["row"] // 4) == {11}  # four chips of a scene, in order of months
