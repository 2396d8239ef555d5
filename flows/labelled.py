"""Labelled rows: which columns are targets, what they hold, and which rows can be learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domains.contract import (
    Domain,
    EncodingSpec,
    GroundworkError,
    Record,
    Reject,
    Source,
    SplitSpec,
    Target,
    TaskSpec,
)
from domains.splits import Split, split
from domains.store import Store
from flows.settings import TaskSettings
from models.tuning import infer_target, is_missing, label_matrix

FEWEST_ROWS = 10
"""Below this no side of a split holds a row."""


@dataclass(frozen=True)
class LabelledData:
    """Records with their labels; positions line up with the store's samples."""

    store: Store
    records: list[Record]
    labels: np.ndarray
    """float64 [n, targets], NaN where not measured."""
    task: TaskSpec
    split: Split
    rejects: list[Reject]


def choose_targets(source: Source, settings: TaskSettings) -> tuple[str, ...]:
    """Columns to predict: those asked for, the dataset's own, or its only other column."""
    others = [column for column in source.columns if column != source.input_column]
    names = tuple(settings.target) or source.targets or (tuple(others) if len(others) == 1 else ())
    listed = ", ".join(others[:20]) or "none"
    if not names:
        raise GroundworkError(
            f"say which column to predict with --target; columns of {source.name}: {listed}"
        )
    for name in names:
        if name not in others:
            raise GroundworkError(f"{source.name} has no column {name!r}; columns: {listed}")
    if len(set(names)) < len(names):
        raise GroundworkError("a target is named twice: name each once")
    return names


def describe_task(
    domain: Domain,
    source: Source,
    store: Store,
    settings: TaskSettings,
    names: Sequence[str],
    split: SplitSpec,
) -> TaskSpec:
    """Infer the kind of every target from its cells (see ``models.tuning.infer_target``)."""
    targets = tuple(
        infer_target(name, store.column(name), settings.task, settings.unit or source.units.get(name, ""))
        for name in names
    )
    return TaskSpec(domain=domain.name, targets=targets, split=split)


def label(domain: Domain, source: Source, store: Store, spec: EncodingSpec, task: TaskSpec) -> LabelledData:
    """Read labels and records, set aside the rows that have no usable label, and split the rest."""
    names = [target.name for target in task.targets]
    cells = [store.column(name) for name in names]
    labels = label_matrix(task.targets, cells)
    usable = np.flatnonzero(np.isfinite(labels).any(axis=1))
    rejects = list(store.rejects()) + _unlabelled(store, labels, cells, task.targets)
    if len(usable) < FEWEST_ROWS:
        raise GroundworkError(
            f"only {len(usable)} rows have a usable {domain.noun} and a label; "
            f"at least {FEWEST_ROWS} are needed"
        )
    chosen = store.subset(usable)
    records = _records(domain, source, spec, chosen.rows)
    groups = domain.groups(records, task.split.method)
    held_out = split(groups, task.split, [record.identity for record in records])
    labels = labels[usable]
    for column, target in enumerate(task.targets):
        if not np.isfinite(labels[held_out.train, column]).any():
            raise GroundworkError(
                f"target {target.name!r} has no label among the training rows: use --split random"
            )
    return LabelledData(chosen, records, labels, task, held_out, rejects)


def _unlabelled(
    store: Store, labels: np.ndarray, cells: Sequence[Sequence[str]], targets: Sequence[Target]
) -> list[Reject]:
    """Rows whose labels are all missing or unreadable; a single unreadable cell is only a gap."""
    rejects = []
    for index in np.flatnonzero(~np.isfinite(labels).any(axis=1)).tolist():
        written = [column[index] for column in cells]
        if all(is_missing(cell) for cell in written):
            reason = "no label"
        else:
            expected = "a number" if targets[0].kind == "regression" else "one of the classes"
            reason = f"label is not {expected}"
        rejects.append(Reject(int(store.rows[index]), reason, ", ".join(written)[:500]))
    return rejects


def _records(domain: Domain, source: Source, spec: EncodingSpec, rows: np.ndarray) -> list[Record]:
    """Read again the rows that are in the store: floors and groups look at records, not at samples."""
    wanted = set(rows.tolist())
    records = []
    for row in source.stream():
        if row.index in wanted:
            record = domain.read(row, spec)
            if isinstance(record, Reject):
                raise GroundworkError(
                    f"row {row.index} of {source.origin} has changed while it was read: run again"
                )
            records.append(record)
    return records
