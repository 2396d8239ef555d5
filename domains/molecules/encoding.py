"""THE encode path of molecules: one graph as integer codes, independent of the order of its atoms.

Asking RDKit for every property of every atom from Python costs twice the parse. Here each atom is one
integer from C++, looked up in a table that fills itself, and the bonds are one numpy matrix; Python
loops serve only atoms that are not in the table and molecules with stereo or unusual bonds.
"""

from __future__ import annotations

import json

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors, rdqueries

from domains.contract import Record, Sample

ATOM_FIELDS = (
    ("element", 119),  # atomic number; 0 is an attachment point
    ("degree", 13),  # neighbours with implicit hydrogens; 12 stands for more
    ("hydrogens", 9),  # implicit and explicit; 8 stands for more
    ("charge", 17),  # formal charge + 8, clipped to ±8
    ("aromatic", 2),
    ("ring", 2),
    ("chirality", 4),  # 0 none, 1 R, 2 S; without a CIP label 1 clockwise, 2 anticlockwise
)
"""Name and number of codes of each column of ``atoms``."""
BOND_FIELDS = (
    ("bond", 5),  # order: 0 single, 1 double, 2 triple, 3 aromatic, 4 other (dative, quadruple, unknown)
    ("stereo", 3),  # 0 none, 1 E, 2 Z
)
"""Name and number of codes of each column of ``bond_codes``."""

AROMATIC, CHIRALITY, STEREO = 4, 6, 1
ORDER_OF = {
    Chem.BondType.SINGLE: 0,
    Chem.BondType.DOUBLE: 1,
    Chem.BondType.TRIPLE: 2,
    Chem.BondType.AROMATIC: 3,
}
CODES_OF_DOUBLED = np.array([[order, 0] for order in (4, 4, 0, 3, 1, 4, 2, 4, 4, 4, 4, 4, 4)], np.uint8)
"""Codes of a bond without stereo by twice RDKit's numeric bond order (1.5 is aromatic)."""
CIP_CODES = {"R": 1, "S": 2}
MARK_CODES = {Chem.ChiralType.CHI_TETRAHEDRAL_CW: 1, Chem.ChiralType.CHI_TETRAHEDRAL_CCW: 2}
STEREO_CODES = {Chem.BondStereo.STEREOE: 1, Chem.BondStereo.STEREOZ: 2}

_codes_of: dict[int, bytes] = {}
"""Connectivity invariant -> the codes it determines. Filled by ``_atom_codes`` only."""
_pairs_of: dict[int, tuple[np.ndarray, np.ndarray]] = {}


def encode(record: Record) -> Sample:
    """Arrays of one molecule of N atoms and M bonds.

    ``atoms`` uint8 [N, 7] as in ``ATOM_FIELDS``; ``bonds`` uint16 [M, 2], each bond once with begin < end,
    sorted; ``bond_codes`` uint8 [M, 2] as in ``BOND_FIELDS``.
    """
    molecule: Chem.Mol = record.value
    smiles = record.identity  # tells at a glance what the molecule has none of
    atoms = _atoms(molecule)
    unusual = ">" in smiles or "<" in smiles or "~" in smiles
    bonds, codes = _bonds_by_loop(molecule) if unusual else _bonds_by_matrix(molecule)
    aromatic = (codes[:, 0] == ORDER_OF[Chem.BondType.AROMATIC]).nonzero()[0]
    atoms[bonds.take(aromatic, axis=0), AROMATIC] = 1
    if "@" in smiles:
        for atom, code in _chirality(molecule).items():
            atoms[atom, CHIRALITY] = code
    if "/" in smiles or "\\" in smiles:
        double = (codes[:, 0] == ORDER_OF[Chem.BondType.DOUBLE]).nonzero()[0]
        for place, (begin, end) in zip(double, bonds[double].tolist(), strict=True):
            stereo = molecule.GetBondBetweenAtoms(begin, end).GetStereo()
            codes[place, STEREO] = STEREO_CODES.get(stereo, 0)
    return {"atoms": atoms, "bonds": bonds, "bond_codes": codes}


def _atoms(molecule: Chem.Mol) -> np.ndarray:
    invariants = rdMolDescriptors.GetConnectivityInvariants(molecule)
    try:
        codes = b"".join([_codes_of[invariant] for invariant in invariants])
    except KeyError:
        codes = b"".join(map(_atom_codes, molecule.GetAtoms(), invariants))
    return np.frombuffer(bytearray(codes), np.uint8).reshape(-1, len(ATOM_FIELDS))


