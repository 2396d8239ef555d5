"""Simulated scenes: the same everywhere, honest about themselves, and hard enough."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import jaccard_score

from domains.contract import GroundworkError, Record, Reject
from domains.geospatial import GEOSPATIAL, simulate
from domains.geospatial.bands import RasterEncoding
from domains.geospatial.chips import Chip
from domains.geospatial.floors import pixel_features
from domains.geospatial.simulate import (
    NODATA,
    SCALE,
    UNLABELLED,
    Dataset,
    SimulatedScene,
    embedded,
    materialise,
    simulate_scene,
)
from domains.geospatial.simulator.spectra import (
    BUILT_UP,
    CLOUD,
    FOREST,
    LAND_COVERS,
    MATERIALS,
    WATER,
)

B2, B3, B4, B8, B11, B12 = range(6)
SCENES = 12


@pytest.fixture(scope="module")
def scenes() -> list[SimulatedScene]:
    return [simulate_scene((5, index), (128, 128)) for index in range(SCENES)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The datasets with few and small scenes, in a cache of their own."""
    few = {
        "simulated-scenes": Dataset(seed=1, scenes=3, shape=(96, 64), labelled=False),
        "simulated-landcover": Dataset(seed=2, scenes=4, shape=(64, 64), labelled=True),
        "simulated-scene": Dataset(seed=3, scenes=1, shape=(70, 90), labelled=False),
    }
    monkeypatch.setattr(simulate, "DATASETS", few)
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --------------------------------------------------------------------------------------------- scenes


def test_a_seed_is_one_scene_on_every_machine() -> None:
    scene = simulate_scene((5, 0), (64, 96))
    # Changes with the simulator; anywhere else, a scene made here would not be the one made there.
    digest = hashlib.sha256(scene.pixels.astype("<u2").tobytes() + scene.cover.tobytes()).hexdigest()
    assert digest[:16] == "4196686e3a1a4af6"
    assert not np.array_equal(scene.pixels, simulate_scene((5, 1), (64, 96)).pixels)


def test_reflectances_are_those_of_the_land_covers(scenes: list[SimulatedScene]) -> None:
    pixels = np.concatenate([scene.pixels.reshape(6, -1) for scene in scenes], axis=1) / SCALE
    cover = np.concatenate([scene.cover.ravel() for scene in scenes])
    assert set(np.unique(cover)) <= {*range(len(LAND_COVERS)), UNLABELLED}
    assert np.bincount(cover)[: len(LAND_COVERS)].min() > 500
    assert pixels[:, cover != UNLABELLED].max() < 1.2

    def typical(code: int) -> np.ndarray:
        return np.median(pixels[:, cover == code], axis=1)

    water, forest, cloud, town = typical(WATER), typical(FOREST), typical(CLOUD), typical(BUILT_UP)
    assert (water[[B8, B11, B12]] < 0.06).all()
    assert water[B3] > water[B8]
    assert (forest[B8] - forest[B4]) / (forest[B8] + forest[B4]) > 0.6
    assert forest[B8] < MATERIALS["vigorous canopy"][B8]
    assert (cloud[[B2, B3, B4, B8]] > 0.4).all()
    assert cloud[B12] < cloud[B8]
    assert abs(town[B8] - town[B4]) < 0.15


def test_published_reflectances_are_reflectances() -> None:
    assert all(len(values) == 6 and min(values) > 0 and max(values) < 1 for values in MATERIALS.values())
    used = {
        material
        for cover in LAND_COVERS
        for state in (*cover.states, *([cover.specks] if cover.specks else []))
        for material in (state.first, state.second)
    }
    assert used == set(MATERIALS)


def test_masks_lie_on_their_pixels(scenes: list[SimulatedScene]) -> None:
    def scatter(scene: SimulatedScene, shift: int) -> float:
        """Variance of the near infrared within the classes, with the mask moved."""
        cover = np.roll(scene.cover, (shift, shift), (0, 1))
        near_infrared = scene.pixels[B8] / SCALE
        return sum(
            float(near_infrared[cover == code].var() * (cover == code).sum()) for code in np.unique(cover)
        )

    aligned, moved = (sum(scatter(scene, shift) for scene in scenes) for shift in (0, 2))
    assert aligned < 0.97 * moved


def test_pixels_beyond_the_swath_have_neither_value_nor_label(scenes: list[SimulatedScene]) -> None:
    for scene in scenes:
        beyond = scene.cover == UNLABELLED
        np.testing.assert_array_equal((scene.pixels == NODATA).all(axis=0), beyond)
        np.testing.assert_array_equal((scene.pixels == NODATA).any(axis=0), beyond)
    shares = [np.mean(scene.cover == UNLABELLED) for scene in scenes]
    assert any(shares)
    assert max(shares) < 0.5


