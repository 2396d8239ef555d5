"""Raster encoders small enough to train in seconds, and chips with texture for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from domains.contract import EncodingSpec, Sample, TargetSpec
from models.rasters.vit import RasterViT

PATCH = TargetSpec("patch", "token", "reals", 8 * 8)


class Encoding(EncodingSpec):
    """The fields of an encoding of rasters that an encoder reads."""

    chip: int = 32
    patch: int = 8
    bands: tuple[dict[str, Any], ...] = ()
    dates: int = 1


def optical(name: str, wavelength: float, unit: str = "reflectance") -> dict[str, Any]:
    return {"name": name, "wavelength": wavelength, "polarisation": "", "unit": unit, "gsd": 10.0}


def radar(name: str, polarisation: str = "") -> dict[str, Any]:
    return {"name": name, "wavelength": None, "polarisation": polarisation, "unit": "dB", "gsd": 10.0}


RED, GREEN, BLUE = optical("B4", 665), optical("B3", 560), optical("B2", 490)
NIR, SWIR = optical("B8", 842), optical("B11", 1610)
RGB = Encoding(bands=(RED, GREEN, BLUE))


def textures(count: int, bands: int, side: int = 32, seed: int = 0) -> list[Sample]:
    """Chips of sloping stripes, each with a direction and a period of its own."""
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    samples = []
    for _ in range(count):
        angle, period = chance.uniform(0, np.pi), chance.uniform(6, 20)
        stripes = np.sin(2 * np.pi * (rows * np.sin(angle) + columns * np.cos(angle)) / period)
        pixels = np.outer(chance.uniform(0.5, 1, bands), stripes).reshape(bands, side, side)
        pixels += 0.05 * chance.standard_normal(pixels.shape) + np.arange(bands)[:, None, None]
        samples.append({"pixels": pixels.astype(np.float32)})
    return samples


def encoder_of(encoding: Encoding = RGB, seed: int = 0, **overrides: int) -> RasterViT:
    """A small encoder that knows its input."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    encoder = RasterViT.create("tiny", encoding, **{**sizes, **overrides})
    assert isinstance(encoder, RasterViT)
    encoder.fit_input(encoding, textures(20, len(encoding.bands)))
    return encoder.eval()


def embed(encoder: RasterViT, samples: Sequence[Sample]) -> np.ndarray:
    """Pooled embeddings [n, D] of samples embedded in one batch."""
    with torch.no_grad():
        return encoder(encoder.collate(samples)).pooled.numpy()


def with_gap(sample: Sample, rows: slice, columns: slice, bands: slice = slice(None)) -> Sample:
    pixels = sample["pixels"].copy()
    pixels[bands, rows, columns] = np.nan
    return {"pixels": pixels}
