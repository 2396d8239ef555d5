"""The benchmark of raster training sets two models of one size before the same chips."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import raster_training
from domains.geospatial import RasterEncoding


def test_both_models_have_one_size_and_the_figures_fit_together() -> None:
    found = raster_training.time_training(
        "tiny", chip=32, patch=8, batch=4, steps=2, precision="fp32", seed=0, device=torch.device("cpu")
    )
    assert found["tokens"] == 16
    assert abs(found["parameters"] / found["vitmae_parameters"] - 1) < 0.15
    assert found["ours_over_vitmae"] > 0.1
    rate = found["images_per_s"] * found["mflop_per_image"] / 1e3
    assert 0 < found["share_of_gemm_limit"] < 1
    assert abs(rate / found["gemm_gflops"] / found["share_of_gemm_limit"] - 1) < 0.05


def test_products_are_counted_on_the_tokens_that_pass() -> None:
    spec = RasterEncoding(chip=32, patch=8, bands=raster_training.bands())
    samples = [{"pixels": np.ones((5, 32, 32), np.float32) * (1000 + place)} for place in range(8)]
    ours = raster_training.ours_of("tiny", spec, samples)
    one = raster_training.forward_flops(ours, ours.encoder.collate(samples[:1]))
    four = raster_training.forward_flops(ours, ours.encoder.collate(samples[:4]))
    # All but the network that makes the filters, which runs once for a batch.
    assert 3.9 < four / one < 4.0
    tokens, shown, width, inner, layers = 16, 4, 192, 768, 4
    blocks = layers * 2 * shown * (4 * width**2 + 2 * width * inner)
    assert one > blocks + 2 * tokens * (4 * 96**2 + 2 * 96 * 384)
    assert one < 3 * blocks


def test_some_patches_hold_nothing() -> None:
    chips = raster_training.chips(16, 64, 8, 0)
    empty = np.mean([np.isnan(chip["pixels"]).all(0).mean() for chip in chips])
    assert 0.02 < empty < 0.1
