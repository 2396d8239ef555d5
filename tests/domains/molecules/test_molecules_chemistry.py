"""Descriptors, scaffolds, floors, drawings and the molecules that come with the installation."""

from __future__ import annotations

import statistics
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from rdkit.Chem import Crippen, Descriptors

from domains.contract import GroundworkError, Record, Row, SplitSpec, Target, TaskSpec
from domains.molecules import MOLECULES, MoleculeEncoding

SPEC = MoleculeEncoding()
ODD = ["*", "[H]", "[U]", "[Na+].[Cl-]", "CN->[Pt]", "*" * 400, "[Fe+99]", "C" * 500, "[Og]", "C~C", "[2H]C"]
TASK = TaskSpec(
    domain="molecules",
    targets=(Target(name="y", kind="regression"),),
    split=SplitSpec(method="scaffold", seed=0),
)


def records(*smiles: str) -> list[Record]:
    found = [MOLECULES.read(Row(place, text), SPEC) for place, text in enumerate(smiles)]
    assert all(isinstance(one, Record) for one in found)
    return found  # type: ignore[return-value]


def test_descriptors_are_rdkits() -> None:
    (aspirin,) = records("CC(=O)Oc1ccccc1C(=O)O")
    values = dict(zip(MOLECULES.DESCRIPTORS, MOLECULES.describe(aspirin, SPEC)["descriptors"], strict=True))
    assert values["exactmw"] == pytest.approx(Descriptors.ExactMolWt(aspirin.value))
    assert values["tpsa"] == pytest.approx(63.6)
    assert values["NumRings"] == 1
    assert values["PEOE_VSA1"] == pytest.approx(Descriptors.PEOE_VSA1(aspirin.value), rel=1e-5)
    assert values["SlogP_VSA12"] == pytest.approx(Descriptors.SlogP_VSA12(aspirin.value), rel=1e-5)
    assert len(set(MOLECULES.DESCRIPTORS)) == len(MOLECULES.DESCRIPTORS)


def test_log_p_with_hydrogens_and_of_heavy_atoms_do_not_take_each_others_place() -> None:
    (aspirin,), (fresh,) = records("CC(=O)Oc1ccccc1C(=O)O"), records("CC(=O)Oc1ccccc1C(=O)O")
    first = MOLECULES.describe(fresh, SPEC)["descriptors"]
    whole = Crippen.MolLogP(aspirin.value)
    again = MOLECULES.describe(aspirin, SPEC)["descriptors"]
    assert whole == pytest.approx(1.3101)
    assert (first == again).all()
    assert dict(zip(MOLECULES.DESCRIPTORS, first, strict=True))["SlogP_heavy"] == pytest.approx(0.1511)
    assert Crippen.MolLogP(aspirin.value) == Crippen.MolLogP(fresh.value) == whole


@pytest.mark.parametrize("smiles", ODD)
def test_descriptors_of_odd_molecules_are_numbers_or_gaps(smiles: str) -> None:
    values = MOLECULES.describe(records(smiles)[0], SPEC)["descriptors"]
    assert values.shape == (len(MOLECULES.DESCRIPTORS),)
    assert not np.isinf(values).any()


def test_scaffolds_are_frameworks_and_chains_are_one_group() -> None:
    found = MOLECULES.groups(
        records(
            "Cc1ccccc1", "CCO", "c1ccccc1CC", "C1CCCCC1", "CCC", "C[C@H]1CCCC[C@@H]1O", "c1ccccc1CCc1ccccc1"
        ),
        "scaffold",
    )
    assert found.tolist() == [0, 1, 0, 2, 1, 2, 3]
    assert found.dtype == np.int64


def test_random_groups_keep_duplicates_together() -> None:
    assert MOLECULES.groups(records("CCO", "C", "OCC"), "random").tolist() == [0, 1, 0]


