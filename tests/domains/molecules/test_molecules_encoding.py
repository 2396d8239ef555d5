"""The codes of a molecule: equal to what plain loops over RDKit say, and blind to the order of atoms."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from domains.contract import Domain, Record, Row, Sample, load_domain
from domains.molecules import MOLECULES, MoleculeEncoding
from domains.molecules.encoding import ATOM_FIELDS, BOND_FIELDS

SPEC = MoleculeEncoding()
CORPUS = Path(__file__).parents[4] / "shared/data/molecules/corpus.parquet"
ODD = [
    "*", "[H]", "[H][H]", "[U]", "[CH3]", "[Og]", "[2H]C([2H])[2H]", "[13CH4]", "[Na+].[Cl-]", "[Fe+99]",
    "C~C", "C$C", "CN->[Pt]", "N->[Pt](<-N)(Cl)Cl", "[O-][Cl+3]([O-])([O-])O", "c1ccccc1.C", "[nH]1cccc1",
    "c1cc[nH+]cc1",
    "C1=CC=CC=C1", "O=[N+]([O-])c1ccccc1", "c1ccc2c(c1)ccc1ccccc12", "c1cccc2cccc-2c1", "[B-](F)(F)(F)F",
    "F[P@](Cl)(Br)I", "C[S@](=O)CC", "[Co@OH12](F)(Cl)(Br)(I)(N)O", "*c1ccc(*)cc1", "F[S](F)(F)(F)(F)F",
    "C12C3C4C1C5C2C3C45", "[CH2]C=C", "[C-]#[O+]", "N#[N+][O-]", "C" * 500, "c1ccccc1" * 80, "C/C=C/C=C\\C",
    "[Cl-].[Cl-].[Ca+2]", "[As](C)(C)C", "C[Si](C)(C)C", "[H+]", "[Zn+2].[O-]C(=O)C.[O-]C(=O)C", "II",
]  # fmt: skip
STEREO = [
    "C[C@H](N)C(=O)O", "F/C=C/F", "F/C=C\\F", "C/C(F)=C(/Cl)Br", "C[C@@H]1CC[C@H](C)CC1",
    "O[C@H]1C[C@@H](O)C1",
    "C[C@H](O)[C@@H](O)[C@H](C)O", "CC(=O)[C@@]1(O)CC[C@H]2[C@@H]3CCC4=CC(=O)CC[C@]4(C)[C@H]3CC[C@]12C",
    "OC[C@H]1OC(O)[C@H](O)[C@@H](O)[C@@H]1O", "C/C=C/[C@H](O)/C=C\\C",
]  # fmt: skip


def record(smiles: str) -> Record:
    found = MOLECULES.read(Row(0, smiles), SPEC)
    assert isinstance(found, Record), found
    return found


def encoded(smiles: str) -> Sample:
    return MOLECULES.encode(record(smiles), SPEC)


def embedded(every: int, first: int = 0) -> list[str]:
    rows = list(MOLECULES.embedded()["chemicals"](SPEC).stream())
    return [row.value for row in rows[first::every] if not isinstance(MOLECULES.read(row, SPEC), type(None))]


def plain_loops(molecule: Chem.Mol) -> tuple[list[list[int]], dict[tuple[int, int], int]]:
    """What the codes mean, written for reading; without stereo."""
    orders = {"SINGLE": 0, "DOUBLE": 1, "TRIPLE": 2, "AROMATIC": 3}
    atoms = [
        [
            atom.GetAtomicNum(),
            min(atom.GetTotalDegree(), 12),
            min(atom.GetTotalNumHs(includeNeighbors=True), 8),
            min(max(atom.GetFormalCharge(), -8), 8) + 8,
            int(atom.GetIsAromatic()),
            int(atom.IsInRing()),
        ]
        for atom in molecule.GetAtoms()
    ]
    bonds = {}
    for bond in molecule.GetBonds():
        begin, end = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        bonds[begin, end] = orders.get(str(bond.GetBondType()), 4)
    return atoms, bonds


def assert_as_plain_loops(smiles: str) -> None:
    found = record(smiles)
    sample = MOLECULES.encode(found, SPEC)
    atoms, bonds = plain_loops(found.value)
    assert sample["atoms"][:, :6].tolist() == atoms, smiles
    pairs = [tuple(pair) for pair in sample["bonds"].tolist()]
    assert dict(zip(pairs, sample["bond_codes"][:, 0].tolist(), strict=True)) == bonds, smiles
    assert pairs == sorted(bonds)


@pytest.mark.parametrize("smiles", ODD + STEREO)
def test_codes_equal_plain_loops_on_odd_molecules(smiles: str) -> None:
    assert_as_plain_loops(smiles)


def test_codes_equal_plain_loops_on_the_embedded_corpus() -> None:
    for row in list(MOLECULES.embedded()["chemicals"](SPEC).stream())[::60]:
        if isinstance(MOLECULES.read(row, SPEC), Record):
            assert_as_plain_loops(row.value)


@pytest.mark.slow
@pytest.mark.skipif(not CORPUS.exists(), reason="the corpus of 1.3 million molecules is not on this machine")
def test_codes_equal_plain_loops_on_two_thousand_drug_like_molecules() -> None:
    import pyarrow.parquet as pq

    smiles = pq.read_table(CORPUS, columns=["smiles"])["smiles"]
    for place in np.random.default_rng(11).choice(len(smiles), 2_000, replace=False):
        assert_as_plain_loops(smiles[int(place)].as_py())


def test_common_atoms_share_no_invariant() -> None:
    """The lookup of an atom by RDKit's 32-bit hash is exact for every atom that may enter the table."""
    element, degree, hydrogens = np.arange(119), np.arange(9), np.arange(5)
    charge, ring = np.arange(-4, 5), np.array([0, 1])
    grid = [axis.ravel() for axis in np.meshgrid(element, degree, hydrogens, charge, ring, indexing="ij")]
    hashes = _boost_hash([part.astype(np.uint32) for part in grid])
    possible = hashes[grid[2] <= grid[1]]
    assert len(np.unique(possible)) == len(possible)


