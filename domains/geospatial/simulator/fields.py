"""Random fields over a pixel grid: smooth noise, cells and winding lines.

All of it is in float64 and rounded only when it is written: the last bits of ``exp`` and ``sin`` differ
between processors, and must not reach a file.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

TABLE = 4093
"""Entries of a table of per-cell draws (prime, so that neighbouring cells never share an entry)."""


def grid(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every pixel, float64 [h, w] each."""
    rows, columns = np.indices(shape)
    return rows.astype(np.float64), columns.astype(np.float64)


def noise(rng: Generator, shape: tuple[int, int], period: float, octaves: int = 1) -> np.ndarray:
    """Smooth noise of mean 0 and variance 1, float64 [h, w]; features are about ``period`` pixels wide.

    Each octave halves the period and the amplitude (fractional Brownian motion on a lattice:
    Perlin, SIGGRAPH 1985, 287; Musgrave et al., SIGGRAPH 1989, 41).
    """
    total = np.zeros(shape)
    for octave in range(octaves):
        step = max(period / 2**octave, 1.0)
        lattice = rng.standard_normal((int(shape[0] / step) + 2, int(shape[1] / step) + 2))
        rows, columns = _weights(shape[0], step), _weights(shape[1], step)
        total += rows @ lattice @ columns.T / 2**octave
    return (total - total.mean()) / total.std()


def _weights(length: int, step: float) -> np.ndarray:
    """How much each lattice point counts at each pixel, float64 [length, points]."""
    position = np.arange(length) / step
    left = position.astype(np.int64)
    share = position - left
    share = share * share * (3 - 2 * share)  # a smooth step: no creases at the lattice lines
    weights = np.zeros((length, int(length / step) + 2))
    weights[np.arange(length), left] = 1 - share
    weights[np.arange(length), left + 1] = share
    return weights


def cells(rng: Generator, rows: np.ndarray, columns: np.ndarray, size: float) -> np.ndarray:
    """Voronoi cells about ``size`` pixels wide: a number below ``TABLE`` for each pixel, int64 [h, w].

    One point at random in each square of a grid; the nearest wins (Worley, SIGGRAPH 1996, 291).
    """
    y, x = rows / size, columns / size
    square_y, square_x = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    jitter = rng.random((2, TABLE)) * 0.9 + 0.05
    nearest = np.full(rows.shape, np.inf)
    winner = np.zeros(rows.shape, np.int64)
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            key = number(square_y + step_y, square_x + step_x)
            distance = (square_y + step_y + jitter[0, key] - y) ** 2
            distance += (square_x + step_x + jitter[1, key] - x) ** 2
            closer = distance < nearest
            nearest[closer] = distance[closer]
            winner[closer] = key[closer]
    return winner


def number(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """A number below ``TABLE`` for each cell of a grid, the same wherever the cell is met, int64."""
    return (row * 1021 + column * 337) % TABLE


def rotated(rows: np.ndarray, columns: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """The pixel grid turned by ``angle`` radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return rows * cosine - columns * sine, rows * sine + columns * cosine


def distance_to_line(rng: Generator, shape: tuple[int, int], winding: float) -> np.ndarray:
    """Distance in pixels to a line that winds through the scene, float64 [h, w]."""
    rows, columns = grid(shape)
    across, along = rotated(rows - shape[0] / 2, columns - shape[1] / 2, rng.uniform(0, np.pi))
    course = rng.uniform(-0.3, 0.3) * min(shape) * np.ones_like(along)
    slope = np.zeros_like(along)
    for period in (300.0, 120.0, 50.0):
        frequency, phase = 2 * np.pi / (period * rng.uniform(0.7, 1.3)), rng.uniform(0, 2 * np.pi)
        amplitude = winding * period * rng.uniform(0.04, 0.12)
        course += amplitude * np.sin(frequency * along + phase)
        slope += amplitude * frequency * np.cos(frequency * along + phase)
    return np.abs(across - course) / np.sqrt(1 + slope * slope)


def blurred(image: np.ndarray, width: float) -> np.ndarray:
    """``image`` [..., h, w] under a Gaussian of ``width`` pixels (σ); the edges see only what is there."""
    rows, columns = (_gaussian(length, width) for length in image.shape[-2:])
    return rows @ image @ columns.T


def _gaussian(length: int, width: float) -> np.ndarray:
    apart = np.arange(length) - np.arange(length)[:, None]
    weights = np.exp(-0.5 * (apart / width) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)