@pytest.mark.slow
def test_pixels_alone_tell_the_cover_only_in_part() -> None:
    """Context must pay: a forest of single pixels, tested on other scenes, is neither lost nor done."""
    scenes = [simulate_scene((6, index), (128, 128)) for index in range(32)]
    features = [
        pixel_features(Record(0, "", Chip(scene.pixels / SCALE, "", 0, 0, "", ()))) for scene in scenes
    ]
    rng = np.random.default_rng(0)

    def sample(which: slice, count: int) -> tuple[np.ndarray, np.ndarray]:
        cover = np.concatenate([scene.cover.ravel() for scene in scenes[which]])
        chosen = rng.choice(np.flatnonzero(cover != UNLABELLED), count, replace=False)
        return np.concatenate(features[which])[chosen], cover[chosen]

    forest = RandomForestClassifier(20, min_samples_leaf=3, random_state=0)
    forest.fit(*sample(slice(24), 10_000))
    values, cover = sample(slice(24, 32), 20_000)
    miou = jaccard_score(cover, forest.predict(values), average="macro")
    assert 0.5 < miou < 0.8


# ------------------------------------------------------------------------------------------- datasets


def test_files_say_what_they_are_and_where(small: Path) -> None:
    folder = materialise("simulated-landcover")
    assert folder.parent == small
    images, masks = sorted(folder.glob("images/*.tif")), sorted(folder.glob("masks/*.tif"))
    assert [path.name for path in images] == [path.name for path in masks]
    assert len(images) == 4
    corners = set()
    for image_path, mask_path in zip(images, masks, strict=True):
        with rasterio.open(image_path) as image, rasterio.open(mask_path) as mask:
            assert image.descriptions == ("B2", "B3", "B4", "B8", "B11", "B12")
            assert (image.dtypes[0], image.nodata, image.res) == ("uint16", NODATA, (10.0, 10.0))
            assert (mask.dtypes[0], mask.nodata) == ("uint8", UNLABELLED)
            assert (image.crs, image.transform, image.shape) == (mask.crs, mask.transform, mask.shape)
            assert image.crs.to_epsg() == 32632
            assert image.tags()["SIMULATED"] == mask.tags()["SIMULATED"] == "yes"
            assert "Simulated" in image.tags()["TIFFTAG_IMAGEDESCRIPTION"]
            corners.add((image.bounds.left, image.bounds.top))
            scene = simulate_scene((2, int(image_path.stem[-3:])), (64, 64))
            np.testing.assert_array_equal(image.read(), scene.pixels)
            np.testing.assert_array_equal(mask.read(1), scene.cover)
    assert len(corners) == 4


def test_datasets_are_made_once(small: Path) -> None:
    folder = materialise("simulated-scenes")
    made = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert materialise("simulated-scenes") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == made


def test_processes_that_make_the_same_dataset_end_with_one(small: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(materialise, ["simulated-landcover"] * 3))
    assert len(set(folders)) == 1
    assert [path.name for path in small.iterdir()] == [folders[0].name]


def test_nothing_half_made_stays(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seed: tuple[int, ...], shape: tuple[int, int]) -> SimulatedScene:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(simulate, "simulate_scene", interrupted)
        with pytest.raises(KeyboardInterrupt):
            materialise("simulated-scenes")
    assert list(small.iterdir()) == []
    assert len(list(materialise("simulated-scenes").glob("*.tif"))) == 3


def test_a_cache_that_cannot_be_written_is_named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.write_text("a file where a folder is needed")
    with pytest.raises(GroundworkError, match=r"cannot write simulated-scenes to .*GROUNDWORK_CACHE"):
        materialise("simulated-scenes")


def test_embedded_datasets_open_as_any_other_and_say_that_they_are_simulated(small: Path) -> None:
    sources = {name: make(RasterEncoding(chip=32)) for name, make in embedded().items()}
    assert set(sources) == {"simulated-scenes", "simulated-landcover", "simulated-scene"}
    assert GEOSPATIAL.corpus in sources
    for name, source in sources.items():
        assert source.name == name
        assert source.simulated
        assert any("simulated" in remark for remark in source.remarks)
        assert [band.name for band in source.encoding.bands] == ["B2", "B3", "B4", "B8", "B11", "B12"]
        records = [GEOSPATIAL.read(row, source.encoding) for row in source.stream()]
        faults = {record.reason for record in records if isinstance(record, Reject)}
        assert not {fault for fault in faults if "no data" not in fault}
    landcover = sources["simulated-landcover"]
    assert landcover.pixel_targets == ("mask",)
    assert [(spec.value, spec.name, spec.colour) for spec in landcover.classes["mask"]] == [
        (code, cover.name, cover.colour) for code, cover in enumerate(LAND_COVERS)
    ]
    records = [GEOSPATIAL.read(row, landcover.encoding) for row in landcover.stream()]
    groups = GEOSPATIAL.groups([record for record in records if isinstance(record, Record)], "blocks")
    assert len(np.unique(groups)) == 4
    assert sources["simulated-scene"].map_suffix == ".tif"