def _boost_hash(parts: list[np.ndarray]) -> np.ndarray:
    *parts, ring = parts
    seed = np.zeros_like(parts[0])
    for part in [*parts, np.zeros_like(seed), np.ones_like(seed)]:  # deltaMass is 0; a ring adds a last 1
        last, seed = (
            seed,
            seed ^ (part + np.uint32(0x9E3779B9) + (seed << np.uint32(6)) + (seed >> np.uint32(2))),
        )
    return np.where(ring == 1, seed, last)


def test_the_invariant_is_what_the_table_takes_it_for() -> None:
    for smiles in [*ODD[:31], *embedded(every=500)]:
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            continue
        common = [atom for atom in molecule.GetAtoms() if not atom.GetIsotope()]
        values = [
            (
                atom.GetAtomicNum(),
                atom.GetTotalDegree(),
                atom.GetTotalNumHs(includeNeighbors=True),
                atom.GetFormalCharge(),
                int(atom.IsInRing()),
            )
            for atom in common
        ]
        if values:
            parts = [np.array(part).astype(np.uint32) for part in zip(*values, strict=True)]
            invariants = rdMolDescriptors.GetConnectivityInvariants(molecule)
            assert _boost_hash(parts).tolist() == [invariants[atom.GetIdx()] for atom in common]


# ----------------------------------------------------------------------------------- order and stereo


def fingerprint(sample: Sample) -> tuple[Counter, Counter]:
    """Atoms and bonds by their codes and those of their neighbours, two bonds deep, without numbering."""
    labels = [tuple(row) for row in sample["atoms"].tolist()]
    edges = list(zip(sample["bonds"].tolist(), map(tuple, sample["bond_codes"].tolist()), strict=True))
    words: list[object] = list(labels)
    for _ in range(3):
        around: list[list[object]] = [[] for _ in labels]
        for (begin, end), code in edges:
            around[begin].append((code, words[end]))
            around[end].append((code, words[begin]))
        words = [
            hash((word, tuple(sorted(map(hash, near))))) for word, near in zip(words, around, strict=True)
        ]
    return Counter(labels), Counter(words)


