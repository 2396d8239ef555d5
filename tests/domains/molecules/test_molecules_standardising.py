"""Two ways to write one molecule become one, and what is left out for speed changes nothing."""

from __future__ import annotations

import re
import time
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

from domains.contract import Record, Row
from domains.molecules import MOLECULES, MoleculeEncoding

SPEC = MoleculeEncoding()
AS_WRITTEN = MoleculeEncoding(fragments="all", charges="keep", isotopes="keep")


def record(smiles: str, spec: MoleculeEncoding = SPEC) -> Record:
    found = MOLECULES.read(Row(0, smiles), spec)
    assert isinstance(found, Record), found
    return found


def identity(smiles: str, spec: MoleculeEncoding = SPEC) -> str:
    return record(smiles, spec).identity


@cache
def corpus() -> list[str]:
    """Some of the embedded molecules that RDKit can read."""
    rows = list(MOLECULES.embedded()["chemicals"](SPEC).stream())
    return [row.value for row in rows[::5] if isinstance(MOLECULES.read(row, AS_WRITTEN), Record)]


def charged() -> list[str]:
    return [smiles for smiles in corpus() if "+" in smiles or "-]" in smiles]


# ----------------------------------------------------------------------------------------- what is done


@pytest.mark.parametrize(
    ("written", "standard"),
    [
        # Salts and solvates: the largest organic fragment, neutral.
        ("CC(=O)Oc1ccccc1C(=O)[O-].[Na+]", "CC(=O)Oc1ccccc1C(=O)O"),
        ("Cl.CNCCC(c1ccccc1)Oc1ccc(cc1)C(F)(F)F", "CNCCC(Oc1ccc(C(F)(F)F)cc1)c1ccccc1"),
        ("C[NH2+]C.[Cl-]", "CNC"),
        ("O.O.CCN.OS(=O)(=O)O", "CCN"),
        ("[O-]P([O-])([O-])=O.[O-]P([O-])([O-])=O.CN.[K+].[K+]", "CN"),
        ("[Pd].c1ccccc1", "c1ccccc1"),
        # Inorganic salts are what they are.
        ("[Na+].[Cl-]", "[Cl-].[Na+]"),
        ("[Ca+2].[Cl-].[Cl-]", "[Ca+2].[Cl-].[Cl-]"),
        ("[H+]", "[H+]"),
        ("O=C([c-]1cccc1)C.[Li+]", "O=C([c-]1cccc1)C"),  # a proton would break the ring
        # Charges that a proton takes away, and those that stay.
        ("CC(=O)[O-]", "CC(=O)O"),
        ("[NH3+]CC(=O)[O-]", "NCC(=O)O"),
        ("c1cc[nH+]cc1", "c1ccncc1"),
        ("[O-]c1ccccc1", "Oc1ccccc1"),
        ("[O-][N+](=O)[O-].C[NH3+]", "CN"),
        ("[O-][N+](=O)[O-]", "O=[N+]([O-])O"),
        ("[O-][Cl+3]([O-])([O-])[O-]", "[O-][Cl+3]([O-])([O-])O"),
        ("C[N+](C)(C)CC(=O)[O-]", "C[N+](C)(C)CC(=O)[O-]"),
        ("C[N+](C)(C)C.[Cl-]", "C[N+](C)(C)C"),
        ("[O-][N+](=O)c1ccccc1", "O=[N+]([O-])c1ccccc1"),
        ("C[N+]([O-])(C)C", "C[N+](C)(C)[O-]"),
        ("[N-]=[N+]=NC", "CN=[N+]=[N-]"),
        ("C[n+]1ccccc1", "C[n+]1ccccc1"),
        ("[O-]C(=O)c1ccc([N+](=O)[O-])cc1", "O=C(O)c1ccc([N+](=O)[O-])cc1"),
        # Isotopes.
        ("[2H]C([2H])([2H])O", "CO"),
        ("[13CH3][12CH2]O", "CCO"),
        ("[2H]O[2H]", "O"),
        ("[3H][H]", "[H][H]"),
        ("C[C@]([2H])(O)F", "C[C@H](O)F"),
        ("C[C@H]([2H])O", "CCO"),  # no stereocentre without the label
        ("CC.[13CH3]CN", "CCN"),
        # Radicals, metals and attachment points are left alone.
        ("[CH3]", "[CH3]"),
        ("CN->[Pt]", "CN->[Pt]"),
        ("*C", "*C"),
        ("C/C=C/C[C@H](N)O", "C/C=C/C[C@H](N)O"),
    ],
)
def test_standard_form(written: str, standard: str) -> None:
    assert identity(written) == Chem.CanonSmiles(standard)


def test_each_part_is_a_setting() -> None:
    written = "[13CH3][C@H]([NH3+])C(=O)O.[Cl-]"
    assert identity(written, AS_WRITTEN) == Chem.CanonSmiles(written)
    assert identity(written, MoleculeEncoding(isotopes="keep")) == Chem.CanonSmiles("[13CH3][C@H](N)C(=O)O")
    assert identity(written, MoleculeEncoding(charges="keep")) == Chem.CanonSmiles("C[C@H]([NH3+])C(=O)O")
    assert identity(written, MoleculeEncoding(fragments="all")) == Chem.CanonSmiles("C[C@H](N)C(=O)O.Cl")
    assert identity(written, MoleculeEncoding(stereo="drop")) == "CC(N)C(=O)O"
    assert identity("F/C=C/F", MoleculeEncoding(stereo="drop")) == "FC=CF"
    specs = [SPEC, AS_WRITTEN, MoleculeEncoding(stereo="drop"), MoleculeEncoding(charges="keep")]
    assert len({spec.digest for spec in specs}) == len(specs)


