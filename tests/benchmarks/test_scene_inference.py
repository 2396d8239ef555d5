"""The benchmark of maps: its scene and model are what it says, and its parts fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rio_cogeo.cogeo import cog_validate

from benchmarks import generated_scenes
from benchmarks.mapping import make_map
from benchmarks.scene_inference import traced


def test_a_scene_is_mapped_and_the_model_is_timed_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated_scenes, "CACHE", tmp_path)
    scene = generated_scenes.scene(600, seed=0)
    with rasterio.open(scene) as file:
        assert (file.shape, file.count, file.dtypes[0]) == ((600, 600), 5, "uint16")
        assert (file.block_shapes[0], file.compression.value) == ((512, 512), "DEFLATE")
    made = scene.stat().st_mtime_ns
    assert generated_scenes.scene(600, seed=0).stat().st_mtime_ns == made

    predictor = generated_scenes.model(tmp_path / "model", "tiny", 64, 16, seed=0)
    took = make_map(predictor, scene, tmp_path / "map.tif")
    assert 0 < took["model_s"] < took["stream_s"]
    assert took["finish_s"] > 0
    assert cog_validate(tmp_path / "map.tif", quiet=True) == (True, [], [])

    chips = np.random.default_rng(0).normal(1500, 400, (3, 5, 64, 64)).astype(np.float32)
    expected = predictor.predict_pixels([{"pixels": chip} for chip in chips])
    with torch.inference_mode():
        answered = traced(predictor, bands=5, chip=64, batch=3)(torch.from_numpy(chips))
    np.testing.assert_allclose(answered.numpy().reshape(expected.shape), expected, atol=1e-5)