def _atom_codes(atom: Chem.Atom, invariant: int) -> bytes:
    """Codes of one atom, with those that its invariant does not determine left at 0.

    The invariant hashes element, degree, hydrogens, charge, isotope and ring membership to 32 bits
    (RDKit, ``MorganFingerprints::getConnectivityInvariants``). Only common atoms enter the table: among
    them no two share a hash, and the table stays bounded whatever is sent.
    """
    element, degree, charge = atom.GetAtomicNum(), atom.GetTotalDegree(), atom.GetFormalCharge()
    hydrogens = atom.GetTotalNumHs(includeNeighbors=True)
    codes = bytes(
        (element, min(degree, 12), min(hydrogens, 8), min(max(charge, -8), 8) + 8, 0, int(atom.IsInRing()), 0)
    )
    if degree <= 8 and hydrogens <= 4 and abs(charge) <= 4 and not atom.GetIsotope():
        _codes_of[invariant] = codes
    return codes


def _bonds_by_matrix(molecule: Chem.Mol) -> tuple[np.ndarray, np.ndarray]:
    upper, pairs = _pairs(molecule.GetNumAtoms())
    # ``take`` instead of brackets: on arrays as small as these the difference is a third of the time.
    orders = Chem.GetAdjacencyMatrix(molecule, useBO=True).ravel().take(upper)
    bonded = orders.nonzero()[0]
    doubled = (orders.take(bonded) * 2).astype(np.intp)
    return pairs.take(bonded, axis=0), CODES_OF_DOUBLED.take(doubled, axis=0)


def _pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pair begin < end of ``count`` atoms: its cell in the flat matrix [P], and the pair [P, 2]."""
    if (known := _pairs_of.get(count)) is None:
        begin, end = np.triu_indices(count, 1)
        known = (begin * count + end, np.stack((begin, end), axis=1).astype(np.uint16))
        if count <= 128:  # 7 MB in all; larger molecules are rare, and their tables large
            _pairs_of[count] = known
    return known


def _bonds_by_loop(molecule: Chem.Mol) -> tuple[np.ndarray, np.ndarray]:
    """For molecules with bonds whose numeric order is that of another kind (dative), or none."""
    rows = sorted(
        (*sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())), ORDER_OF.get(bond.GetBondType(), 4), 0)
        for bond in molecule.GetBonds()
    )
    table = np.array(rows, np.uint16).reshape(-1, 4)
    return np.ascontiguousarray(table[:, :2]), table[:, 2:].astype(np.uint8)


# ---------------------------------------------------------------------------------------------- stereo


def _query(atom: Chem.QueryAtom) -> Chem.Mol:
    query = Chem.RWMol(Chem.MolFromSmarts("*"))
    query.ReplaceAtom(0, atom)
    return query.GetMol()


CENTRE = _query(rdqueries.HasChiralTagQueryAtom())


def _chirality(molecule: Chem.Mol) -> dict[int, int]:
    """Code of each stereocentre, which does not depend on the order of the atoms."""
    # By a query in C++: to ask every atom from Python costs several times as much.
    matches = molecule.GetSubstructMatches(CENTRE, maxMatches=molecule.GetNumAtoms())
    codes = {}
    unlabelled = []
    for (place,) in matches:
        atom = molecule.GetAtomWithIdx(place)
        if atom.HasProp("_CIPCode"):
            codes[place] = CIP_CODES.get(atom.GetProp("_CIPCode"), 3)
        else:
            unlabelled.append(place)
    if unlabelled:
        marks = _canonical_marks(molecule)
        codes |= {place: marks.get(place, 3) for place in unlabelled}
    return codes


def _canonical_marks(molecule: Chem.Mol) -> dict[int, int]:
    """Code of each stereocentre by its mark in the canonical SMILES, which knows no order of atoms either.

    For centres that RDKit's perception leaves without a CIP label: 1,4-disubstituted rings and the like,
    whose marks tell cis from trans. The full CIP rules (``rdCIPLabeler``) would take 10 ms a molecule.
    """
    canonical = Chem.MolFromSmiles(Chem.MolToSmiles(molecule))
    order = json.loads(molecule.GetProp("_smilesAtomOutputOrder").replace(",]", "]"))
    if canonical is None or canonical.GetNumAtoms() != len(order):
        return {}
    return {
        place: MARK_CODES[atom.GetChiralTag()]
        for place, atom in zip(order, canonical.GetAtoms(), strict=True)
        if atom.GetChiralTag() in MARK_CODES
    }
