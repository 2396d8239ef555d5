"""Atoms coloured by what they add to an answer."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from domains.contract import Record, Row, load_domain
from domains.molecules.drawing import draw_molecule

MOLECULES = load_domain("molecules")


def record_of(smiles: str) -> Record:
    record = MOLECULES.read(Row(0, smiles), MOLECULES.encoding())
    assert isinstance(record, Record)
    return record


def colours(svg: bytes) -> dict[int, tuple[int, int, int]]:
    """Red, green and blue of the disc behind each coloured atom."""
    found = {}
    for element in ET.fromstring(svg).iter():  # noqa: S314 - our own drawing
        shape = element.tag.rpartition("}")[2]
        name = re.fullmatch(r"atom-(\d+)", element.get("class", ""))
        fill = re.search(r"fill:#(\w{2})(\w{2})(\w{2})", element.get("style", ""))
        if shape == "ellipse" and name and fill:
            red, green, blue = (int(part, 16) for part in fill.groups())
            found[int(name[1])] = red, green, blue
    return found


def test_orange_raises_blue_lowers_and_what_adds_nothing_stays_white() -> None:
    drawn = colours(draw_molecule(record_of("CCCO"), "", [1.0, 0.4, 0.0, -0.5]))
    assert sorted(drawn) == [0, 1, 3]
    for atom in (0, 1):
        red, _, blue = drawn[atom]
        assert red > blue
    assert drawn[3][2] > drawn[3][0]
    assert drawn[1][2] > drawn[0][2]  # less is fainter


def test_without_weights_no_atom_is_coloured() -> None:
    record = record_of("CCCO")
    assert colours(draw_molecule(record, "")) == {}
    assert colours(draw_molecule(record, "", [0.0] * 4)) == {}
    assert draw_molecule(record, "351 K") == MOLECULES.draw(record, "351 K")


@pytest.mark.parametrize("smiles", ["C", "[Na+].[Cl-]", "F/C=C/F", "C[C@H]1CC[C@@H](C)CC1", "c1ccc2ccccc2c1"])
def test_every_molecule_can_be_coloured(smiles: str) -> None:
    record = record_of(smiles)
    atoms = record.value.GetNumAtoms()
    drawn = colours(draw_molecule(record, "", [1.0] * atoms))
    assert sorted(drawn) == list(range(atoms))
    assert len(set(drawn.values())) == 1


def test_there_is_a_weight_for_each_atom() -> None:
    with pytest.raises(ValueError, match="3 weights for 2 atoms"):
        draw_molecule(record_of("CC"), "", [1, 2, 3])
