"""Which rows are held out: deterministic, and named by an id that travels with every figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domains.contract import GroundworkError, SplitSpec, digest_of

SIDES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Positions of the records on each side, int64, ascending; together each record once."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    id: str
    """Equal ids mean equal records held out, whatever their order in the file."""


def split(groups: np.ndarray, spec: SplitSpec, identities: Sequence[str]) -> Split:
    """Fill train, then val, then test with whole groups, up to the fractions of ``spec``.

    ``groups`` int64 [n] and ``identities`` [n] belong to the same records. ``scaffold`` takes the groups by
    size, largest first, of equal ones the later in the file first: the deterministic split of MoleculeNet
    and DeepChem (Wu et al. 2018), which the seed does not change. Any other method takes them as the seed
    shuffles them.
    A group goes to the first side that it does not overfill; the last side with a fraction takes the rest.
    Raises GroundworkError where a side that has a fraction would be empty.
    """
    if len(groups) != len(identities):
        raise ValueError(f"{len(groups)} groups for {len(identities)} identities")
    if min(spec.fractions) < 0 or not math.isclose(sum(spec.fractions), 1.0, abs_tol=1e-6):
        raise GroundworkError(f"split fractions {spec.fractions} must be positive and sum to 1")
    number = len(groups)
    if number == 0:
        raise GroundworkError("no usable row to split")
    names, first, sizes = np.unique(np.asarray(groups), return_index=True, return_counts=True)
    is_ordered = spec.method == "scaffold"
    if is_ordered:
        order = np.lexsort((-first, -sizes))
    else:
        order = np.argsort(first)  # the same whatever the numbers of the groups
        np.random.default_rng(spec.seed).shuffle(order)
    side_of_group = np.empty(len(names), np.int64)
    side_of_group[order] = _fill(sizes[order], [fraction * number for fraction in spec.fractions])
    side = side_of_group[np.searchsorted(names, groups)]
    _refuse_empty(side, spec, len(names))
    held = sorted({(identity, SIDES[where]) for identity, where in zip(identities, side, strict=True)})
    seed = None if is_ordered else spec.seed
    split_id = digest_of([spec.method, seed, spec.fractions, held])
    return Split(np.flatnonzero(side == 0), np.flatnonzero(side == 1), np.flatnonzero(side == 2), split_id)


def _fill(sizes: np.ndarray, rooms: list[float]) -> list[int]:
    *sides, last = [side for side, room in enumerate(rooms) if room > 0]
    left = [room + 1e-9 for room in rooms]  # or 0.8 × 10 would be less than 8
    chosen = []
    for size in sizes.tolist():
        side = next((side for side in sides if size <= left[side]), last)
        left[side] -= size
        chosen.append(side)
    return chosen


def _refuse_empty(side: np.ndarray, spec: SplitSpec, groups: int) -> None:
    for where, (name, fraction) in enumerate(zip(SIDES, spec.fractions, strict=True)):
        if fraction > 0 and not (side == where).any():
            needed = math.ceil(1 / min(fraction for fraction in spec.fractions if fraction > 0))
            raise GroundworkError(
                f"{len(side)} usable rows in {groups} {spec.method} groups leave nothing for {name}: "
                f"give at least {needed} rows"
                + (", or split at random" if spec.method != "random" and len(side) >= needed else "")
            )
