"""Tiles become one answer: no seams, no gaps, whatever their order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scenes_to_map import (
    BIOMASS,
    BURNT,
    CHIP,
    burnt,
    nothing,
    of_pixels,
    source_of,
    write_scene,
)

from domains.contract import Sample
from domains.geospatial import maps
from domains.geospatial.blending import RowBlend, sections, tile_starts, tile_weights
from domains.geospatial.maps import write_map


@pytest.mark.parametrize("chip", [2, 8, 16, 50])
@pytest.mark.parametrize("length", [1, 7, 16, 17, 100])
def test_tiles_cover_every_pixel_and_overlap_by_a_quarter(length: int, chip: int) -> None:
    starts = tile_starts(length, chip)
    covered = np.zeros(length, dtype=int)
    for start in starts:
        covered[start : start + chip] += 1
    assert covered.min() >= 1
    assert starts[-1] == max(length - chip, 0)
    assert all(before + chip - after >= chip // 4 for before, after in pairwise(starts))


def test_the_blend_does_not_depend_on_the_order_of_tiles() -> None:
    random = np.random.default_rng(0)
    tiles = [(column, random.random((CHIP, CHIP, 3), dtype=np.float32)) for column in tile_starts(100, CHIP)]
    blended = []
    for order in (tiles, tiles[::-1], random.permutation(np.array(tiles, dtype=object)).tolist()):
        blend = RowBlend(sections(100, CHIP, 100)[0], CHIP, 3)
        for column, answers in order:
            blend.add(column, answers)
        blended.append(blend.take(CHIP)[0])
    np.testing.assert_array_equal(blended[0], blended[1])
    np.testing.assert_array_equal(blended[0], blended[2])


def test_answers_pass_smoothly_from_tile_to_tile(tmp_path: Path) -> None:
    """A model that sees tiles, not pixels: each says its own, and no step is larger than the ramp's."""
    write_scene(tmp_path / "scene.tif", CHIP, 200)
    said = iter(range(1000))

    def predict(samples: Sequence[Sample]) -> np.ndarray:
        return np.stack([np.full((CHIP * CHIP, 1), next(said) % 2, np.float32) for _ in samples])

    write_map(source_of(tmp_path / "scene.tif"), BIOMASS, predict, tmp_path / "map.tif", {}, nothing)
    with rasterio.open(tmp_path / "map.tif") as answer:
        row = answer.read(1)[CHIP // 2, 80:]
    steepest = np.abs(np.diff(tile_weights(CHIP)[CHIP // 2])).max()
    assert row.min() == 0
    assert row.max() == 1
    assert np.abs(np.diff(row)).max() <= steepest * 1.1 < 0.5


def test_a_tile_that_knows_nothing_leaves_the_answer_to_its_neighbours() -> None:
    blend = RowBlend(sections(28, CHIP, 28)[0], CHIP, 1)
    blend.add(0, np.full((CHIP, CHIP, 1), 0.25))
    blend.add(12, np.full((CHIP, CHIP, 1), np.nan))
    row = blend.take(CHIP)[0][3, :, 0]
    assert (row[:CHIP] == 0.25).all()
    assert np.isnan(row[CHIP:]).all()


def test_batches_are_bounded(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene.tif", 20, 2000)
    sizes = []

    def predict(samples: Sequence[Sample]) -> np.ndarray:
        sizes.append(len(samples))
        assert {(sample["pixels"].shape, sample["pixels"].dtype.name) for sample in samples} == {
            ((3, 16, 16), "float32")
        }
        return of_pixels(burnt)(samples)

    write_map(source_of(tmp_path / "scene.tif"), BURNT, predict, tmp_path / "map.tif", {}, nothing)
    assert max(sizes) == maps.MOST_TILES
    assert sum(sizes) == 2 * len(tile_starts(2000, CHIP))
