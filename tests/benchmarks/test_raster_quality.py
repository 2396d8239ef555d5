"""The benchmark of raster quality: who is held out, who is drawn, and what is written for a fine-tuning."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin

from benchmarks import raster_quality
from domains.geospatial import GEOSPATIAL
from flows.home import Home

CLASSES = ("Forest", "River")
NAMES = [f"2750/{name}/{name}_{number}.jpg" for name in CLASSES for number in range(1, 201)]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "chips.zip"
    picture = tmp_path / "chip.jpg"
    with ZipFile(path, "w") as target:
        for place, name in enumerate(NAMES[::40]):
            Image.fromarray(np.full((64, 64, 3), 20 * place, np.uint8)).save(picture)
            target.write(picture, name)
    return path


def test_what_is_held_out_never_depends_on_the_draw() -> None:
    draws = [raster_quality.eurosat_sides(NAMES, labels, seed) for labels in ("10", "all") for seed in (0, 1)]
    held_out = {name for name in NAMES if raster_quality.is_held_out(name)}
    assert 20 < len(held_out) < 60
    assert all({name for name, side in draw.items() if side == "test"} == held_out for draw in draws)
    few, other, every, _ = draws
    assert few.keys() != other.keys()
    assert every.keys() == set(NAMES)
    kept = Counter((name.split("/")[1], side) for name, side in few.items() if side != "test")
    assert kept == {(name, side): count for name in CLASSES for side, count in (("train", 8), ("val", 2))}


def test_an_archive_says_its_classes_and_its_sides(archive: Path, tmp_path: Path) -> None:
    sides = dict(zip(NAMES[::40], ["train", "val", "test", "train", "train"] * 2, strict=True))
    written = raster_quality.write_eurosat(archive, tmp_path / "set.zip", sides)
    source = GEOSPATIAL.open(written, GEOSPATIAL.encoding())
    assert (source.split, source.targets) == ("given", ("label",))
    found = Counter((row.fields["label"], row.fields["split"]) for row in source.stream())
    assert found == Counter((name.split("/")[1], side) for name, side in sides.items())


def test_neighbours_are_those_of_frozen_embeddings(tmp_path: Path) -> None:
    archive, picture, chance = tmp_path / "chips.zip", tmp_path / "chip.jpg", np.random.default_rng(0)
    sides = {}
    with ZipFile(archive, "w") as target:
        for place in range(24):
            name = f"2750/{('Dark', 'Bright')[place % 2]}/{place}.jpg"
            pixels = chance.normal(60 + 120 * (place % 2), 20, (64, 64, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(picture)
            target.write(picture, name)
            sides[name] = "test" if place < 8 else "train"

    def write(path: Path) -> Path:
        return raster_quality.write_eurosat(archive, path.with_suffix(".zip"), sides)

    cell = raster_quality.Cell("eurosat", "from_scratch_knn", 0, "8", "digest", write, {})
    found = raster_quality.nearest(cell, Home(tmp_path / "home"), tmp_path)
    assert found["value"] == found["accuracy"] == 1.0


def test_each_fire_is_tested_on_once() -> None:
    fires = [f"fire{number}.tif" for number in range(15)]
    folds = [raster_quality.fold_of(fires, fold) for fold in range(raster_quality.FOLDS)]
    assert all(fold.keys() == set(fires) for fold in folds)
    tested = Counter(fire for fold in folds for fire, side in fold.items() if side == "test")
    assert tested == dict.fromkeys(fires, 1)
    assert all({"train", "val", "test"} == set(fold.values()) for fold in folds)


def test_fires_are_those_of_all_named_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster_quality, "DATA", tmp_path)
    five, two, one = ("B2", "B3", "B4", "B8", "B12"), ("B12", "B8"), ("B8",)
    bands_of = dict(enumerate([five, two, one, five, two, five, two, five]))
    for part in ("images", "images_before", "masks"):
        (tmp_path / "burn_scars" / part).mkdir(parents=True)
        for number, bands in bands_of.items():
            before = two if number == 7 else five
            held = {"images": bands, "images_before": before, "masks": ("mask",)}[part]
            path = tmp_path / "burn_scars" / part / f"fire{number}.tif"
            with rasterio.open(
                path, "w", driver="GTiff", height=8, width=8, count=len(held), dtype="uint8",
                crs="EPSG:32633", transform=from_origin(500_000, 5_000_000, 10, 10),
            ) as file:  # fmt: skip
                file.descriptions = held

    def fires(use_bands: str, *, pairs: bool) -> list[int]:
        options = Namespace(pairs=pairs, use_bands=use_bands, folds=[0], models=["ours"], seed=0)
        [cell] = raster_quality.burn_cells(options)
        assert cell.told["use_bands"] == use_bands
        written = cell.write(tmp_path / f"set {use_bands} {pairs}")
        parts = {path.parent.name for path in written.glob("*/*/*.tif")}
        assert parts == {"images", "masks", *(["images_before"] if pairs else [])}
        return sorted(int(path.stem[4:]) for path in written.glob("*/images/*.tif"))

    assert fires("B8,B12", pairs=False) == [0, 1, 3, 4, 5, 6, 7]
    assert fires("B2,B3,B4,B8,B12", pairs=False) == [0, 3, 5, 7]
    assert fires("B2,B3,B4,B8,B12", pairs=True) == [0, 3, 5]


@pytest.mark.parametrize(("has_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_cell_says_what_it_was_measured_on(
    has_gpu: bool, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def measured(name: str, **key: Any) -> dict[str, Any]:
        told.update(key)
        return dict.fromkeys(("value", "seconds", "steps", "floors"))

    monkeypatch.setattr(raster_quality, "measured", measured)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    cell = raster_quality.Cell("eurosat", "from_scratch", 0, "10", "digest", lambda path: path, {})
    raster_quality._line(cell, Home(tmp_path), tmp_path, Namespace(again=False))
    assert told["device"] == device


def test_lines_become_means_with_intervals() -> None:
    lines = [
        {"set": "burn_scars", "labels": f"fold {fold}", "seed": 0, "model": model, "value": value,
         "seconds": 10.0, "floors": {"forest": {"iou_1": 0.3, "miou": 0.4 + 0.2 * fold}}}
        for model, values in (("ours", (0.6, 0.8)), ("from_scratch", (0.5, 0.5)))
        for fold, value in enumerate(values)
    ]  # fmt: skip
    [rows] = raster_quality.table(lines)["labels"].values()
    reach = round(12.706 * 0.1, 4)  # Student's t of one degree of freedom, times the standard error
    assert rows["ours"] == {"mean": 0.7, "seconds": 20, "interval": pytest.approx(reach, abs=1e-3)}
    # Floors are of two folds, however many models stand beside them.
    assert rows["forest"] == {"mean": 0.5, "seconds": 0, "interval": pytest.approx(reach, abs=1e-3)}
