"""From the inputs of one request to its results: read, encode, predict, put into words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from domains.contract import Reject, Row, Sample
from groundwork.api.batching import Turn
from groundwork.api.serving import Loaded

log = logging.getLogger(__name__)

CHUNKS_AHEAD = 4
"""Chunks of one request that may be under way together: enough to keep the model fed."""


@dataclass(frozen=True)
class _Readied:
    """A chunk after reading: samples of the usable inputs, reasons of the others."""

    samples: list[Sample]
    tokens: list[int]
    places: list[int]
    reasons: dict[int, str]


async def answer(loaded: Loaded, inputs: Sequence[Any], readers: Executor) -> list[dict[str, Any]]:
    """One result for each input, in order. Raises QueueFull before any work is done.

    When the caller is cancelled, whatever still waits for the model is dropped.
    """
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(CHUNKS_AHEAD)
    size = loaded.inputs_at_once
    with loaded.batcher.admit(min(len(inputs), size * CHUNKS_AHEAD)) as turn:

        async def one(start: int) -> list[dict[str, Any]]:
            async with gate:
                chunk = inputs[start : start + size]
                readied = await loop.run_in_executor(readers, _ready, loaded, start, chunk)
                outputs = await _predict(turn, readied)
                return await loop.run_in_executor(readers, _word, loaded, start, len(chunk), readied, outputs)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(start)) for start in range(0, len(inputs), size)]
    return [result for task in tasks for result in task.result()]


async def _predict(turn: Turn, readied: _Readied) -> np.ndarray | None:
    return await turn.predict(readied.samples, readied.tokens) if readied.samples else None


def _ready(loaded: Loaded, start: int, values: Sequence[Any]) -> _Readied:
    """Read and encode; an input that cannot be used becomes a reason and never harms the others."""
    readied = _Readied([], [], [], {})
    for place, value in enumerate(values):
        try:
            record = loaded.predictor.read(Row(start + place, value))
            if isinstance(record, Reject):
                readied.reasons[place] = record.reason
                continue
            sample = loaded.predictor.encode(record)
            readied.tokens.append(loaded.predictor.tokens(sample))
        except Exception:
            log.exception("input could not be read: %.200r", value)
            readied.reasons[place] = "this input could not be read; the service's log says why"
            continue
        readied.samples.append(sample)
        readied.places.append(place)
    return readied


def _word(
    loaded: Loaded, start: int, count: int, readied: _Readied, outputs: np.ndarray | None
) -> list[dict[str, Any]]:
    """The results of a chunk, as they go into the answer."""
    predictions: dict[int, dict[str, Any]] = {}
    reasons = dict(readied.reasons)
    for place, row in zip(readied.places, () if outputs is None else outputs, strict=True):
        if np.isfinite(row).all():
            predictions[place] = loaded.predictor.answer(row)
        else:
            reasons[place] = "the model gave no finite number for this input"
    return [
        {
            "index": start + place,
            "status": "ok" if place in predictions else "rejected",
            "reason": reasons.get(place),
            "predictions": predictions.get(place),
        }
        for place in range(count)
    ]
