"""One map, in a process of its own: ``python -m benchmarks.mapping MODEL SCENE MAP THREADS``.

Prints as JSON what it took: seconds of the model, of everything up to the last answered pixel, and of the
overviews and the final file; and the most memory that was resident.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch

from domains.abilities import MapWriter
from domains.contract import Sample
from domains.geospatial.maps import STREAMED
from models.encoder import Batch
from models.predictor import Predictor

PASSES = 15
"""Passes that are looked at together."""


class ModelClock:
    """Seconds that the forward passes of a predictor's models take by themselves.

    Beside some passes the next rows are read, which slows them: by tile, the median of a few passes one after
    the other stands for each of them. Most have the processor to themselves, and all of them the same moods
    of the machine.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._began = 0.0
        self._passes: list[tuple[int, float]] = []
        """Tiles and seconds of each."""
        for model in predictor.models:
            model.register_forward_pre_hook(self._start)
            model.register_forward_hook(self._stop)

    @property
    def seconds(self) -> float:
        total = 0.0
        for first in range(0, len(self._passes), PASSES):
            together = self._passes[first : first + PASSES]
            total += sum(tiles for tiles, _ in together) * median(took / tiles for tiles, took in together)
        return total

    def _start(self, *_: Any) -> None:
        self._began = perf_counter()

    def _stop(self, model: Any, inputs: tuple[Batch, ...], *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._passes.append((len(inputs[0]["pixels"]), perf_counter() - self._began))


def make_map(
    predictor: Predictor,
    scene: Path,
    path: Path,
    predict: Callable[[Sequence[Sample]], np.ndarray] | None = None,
) -> dict[str, float]:
    """Map ``scene``; seconds by part."""
    source = predictor.domain.open(scene, predictor.spec)
    clock = ModelClock(predictor)
    began = perf_counter()
    streamed = began

    def hear(fraction: float) -> None:
        nonlocal streamed
        if fraction <= STREAMED:
            streamed = perf_counter()

    writer, target = cast(MapWriter, predictor.domain), predictor.pixel_target
    if target is None:
        raise TypeError("a map is made by a model that answers pixels")
    writer.write_map(source, target, predict or predictor.predict_pixels, path, {"model": "benchmark"}, hear)
    return {
        "model_s": clock.seconds,
        "stream_s": streamed - began,
        "finish_s": perf_counter() - streamed,
    }


def peak_gb() -> float:
    """Most memory that was resident: getrusage would tell of the parent, if that had more."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def main() -> None:
    folder, scene, path, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    took = make_map(Predictor.load(Path(folder)), Path(scene), Path(path))
    told = {**took, "peak_gb": peak_gb()}
    print(json.dumps({name: round(value, 3) for name, value in told.items()}))


if __name__ == "__main__":
    main()
