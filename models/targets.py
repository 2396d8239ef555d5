"""Targets: what a column of cells or a label raster is, and the pixels of one as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from domains.contract import ClassSpec, GroundworkError, Target, TaskName, Transform
from models.cells import (
    begins_with_number,
    class_label,
    has_decimal_comma,
    is_missing,
    measurement_of,
    number_of,
    transformed_unit,
)

AskedTask = Literal["auto"] | TaskName

MOST_CLASSES = 100
"""More distinct texts than this are names, not classes."""

MOSTLY = 0.9
"""Share of numbers that makes a column numeric; its other cells are reported, not learnt."""


MOST_CODES, CODED = 10, 0.1
"""More distinct numbers than this, and than this share of the cells, are measurements rather than codes of
classes, whatever else stands in their column."""


def infer_target(
    name: str, cells: Sequence[str], kind: AskedTask, unit: str = "", transform: Transform = "none"
) -> Target:
    """Say what a column of text cells is.

    The rule of ``auto``: a column of which at least nine measured cells in ten are numbers or bounds on one
    (``>10``) is a regression target, unless the numbers are exactly 0 and 1, which make it binary, or all are
    bounds; any other column is a classification target, binary with two distinct texts and multiclass with
    3 to 100. A column of many numbers that text has been mixed into is neither. A classification target by
    request takes its distinct cells as classes. Empty cells and ``nan`` are not measured. ``multilabel``
    wants two classes, and ``change`` is a classification.
    ``unit`` is that of the cells; with a ``transform`` the target's is another one.
    Raises GroundworkError for a column that is empty, constant or neither.
    """
    measured = [cell.strip() for cell in cells if not is_missing(cell)]
    if not measured:
        raise GroundworkError(f"target {name!r} has no value in any usable row: choose another column")
    numbers = [measurement_of(cell) for cell in measured]
    exact = sorted({number for number, sign in filter(None, numbers) if sign == 0})
    numeric = sum(number is not None for number in numbers) >= MOSTLY * len(measured)
    if kind == "auto":
        is_regression = numeric and bool(exact) and exact != [0.0, 1.0]
        kind = "regression" if is_regression else "classification"
        if not numeric and _are_spoilt_numbers(measured):
            raise GroundworkError(
                f"target {name!r} mixes numbers and text{_such_as(measured)}, or use --task classification "
                "to take each as a word"
            )
    if kind == "regression":
        if not numeric:
            raise GroundworkError(
                f"target {name!r} holds text where numbers are needed{_such_as(measured)}, or use "
                "--task classification"
            )
        return _regression_target(name, exact, unit, transform)
    if transform != "none":
        raise GroundworkError(
            f"target {name!r} holds classes, which have no {transform}: use --transform none, "
            "or --task regression for numbers"
        )
    # "0", "0.0" and "0." are one class; the shortest way to write the number names it.
    distinct = sorted(
        {class_label(cell) for cell in measured}, key=lambda label: (number_of(label) or 0, label)
    )
    if len(distinct) == 1:
        others = "; name the others with --target" if kind == "multilabel" else ""
        fault = f"target {name!r} is constant ({distinct[0]})"
        raise GroundworkError(f"{fault}: there is nothing to learn{others}")
    if kind == "multilabel" and len(distinct) > 2:
        raise GroundworkError(
            f"target {name!r} holds {len(distinct)} distinct values, where each of several labels is there "
            "or not: write 0 or 1, or use --task classification"
        )
    if len(distinct) > MOST_CLASSES:
        raise GroundworkError(
            f"target {name!r} has {len(distinct)} distinct values, more than {MOST_CLASSES} classes: "
            "is it a name rather than a target? use --task regression for numbers"
        )
    return Target(name=name, kind="binary" if len(distinct) == 2 else "multiclass", classes=tuple(distinct))


def _are_spoilt_numbers(measured: Sequence[str]) -> bool:
    """Whether cells, of which many are no numbers, were meant as measurements."""
    like = [cell for cell in measured if begins_with_number(cell)]
    distinct = len(set(like))
    return len(like) >= len(measured) / 2 and distinct > max(MOST_CODES, CODED * len(measured))


def _such_as(measured: Sequence[str]) -> str:
    """The first cell that is no number, and what is to be done."""
    odd = next(cell for cell in measured if measurement_of(cell) is None)
    mend = "write a decimal point" if has_decimal_comma(odd) else "clean it (an empty cell is not measured)"
    return f", such as {odd[:40]!r}: {mend}"


def _regression_target(name: str, exact: Sequence[float], unit: str, transform: Transform) -> Target:
    usable = [number for number in exact if number > 0 or transform == "none"]
    if not usable:
        lacks = "number: all are bounds" if not exact else f"positive number, which {transform} needs"
        raise GroundworkError(f"target {name!r} has no {lacks}: choose another column")
    if len(usable) < len(exact) / 2:
        raise GroundworkError(
            f"most values of target {name!r} are 0 or below, and have no {transform}: use --transform none"
        )
    if len(usable) == 1:
        raise GroundworkError(f"target {name!r} is constant ({usable[0]:g}): there is nothing to learn")
    if transform == "none":
        return Target(name=name, kind="regression", unit=unit)
    learnt, cells = transformed_unit(name, transform, unit)
    return Target(name=name, kind="regression", unit=learnt, transform=transform, cell_unit=cells)


def pixel_target(
    name: str,
    values: np.ndarray,
    kind: AskedTask,
    declared: Sequence[ClassSpec] = (),
    unit: str = "",
) -> Target:
    """Say what a label raster is, from its distinct ``values`` [k] or the classes it declares.

    The rule of ``auto``: whole numbers, up to a hundred of them, are classes; anything else is a
    regression target. ``change`` is a segmentation. Raises GroundworkError for a raster that is
    constant or neither.
    """
    values = np.unique(values[np.isfinite(values)])
    are_classes = bool(declared) or (len(values) <= MOST_CLASSES and bool((values == np.round(values)).all()))
    if kind in ("classification", "multilabel"):
        raise GroundworkError(f"{name!r} has a value for each pixel: use --task segmentation")
    if len(values) < 2:
        shown = f"only the value {values[0]:g}" if len(values) else "no value"
        raise GroundworkError(f"the label rasters hold {shown}: there is nothing to learn")
    if kind == "regression" or (kind == "auto" and not are_classes):
        return Target(name=name, kind="regression", unit=unit, level="pixel")
    if not are_classes:
        raise GroundworkError(
            f"the label rasters hold {len(values)} distinct values that are no classes, such as "
            f"{values[len(values) // 2]:g}: use --task regression"
        )
    classes = tuple(declared) or tuple(ClassSpec(float(value), f"{value:g}") for value in values)
    return Target(
        name=name,
        kind="binary" if len(classes) == 2 else "multiclass",
        classes=tuple(entry.name for entry in classes),
        values=tuple(entry.value for entry in classes),
        colours=tuple(entry.colour for entry in classes) if all(entry.colour for entry in classes) else (),
        level="pixel",
    )


def pixel_labels(target: Target, values: np.ndarray) -> np.ndarray:
    """Values of a label raster -> what the model learns, float32 of the same shape.

    Numbers stay as they are; classes become codes, and NaN where the raster holds none of them.
    """
    if target.kind == "regression":
        return values
    order = np.argsort(target.values)
    known = np.asarray(target.values, np.float32)[order]
    places = np.searchsorted(known, values).clip(max=len(known) - 1)
    return np.where(known[places] == values, order[places].astype(np.float32), np.float32("nan"))


def is_pixel_task(targets: Sequence[Target]) -> bool:
    """Whether a task answers each pixel; then it has a single target."""
    return targets[0].level == "pixel"
