"""Targets: what a column of cells or a label raster is, and its cells and pixels as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from domains.contract import ClassSpec, GroundworkError, Target, TaskName

AskedTask = Literal["auto"] | TaskName

MOST_CLASSES = 100
"""More distinct texts than this are names, not classes."""

MOSTLY = 0.9
"""Share of numbers that makes a column numeric; its other cells are reported, not learnt."""


def infer_target(name: str, cells: Sequence[str], kind: AskedTask, unit: str = "") -> Target:
    """Say what a column of text cells is.

    The rule of ``auto``: a column of which at least nine measured cells in ten are numbers is a
    regression target, unless they are exactly the two numbers 0 and 1, which make it binary; any
    other column is a classification target, binary with two distinct texts and multiclass with 3 to
    100. A classification target by request takes its distinct cells as classes. Empty cells and
    ``nan`` are not measured. Raises GroundworkError for a column that is empty, constant or neither.
    """
    measured = [cell.strip() for cell in cells if not is_missing(cell)]
    if not measured:
        raise GroundworkError(f"target {name!r} has no value in any usable row: choose another column")
    numbers = [number_of(cell) for cell in measured]
    distinct_numbers = sorted({number for number in numbers if number is not None})
    numeric = sum(number is not None for number in numbers) >= MOSTLY * len(measured)
    if kind == "auto":
        kind = "regression" if numeric and distinct_numbers != [0.0, 1.0] else "classification"
    if kind == "regression":
        if not numeric:
            odd = next(cell for cell, number in zip(measured, numbers, strict=True) if number is None)
            raise GroundworkError(
                f"target {name!r} holds text such as {odd[:40]!r} where numbers are needed: "
                "clean it or use --task classification"
            )
        if len(distinct_numbers) == 1:
            raise GroundworkError(f"target {name!r} is constant ({measured[0]}): there is nothing to learn")
        return Target(name=name, kind="regression", unit=unit)
    # "0", "0.0" and "0." are one class; the shortest way to write the number names it.
    distinct = sorted(
        {class_label(cell) for cell in measured}, key=lambda label: (number_of(label) or 0, label)
    )
    if len(distinct) == 1:
        raise GroundworkError(f"target {name!r} is constant ({distinct[0]}): there is nothing to learn")
    if len(distinct) > MOST_CLASSES:
        raise GroundworkError(
            f"target {name!r} has {len(distinct)} distinct values, more than {MOST_CLASSES} classes: "
            "is it a name rather than a target? use --task regression for numbers"
        )
    return Target(name=name, kind="binary" if len(distinct) == 2 else "multiclass", classes=tuple(distinct))


def pixel_target(
    name: str,
    values: np.ndarray,
    kind: AskedTask,
    declared: Sequence[ClassSpec] = (),
    unit: str = "",
) -> Target:
    """Say what a label raster is, from its distinct ``values`` [k] or the classes it declares.

    The rule of ``auto``: whole numbers, up to a hundred of them, are classes; anything else is a
    regression target. Raises GroundworkError for a raster that is constant or neither.
    """
    values = np.unique(values[np.isfinite(values)])
    are_classes = bool(declared) or (len(values) <= MOST_CLASSES and bool((values == np.round(values)).all()))
    if kind == "classification":
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


def is_missing(cell: str) -> bool:
    """Whether a cell says that nothing was measured."""
    return cell.strip().lower() in {"", "nan", "na", "n/a", "null", "none"}


def number_of(cell: str) -> float | None:
    """The finite number a cell writes, or None."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def class_label(cell: str) -> str:
    """The label that a cell of a classification target writes."""
    number = number_of(cell)
    return cell.strip() if number is None else f"{number:g}"


def label_matrix(targets: Sequence[Target], columns: Sequence[Sequence[str]]) -> np.ndarray:
    """Text cells by target -> float64 [n, targets].

    Holds values or class codes; NaN where not measured or where the cell does not fit the target.
    """
    labels = np.full((len(columns[0]), len(targets)), np.nan)
    for index, (target, cells) in enumerate(zip(targets, columns, strict=True)):
        codes = {label: float(code) for code, label in enumerate(target.classes)}
        for row, cell in enumerate(cells):
            if is_missing(cell):
                continue
            value = number_of(cell) if target.kind == "regression" else codes.get(class_label(cell))
            if value is not None:
                labels[row, index] = value
    return labels


def is_pixel_task(targets: Sequence[Target]) -> bool:
    """Whether a task answers each pixel; then it has a single target."""
    return targets[0].level == "pixel"