@pytest.mark.parametrize("smiles", ODD + STEREO)
def test_codes_do_not_depend_on_the_order_of_atoms(smiles: str) -> None:
    molecule = Chem.MolFromSmiles(smiles)
    expected = fingerprint(encoded(smiles))
    for other in Chem.MolToRandomSmilesVect(molecule, 5, randomSeed=1):
        assert fingerprint(encoded(other)) == expected, other


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 1000))
def test_codes_of_real_molecules_do_not_depend_on_the_order_of_atoms(place: int, seed: int) -> None:
    smiles = REAL[place % len(REAL)]
    (other,) = Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), 1, randomSeed=seed)
    assert fingerprint(encoded(other)) == fingerprint(encoded(smiles))


REAL = [row.value for row in list(MOLECULES.embedded()["boiling-points"](SPEC).stream())[::37]]
REAL += [row.value for row in MOLECULES.embedded()["chemicals"](SPEC).stream() if "@" in row.value][::37]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),
        ("C[C@H](N)C(=O)O", "CC(N)C(=O)O"),
        ("F/C=C/F", "F/C=C\\F"),
        ("F/C=C/F", "FC=CF"),
        ("C[C@@H]1CC[C@H](C)CC1", "C[C@H]1CC[C@H](C)CC1"),
        ("O[C@H]1C[C@@H](O)C1", "O[C@H]1C[C@H](O)C1"),
        ("O[C@H](C(=O)O)[C@@H](O)C(=O)O", "O[C@H](C(=O)O)[C@H](O)C(=O)O"),
        ("C[S@](=O)CC", "C[S@@](=O)CC"),
    ],
)
def test_stereoisomers_differ(one: str, other: str) -> None:
    assert fingerprint(encoded(one)) != fingerprint(encoded(other))


def test_mirror_images_swap_r_and_s() -> None:
    left, right = encoded("C[C@H](N)C(=O)O"), encoded("C[C@@H](N)C(=O)O")
    assert (left["atoms"][1, 6], right["atoms"][1, 6]) == (2, 1)  # L-alanine is S
    assert encoded("F/C=C/F")["bond_codes"][:, 1].tolist() == [0, 1, 0]
    assert encoded("F/C=C\\F")["bond_codes"][:, 1].tolist() == [0, 2, 0]


def test_encoding_twice_gives_the_same() -> None:
    for smiles in STEREO:
        found = record(smiles)
        one, two = MOLECULES.encode(found, SPEC), MOLECULES.encode(found, SPEC)
        assert all((one[name] == two[name]).all() for name in one)


# ------------------------------------------------------------------------------------------- contract


def test_the_domain_is_installed_and_keeps_the_contract() -> None:
    assert load_domain("molecules") is MOLECULES
    assert isinstance(MOLECULES, Domain)
    for smiles in MOLECULES.example(SPEC):
        assert isinstance(MOLECULES.read(Row(0, smiles), SPEC), Record)


@pytest.mark.parametrize("smiles", ODD + STEREO)
def test_arrays_have_their_types_and_codes_their_ranges(smiles: str) -> None:
    sample = encoded(smiles)
    kinds = {name: (array.dtype, array.shape[1]) for name, array in sample.items()}
    assert kinds == {"atoms": (np.uint8, 7), "bonds": (np.uint16, 2), "bond_codes": (np.uint8, 2)}
    assert len(sample["bonds"]) == len(sample["bond_codes"])
    for name, fields in (("atoms", ATOM_FIELDS), ("bond_codes", BOND_FIELDS)):
        assert (sample[name] < [size for _, size in fields]).all()
    assert (sample["bonds"][:, 0] < sample["bonds"][:, 1]).all()
    assert (sample["bonds"] < len(sample["atoms"])).all()


def test_targets_of_pretraining_are_columns_of_the_sample() -> None:
    sample = encoded("CCO")
    described = MOLECULES.describe(record("CCO"), SPEC)
    columns = {"token": dict(ATOM_FIELDS), "relation": dict(BOND_FIELDS)}
    for target in MOLECULES.pretraining_targets(SPEC):
        if target.kind == "bits":
            assert described[target.name].shape == (target.size // 8,)
            assert described[target.name].dtype == np.uint8
        elif target.level == "sample":
            assert described[target.name].shape == (target.size,)
            assert described[target.name].dtype == np.float32
        else:
            assert columns[target.level][target.name] == target.size
    assert len(sample["atoms"][0]) == len(ATOM_FIELDS)
