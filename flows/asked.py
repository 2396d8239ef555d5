"""What is predicted and what is held out: both are held against the rows before any of them is encoded."""

from __future__ import annotations

from collections.abc import Sequence

from domains.contract import Domain, GroundworkError, Record, Source, SplitSpec, Target
from domains.marks import read_marks
from domains.splits import COLUMN_METHODS, SIDES
from flows.settings import TaskSettings
from models.targets import infer_target

TRIED = 200
"""Rows that are read to see whether a fault is one of rows that can be used."""


def choose_targets(source: Source, settings: TaskSettings) -> tuple[str, ...]:
    """Columns to predict: those asked for, the dataset's own, or its only other column."""
    others = _others(source, settings)
    names = tuple(settings.target) or source.targets or (tuple(others) if len(others) == 1 else ())
    listed = _listed(others)
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


def column_target(source: Source, settings: TaskSettings, name: str, cells: Sequence[str]) -> Target:
    """The target that a column is, as its cells show. Raises GroundworkError as ``infer_target``."""
    unit = settings.unit or source.units.get(name, "")
    return infer_target(name, cells, settings.task, unit, settings.transform)


def check_targets(domain: Domain, source: Source, settings: TaskSettings, targets: Sequence[str]) -> None:
    """Refuse columns that cannot be targets of the task, and name those that there are.

    Rows that cannot be used may hold anything: a fault counts only if some that can be read have it, too.
    """
    columns = [name for name in targets if name not in source.pixel_targets]
    if not columns:
        return
    cells = [[row.fields.get(name, "") for name in columns] for row in source.stream()]
    if not _fault_of(source, settings, columns, cells):
        return
    step = max(1, len(cells) // TRIED)
    tried = (row for row in source.stream() if row.index % step == 0)
    usable = [row for row in tried if isinstance(domain.read(row, source.encoding), Record)]
    fault = _fault_of(
        source, settings, columns, [[row.fields.get(name, "") for name in columns] for row in usable]
    )
    if usable and fault:
        raise GroundworkError(f"{fault}; columns of {source.name}: {_listed(_others(source, settings))}")


def _fault_of(
    source: Source, settings: TaskSettings, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> str:
    try:
        for name, cells in zip(columns, zip(*rows, strict=True), strict=False):
            column_target(source, settings, name, cells)
    except GroundworkError as error:
        return str(error)
    return ""


def chosen_split(
    domain: Domain, source: Source, settings: TaskSettings, asked: str, seed: int, buffer: float = 0.0
) -> SplitSpec:
    """The split by the method that is ``asked`` for, or that suits the rows where that is ``auto``.

    No row within ``buffer`` metres of a test row will be learnt from.
    Raises GroundworkError for a column that the method does not have, or lacks, and for one that marks no row
    for a side.
    """
    suited = source.split or domain.split_methods[0]
    method = suited if asked == "auto" else asked
    column = _split_column(source, settings, method, suited)
    split = SplitSpec(method=method, seed=seed, column=column, buffer=buffer)
    if method == "given":
        _check_sides(source, split, suited)
    return split


def marked_by(source: Source, split: SplitSpec) -> str:
    """What decides in a split that a column decides, in words."""
    is_own = split.column == source.split_columns.get(split.method)
    column = f"column {split.column!r}"
    return source.marking.get(split.method, column) if is_own else column


def _check_sides(source: Source, split: SplitSpec, suited: str) -> None:
    """Refuse a given split in which no row, usable or not, is on a side that has a fraction."""
    marks = set(read_marks([row.fields.get(split.column, "") for row in source.stream()], split).tolist())
    wanted = [side for side, share in enumerate(split.fractions) if share > 0]
    empty = [SIDES[side] for side in wanted if side not in marks]
    if not empty:
        return
    found = ", ".join(SIDES[side] for side in wanted if side in marks)
    raise GroundworkError(
        f"{source.name} marks rows for {found} and puts no usable row into {' or '.join(empty)}: "
        f"--split given goes by {marked_by(source, split)}; mark some, or leave out --split ({suited} then)"
    )


def _split_column(source: Source, settings: TaskSettings, method: str, suited: str) -> str:
    column = settings.split_column or source.split_columns.get(method, "")
    if method not in COLUMN_METHODS:
        if column:
            raise GroundworkError(
                f"column {column!r} decides nothing in a {method} split: add --split time or --split given, "
                "or leave out --split-column"
            )
        return ""
    listed = _listed(source.columns)
    if not column and method in source.marking:
        raise GroundworkError(
            f"--split {method} goes by {source.marking[method]}, and {source.name} has nothing of it: "
            f"add it, or leave out --split ({suited} then)"
        )
    if not column:
        holds = "the time of each row" if method == "time" else "train, val or test"
        raise GroundworkError(
            f"--split {method} needs --split-column, the column that holds {holds}; columns: {listed}"
        )
    if column not in source.columns:
        raise GroundworkError(f"{source.name} has no column {column!r} to split by; columns: {listed}")
    return column


def _others(source: Source, settings: TaskSettings) -> list[str]:
    """Columns that may be targets."""
    return [name for name in source.columns if name not in (source.input_column, settings.split_column)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) or "none"
