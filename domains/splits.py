"""Which rows are held out: deterministic, and named by an id that travels with every figure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domains.contract import GroundworkError, SplitSpec, digest_of

SIDES = ("train", "val", "test")
UNDEALT = -1

COLUMN_METHODS = ("time", "given")
"""Methods that a column of the rows decides, whatever the domain."""

ORDERED = "scaffold"
"""The method whose groups are dealt by size, without a seed."""

BALANCED = ("scaffold-balanced", "cluster")
"""Methods that deal groups which would fill half of a held-out side before the others, so to train."""


@dataclass(frozen=True)
class Split:
    """Positions of the records on each side, int64, ascending; together each record once."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    id: str
    """Equal ids mean equal records held out, whatever their order in the file."""
    groups: np.ndarray
    """Group of each record, int64 [n]: records of one group are not independent of one another."""

    @property
    def sides(self) -> np.ndarray:
        """Name of the side of each record, str [n]."""
        sides = np.empty(len(self.groups), dtype="<U5")
        for name in SIDES:
            sides[getattr(self, name)] = name
        return sides


class CannotExtend(GroundworkError):
    """A split cannot be carried over to other rows."""


def numbered(keys: Iterable[Hashable]) -> np.ndarray:
    """Number of each key by first appearance, int64 [n]: equal keys, equal numbers."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def split(
    groups: np.ndarray, spec: SplitSpec, identities: Sequence[str], marks: np.ndarray | None = None
) -> Split:
    """Fill train, then val, then test with whole groups, up to the fractions of ``spec``.

    ``groups`` int64 [n] and ``identities`` [n] belong to the same records. ``scaffold`` takes the groups by
    size, largest first, of equal ones the later in the file first: the deterministic split of MoleculeNet
    and DeepChem (Wu et al. 2018), which the seed does not change. Any other method takes them as the seed
    shuffles them; ``scaffold-balanced`` and ``cluster`` first those with more rows than half of val or of
    test, as Chemprop's balanced split does (Yang et al., J. Chem. Inf. Model. 2019, 59, 3370).
    A group goes to the first side that it does not overfill; the last side with a fraction takes the rest.

    ``time`` and ``given`` go by ``marks`` float64 [n], equal within a group (see ``domains.marks``) and of
    no other method: the time of each record, of which the earliest train, the latest test and equal ones
    stay together; or the place of its side in ``SIDES``.
    Raises GroundworkError where a side that has a fraction would be empty.
    """
    _check(groups, spec, identities, marks)
    if marks is not None:
        return _by_marks(groups, spec, identities, marks, {})
    return _deal(groups, spec, identities, {})


def extend(
    groups: np.ndarray,
    spec: SplitSpec,
    identities: Sequence[str],
    known: Mapping[str, str],
    marks: np.ndarray | None = None,
) -> Split:
    """Carry a split over to rows that came later: what was held out stays held out.

    ``known`` gives the side of each identity of the earlier split. An identity keeps its side; a new one
    of a group that has a side joins it there; new groups are dealt as ``split`` deals them, into what
    room the fractions leave. Raises CannotExtend where one group holds identities of two sides, or a side
    that has a fraction would be empty.

    With ``marks`` the split is made anew, and moves on in time: rows that were held out may be learnt from.
    Raises CannotExtend where one that was learnt from would be held out.
    """
    try:
        _check(groups, spec, identities, marks)
        if marks is not None:
            return _by_marks(groups, spec, identities, marks, known)
        return _deal(groups, spec, identities, known)
    except GroundworkError as error:
        raise error if isinstance(error, CannotExtend) else CannotExtend(str(error)) from error


def without(split: Split, left_out: np.ndarray) -> Split:
    """The split of the records but those at ``left_out``, int [m]; the others count their positions anew.

    It keeps its id: the same records are held out.
    """
    kept = np.delete(np.arange(len(split.groups)), left_out)
    train, val, test = (np.flatnonzero(np.isin(kept, getattr(split, name))) for name in SIDES)
    return Split(train, val, test, id=split.id, groups=split.groups[kept])


def _check(groups: np.ndarray, spec: SplitSpec, identities: Sequence[str], marks: np.ndarray | None) -> None:
    if len(groups) != len(identities):
        raise ValueError(f"{len(groups)} groups for {len(identities)} identities")
    if (marks is not None) != (spec.method in COLUMN_METHODS):
        raise ValueError(f"marks are for the methods {COLUMN_METHODS}, not for {spec.method!r}")
    if min(spec.fractions) < 0 or not math.isclose(sum(spec.fractions), 1.0, abs_tol=1e-6):
        raise GroundworkError(f"split fractions {spec.fractions} must be positive and sum to 1")
    if not len(groups):
        raise GroundworkError("no usable row to split")


def _deal(groups: np.ndarray, spec: SplitSpec, identities: Sequence[str], known: Mapping[str, str]) -> Split:
    number = len(groups)
    names, first, sizes = np.unique(np.asarray(groups), return_index=True, return_counts=True)
    group_of_row = np.searchsorted(names, groups)
    side_of_group = _known_sides(group_of_row, len(names), spec, identities, known)
    taken = np.array([sizes[side_of_group == side].sum() for side in range(len(SIDES))])
    fresh = np.flatnonzero(side_of_group == UNDEALT)
    if spec.method == ORDERED:
        order = fresh[np.lexsort((-first[fresh], -sizes[fresh]))]
    else:
        order = fresh[np.argsort(first[fresh])]  # the same whatever the numbers of the groups
        np.random.default_rng(spec.seed).shuffle(order)
    if spec.method in BALANCED:
        held_out = [fraction for fraction in spec.fractions[1:] if fraction > 0]
        is_large = sizes[order] > number * min(held_out, default=1.0) / 2
        order = np.concatenate([order[is_large], order[~is_large]])
    rooms = [fraction * number for fraction in spec.fractions]
    side_of_group[order] = _fill(sizes[order], rooms, taken.tolist())
    side = side_of_group[group_of_row]
    _refuse_empty(side, spec, len(names))
    return _made(side, spec, identities, groups)


def _made(side: np.ndarray, spec: SplitSpec, identities: Sequence[str], groups: np.ndarray) -> Split:
    held = sorted({(identity, SIDES[where]) for identity, where in zip(identities, side, strict=True)})
    seed = None if spec.method in (ORDERED, *COLUMN_METHODS) else spec.seed
    train, val, test = (np.flatnonzero(side == where) for where in range(len(SIDES)))
    return Split(
        train,
        val,
        test,
        id=digest_of([spec.method, seed, spec.fractions, held]),
        groups=np.asarray(groups),
    )


def _by_marks(
    groups: np.ndarray,
    spec: SplitSpec,
    identities: Sequence[str],
    marks: np.ndarray,
    known: Mapping[str, str],
) -> Split:
    side = marks.astype(np.int64) if spec.method == "given" else _sides_in_time(marks, spec)
    for identity, where in zip(identities, side.tolist(), strict=True):
        if SIDES.index(known.get(identity, SIDES[-1])) < where:
            raise CannotExtend(f"{identity} was in {known[identity]} and would be in {SIDES[where]} now")
    for where, (name, fraction) in enumerate(zip(SIDES, spec.fractions, strict=True)):
        if fraction > 0 and not (side == where).any():
            raise GroundworkError(
                f"column {spec.column!r} puts no usable row into {name}: mark some, or use another --split"
            )
    return _made(side, spec, identities, groups)


def _sides_in_time(times: np.ndarray, spec: SplitSpec) -> np.ndarray:
    """Side of each record, int64 [n]: each side ends between two times, as near its share as it can."""
    places = [place for place, fraction in enumerate(spec.fractions) if fraction > 0]
    distinct, counts = np.unique(times, return_counts=True)
    if len(distinct) < len(places):
        raise GroundworkError(
            f"column {spec.column!r} holds {len(distinct)} distinct times among the usable rows, too few "
            f"for {len(places)} sides: use another --split"
        )
    so_far, shares = np.cumsum(counts), np.cumsum(spec.fractions)
    side_of_time = np.full(len(distinct), places[-1])
    start = 0
    for taken, place in enumerate(places[:-1]):
        stop = len(distinct) - (len(places) - taken - 1)  # leaves a time for each side to come
        ends = so_far[start:stop]
        end = start + int(np.argmin(np.abs(ends - shares[place] * len(times)))) + 1
        side_of_time[start:end] = place
        start = end
    return side_of_time[np.searchsorted(distinct, times)]


def _known_sides(
    group_of_row: np.ndarray, count: int, spec: SplitSpec, identities: Sequence[str], known: Mapping[str, str]
) -> np.ndarray:
    """Side of each group that has one already, UNDEALT for the others; int64 [count]."""
    sides = np.full(count, UNDEALT)
    for group, identity in zip(group_of_row.tolist(), identities, strict=True):
        if identity not in known:
            continue
        side = SIDES.index(known[identity])
        if sides[group] not in (UNDEALT, side):
            raise CannotExtend(
                f"a {spec.method} group now holds rows of {SIDES[sides[group]]} and of {SIDES[side]}"
            )
        sides[group] = side
    return sides


def _fill(sizes: np.ndarray, rooms: list[float], taken: list[int]) -> list[int]:
    *sides, last = [side for side, room in enumerate(rooms) if room > 0]
    left = [room - full + 1e-9 for room, full in zip(rooms, taken, strict=True)]  # or 0.8 × 10 < 8
    chosen = []
    for size in sizes.tolist():
        side = next((side for side in sides if size <= left[side]), last)
        left[side] -= size
        chosen.append(side)
    # Where groups are few and large, none may fit into the room of a side: it is given the smallest then.
    for side in (*sides, last):
        if taken[side] or side in chosen or rooms[side] < 1 - 1e-9:
            continue
        spare = [place for place, giver in enumerate(chosen) if taken[giver] or chosen.count(giver) > 1]
        if spare:
            chosen[min(spare, key=lambda place: (sizes[place], place))] = side
    return chosen


def _refuse_empty(side: np.ndarray, spec: SplitSpec, groups: int) -> None:
    for where, (name, fraction) in enumerate(zip(SIDES, spec.fractions, strict=True)):
        if fraction > 0 and not (side == where).any():
            rows = math.ceil(1 / min(fraction for fraction in spec.fractions if fraction > 0))
            sides = sum(fraction > 0 for fraction in spec.fractions)
            raise GroundworkError(
                f"{len(side)} usable rows in {groups} groups (split {spec.method}) leave nothing for {name}: "
                "give "
                + (
                    f"at least {rows} rows"
                    if len(side) < rows
                    else f"rows of at least {sides} groups, or split at random"
                )
            )
