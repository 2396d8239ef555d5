"""One map, in a process of its own: ``python -m benchmarks.mapping MODEL SCENE MAP THREADS``.

Prints as JSON what it took: seconds of the model, of everything up to the last answered pixel, and of the
overviews and the final file; and the most memory that was resident.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any, NamedTuple, cast
from unittest.mock import patch

import numpy as np
import torch

from domains.abilities import MapWriter
from domains.contract import Sample
from domains.geospatial.maps import STREAMED
from domains.geospatial.quick_look import Composite
from domains.geospatial.scenes import Scene
from models.encoder import Batch
from models.predictor import Predictor


class Pass(NamedTuple):
    """A forward pass of a model."""

    tiles: int
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class ModelClock:
    """Seconds that the forward passes of a predictor's models take by themselves.

    Beside some of them the next rows of a scene are read, which slows them: what such a pass takes by itself
    is the mean of those of as many tiles beside which nothing was read.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._began = 0.0
        self._passes: list[Pass] = []
        self._reads: list[tuple[float, float]] = []
        """When each began and ended."""
        for model in predictor.models:
            model.register_forward_pre_hook(self._start)
            model.register_forward_hook(self._stop)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of all that is read meanwhile."""
        with (
            patch.object(Scene, "read", self._timed(Scene.read)),
            patch.object(Composite, "add", self._timed(Composite.add)),
        ):
            yield

    @property
    def seconds(self) -> float:
        alone, total = defaultdict[int, list[float]](list), 0.0
        disturbed: list[Pass] = []
        for each in self._passes:
            if any(began < each.ended and each.began < ended for began, ended in self._reads):
                disturbed.append(each)
            else:
                alone[each.tiles].append(each.seconds)
                total += each.seconds
        return total + sum(mean(alone[each.tiles] or [each.seconds]) for each in disturbed)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            began = perf_counter()
            try:
                return function(*given)
            finally:
                self._reads.append((began, perf_counter()))

        return timed

    def _start(self, *_: Any) -> None:
        self._began = perf_counter()

    def _stop(self, model: Any, inputs: tuple[Batch, ...], *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._passes.append(Pass(len(inputs[0]["pixels"]), self._began, perf_counter()))


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
    answer = predict or predictor.predict_pixels
    with clock.listening():
        writer.write_map(source, target, answer, path, {"model": "benchmark"}, hear)
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