@pytest.mark.parametrize("method", MOLECULES.split_methods)
def test_every_method_keeps_one_molecule_in_one_group_and_takes_odd_ones(method: str) -> None:
    groups = MOLECULES.groups(records(*ODD, "Cc1ccccc1O", "Oc1ccccc1C"), method)
    assert groups[-1] == groups[-2]
    assert MOLECULES.groups([], method).shape == (0,)


def test_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(GroundworkError, match="scaffold, random"):
        MOLECULES.groups([], "colour")


def test_floors_give_finite_matrices_that_tell_molecules_apart() -> None:
    some = records(*ODD, "CCO", "CCN")
    floors = MOLECULES.floors(TASK, SPEC)
    assert [floor.name for floor in floors] == ["ECFP4 + random forest", "descriptors + random forest"]
    for floor in floors:
        matrix = np.stack([floor.features(record) for record in some])
        assert len(matrix) == len(some)
        assert np.isfinite(matrix).all()
        assert (matrix[-1] != matrix[-2]).any()
    bits = np.stack([floors[0].features(record) for record in some])
    assert bits.shape[1] == 2048
    assert bits.dtype == np.uint8
    assert set(np.unique(bits)) == {0, 1}


@pytest.mark.parametrize("smiles", [*ODD, "CC(=O)Oc1ccccc1C(=O)O"])
def test_drawings_are_valid_and_captions_carry_no_markup(smiles: str) -> None:
    drawing = MOLECULES.draw(records(smiles)[0], "<script>alert(1)</script> & 5 ± 1 K\n" + "x" * 500)
    assert ET.fromstring(drawing).tag.endswith("svg")  # noqa: S314
    assert b"script" not in drawing


def test_a_caption_is_drawn() -> None:
    (ethanol,) = records("CCO")
    assert len(MOLECULES.draw(ethanol, "351.4 K")) > len(MOLECULES.draw(ethanol, ""))
    assert ethanol.value.GetNumConformers() == 0


@pytest.mark.parametrize(
    ("name", "fewest", "column"),
    [
        ("chemicals", 50_000, ""),
        ("melting-points", 11_000, "melting_point"),
        ("boiling-points", 10_000, "boiling_point"),
    ],
)
def test_embedded_sources(name: str, fewest: int, column: str) -> None:
    source = MOLECULES.embedded()[name](SPEC)
    rows = list(source.stream())
    assert len(rows) >= fewest
    assert [row.index for row in rows] == list(range(len(rows)))
    assert all(tuple(row.fields) == source.columns for row in rows[::500])
    assert source.input_column in source.columns
    # Nearly every one is a molecule.
    sample = [MOLECULES.read(row, SPEC) for row in rows[::97]]
    assert sum(isinstance(one, Record) for one in sample) >= 0.995 * len(sample)
    assert [row.value for row in source.stream()] == [row.value for row in rows]
    if column:
        assert source.targets == (column,)
        assert source.units == {column: "K"}
        values = [float(row.fields[column]) for row in rows]
        assert min(values) > 50
        assert 300 < statistics.median(values) < 500
        assert len({row.fields["cas"] for row in rows}) == len(rows)
    else:
        assert len({row.value for row in rows}) == len(rows)


def test_a_known_melting_point() -> None:
    rows = MOLECULES.embedded()["melting-points"](SPEC).stream()
    (naphthalene,) = [row for row in rows if row.fields["cas"] == "91-20-3"]
    assert float(naphthalene.fields["melting_point"]) == pytest.approx(353.4, abs=1.5)
    found = MOLECULES.read(naphthalene, SPEC)
    assert isinstance(found, Record)
    assert found.identity == "c1ccc2ccccc2c1"


def test_embedded_sources_have_digests_of_their_own() -> None:
    digests = {make(SPEC).digest for make in MOLECULES.embedded().values()}
    assert len(digests) == 3
    assert MOLECULES.corpus in MOLECULES.embedded()
