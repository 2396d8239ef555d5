"""Labelled rows: which columns are targets, what they hold, and which rows can be learnt from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from domains.splits import Split, extend, split
from domains.store import Store
from flows.settings import TaskSettings
from models.targets import (
    infer_target,
    is_missing,
    is_pixel_task,
    label_matrix,
    pixel_labels,
    pixel_target,
)

FEWEST_ROWS = 10
"""Below this no side of a split holds a row."""


@dataclass(frozen=True)
class LabelledData:
    """Samples with their labels, and which are held out; positions line up with the store's samples."""

    store: Store
    identities: list[str]
    labels: np.ndarray
    """float64 [n, targets], NaN where not measured; [n, 0] where pixels carry the labels."""
    task: TaskSpec
    split: Split
    rejects: list[Reject]

    def pixel_labels(self, side: np.ndarray) -> Iterator[np.ndarray]:
        """What the pixels of the samples at ``side`` are to be: float32 [pixels], NaN where unknown."""
        target = self.task.targets[0]
        return (pixel_labels(target, values) for values in self.store.subset(side).labels(target.name))


def choose_targets(source: Source, settings: TaskSettings) -> tuple[str, ...]:
    """Columns to predict: those asked for, the dataset's own, or its only other column."""
    others = [column for column in source.columns if column != source.input_column]
    names = tuple(settings.target) or source.targets or (tuple(others) if len(others) == 1 else ())
    listed = ", ".join(others[:20]) or "none"
    if settings.task == "segmentation" and not source.pixel_targets:
        raise GroundworkError(
            f"{source.name} has no label rasters to segment by: put them in a folder masks/ beside images/"
        )
    if not names:
        raise GroundworkError(
            f"say which column to predict with --target; columns of {source.name}: {listed}"
        )
    for name in names:
        if name not in others:
            raise GroundworkError(f"{source.name} has no column {name!r}; columns: {listed}")
    if len(set(names)) < len(names):
        raise GroundworkError("a target is named twice: name each once")
    if len(names) > 1 and set(names) & set(source.pixel_targets):
        raise GroundworkError("a target with a value for each pixel is learnt by itself: name one target")
    if settings.task == "segmentation" and not set(names) <= set(source.pixel_targets):
        raise GroundworkError(f"{names[0]!r} has no value for each pixel: name {source.pixel_targets[0]!r}")
    return names


def describe_task(
    domain: Domain,
    source: Source,
    store: Store,
    settings: TaskSettings,
    names: Sequence[str],
    split: SplitSpec,
) -> TaskSpec:
    """Infer the kind of every target from its cells or its label rasters (see ``models.targets``)."""

    def described(name: str) -> Target:
        unit = settings.unit or source.units.get(name, "")
        if name not in source.pixel_targets:
            return infer_target(name, store.column(name), settings.task, unit)
        return pixel_target(name, _distinct(store, name), settings.task, source.classes.get(name, ()), unit)

    return TaskSpec(domain=domain.name, targets=tuple(map(described, names)), split=split)


def _distinct(store: Store, name: str) -> np.ndarray:
    """Distinct values of label rasters; of a continuous quantity as many as show that it is one."""
    found = np.zeros(0, np.float32)
    for values in store.labels(name):
        found = np.union1d(found, values[np.isfinite(values)])
        if len(found) > 10_000:
            break
    return found


def label(
    domain: Domain,
    source: Source,
    store: Store,
    spec: EncodingSpec,
    task: TaskSpec,
    known: Mapping[str, str] | None = None,
) -> LabelledData:
    """Find labels and groups, set aside the rows that have no usable label, and split the rest.

    ``known`` gives the side of each identity of an earlier split, which is then carried over: raises
    CannotExtend where that is not possible.
    """
    has_label: np.ndarray
    if is_pixel_task(task.targets):
        labels = np.zeros((len(store), 0))
        has_label = np.array([np.isfinite(values).any() for values in store.labels(task.targets[0].name)])
        cells: list[list[str]] = [[""] * len(store)]
    else:
        cells = [store.column(target.name) for target in task.targets]
        labels = label_matrix(task.targets, cells)
        has_label = np.asarray(np.isfinite(labels).any(axis=1))
    usable = np.flatnonzero(has_label)
    rejects = list(store.rejects()) + _unlabelled(store, has_label, cells, task.targets)
    if len(usable) < FEWEST_ROWS:
        raise GroundworkError(
            f"only {len(usable)} rows have a usable {domain.noun} and a label; "
            f"at least {FEWEST_ROWS} are needed"
        )
    chosen, labels = store.subset(usable), labels[usable]
    identities = chosen.identities
    groups = domain.groups(read_again(domain, source, spec, chosen.rows), task.split.method)
    sides = (
        split(groups, task.split, identities)
        if known is None
        else extend(groups, task.split, identities, known)
    )
    data = LabelledData(chosen, identities, labels, task, sides, rejects)
    _refuse_unlearnable(data)
    return data


def read_again(domain: Domain, source: Source, spec: EncodingSpec, rows: np.ndarray) -> Iterator[Record]:
    """The records of rows that are in the store, one at a time: groups and floors look at records."""
    wanted = set(rows.tolist())
    for row in source.stream():
        if row.index in wanted:
            record = domain.read(row, spec)
            if isinstance(record, Reject):
                raise GroundworkError(
                    f"row {row.index} of {source.origin} has changed while it was read: run again"
                )
            yield record


def chosen_method(domain: Domain, source: Source, asked: str) -> str:
    """The split method that ``auto`` means for these rows, or the one that is asked for."""
    return (source.split or domain.split_methods[0]) if asked == "auto" else asked


def _refuse_unlearnable(data: LabelledData) -> None:
    train = data.split.train
    if is_pixel_task(data.task.targets):
        return  # a row without a label on any pixel is set aside already
    for column, target in enumerate(data.task.targets):
        if not np.isfinite(data.labels[train, column]).any():
            raise GroundworkError(
                f"target {target.name!r} has no label among the training rows: use --split random"
            )


def _unlabelled(
    store: Store, has_label: np.ndarray, cells: Sequence[Sequence[str]], targets: Sequence[Target]
) -> list[Reject]:
    """Rows whose labels are all missing or unreadable; a single unreadable cell is only a gap."""
    rejects = []
    for index in np.flatnonzero(~has_label).tolist():
        written = [column[index] for column in cells]
        if all(is_missing(cell) for cell in written):
            reason = "no label"
        else:
            expected = "a number" if targets[0].kind == "regression" else "one of the classes"
            reason = f"label is not {expected}"
        rejects.append(Reject(int(store.rows[index]), reason, ", ".join(written)[:500]))
    return rejects