def test_the_sample_is_that_of_the_standard_form() -> None:
    salt, acid = record("CC(=O)[O-].[Na+]"), record("CC(=O)O")
    for name, array in MOLECULES.encode(acid, SPEC).items():
        assert (array == MOLECULES.encode(salt, SPEC)[name]).all()
    flat = MOLECULES.encode(record("C[C@H](N)O", MoleculeEncoding(stereo="drop")), SPEC)
    assert not flat["atoms"][:, 6].any()


def test_mol_blocks_are_standardised_too() -> None:
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("[2H]CC(=O)[O-].[Na+]"))
    assert identity(block) == "CC(=O)O"
    assert identity(block, AS_WRITTEN) == Chem.CanonSmiles("[2H]CC(=O)[O-].[Na+]")


# ------------------------------------------------------------------------------------------- properties


def by_rdkit_alone(smiles: str) -> str:
    """The standard form of one fragment without isotopes, with no step left out for speed."""
    with rdBase.BlockLogs():
        molecule = rdMolStandardize.Uncharger().uncharge(Chem.MolFromSmiles(smiles))
    return Chem.CanonSmiles(Chem.MolToSmiles(molecule))


@pytest.mark.slow
def test_leaving_out_steps_changes_nothing() -> None:
    some = [smiles for smiles in [*charged(), *corpus()[::8]] if not re.search(r"\[\d", smiles)]
    assert len(some) > 1000
    changed = 0
    for smiles in some:
        expected = by_rdkit_alone(smiles)
        assert identity(smiles) == expected, smiles
        changed += expected != Chem.CanonSmiles(smiles)
    assert changed > 20


FORMS = [
    "{}",
    "{}.Cl",
    "[Na+].{}.O",
    "O.CC(=O)O.{}",
    "{}.[13CH4]",
    "[K+].[I-].{}",
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 1000), st.sampled_from(FORMS), st.booleans())
def test_standardising_is_idempotent_and_blind_to_order_and_counter_ions(
    place: int, seed: int, form: str, is_charged: bool
) -> None:
    pool = charged() if is_charged else corpus()
    larger = [smiles for smiles in pool if len(smiles) > 20]  # than any counter-ion
    smiles = larger[place % len(larger)]
    standard = identity(smiles)
    (other,) = Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(form.format(smiles)), 1, randomSeed=seed)
    assert identity(other) == standard
    assert identity(standard) == standard
    flat = MoleculeEncoding(stereo="drop")
    assert identity(identity(other, flat), flat) == identity(smiles, flat)


@pytest.mark.parametrize(
    "value",
    [
        ".".join(["C"] * 500),
        ".".join(["[O-]"] * 250 + ["[NH4+]"] * 250),
        "C([O-])" * 200 + "C",
        "C[NH+](" * 100 + "C" + ")C" * 100,
        "C([2H])([2H])" * 150 + "C",
        "[13C]" * 400,
        ".".join(["[13CH3][NH3+]"] * 100 + ["[Cl-]"] * 100),
    ],
    ids=range(7),
)
def test_no_text_takes_longer_than_a_second(value: str) -> None:
    started = time.process_time()
    MOLECULES.kinship(record(value))
    assert time.process_time() - started < 1


# ------------------------------------------------------------------------------------------------- kin


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),
        ("C[C@H](N)C(=O)O", "CC(N)C(=O)O"),
        ("F/C=C/F", "F/C=C\\F"),
        ("C[C@@H]1CC[C@H](C)CC1", "C[C@H]1CC[C@H](C)CC1"),
        ("[2H]C(Cl)(Cl)Cl", "ClC(Cl)Cl"),
        ("CC(=O)[O-].[Na+]", "CC(=O)O"),
        ("C[NH+](C)C", "CN(C)C"),
        ("C[C@H]([NH3+])C(=O)[O-].[K+].[Cl-]", "CC(N)C(=O)O"),
        ("Oc1ccccn1", "O=c1cccc[nH]1"),
        ("Cc1c[nH]cn1", "Cc1cnc[nH]1"),
        ("C[C@H](*)F", "C[C@@H](*)F"),  # has no InChI
    ],
)
@pytest.mark.parametrize("spec", [SPEC, AS_WRITTEN, MoleculeEncoding(stereo="drop")], ids=str)
def test_forms_of_one_molecule_are_kin_whatever_the_encoding(
    one: str, other: str, spec: MoleculeEncoding
) -> None:
    assert MOLECULES.kinship(record(one, spec)) == MOLECULES.kinship(record(other, spec))


def test_different_molecules_are_no_kin() -> None:
    different = ["CCO", "COC", "CCN", "CC(=O)O", "CC=O", "[Na+].[Cl-]", "[K+].[Cl-]", "C1CC1", "C[N+](C)(C)C"]
    different += ["*C", "*CC", "CN->[Pt]"]
    assert len({MOLECULES.kinship(record(smiles)) for smiles in different}) == len(different)


def test_the_key_of_real_stereoisomers_is_that_of_the_flat_molecule() -> None:
    stereo = [smiles for smiles in corpus() if "@" in smiles or "/" in smiles][::4]
    assert len(stereo) > 100
    flat = MoleculeEncoding(stereo="drop")
    for smiles in stereo:
        known = record(smiles)
        assert MOLECULES.kinship(known) == MOLECULES.kinship(record(smiles, flat)), smiles
