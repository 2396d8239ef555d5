"""Overlapping tiles, and how their answers become one: no seams, and memory for one row of tiles."""

from __future__ import annotations

import numpy as np

WEIGHT_STEPS = 64


def tile_starts(length: int, chip: int) -> list[int]:
    """First pixels of tiles of ``chip`` pixels that cover ``length`` pixels, each a quarter over the next.

    The last tile is moved back to end with the scene, so that it sees as much around it as any other; a
    scene smaller than a chip has one tile.
    """
    last = max(length - chip, 0)
    return [*range(0, last, chip - chip // 4), last]


def tile_weights(chip: int) -> np.ndarray:
    """Weight of each pixel of a tile, float64 [chip, chip]: 1 in the middle, falling to the edges.

    A raised cosine over the outer quarter, where a tile knows least of what lies around. The weights are
    rounded to 64ths: their products with float32 answers, and the sums of these, are then exact in float64,
    and what tiles agree about comes out unchanged, whatever the order they were added in.
    """
    ramp = np.sin(np.pi / 2 * (np.arange(chip // 4) + 0.5) / max(chip // 4, 1)) ** 2
    profile = np.concatenate([ramp, np.ones(chip - 2 * len(ramp)), ramp[::-1]])
    profile = np.maximum(np.rint(profile * WEIGHT_STEPS), 1) / WEIGHT_STEPS
    return np.outer(profile, profile)


class RowBlend:
    """Weighted mean of the tiles of a scene, one row of tiles at a time.

    Holds ``chip`` rows of the scene in full width: add the tiles that begin at the first of these rows, then
    take the rows that no later tile touches.
    """

    def __init__(self, width: int, chip: int, outputs: int) -> None:
        self._window = tile_weights(chip)
        self._sums = np.zeros((chip, width, outputs))
        self._weights = np.zeros((chip, width))

    def add(self, column: int, answers: np.ndarray) -> None:
        """Add a tile whose left edge is ``column``: float [chip, chip, outputs], NaN where it has no answer.

        What reaches over the right edge of the scene is left out.
        """
        width = min(answers.shape[1], self._weights.shape[1] - column)
        answers = answers[:, :width]
        answered = np.isfinite(answers).all(axis=2)
        weights = self._window[:, :width] * answered
        columns = slice(column, column + width)
        self._weights[:, columns] += weights
        self._sums[:, columns] += np.where(answered[..., None], answers, 0) * weights[..., None]

    def take(self, rows: int) -> np.ndarray:
        """The first ``rows`` rows, float32 [rows, width, outputs], NaN where no tile had an answer.

        The rows below move up.
        """
        weights = self._weights[:rows, :, None]
        taken = np.full(self._sums[:rows].shape, np.nan, np.float32)
        np.divide(self._sums[:rows], weights, out=taken, where=weights > 0, casting="same_kind")
        for array in (self._sums, self._weights):
            array[:-rows] = array[rows:].copy()
            array[-rows:] = 0
        return taken
