"""Clusters of like molecules: as Butina wrote, exact at the edge, and stable where they are to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import DataStructs
from rdkit.Chem import rdFingerprintGenerator
from rdkit.ML.Cluster import Butina

from domains.contract import Record, Row
from domains.molecules import MOLECULES, MoleculeEncoding, clusters
from domains.molecules.clusters import butina, cluster, leaders


def packed(rows: list[set[int]]) -> np.ndarray:
    """Distinct fingerprints of 64 bits."""
    bits = np.zeros((len(rows), 64), np.uint8)
    for place, row in enumerate(rows):
        bits[place, sorted(row)] = 1
    return np.packbits(bits, axis=1)


def distance(one: set[int], other: set[int]) -> float:
    return 1 - len(one & other) / max(len(one | other), 1)


bit_sets = st.lists(st.frozensets(st.integers(0, 11), min_size=1), min_size=1, max_size=40, unique=True).map(
    lambda rows: [set(row) for row in rows]
)


@settings(deadline=None)
@given(bit_sets)
def test_butina_is_as_published(rows: list[set[int]]) -> None:
    near = np.array([[distance(one, other) <= 0.4 for other in rows] for one in rows])
    expected = np.full(len(rows), -1)
    while (expected < 0).any():
        free = np.flatnonzero(expected < 0)
        centre = free[np.argmax(near[free].sum(axis=1))]
        expected[free[near[centre][free]]] = centre
    np.testing.assert_array_equal(butina(packed(rows)), expected)


@settings(deadline=None)
@given(bit_sets, st.integers(0, 40))
def test_each_follows_a_leader_that_is_near_and_later_rows_change_nothing(
    rows: list[set[int]], before: int
) -> None:
    found = leaders(packed(rows))
    leading = sorted(set(found.tolist()))
    for row, leader in enumerate(found.tolist()):
        assert leader <= row
        assert found[leader] == leader
        assert distance(rows[row], rows[leader]) <= 0.4
    for place, leader in enumerate(leading):
        assert all(distance(rows[leader], rows[earlier]) > 0.4 for earlier in leading[:place])
    if before := min(before, len(rows)):
        np.testing.assert_array_equal(leaders(packed(rows[:before])), found[:before])


@settings(max_examples=20, deadline=None)
@given(bit_sets)
def test_blocks_do_not_show(rows: list[set[int]]) -> None:
    whole = butina(packed(rows)), leaders(packed(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "BLOCK", 8)
        np.testing.assert_array_equal(butina(packed(rows)), whole[0])
        in_blocks = leaders(packed(rows))
    assert {row for row, leader in enumerate(in_blocks) if row == leader} == {
        row for row, leader in enumerate(whole[1]) if row == leader
    }


def test_a_distance_of_exactly_two_fifths_is_near() -> None:
    assert len(set(butina(packed([{0, 1, 2, 3}, {0, 1, 2, 4}])).tolist())) == 1  # 3 of 5 are shared
    assert len(set(butina(packed([{0, 1, 2, 3}, {0, 1, 4, 5}])).tolist())) == 2


def test_real_molecules_are_clustered_as_rdkit_clusters_them(molecules: list[str]) -> None:
    read = [MOLECULES.read(Row(place, text), MoleculeEncoding()) for place, text in enumerate(molecules)]
    records = [record for record in read if isinstance(record, Record)]
    found = MOLECULES.groups(records, "cluster")
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(record.value) for record in records]
    distances = [
        1 - likeness
        for place in range(1, len(prints))
        for likeness in DataStructs.BulkTanimotoSimilarity(prints[place], prints[:place])
    ]
    # Ties are broken otherwise, so that single molecules may differ: as many clusters, as large.
    theirs = Butina.ClusterData(distances, len(prints), 0.4 + 1e-9, isDistData=True)
    assert len(set(found.tolist())) == pytest.approx(len(theirs), rel=0.03)
    assert np.bincount(found).max() == len(max(theirs, key=len))


def test_copies_and_stereoisomers_stay_together() -> None:
    smiles = ["C[C@H](N)C(=O)O", "c1ccccc1", "C[C@@H](N)C(=O)O", "OC(=O)[C@@H](N)C"]
    records = [MOLECULES.read(Row(place, text), MoleculeEncoding()) for place, text in enumerate(smiles)]
    assert MOLECULES.groups(records, "cluster").tolist() == [0, 1, 0, 0]


def test_many_are_clustered_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = packed([{1, 2, 3}, {1, 2, 3, 4}, {9}])
    monkeypatch.setattr(clusters, "LARGEST_BUTINA", 2)
    monkeypatch.setattr(clusters, "butina", None)
    assert cluster(rows).tolist() == [0, 0, 2]
