"""The benchmark of chips reads every byte on both sides, and draws from the store what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio

from benchmarks import chip_reading
from benchmarks.chip_reading import Took


def test_scenes_are_deflated_with_a_place_and_compress_like_photographs(tmp_path: Path) -> None:
    [file] = chip_reading.write_scenes(tmp_path / "scenes", 1, side=512, tile=256, seed=0)
    with rasterio.open(file) as opened:
        assert (opened.count, opened.shape, opened.dtypes[0]) == (6, (512, 512), "uint16")
        assert opened.compression.name == "deflate"
        assert opened.block_shapes[0] == (256, 256)
        assert opened.crs.to_epsg() == 32632
        assert opened.nodata == 0
        pixels = opened.read()
    assert 0.01 < (pixels == 0).mean() < 0.02
    assert 0.4 < file.stat().st_size / pixels.nbytes < 0.95
    assert np.corrcoef(pixels[0, 100:].ravel(), pixels[5, 100:].ravel())[0, 1] > 0.5


def test_what_is_materialised_comes_in_batches(tmp_path: Path) -> None:
    files = chip_reading.write_scenes(tmp_path / "scenes", 2, side=320, tile=128, seed=0)
    store, figures = chip_reading.time_materialising(files, tmp_path, chip=64, turns=1)
    assert figures["materialised_chips"] == len(store) == 2 * 25
    assert figures["share_of_bare_read"] > 0
    assert figures["share_of_bare_read_busy"] > 0
    assert figures["stored_over_read"] >= 0.5
    with rasterio.open(files[1]) as opened:
        last = opened.read(window=((256, 320), (256, 320)))
    np.testing.assert_array_equal(store[-1]["pixels"], last)

    spec = chip_reading.GEOSPATIAL.open(tmp_path / "scenes", chip_reading.encoding(64)).encoding
    ours = chip_reading.batches_of(store, spec, batch=8, chips=40)
    loading = chip_reading.time_loading(ours, lambda seed: Took(4.0, 2.0), chips=40, turns=2)
    assert loading["torchgeo_chips_per_s"] == 10
    assert abs(loading["ours_over_torchgeo"] - loading["chips_per_s"] / 10) < 1
