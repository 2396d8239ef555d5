"""Whether probabilities come true as often as they say."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from domains.contract import Target
from flows.evaluation import Evaluation
from flows.labelled import LabelledData
from models.results import PixelResults, SampleResults

MOST_PANELS = 12
MOST_BINS, ROWS_IN_A_BIN = 10, 10
"""With fewer rows in a bin, its share says little."""


def calibration_figure(data: LabelledData, evaluation: Evaluation, title: str) -> Figure | None:
    """How often what a probability says comes true, one panel for each target of classes (the first twelve).

    None where no probabilities are answered. Rows are sorted by probability and cut into bins of
    equal number; bars are 95% Wilson intervals of the share in each bin. ECE is the expected calibration
    error (Naeini et al., AAAI 2015), the mean distance from the diagonal.
    """
    results = evaluation.results
    if isinstance(results, PixelResults):
        return _of_pixels(evaluation, results.target, title)
    if not isinstance(results, SampleResults):
        return None
    placed, start = [], 0
    for index, target in enumerate(data.task.targets):
        if target.kind != "regression":
            placed.append((index, target, slice(start, start + target.outputs)))
        start += target.outputs
    if not placed:
        return None
    placed = placed[:MOST_PANELS]
    columns = min(4, len(placed))
    lines = -(-len(placed) // columns)
    figure = Figure(figsize=(4.2 * columns, 4.0 * lines + 0.5), layout="constrained")
    figure.suptitle(title)
    for panel, (index, target, outputs) in enumerate(placed, start=1):
        axes = figure.add_subplot(lines, columns, panel)
        measured = np.isfinite(results.truth[:, index])
        for name, answered, colour in evaluation.drawn:
            if isinstance(answered, SampleResults):
                truth, predicted = answered.truth[measured, index], answered.predicted[measured, outputs]
                _calibration(axes, target, truth, predicted, name, colour)
        _finish(axes, target, "rows")
    return figure


def _of_pixels(evaluation: Evaluation, target: Target, title: str) -> Figure | None:
    """Pixels counted in bins of equal width. Without intervals: pixels of a chip are much alike."""
    if target.kind == "regression":
        return None
    figure = Figure(figsize=(4.6, 4.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.add_subplot()
    for name, results, colour in evaluation.drawn:
        if isinstance(results, PixelResults):
            counted = results.chances.sum(0)
            pixels, chances, so = counted[counted[:, 0] > 0].T
            said, found = chances / pixels, so / pixels
            label = f"{name}: ECE {calibration_error(said, found, pixels):.3f}"
            axes.plot(said, found, color=colour, marker="o", markersize=4, linewidth=1, label=label)
    _finish(axes, target, "pixels")
    return figure


def _finish(axes: Axes, target: Target, counted: str) -> None:
    axes.plot([0, 1], [0, 1], color="0.3", linewidth=0.8, linestyle="--")
    said = f"P({target.classes[1]})" if target.kind == "binary" else "P(most probable class)"
    axes.set(xlabel=said, ylabel=f"share of {counted} where it is so", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(target.name, fontsize=10)
    axes.legend(fontsize=8)


def _calibration(
    axes: Axes, target: Target, truth: np.ndarray, predicted: np.ndarray, name: str, colour: str
) -> None:
    if not len(truth):
        return
    if target.kind == "binary":
        chance, is_so = predicted[:, 0], truth > 0.5
    else:
        chance, is_so = predicted.max(1), predicted.argmax(1) == truth
    said, found, sizes = reliability(chance, is_so)
    low, high = _wilson(found, sizes)
    axes.errorbar(
        said,
        found,
        # Rounding can put the end of an interval a hair on the wrong side of its share.
        yerr=np.maximum([found - low, high - found], 0),
        color=colour,
        marker="o",
        markersize=4,
        linewidth=1,
        capsize=2,
        label=f"{name}: ECE {calibration_error(said, found, sizes):.3f}",
    )


def calibration_error(said: np.ndarray, found: np.ndarray, sizes: np.ndarray) -> float:
    """Mean distance of what was found from what was said, over bins of ``sizes``."""
    return float(np.sum(sizes * np.abs(found - said)) / sizes.sum())


def reliability(chance: np.ndarray, is_so: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities [n] and whether they came true [n] -> mean of either and number of rows, by bin."""
    bins = min(MOST_BINS, max(1, len(chance) // ROWS_IN_A_BIN))
    cut = np.array_split(np.argsort(chance, kind="stable"), bins)
    return (
        np.array([chance[rows].mean() for rows in cut]),
        np.array([is_so[rows].mean() for rows in cut]),
        np.array([len(rows) for rows in cut]),
    )


def _wilson(share: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of a share of ``sizes`` rows (Wilson, J. Am. Stat. Assoc. 1927, 22, 209)."""
    z = 1.96
    centre = (share + z**2 / (2 * sizes)) / (1 + z**2 / sizes)
    reach = z * np.sqrt(share * (1 - share) / sizes + z**2 / (4 * sizes**2)) / (1 + z**2 / sizes)
    return centre - reach, centre + reach
