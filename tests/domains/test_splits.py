"""What a split promises: each record once, no group on two sides, and an id that means the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domains.contract import GroundworkError, SplitSpec
from domains.splits import SIDES, CannotExtend, Split, extend, split

group_lists = st.lists(st.integers(0, 30), min_size=10, max_size=200)
methods = st.sampled_from(["scaffold", "random", "cluster"])


def made(groups: list[int], spec: SplitSpec) -> Split:
    try:
        return split(np.array(groups), spec, [f"m{position}" for position in range(len(groups))])
    except GroundworkError:
        assume(False)
        raise


@given(group_lists, methods, st.integers(0, 5))
def test_each_record_is_on_one_side_and_each_group_too(groups: list[int], method: str, seed: int) -> None:
    found = made(groups, SplitSpec(method=method, seed=seed))
    sides = [found.train, found.val, found.test]
    assert sorted(np.concatenate(sides)) == list(range(len(groups)))
    assert all((np.diff(side) > 0).all() for side in sides)
    held = [{groups[position] for position in side} for side in sides]
    assert not set.union(held[0] & held[1], held[0] & held[2], held[1] & held[2])


@given(st.integers(20, 300), st.integers(0, 9), st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2)]))
def test_fractions_are_met_exactly_by_single_records(
    size: int, seed: int, fractions: tuple[float, float, float]
) -> None:
    found = made(list(range(size)), SplitSpec(method="random", seed=seed, fractions=fractions))
    assert len(found.train) == int(fractions[0] * size + 1e-9)
    assert len(found.val) == int(fractions[1] * size + 1e-9)


@given(group_lists, st.integers(1, 1000))
def test_numbers_of_the_groups_do_not_matter(groups: list[int], factor: int) -> None:
    spec = SplitSpec(method="random", seed=3)
    assert made(groups, spec).id == made([-factor * group for group in groups], spec).id


def test_seed_changes_random_and_leaves_scaffold() -> None:
    groups = list(range(100))
    ids = {made(groups, SplitSpec(method="random", seed=seed)).id for seed in (0, 0, 1)}
    assert len(ids) == 2
    scaffold = {made(groups, SplitSpec(method="scaffold", seed=seed)).id for seed in (0, 1)}
    assert len(scaffold) == 1


def test_scaffold_fills_largest_groups_first_as_published() -> None:
    # Sizes 5, 3, 1, 1: train takes 5 + 3, then val and test one each, the later of the two first.
    groups = np.array([7, 7, 2, 2, 2, 7, 7, 7, 9, 4])
    found = split(groups, SplitSpec(method="scaffold", seed=0), list("abcdefghij"))
    assert found.train.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert (found.val.tolist(), found.test.tolist()) == ([9], [8])


def test_a_group_too_large_for_train_goes_on_to_a_later_side() -> None:
    groups = np.array([0] * 9 + [1])
    with pytest.raises(GroundworkError, match="10 usable rows"):
        split(groups, SplitSpec(method="scaffold", seed=0), [str(n) for n in range(10)])


def test_id_follows_the_records_and_not_their_order() -> None:
    names = [f"m{n}" for n in range(20)]
    groups = np.array([0] * 10 + [1] * 6 + [2] * 2 + [3] * 2)
    order = np.random.default_rng(0).permutation(20)
    spec = SplitSpec(method="scaffold", seed=0)
    # Groups 2 and 3 tie, so their order of appearance decides; keep it.
    order = np.concatenate([order[order < 16], np.arange(16, 20)])
    one = split(groups, spec, names)
    other = split(groups[order], spec, [names[n] for n in order])
    assert one.id == other.id
    assert {names[n] for n in one.test} == {names[order[n]] for n in other.test}
    changed = split(groups, spec, ["x", *names[1:]])
    assert changed.id != one.id


def test_a_side_without_fraction_stays_empty() -> None:
    spec = SplitSpec(method="random", seed=0, fractions=(0.95, 0.05, 0.0))
    found = split(np.arange(1001), spec, [str(n) for n in range(1001)])
    assert len(found.test) == 0
    assert len(found.train) + len(found.val) == 1001


@pytest.mark.parametrize("method", ["random", "scaffold"])
def test_too_few_rows_says_how_many_are_needed(method: str) -> None:
    with pytest.raises(GroundworkError, match="at least 10 rows"):
        split(np.arange(5), SplitSpec(method=method, seed=0), list("abcde"))
    with pytest.raises(GroundworkError, match="no usable row"):
        split(np.array([], int), SplitSpec(method=method, seed=0), [])


def test_one_scaffold_for_all_points_to_the_random_split() -> None:
    with pytest.raises(GroundworkError, match="random"):
        split(np.zeros(50, int), SplitSpec(method="scaffold", seed=0), [str(n) for n in range(50)])


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_impossible_fractions_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(GroundworkError, match="sum to 1"):
        split(
            np.arange(50),
            SplitSpec(method="random", seed=0, fractions=fractions),
            [str(n) for n in range(50)],
        )


# ------------------------------------------------------------------------------------------ extension


def named(numbers: list[int]) -> tuple[np.ndarray, list[str]]:
    """Records by number: an identity each, and three of them to a group."""
    return np.array(numbers) // 3, [f"m{number}" for number in numbers]


def sides_of(found: Split, identities: list[str]) -> dict[str, str]:
    return dict(zip(identities, found.sides.tolist(), strict=True))


numbers_of_records = st.lists(st.integers(0, 150), min_size=30, max_size=200)


@given(numbers_of_records, st.lists(st.integers(0, 400), max_size=200), st.data(), methods)
def test_an_extended_split_keeps_every_identity_and_every_group_together(
    before: list[int], added: list[int], data: st.DataObject, method: str
) -> None:
    spec = SplitSpec(method=method, seed=1)
    groups, identities = named(before)
    try:
        known = sides_of(split(groups, spec, identities), identities)
        dropped = data.draw(st.sets(st.sampled_from(before), max_size=5))
        groups, identities = named([number for number in before if number not in dropped] + added)
        found = extend(groups, spec, identities, known)
    except GroundworkError:
        assume(False)
        raise
    sides = found.sides.tolist()
    assert sorted(np.concatenate([found.train, found.val, found.test])) == list(range(len(identities)))
    for identity, side in zip(identities, sides, strict=True):
        assert known.get(identity, side) == side
    assert len(set(zip(groups.tolist(), sides, strict=True))) == len(set(groups.tolist()))


@given(st.integers(40, 200), st.integers(0, 400), st.integers(0, 9), methods)
def test_an_extended_split_comes_as_near_to_the_fractions(
    size: int, more: int, seed: int, method: str
) -> None:
    spec = SplitSpec(method=method, seed=seed)
    identities = [f"m{number}" for number in range(size + more)]
    known = sides_of(split(np.arange(size), spec, identities[:size]), identities[:size])
    found = extend(np.arange(size + more), spec, identities, known)
    for side, fraction in zip(SIDES, spec.fractions, strict=True):
        assert abs(len(getattr(found, side)) - fraction * (size + more)) <= 2


@given(numbers_of_records, methods)
def test_nothing_new_leaves_a_split_as_it_is(before: list[int], method: str) -> None:
    spec = SplitSpec(method=method, seed=1)
    groups, identities = named(before)
    try:
        first = split(groups, spec, identities)
    except GroundworkError:
        assume(False)
        raise
    assert extend(groups, spec, identities, sides_of(first, identities)).id == first.id
    assert extend(groups, spec, identities, {}).id == first.id


def test_a_group_that_joins_two_sides_cannot_be_carried_over() -> None:
    groups = np.array([0, 0, *range(1, 40)])
    known = {"m0": "train", "m1": "test"}
    with pytest.raises(CannotExtend, match="a random group now holds rows of train and of test"):
        extend(groups, SplitSpec(method="random", seed=0), [f"m{n}" for n in range(41)], known)
