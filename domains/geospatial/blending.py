"""Overlapping tiles, and how their answers become one: no seams, and memory for one row of tiles."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Section:
    """Columns of a scene that are answered from top to bottom before those to their right."""

    tiles: tuple[int, ...]
    """First columns of its tiles."""
    end: int
    """The column behind the last that its tiles reach."""
    margin: int
    """Columns at its right end that the first tiles of the next section reach, too."""
    left_margin: int
    """Columns at its left end that the last tiles of the section before reach, too."""

    @property
    def left(self) -> int:
        return self.tiles[0]

    @property
    def width(self) -> int:
        return self.end - self.left

    @property
    def answered(self) -> int:
        """Columns that no later section touches."""
        return self.width - self.margin


def sections(width: int, chip: int, columns: int) -> list[Section]:
    """Sections of at most about ``columns`` columns (and at least two tiles) that cover ``width``."""
    starts = tile_starts(width, chip)
    at_once = max(2, (columns - chip) // (chip - chip // 4) + 1)
    groups = [starts[first : first + at_once] for first in range(0, len(starts), at_once)]
    if len(groups) > 1 and len(groups[-1]) < 2:
        groups[-2:] = [groups[-2] + groups[-1]]
    ends = [min(group[-1] + chip, width) for group in groups]
    margins = [end - after[0] for end, after in zip(ends, groups[1:], strict=False)]
    return [
        Section(tuple(group), end, margin, before)
        for group, end, margin, before in zip(groups, ends, [*margins, 0], [0, *margins], strict=True)
    ]


class RowBlend:
    """Weighted mean of the tiles of a section, one row of tiles at a time.

    Holds ``chip`` rows: add the tiles that begin at the first of these rows, then take the rows that no
    later tile touches.
    """

    def __init__(self, section: Section, chip: int, outputs: int) -> None:
        self._section = section
        self._window = tile_weights(chip)
        self.totals = np.zeros((chip, section.width, outputs + 1))
        """Weighted sums of the outputs, then the weights; float64 [chip, width, outputs + 1]."""

    def add(self, column: int, answers: np.ndarray) -> None:
        """Add a tile whose left edge is the scene's ``column``: float [chip, chip, outputs].

        NaN where it has no answer. What reaches over the right edge of the scene is left out.
        """
        left = column - self._section.left
        width = min(answers.shape[1], self._section.width - left)
        answers = answers[:, :width]
        weights = self._window[:, :width, None]
        totals = self.totals[:, left : left + width]
        if np.isfinite(answers).all():
            totals[..., :-1] += answers * weights
            totals[..., -1:] += weights
            return
        answered = np.isfinite(answers).all(axis=2, keepdims=True)
        totals[..., :-1] += np.where(answered, answers, 0) * weights
        totals[..., -1:] += answered * weights

    def take(self, rows: int, before: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The first ``rows`` rows: answers float32 [rows, answered, outputs], and the margin's totals.

        The answers are NaN where no tile had one. ``before`` is the margin of the section before, float64
        [rows, left margin, outputs + 1]. The rows below move up.
        """
        taken = self.totals[:rows].copy()
        if before is not None:
            taken[:, : before.shape[1]] += before
        self.totals[:-rows] = self.totals[rows:].copy()
        self.totals[-rows:] = 0
        final, margin = np.split(taken, [self._section.answered], axis=1)
        weights = final[..., -1:]
        answers = np.full((*final.shape[:2], final.shape[2] - 1), np.nan, np.float32)
        np.divide(final[..., :-1], weights, out=answers, where=weights > 0, casting="same_kind")
        return answers, margin

    def carried(self, rows: int) -> np.ndarray:
        """A copy of the totals of the first ``rows`` rows, which tiles above have begun."""
        return self.totals[:rows].copy()

    def resume(self, carried: np.ndarray) -> None:
        """Go on from what ``carried`` gave."""
        self.totals[: len(carried)] = carried
