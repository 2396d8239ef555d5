"""The benchmark of maps: its scene and model are what it says, and its parts fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rio_cogeo.cogeo import cog_validate

from benchmarks import generated_scenes, peers, scene_inference
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


def test_maps_are_timed_on_a_machine_where_no_benchmark_has_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (peers, generated_scenes):
        monkeypatch.setattr(module, "CACHE", tmp_path / "fresh" / "cache")
    beside = {"stream_s": 2.0, "finish_s": 0.5, "model_s": 1.5, "peak_gb": 0.5}
    peer = {"seconds": 5.0, "model_s": 1.5, "peak_gb": 0.5}  # what would need TerraTorch's environment
    monkeypatch.setattr(scene_inference, "_in_turn", lambda *_: (beside, peer))
    told = scene_inference.time_maps(300, 200, 100, "tiny", 64, 16, threads=1, seed=0)
    assert told["is_valid_cog"]
    assert told["cog_says"] == []
    assert min(told[name] for name in ("model_s", "stream_s", "finish_s", "peak_gb")) > 0
    assert told["ours_over_terratorch"] == 2
