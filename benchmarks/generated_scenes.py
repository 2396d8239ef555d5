"""A scene of any size for the benchmarks, and a model of random weights that answers its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window

from benchmarks.peers import CACHE
from benchmarks.raster_training import BANDS, bands, chips
from domains.contract import SplitSpec, Target, TaskSpec
from domains.geospatial import RasterEncoding
from models.predictor import Lineage, Predictor, VersionContract
from models.rasters.vit import RasterViT
from models.settings import Size
from models.tuning import TaskModel

BLOCK = 512
GSD = 20.0
FIELD = 32
"""Pixels on a side of what looks alike in a scene."""
NOISE = 24.0
BURNT = Target(
    name="mask", kind="binary", classes=("unburned", "burned"), level="pixel", values=(0, 1)
)  # fmt: skip


def scene(side: int, seed: int) -> Path:
    """A GeoTIFF of ``side`` × ``side`` pixels, five bands of uint16 in deflated tiles; made once and kept.

    A row of tiles is in memory at a time.
    """
    path = CACHE / "scenes" / f"{side}-{seed}.tif"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.tif")
    random = np.random.default_rng(seed)
    with rasterio.open(
        partial, "w", driver="GTiff", height=side, width=side, count=len(BANDS), dtype="uint16",
        crs="EPSG:32633", transform=from_origin(500_000, 5_000_000, GSD, GSD), tiled=True,
        blockxsize=BLOCK, blockysize=BLOCK, compress="deflate", zlevel=1, num_threads="all_cpus",
        bigtiff="if_safer",
    ) as file:  # fmt: skip
        file.descriptions = BANDS
        for row in range(0, side, BLOCK):
            rows = min(BLOCK, side - row)
            for band in range(1, len(BANDS) + 1):
                fields = random.normal(1500, 400, (-(-rows // FIELD), -(-side // FIELD)))
                pixels = np.kron(fields, np.ones((FIELD, FIELD)))[:rows, :side]
                pixels += random.normal(0, NOISE, pixels.shape)
                values = pixels.clip(1, 10_000).astype(np.uint16)
                file.write(values, band, window=Window(0, row, side, rows))
    partial.replace(path)  # last: what was interrupted is begun again
    return path


def model(folder: Path, size: Size, chip: int, patch: int, seed: int) -> Predictor:
    """A version of random weights that answers whether a pixel burnt, saved in ``folder``."""
    torch.manual_seed(seed)
    encoding = RasterEncoding(chip=chip, patch=patch, bands=bands())
    encoder = RasterViT.create(size, encoding)
    encoder.fit_input(encoding, chips(16, chip, patch, seed))
    encoder.discard_decoder()
    contract = VersionContract(
        kind="task", domain="geospatial", encoding=encoding.model_dump(mode="json"),
        encoding_digest=encoding.digest, split_id="none",
        task=TaskSpec(domain="geospatial", targets=(BURNT,), split=SplitSpec(method="random", seed=seed)),
        lineage=Lineage(
            dataset="none", dataset_origin="none", dataset_digest="none", rows=0, rejects=0,
            foundation="none", code="none", mlflow_run="none", flow_run="none",
        ),
    )  # fmt: skip
    return Predictor.save(folder, contract, TaskModel(encoder, [BURNT], linear_head=False))
