"""Columns that say which rows are held out: the time of a row, or its side in so many words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from domains.contract import GroundworkError, SplitSpec
from domains.splits import SIDES, numbered

SIDE_OF_WORD = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}
"""Place in ``SIDES`` by the words that stand for a side."""
_EXPECTED = {
    "given": "train, val (or valid) or test",
    "time": "a date (2024-01-31) or a number",
}
_YEARS = range(1000, 3000)


def read_marks(cells: Sequence[str], spec: SplitSpec) -> np.ndarray:
    """Cells of the split column -> float64 [n], NaN where a cell says nothing.

    ``given``: the place of the side in ``SIDES``, in upper or lower case. ``time``: the number, or where
    some cells are dates in ISO 8601 (``2024-01-31``, ``2024-01``, ``2024/01/31``, with a time or without;
    UTC where they name no zone) or years, seconds since 1970. Raises GroundworkError where not one cell says
    anything.
    """
    texts = [cell.strip() for cell in cells]
    if spec.method == "given":
        read = [float(SIDE_OF_WORD.get(text.lower(), np.nan)) for text in texts]
    else:
        numbers, dates = [_number(text) for text in texts], [_date(text) for text in texts]
        are_dates = any(
            np.isfinite(date) and np.isnan(number) for date, number in zip(dates, numbers, strict=True)
        )
        read = dates if are_dates else numbers
    marks = np.array(read, np.float64)
    if len(marks) and np.isnan(marks).all():
        raise GroundworkError(
            f"column {spec.column!r} holds {texts[0][:40]!r} and the like where --split {spec.method} needs "
            f"{_EXPECTED[spec.method]}: name another with --split-column"
        )
    return marks


def why_unmarked(cell: str, spec: SplitSpec) -> str:
    """Why a row with this cell in the split column cannot be used."""
    return f"split column {spec.column!r} is {cell.strip()[:40]!r}, not {_EXPECTED[spec.method]}"


def mark_identities(marks: np.ndarray, identities: Sequence[str], spec: SplitSpec) -> np.ndarray:
    """One mark for all rows of an identity, float64 [n]: what is known early counts as early.

    Raises GroundworkError where a given column puts an identity on two sides.
    """
    groups = numbered(identities)
    earliest = np.full(groups.max(initial=-1) + 1, np.inf)
    np.minimum.at(earliest, groups, marks)
    found = earliest[groups]
    if spec.method == "given" and (apart := np.flatnonzero(found != marks)).size:
        place = int(apart[0])
        such = len(set(groups[apart].tolist()))
        raise GroundworkError(
            f"column {spec.column!r} puts {identities[place]} into {SIDES[int(found[place])]} and "
            f"{SIDES[int(marks[place])]}{f' ({such:,} such)' if such > 1 else ''}: "
            "give all rows of one thing one side"
        )
    return found


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return np.nan
    return number if np.isfinite(number) else np.nan


def _date(text: str) -> float:
    """Seconds since 1970, or NaN."""
    if text.isdecimal() and int(text) in _YEARS:
        text = f"{text}-01-01"
    day, separator, time = text.replace("/", "-").partition("T" if "T" in text else " ")
    if day.count("-") == 1:
        day += "-01"
    try:
        date = datetime.fromisoformat(day + separator + time)
    except ValueError:
        return np.nan
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
