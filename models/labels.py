"""Labels as numbers: cells read by what the targets are, and replicates joined to one label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domains.contract import ReplicateRule, Target
from domains.splits import numbered
from models.cells import class_label, is_missing, measurement_of, transformed

DISAGREEMENT = 0.5
"""Replicates conflict where their standard deviation is above this share of the whole column's."""
SHOWN = 5
"""Values of a conflict that its reason lists."""


@dataclass(frozen=True)
class Labels:
    """What the cells of n rows say about each target."""

    values: np.ndarray
    """float64 [n, targets]: numbers in the target's unit or codes of classes, NaN where not measured."""
    signs: np.ndarray
    """int8 [n, targets]: +1 where the truth is at least the value, -1 where at most, else 0."""

    def at(self, rows: np.ndarray) -> Labels:
        """Those of some rows, int or bool."""
        return Labels(self.values[rows], self.signs[rows])

    @property
    def measured(self) -> np.ndarray:
        """Rows that have a label at all, bool [n]."""
        return np.asarray(np.isfinite(self.values).any(axis=1))


def read_labels(targets: Sequence[Target], columns: Sequence[Sequence[str]]) -> Labels:
    """Text cells by target -> labels. A cell that does not fit its target counts as not measured."""
    values = np.full((len(columns[0]), len(targets)), np.nan)
    signs = np.zeros(values.shape, np.int8)
    for index, (target, cells) in enumerate(zip(targets, columns, strict=True)):
        codes = {label: float(code) for code, label in enumerate(target.classes)}
        for row, cell in enumerate(cells):
            if is_missing(cell):
                continue
            if target.kind != "regression":
                values[row, index] = codes.get(class_label(cell), np.nan)
            elif (measured := measurement_of(cell)) is not None:
                values[row, index], signs[row, index] = measured
        if target.kind == "regression":
            values[:, index], signs[:, index] = transformed(target, values[:, index], signs[:, index])
    return Labels(values, signs)


@dataclass(frozen=True)
class Joined:
    """Rows after those that are the same thing have been joined."""

    rows: np.ndarray
    """int64 [m], ascending: the first row of each thing that has a label left."""
    labels: Labels
    """Of those rows."""
    merged: int
    """Rows that others speak for now."""
    conflicts: list[tuple[int, str]]
    """(row, reason) of labels that were left out because replicates contradict one another."""


def join_replicates(
    labels: Labels, targets: Sequence[Target], identities: Sequence[str], rule: ReplicateRule
) -> Joined:
    """One label for each identity and target.

    ``median`` and ``mean`` take that of the numbers, and the class that more than half of the rows name.
    Numbers whose standard deviation is above half of the column's, and classes without such a majority,
    are a conflict: that label is left out. Bounds yield to numbers, and conflict with one that is further
    than that on their wrong side; among bounds of one side the tightest counts. ``first`` takes the first
    label, ``keep`` leaves the rows as they are, as they are where pixels carry the labels ([n, 0]).
    """
    if rule == "keep" or not labels.values.shape[1]:
        return Joined(np.arange(len(labels.values)), labels, 0, [])
    groups = numbered(identities)
    first, sizes = np.unique(groups, return_index=True, return_counts=True)[1:]
    joined = labels.at(first)
    limits = [_limit(labels, column) for column in range(len(targets))]
    conflicts: list[tuple[int, str]] = []
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1]) if len(groups) else []
    for group in np.flatnonzero(sizes > 1).tolist():
        for column, target in enumerate(targets):
            rows = members[group][np.isfinite(labels.values[members[group], column])]
            values, signs = labels.values[rows, column], labels.signs[rows, column]
            one: tuple[float, int] | None = (np.nan, 0)
            if len(rows) and (rule == "first" or len(rows) == 1):
                one = (values[0], signs[0])
            elif len(rows) and target.kind == "regression":
                one = _number(values, signs, rule, limits[column])
            elif len(rows):
                one = _majority(values)
            if one is None:
                reason = _disagreement(target, values, signs)
                conflicts += [(row, reason) for row in rows.tolist()]
            joined.values[group, column], joined.signs[group, column] = one or (np.nan, 0)
    merged = int((sizes[joined.measured] - 1).sum())
    return Joined(first[joined.measured], joined.at(joined.measured), merged, conflicts)


def _limit(labels: Labels, column: int) -> float:
    exact = labels.values[np.isfinite(labels.values[:, column]) & (labels.signs[:, column] == 0), column]
    return DISAGREEMENT * float(exact.std()) if len(exact) else 0.0


def _number(
    values: np.ndarray, signs: np.ndarray, rule: ReplicateRule, limit: float
) -> tuple[float, int] | None:
    exact = values[signs == 0]
    if not len(exact):
        if (signs > 0).all():
            return float(values.max()), 1
        return (float(values.min()), -1) if (signs < 0).all() else None
    if len(exact) > 1 and exact.std(ddof=1) > limit:
        return None
    value = float(np.mean(exact) if rule == "mean" else np.median(exact))
    wrong_by = (signs * (values - value))[signs != 0]
    return None if (wrong_by > limit).any() else (value, 0)


def _majority(codes: np.ndarray) -> tuple[float, int] | None:
    code, votes = Counter(codes.tolist()).most_common(1)[0]
    return (code, 0) if 2 * votes > len(codes) else None


def _disagreement(target: Target, values: np.ndarray, signs: np.ndarray) -> str:
    marks = {-1: "<", 0: "", 1: ">"}
    shown = [
        f"{marks[sign]}{value:.4g}" if target.kind == "regression" else target.classes[int(value)]
        for value, sign in zip(values[:SHOWN].tolist(), signs[:SHOWN].tolist(), strict=True)
    ]
    more = ", …" if len(values) > SHOWN else ""
    unit = f" {target.unit}" if target.unit and target.kind == "regression" else ""
    return f"replicates of {target.name} disagree ({', '.join(shown)}{more}{unit}): left out"
