"""Rasters through the flows: scenes and masks in, versions beside their floors, maps out."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image
from pyogrio.raw import read as read_layer
from scene_files import write_scene
from web_server import serving

from domains.contract import GroundworkError, load_domain
from flows import dispatch
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.predict import PredictedFile, predict
from flows.retrain import retrain
from flows.settings import settings_class
from models import registry
from models.registry import Version

GEOSPATIAL = load_domain("geospatial")
BANDS = ("B2", "B3", "B8A")
TRUE_COLOUR = ("TCI_R", "TCI_G", "B8A")
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
CHIP = {"chip": 16, "patch": 8, "batch_size": 8}
SIDE, SCENES = 32, 18


@pytest.fixture(scope="module", autouse=True)
def small_raster_encoders() -> Iterator[None]:
    from models.rasters.vit import RasterViT

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RasterViT.presets, "tiny", SMALL)
        yield


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Reflectances × 10000 uint16 [3, 32, 32], and a mask of what is burnt: dark in the near infrared."""
    random = np.random.default_rng(seed)
    burnt = np.zeros((SIDE, SIDE), bool)
    top, left = random.integers(0, SIDE // 2, 2)
    burnt[top : top + 16, left : left + 16] = True
    base = np.where(burnt, 1200, 2600) + random.normal(0, 300, (3, SIDE, SIDE))
    return base.clip(100, 9000).astype(np.uint16), burnt.astype(np.uint8)[None]


@pytest.fixture(scope="module")
def scars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen scenes with masks, far from each other, and one in true colour."""
    folder = tmp_path_factory.mktemp("data") / "scars"
    for index in range(SCENES):
        pixels, mask = scene(index)
        write_scene(folder / f"images/{index:02}.tif", pixels, BANDS, index)
        write_scene(folder / f"masks/{index:02}.tif", mask, (), index)
    bytes_ = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE)).astype(np.float32)
    write_scene(folder / "images/colour.tif", bytes_, TRUE_COLOUR, 40)
    write_scene(folder / "masks/colour.tif", np.ones((1, SIDE, SIDE), np.uint8), (), 40)
    return folder


def run(kind: Any, home: Home, journal: Any, **values: Any) -> Any:
    settings = settings_class(kind, "geospatial")(**{**CHIP, **values})
    return dispatch.run(kind, GEOSPATIAL, settings, home, journal)


def ask(home: Home, journal: Any, **values: Any) -> PredictedFile:
    given = {name: str(value) for name, value in values.items()}
    return predict(settings_class("predict", "geospatial")(**given), home, journal)


@pytest.fixture(scope="module")
def foundation(module_home: Home, scars: Path) -> Version:
    made: Version = run("pretrain", module_home, ConsoleJournal(), dataset=str(scars / "images"), epochs=2)
    return made


@pytest.fixture(scope="module")
def burnt(module_home: Home, scars: Path) -> Version:
    made: Version = run(
        "finetune",
        module_home,
        ConsoleJournal(),
        dataset=str(scars),
        name="burnt",
        epochs=12,
        foundation="none",
    )
    return made


def data_uri(path: Path) -> str:
    return "data:image/tiff;base64," + base64.b64encode(path.read_bytes()).decode()


def test_what_is_filled_in_while_pretraining_can_be_seen(foundation: Version) -> None:
    listed = mlflow.MlflowClient().list_artifacts(foundation.run_id, "reconstructions")
    assert len(listed) == 2  # after the first epoch, and after the second
    path = mlflow.artifacts.download_artifacts(run_id=foundation.run_id, artifact_path=listed[-1].path)
    with Image.open(path) as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 50


def test_a_segmentation_is_registered_beside_its_floor(burnt: Version) -> None:
    assert (burnt.tags["metric"], burnt.tags["task"], burnt.tags["foundation"]) == ("miou", "binary", "none")
    figures = mlflow.MlflowClient().get_run(burnt.run_id).data.metrics
    assert float(burnt.tags["value"]) == pytest.approx(figures["test_miou"], rel=1e-5)
    assert "floor_U_Net_from_scratch_miou" in figures
    assert {"test_iou_0", "test_iou_1", "floor_pixel_values___random_forest_miou"} <= set(figures)
    assert figures["test_miou"] > 0.6  # the mask is what is dark


def test_the_scene_in_another_unit_is_one_reject_that_names_both(burnt: Version) -> None:
    rejects = pd.read_csv(
        mlflow.artifacts.download_artifacts(run_id=burnt.run_id, artifact_path="rejects.csv")
    )
    assert len(rejects) == 1
    reason = rejects["reason"][0]
    assert "display bytes" in reason
    assert "reflectance × 10000" in reason


def test_worst_chips_are_drawn_and_figures_of_each_kept(burnt: Version) -> None:
    page = mlflow.artifacts.load_text(f"runs:/{burnt.run_id}/worst_errors.html")
    assert page.count("<svg") == 4  # of the eight chips of two scenes that are held out
    path = mlflow.artifacts.download_artifacts(run_id=burnt.run_id, artifact_path="test_predictions.parquet")
    table = pd.read_parquet(path)
    assert len(table) == 8
    assert {"row", "image", "accuracy", "pixel values + random forest: accuracy"} <= set(table.columns)


def test_classes_have_their_accuracies_and_areas(burnt: Version) -> None:
    path = mlflow.artifacts.download_artifacts(run_id=burnt.run_id, artifact_path="classes.csv")
    table = pd.read_csv(path)
    assert table["mapped_share"].sum() == pytest.approx(1)
    assert {"users_accuracy", "producers_accuracy", "iou", "estimated_share_95"} <= set(table.columns)
    kept = {entry.path for entry in mlflow.MlflowClient().list_artifacts(burnt.run_id)}
    assert {"calibration.png", "result.png", "leakage.png"} <= kept
    path = mlflow.artifacts.download_artifacts(run_id=burnt.run_id, artifact_path="leakage.csv")
    metres = pd.read_csv(path)["metres"]
    assert metres.max() == pytest.approx(20_000 - SIDE * 20, rel=0.001)  # scenes lie 20 km apart
    assert metres.min() == 0  # a border of blocks may run through one


def test_chips_are_answered_alike_by_mlflow_and_by_a_file(
    module_home: Home, burnt: Version, scars: Path, tmp_path: Path, journal: Any
) -> None:
    pixels, _ = scene(3)
    whole = write_scene(tmp_path / "scene.tif", pixels, BANDS)
    ask(module_home, journal, model="burnt", dataset=whole, output=tmp_path / "out.parquet")
    answered = pd.read_parquet(tmp_path / "out.parquet")
    assert answered["status"].tolist() == ["ok"] * 4
    assert answered[["row", "column"]].to_numpy().tolist() == [[0, 0], [0, 16], [16, 0], [16, 16]]
    assert answered["row"].dtype == np.int64
    assert "1 of 1 images are larger than a chip of 16 × 16 pixels: each becomes several rows" in journal.text
    shares = answered[["mask_share_0", "mask_share_1"]].to_numpy()
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)

    corners = [(row, column) for row in (0, 16) for column in (0, 16)]
    cut = [pixels[:, row : row + 16, column : column + 16] for row, column in corners]
    chips = [data_uri(write_scene(tmp_path / f"{index}.tif", each, BANDS)) for index, each in enumerate(cut)]
    model = mlflow.pyfunc.load_model(f"models:/burnt/{burnt.version}")
    table = model.predict(pd.DataFrame({"image": [*chips, "data:image/tiff;base64,AAAA"]}))
    assert table["status"].tolist() == ["ok"] * 4 + ["rejected"]
    np.testing.assert_allclose(table["mask_share_1"][:4], shares[:, 1], rtol=1e-5)


def test_a_map_is_made_of_a_scene_on_the_web_and_of_a_stac_item(
    module_home: Home, burnt: Version, tmp_path: Path
) -> None:
    pixels, _ = scene(4)
    write_scene(tmp_path / "web/scene.tif", pixels, BANDS, column=3)
    assets = {}
    for name, values in zip(BANDS, pixels, strict=True):
        write_scene(tmp_path / f"web/item/{name}.tif", values[None], column=3)
        told = {"type": "image/tiff", "eo:bands": [{"name": name}], "href": f"./item/{name}.tif"}
        assets[name] = told
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "fire", "links": [], "assets": assets,
        "geometry": None, "properties": {"datetime": "2020-08-01T00:00:00Z", "platform": "sentinel-2a"},
    }  # fmt: skip
    (tmp_path / "web/item.json").write_text(json.dumps(item))
    here = tmp_path / "here.tif"
    ask(module_home, ConsoleJournal(), model="burnt", dataset=tmp_path / "web/scene.tif", output=here)
    with serving(tmp_path / "web") as web:
        for name in ("scene.tif", "item.json"):
            made = tmp_path / f"{name}.map.tif"
            ask(module_home, ConsoleJournal(), model="burnt", dataset=f"{web.url}/{name}", output=made)
            with rasterio.open(made) as found, rasterio.open(here) as expected:
                assert (found.crs, found.transform) == (expected.crs, expected.transform)
                np.testing.assert_array_equal(found.read(), expected.read())
                assert found.tags()["input_digest"] != expected.tags()["input_digest"]


def test_a_map_lies_where_its_scene_does_and_says_what_chips_say(
    module_home: Home, burnt: Version, tmp_path: Path, journal: Any
) -> None:
    pixels, _ = scene(4)
    chip = write_scene(tmp_path / "chip.tif", pixels[:, :16, :16], BANDS, column=3)
    ask(module_home, journal, model="burnt@champion", dataset=chip, output=tmp_path / "map.tif")
    _, predictor = registry.load("burnt")
    source = GEOSPATIAL.open(chip, predictor.spec)
    [row] = source.stream()
    expected = predictor.predict_pixels([predictor.encode(predictor.read(row))])[0, :, 0]  # type: ignore[arg-type]
    with rasterio.open(tmp_path / "map.tif") as made, rasterio.open(chip) as asked:
        assert (made.crs, made.transform, made.shape) == (asked.crs, asked.transform, asked.shape)
        assert (made.read(1).ravel() == (expected >= 0.5)).all()
        chances = made.read(2).ravel() / 100
        np.testing.assert_allclose(chances, np.maximum(expected, 1 - expected), atol=0.006)
        tags = made.tags()
    assert (tags["model"], tags["mlflow_run"]) == ("burnt/1", burnt.run_id)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "map.tif: 0 " in journal.text


def test_a_version_that_goes_by_places_answers_chips_and_maps_by_theirs(
    module_home: Home, scars: Path, tmp_path: Path, journal: Any
) -> None:
    told = {"dataset": str(scars), "name": "placed", "epochs": 2, "floor_epochs": 0, "foundation": "none"}
    run("finetune", module_home, journal, **told, whereabouts=True)
    _, predictor = registry.load("placed")
    pixels, _ = scene(4)
    chip = write_scene(tmp_path / "chip.tif", pixels[:, :16, :16], BANDS, column=3)
    [row] = GEOSPATIAL.open(chip, predictor.spec).stream()
    sample = predictor.encode(predictor.read(row))  # type: ignore[arg-type]
    assert np.isfinite(sample["place"]).all()
    assert np.isnan(sample["day"]).all()  # no file says when it was taken
    here, elsewhere, nowhere = (
        predictor.predict_pixels([{**sample, "place": np.array(place, np.float32)}])[0, :, 0]
        for place in (sample["place"], (-60.0, -10.0), (np.nan, np.nan))
    )
    assert np.abs(here - elsewhere).max() > 1e-5
    without = predictor.predict_pixels([{"pixels": sample["pixels"]}])[0, :, 0]
    np.testing.assert_array_equal(nowhere, without)

    ask(module_home, journal, model="placed", dataset=chip, output=tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as made:
        chances = made.read(2).ravel() / 100
        np.testing.assert_allclose(chances, np.maximum(here, 1 - here), atol=0.006)


def test_a_finer_scene_is_mapped_where_that_is_asked_for_with_its_patches(
    module_home: Home, burnt: Version, tmp_path: Path, journal: Any
) -> None:
    pixels, _ = scene(4)
    fine = write_scene(tmp_path / "fine.tif", np.kron(pixels, np.ones((1, 4, 4), np.uint16)), BANDS, column=3)
    with rasterio.open(fine, "r+") as file:
        place = file.transform
        file.transform = rasterio.Affine(5, 0, place.c, 0, -5, place.f)
    told = {"model": "burnt@champion", "dataset": fine, "output": tmp_path / "map.tif"}
    with pytest.raises(GroundworkError, match=r"fine.tif: pixels of .* are expected: --resample nearest"):
        ask(module_home, journal, **told)
    with pytest.raises(GroundworkError, match=r"must end in \.gpkg"):
        ask(module_home, journal, **told, polygons=tmp_path / "patches.shp")
    with pytest.raises(GroundworkError, match=r"patches of a map, and out\.parquet is none"):
        ask(module_home, journal, **{**told, "output": tmp_path / "out.parquet"}, polygons="patches.gpkg")
    assert [path.name for path in tmp_path.iterdir()] == ["fine.tif"]

    made = ask(module_home, journal, **told, resample="bilinear", polygons=tmp_path / "patches.gpkg")
    with rasterio.open(tmp_path / "map.tif") as answer:
        assert (answer.transform, answer.shape) == (place, (SIDE, SIDE))
    assert made.described()["polygons"] == str(tmp_path / "patches.gpkg")
    told_of, _, _, columns = read_layer(tmp_path / "patches.gpkg")
    table = dict(zip(told_of["fields"], columns, strict=True))
    assert table["pixels"].sum() == SIDE * SIDE
    assert table["area_ha"].sum() == pytest.approx(SIDE * SIDE * abs(place.determinant) / 1e4, rel=2e-3)


def test_patches_stay_among_the_outputs_unless_the_user_is_trusted(
    module_home: Home, burnt: Version, tmp_path: Path
) -> None:
    chip = module_home.inbox / "chip.tif"
    module_home.inbox.mkdir(parents=True, exist_ok=True)
    write_scene(chip, scene(4)[0][:, :16, :16], BANDS, column=3)
    journal = ConsoleJournal()
    journal.trusted = False
    with pytest.raises(GroundworkError, match="lies outside"):
        ask(module_home, journal, model="burnt", dataset="chip.tif", polygons=tmp_path / "patches.gpkg")


def test_a_scene_in_other_units_is_refused_and_leaves_nothing(
    module_home: Home, burnt: Version, scars: Path, tmp_path: Path, journal: Any
) -> None:
    with pytest.raises(GroundworkError, match=r"TCI_R, TCI_G in display bytes where .* are expected"):
        ask(
            module_home,
            journal,
            model="burnt",
            dataset=scars / "images/colour.tif",
            output=tmp_path / "map.tif",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_foundation_lends_its_weights_and_keeps_its_statistics(
    module_home: Home, foundation: Version, scars: Path, journal: Any
) -> None:
    assert (foundation.tags["kind"], foundation.tags["metric"]) == ("foundation", "heldout_loss")
    version = run(
        "finetune", module_home, journal, dataset=str(scars), name="probed", epochs=2, mode="probe",
        foundation=foundation.reference,
    )  # fmt: skip
    assert version.tags["foundation"] == foundation.reference
    first, second = (registry.load(reference)[1].encoder for reference in (foundation.reference, "probed"))
    weights = {name: value for name, value in first.state_dict().items() if not name.startswith("decoder.")}
    assert weights.keys() == second.state_dict().keys()
    assert all((value == second.state_dict()[name]).all() for name, value in weights.items())


def test_a_foundation_with_other_patches_is_refused(
    module_home: Home, foundation: Version, scars: Path, journal: Any
) -> None:
    with pytest.raises(GroundworkError, match="patches of 8 pixels, the encoding asks for 4"):
        run("finetune", module_home, journal, dataset=str(scars), foundation=foundation.reference, patch=4)


@pytest.fixture(scope="module")
def cover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures for each of two classes, without a place."""
    folder = tmp_path_factory.mktemp("data") / "cover"
    random = np.random.default_rng(5)
    for name, level in {"bright": 180, "dark": 60}.items():
        (folder / name).mkdir(parents=True)
        for index in range(20):
            image = random.normal(level, 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / name / f"{index}.png")
    return folder


def test_scene_classes_come_from_folders_and_no_place_is_said(
    module_home: Home, cover: Path, tmp_path: Path, journal: Any
) -> None:
    values = {"dataset": str(cover), "task": "classification", "name": "cover", "foundation": "none"}
    version = run("finetune", module_home, journal, **values, epochs=4)
    assert "no scene of cover has a location: test chips are drawn at random" in journal.text.lower()
    assert (version.tags["task"], version.tags["metric"]) == ("binary", "auroc")
    assert float(version.tags["value"]) == 1.0
    remarks = mlflow.MlflowClient().get_run(version.run_id).data.tags["remarks"]
    assert "drawn at random" in remarks

    written = ask(module_home, journal, model="cover", dataset=cover, output=tmp_path / "out.csv")
    table = pd.read_csv(written.path)
    right = (table["class_prediction"] > 0.5) == (table["class"] == "dark")
    assert (written.rows, right.mean()) == (40, 1.0)
    with pytest.raises(GroundworkError, match=r"must end in \.parquet or \.csv"):
        ask(module_home, journal, model="cover", dataset=cover, output=tmp_path / "map.tif")
    with pytest.raises(GroundworkError, match="no scene has a location"):
        run("finetune", module_home, journal, **values, split="blocks")


def test_a_quantity_for_each_pixel_is_a_regression(
    module_home: Home, scars: Path, tmp_path: Path, journal: Any
) -> None:
    for index in range(12):
        pixels, _ = scene(index)
        write_scene(tmp_path / f"set/images/{index}.tif", pixels, BANDS, index)
        height = pixels[:1].astype(np.float32) / 100
        height[0, :2] = -9999
        height[height == -9999] = np.nan
        write_scene(tmp_path / f"set/masks/{index}.tif", height, (), index)
    version = run(
        "finetune", module_home, journal, dataset=str(tmp_path / "set"), name="height", unit="m", epochs=2,
        foundation="none",
    )  # fmt: skip
    assert (version.tags["metric"], version.tags["unit"]) == ("mae", "m")
    ask(
        module_home,
        journal,
        model="height",
        dataset=tmp_path / "set/images/0.tif",
        output=tmp_path / "map.tif",
    )
    with rasterio.open(tmp_path / "map.tif") as made:
        assert (made.count, made.dtypes[0], made.units[0]) == (1, "float32", "m")
        assert 5 < np.nanmean(made.read(1)) < 40


def test_rasters_are_retrained_when_scenes_come_in(
    module_home: Home, burnt: Version, scars: Path, journal: Any
) -> None:
    settings = settings_class("retrain", "geospatial")(model=["burnt"])
    [outcome] = retrain(GEOSPATIAL, settings, module_home, journal)
    assert outcome.outcome == "unchanged"
    pixels, mask = scene(99)
    write_scene(scars / "images/new.tif", pixels, BANDS, 60)
    write_scene(scars / "masks/new.tif", mask, (), 60)
    # A form could not reach the folder; this journal speaks for the user's own shell.
    [outcome] = retrain(GEOSPATIAL, settings, module_home, journal)
    assert outcome.outcome in {"promoted", "refused"}
    assert outcome.version == "burnt/2"
    assert "data changed since burnt/1" in outcome.reason
    assert registry.resolve("burnt/2").tags["warm_start"] == "burnt/1"
