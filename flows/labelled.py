"""Labelled rows: what their targets hold, which rows can be learnt from, and which are held out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domains.abilities import LocatesRecords, Place
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
from domains.marks import mark_identities, read_marks, why_unmarked
from domains.splits import COLUMN_METHODS, Split, extend, numbered, split, without
from domains.store import Store
from flows.asked import column_target, marked_by
from flows.leakage import noting_places, within_buffer
from flows.settings import TaskSettings
from models.cells import fault_of, has_no_logarithm, is_approximate, is_missing
from models.labels import Joined, Labels, join_replicates, read_labels
from models.targets import is_pixel_task, pixel_labels, pixel_target

FEWEST_ROWS = 10
"""Below this no side of a split holds a row."""


@dataclass(frozen=True)
class LabelledData:
    """Samples with their labels, and which are held out; positions line up with the store's samples."""

    store: Store
    identities: list[str]
    labels: np.ndarray
    """float64 [n, targets], NaN where not measured, and on the test side where only a bound is known; [n, 0]
    where pixels carry the labels."""
    signs: np.ndarray
    """int8, shaped as ``labels``: +1 where the truth is at least the label, -1 where at most, else 0."""
    task: TaskSpec
    split: Split
    rejects: list[Reject]
    remark: str
    """What was made of bounds, replicates and what has no logarithm, in one line; empty where of nothing."""
    places: list[Place | None]
    """Where each sample lies; empty for a domain that does not know of places."""

    def pixel_labels(self, side: np.ndarray) -> Iterator[np.ndarray]:
        """What the pixels of the samples at ``side`` are to be: float32 [pixels], NaN where unknown."""
        target = self.task.targets[0]
        return (pixel_labels(target, values) for values in self.store.subset(side).labels(target.name))


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
        if name not in source.pixel_targets:
            return column_target(source, settings, name, store.column(name))
        if settings.transform != "none":
            raise GroundworkError(f"{name!r} has a value for each pixel: use --transform none")
        unit = settings.unit or source.units.get(name, "")
        return pixel_target(name, _distinct(store, name), settings.task, source.classes.get(name, ()), unit)

    return TaskSpec(
        domain=domain.name,
        targets=tuple(map(described, names)),
        split=split,
        replicates=settings.replicates,
    )


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

    Rows that are the same thing become one by the task's rule, where pixels do not carry the labels. A bound
    may be learnt from and is not tested on.
    ``known`` gives the side of each identity of an earlier split, which is then carried over: raises
    CannotExtend where that is not possible.
    """
    cells, labels, has_label = _read(store, task.targets)
    rejects = [*store.rejects(), *_unlabelled(store, has_label, cells, task.targets)]
    usable, marks = np.flatnonzero(has_label), None
    unmarked: list[Reject] = []
    if task.split.method in COLUMN_METHODS:
        usable, marks, unmarked = _marked(source, store, usable, task.split)
        rejects += unmarked
    identities = store.subset(usable).identities
    if marks is not None:
        marks = mark_identities(marks, identities, task.split)
    joined = join_replicates(labels.at(usable), task.targets, identities, task.replicates)
    rejects += [
        Reject(int(store.rows[usable[row]]), reason, _written(cells, usable[row]))
        for row, reason in joined.conflicts
    ]
    chosen, identities = store.subset(usable[joined.rows]), [identities[row] for row in joined.rows]
    if len(chosen) < FEWEST_ROWS:
        raise GroundworkError(
            f"only {len(chosen)} rows have a usable {domain.noun} and a label; "
            f"at least {FEWEST_ROWS} are needed"
        )
    places: list[Place | None] = []
    records = noting_places(domain, read_again(domain, source, spec, chosen.rows), places)
    if marks is None:
        groups = domain.groups(records, task.split.method)
    else:
        groups, marks = numbered(identities), marks[joined.rows]
        if isinstance(domain, LocatesRecords):
            deque(records, maxlen=0)  # for their places alone
    sides = (
        split(groups, task.split, identities, marks)
        if known is None
        else extend(groups, task.split, identities, known, marks)
    )
    near = within_buffer(places, sides, task.split.buffer)
    why = f"within {task.split.buffer:g} m of a test {domain.noun}"
    rejects += [Reject(int(chosen.rows[place]), why, identities[place]) for place in near]
    kept = np.delete(np.arange(len(chosen)), near)
    chosen, sides = chosen.subset(kept), without(sides, near)
    identities = [identities[place] for place in kept]
    places = [places[place] for place in kept if places]
    final = _without_bounds(joined.labels.at(kept), sides.test)
    remarks = [_remark(domain, task, cells, labels, joined), _remark_unmarked(source, task.split, unmarked)]
    if len(near):
        remarks.append(f"{len(near):,} {domain.noun}s {why}, not learnt from")
    remark = "; ".join(filter(None, remarks))
    data = LabelledData(chosen, identities, final.values, final.signs, task, sides, rejects, remark, places)
    _refuse_unlearnable(data)
    return data


def _read(store: Store, targets: Sequence[Target]) -> tuple[list[list[str]], Labels, np.ndarray]:
    """Cells by target, what they say, and which rows have a label; pixels have neither cells nor labels."""
    if is_pixel_task(targets):
        has_label = [bool(np.isfinite(values).any()) for values in store.labels(targets[0].name)]
        nothing = Labels(np.zeros((len(store), 0)), np.zeros((len(store), 0), np.int8))
        return [[""] * len(store)], nothing, np.array(has_label, bool)
    cells = [store.column(target.name) for target in targets]
    labels = read_labels(targets, cells)
    return cells, labels, labels.measured


def _marked(
    source: Source, store: Store, usable: np.ndarray, split: SplitSpec
) -> tuple[np.ndarray, np.ndarray, list[Reject]]:
    """Those of the rows at ``usable`` that the split column marks, with what mark, and the others."""
    rows = store.rows[usable]
    wanted = set(rows.tolist())
    cells = [row.fields.get(split.column, "") for row in source.stream() if row.index in wanted]
    marks = read_marks(cells, split)
    said = np.isfinite(marks)
    unmarked = [
        Reject(int(rows[place]), why_unmarked(cells[place], split), cells[place][:500])
        for place in np.flatnonzero(~said).tolist()
    ]
    return usable[said], marks[said], unmarked


def _remark_unmarked(source: Source, split: SplitSpec, unmarked: Sequence[Reject]) -> str:
    if not unmarked:
        return ""
    return (
        f"{len(unmarked):,} rows left out of a {split.method} split, which goes by "
        f"{marked_by(source, split)}: they have nothing of it; add it, or use another --split"
    )


def _without_bounds(labels: Labels, test: np.ndarray) -> Labels:
    """Without those of test rows: how far an answer is from a truth that is only bounded, nobody can say."""
    values, signs = labels.values.copy(), labels.signs.copy()
    values[test] = np.where(signs[test] != 0, np.nan, values[test])
    signs[test] = 0
    return Labels(values, signs)


def _remark(
    domain: Domain, task: TaskSpec, cells: Sequence[Sequence[str]], labels: Labels, joined: Joined
) -> str:
    """In one line, what is not plain about ``cells``; empty where all is. ``labels`` are of all rows."""
    lower, upper = int((labels.signs > 0).sum()), int((labels.signs < 0).sum())
    approximate, without_logarithm, unreadable = 0, 0, list[str]()
    for target, column in zip(task.targets, cells, strict=True):
        if target.level == "sample":
            unreadable += [cell for cell in column if _is_unreadable(target, cell)]
        if target.kind == "regression" and target.level == "sample":
            approximate += sum(map(is_approximate, column))
            if target.transform != "none":
                without_logarithm += sum(has_no_logarithm(cell) for cell in column)
    answers_pixels = is_pixel_task(task.targets)
    unlabelled = 0 if answers_pixels else sum(all(map(is_missing, row)) for row in zip(*cells, strict=True))
    counted = {
        "rows without a label, left out": unlabelled,
        f"labels that cannot be read, such as {next(iter(unreadable), '')[:40]!r}, left out": len(unreadable),
        f"bounds ({lower:,} lower, {upper:,} upper), learnt as such and not tested on": lower + upper,
        "approximate values, learnt as they are": approximate,
        f"values without a logarithm, as {task.targets[0].transform} needs, left out": without_logarithm,
        f"rows joined with others of the same {domain.noun} ({task.replicates})": joined.merged,
        "labels left out because replicates disagree": len(joined.conflicts),
    }
    return "; ".join(f"{count:,} {what}" for what, count in counted.items() if count)


def _is_unreadable(target: Target, cell: str) -> bool:
    """Whether a cell holds what is no label, for another reason than that it has no logarithm."""
    lacks_logarithm = target.transform != "none" and has_no_logarithm(cell)
    return not is_missing(cell) and not lacks_logarithm and bool(fault_of(target, cell))


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


def _refuse_unlearnable(data: LabelledData) -> None:
    train, test = data.split.train, data.split.test
    if is_pixel_task(data.task.targets):
        return  # a row without a label on any pixel is set aside already
    exact = np.isfinite(data.labels) & (data.signs == 0)
    for column, target in enumerate(data.task.targets):
        if not exact[train, column].any():
            lacks = "only bounds as labels" if np.isfinite(data.labels[train, column]).any() else "no label"
            raise GroundworkError(
                f"target {target.name!r} has {lacks} among the training rows: use --split random"
            )
    if not exact[test].any():
        raise GroundworkError(
            "the test rows have only bounds as labels, by which nothing can be judged: use --split random"
        )


def _unlabelled(
    store: Store, has_label: np.ndarray, cells: Sequence[Sequence[str]], targets: Sequence[Target]
) -> list[Reject]:
    """Rows whose labels are all missing or unreadable; a single unreadable cell is only a gap."""
    rejects = []
    for index in np.flatnonzero(~has_label).tolist():
        measured = [
            fault_of(target, column[index])
            for target, column in zip(targets, cells, strict=True)
            if not is_missing(column[index])
        ]
        reason = measured[0] if measured else "no label"
        rejects.append(Reject(int(store.rows[index]), reason, _written(cells, index)))
    return rejects


def _written(cells: Sequence[Sequence[str]], row: int) -> str:
    return ", ".join(column[row] for column in cells)[:500]
