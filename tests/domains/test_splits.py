"""What a split promises: each record once, no group on two sides, and an id that means the same rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domains.contract import GroundworkError, SplitSpec
from domains.splits import SIDES, CannotExtend, Split, extend, split

group_lists = st.lists(st.integers(0, 30), min_size=10, max_size=200)
methods = st.sampled_from(["scaffold", "scaffold-balanced", "random", "cluster"])


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


def test_few_large_groups_leave_none_of_the_sides_empty() -> None:
    """As whole scenes: none of three fits into a tenth of the rows."""
    for seed in range(5):
        found = split(
            np.repeat([0, 1, 2], [16, 20, 28]),
            SplitSpec(method="scene", seed=seed),
            [str(n) for n in range(64)],
        )
        assert sorted(len(side) for side in (found.train, found.val, found.test)) == [16, 20, 28]
    with pytest.raises(GroundworkError, match="at least 3 groups"):
        split(np.repeat([0, 1], 32), SplitSpec(method="scene", seed=0), [str(n) for n in range(64)])


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


def test_large_groups_go_to_train_where_the_split_is_balanced() -> None:
    groups = np.array([*[0] * 12, *[1] * 9, *[2] * 6, *range(3, 76)])  # 100 rows; 5 are half of val
    names = [str(n) for n in range(100)]
    ids = set()
    for seed in range(8):
        found = split(groups, SplitSpec(method="scaffold-balanced", seed=seed), names)
        assert set(range(27)) <= set(found.train.tolist())
        ids.add(found.id)
    assert len(ids) == 8
    again = split(groups, SplitSpec(method="scaffold-balanced", seed=7), names)
    assert again.id == found.id


# ------------------------------------------------------------------------------------------ by a column


def in_time(times: list[float], fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> Split:
    spec = SplitSpec(method="time", seed=0, fractions=fractions, column="year")
    return split(np.arange(len(times)), spec, [str(n) for n in range(len(times))], np.array(times, float))


@given(
    st.lists(st.integers(0, 50), min_size=3, max_size=200), st.sampled_from([(0.8, 0.1, 0.1), (0.9, 0.1, 0)])
)
def test_the_past_is_learnt_from_and_the_latest_held_out(
    times: list[int], fractions: tuple[float, float, float]
) -> None:
    assume(len(set(times)) >= 3)
    found = in_time(times, fractions)
    marks = np.array(times)
    held = [marks[side] for side in (found.train, found.val, found.test) if len(side)]
    assert len(held) == sum(fraction > 0 for fraction in fractions)
    for before, after in pairwise(held):
        assert before.max() < after.min()  # rows of one time stay together
    assert sum(map(len, held)) == len(times)


def test_sides_in_time_come_as_near_to_the_fractions_as_times_allow() -> None:
    found = in_time(list(range(100)))
    assert (found.train.tolist()[-1], found.val.tolist()[-1]) == (79, 89)
    years = [2010] * 50 + [2011] * 28 + [2012] * 14 + [2013] * 8
    assert [len(side) for side in (in_time(years).train, in_time(years).val, in_time(years).test)] == [
        78,
        14,
        8,
    ]
    with pytest.raises(GroundworkError, match=r"column 'year' holds 2 distinct times .* too few for 3 sides"):
        in_time([2010] * 50 + [2011] * 50)


def as_given(sides: list[int]) -> Split:
    spec = SplitSpec(method="given", seed=0, column="set")
    return split(np.arange(len(sides)), spec, [str(n) for n in range(len(sides))], np.array(sides, float))


def test_given_sides_are_kept_and_must_all_be_there() -> None:
    found = as_given([0, 2, 1, 0])
    assert (found.train.tolist(), found.val.tolist(), found.test.tolist()) == ([0, 3], [2], [1])
    with pytest.raises(GroundworkError, match="column 'set' puts no usable row into val: mark some"):
        as_given([0, 2, 2, 0])


@pytest.mark.parametrize(("method", "marks"), [("random", np.zeros(3)), ("time", None)])
def test_marks_belong_to_the_methods_of_a_column(method: str, marks: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match="marks are for"):
        split(np.arange(3), SplitSpec(method=method, seed=0), list("abc"), marks)


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


@given(st.integers(20, 100), st.integers(0, 50))
def test_a_split_in_time_moves_on(size: int, more: int) -> None:
    spec = SplitSpec(method="time", seed=0, column="year")
    names = [f"m{number}" for number in range(size + more)]
    times = np.arange(size + more, dtype=float)
    known = sides_of(split(np.arange(size), spec, names[:size], times[:size]), names[:size])
    found = extend(np.arange(size + more), spec, names, known, times)
    assert found.id == split(np.arange(size + more), spec, names, times).id
    assert set(range(int(0.8 * size) - 1)) <= set(found.train.tolist())


def test_rows_learnt_from_are_not_held_out_later() -> None:
    spec = SplitSpec(method="time", seed=0, column="year")
    names = [f"m{number}" for number in range(40)]
    known = sides_of(split(np.arange(40), spec, names, np.arange(40.0)), names)
    with pytest.raises(CannotExtend, match="m16 was in train and would be in val now"):
        extend(np.arange(20), spec, names[:20], known, np.arange(20.0))  # the later half is gone
    marked = SplitSpec(method="given", seed=0, column="set")
    sides = np.array([0.0, 0, 1, 2])
    assert extend(np.arange(4), marked, list("abcd"), {"a": "test"}, sides).train.tolist() == [0, 1]
    with pytest.raises(CannotExtend, match="d was in val and would be in test now"):
        extend(np.arange(4), marked, list("abcd"), {"d": "val"}, sides)
    with pytest.raises(CannotExtend, match="no usable row into test"):
        extend(np.arange(3), marked, list("abc"), {}, sides[:3])
