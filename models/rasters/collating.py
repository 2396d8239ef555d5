"""Chips of any size and of several sources joined into batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from domains.contract import GroundworkError, Sample
from models.encoder import Batch
from models.rasters.bands import BandReader


def collated(samples: Sequence[Sample], reader: BandReader, dates: int, patch: int) -> Batch:
    """Samples -> ``size`` and ``source`` int64 [B], ``pixels`` float32 [B, C, H, W] or [B, T, C, H, W].

    Chips smaller than the largest are padded with NaN below and to the right, and those with fewer bands
    behind their own. Other arrays are stacked as they are. Raises GroundworkError for chips of other
    bands or dates, or whose sides are no multiple of the patch.
    """
    if not reader.readings:
        raise GroundworkError("the encoder has no statistics of its bands yet: fit it to its input first")
    sources = [int(sample.get("source", 0)) for sample in samples]
    for sample, source in zip(samples, sources, strict=True):
        _check(sample["pixels"].shape, reader, source, dates, patch)
    pixels = torch.from_numpy(_padded([sample["pixels"] for sample in samples]))
    batch = {
        "size": torch.tensor([tokens_of(sample, patch) for sample in samples]),
        "source": torch.tensor(sources),
        "pixels": pixels.nan_to_num_(*(torch.nan,) * 3),  # infinite is no data either
    }
    for name in samples[0].keys() - {"pixels", "source"}:
        batch[name] = torch.from_numpy(np.stack([sample[name] for sample in samples]))
    return batch


def _padded(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images float32 [..., C, H, W], NaN where they are smaller than the largest."""
    shapes = np.array([image.shape for image in images])
    largest = tuple(shapes.max(0))
    if (shapes == largest).all():
        # In an array of our own: the batch lies in the order of its axes, however its images do.
        return np.stack(images, out=np.empty((len(images), *largest), np.float32), casting="same_kind")
    padded = np.full((len(images), *largest), np.nan, np.float32)
    for place, image in zip(padded, images, strict=True):
        place[tuple(slice(side) for side in image.shape)] = image
    return padded


def tokens_of(sample: Sample, patch: int) -> int:
    """Patches of all dates of a sample."""
    *dates, _, height, width = sample["pixels"].shape
    return int(np.prod(dates)) * (height // patch) * (width // patch)


def _check(shape: tuple[int, ...], reader: BandReader, source: int, dates: int, patch: int) -> None:
    *own, count, rows, columns = shape
    reading = reader.readings[source]
    if count != len(reading):
        names = ", ".join(str(reader.known[row]["name"]) for row in reading)
        raise GroundworkError(f"a chip holds {count} bands where {len(reading)} are read: {names}")
    if own != ([dates] if dates > 1 else []):
        raise GroundworkError(f"a chip holds {own[0] if own else 1} dates where {dates} are read")
    if rows % patch or columns % patch:
        raise GroundworkError(
            f"a chip of {rows} × {columns} pixels cannot be cut into patches of {patch}: "
            "choose a chip that is a multiple of the patch"
        )
