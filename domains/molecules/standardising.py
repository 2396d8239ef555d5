"""Standardisation: from a structure as it was registered to the molecule that is learnt from.

RDKit's ``rdMolStandardize`` costs several times the parse, and nearly every molecule leaves it unchanged.
Here the canonical SMILES, which is needed anyway, tells which step has nothing to do: no dot, no
fragments; no sign, no charges; no digit behind a bracket, no isotopes.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field
from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

from domains.contract import EncodingSpec


class Standardisation(EncodingSpec):
    """What of a structure is no part of the molecule that is learnt from."""

    fragments: Literal["largest", "all"] = Field(
        default="largest",
        description="largest = of salts and solvates only the largest organic fragment is used "
        "(inorganic salts stay whole); all = every fragment is used",
    )
    charges: Literal["neutral", "keep"] = Field(
        default="neutral",
        description="neutral = acids and bases are used in their neutral form, by adding or removing "
        "protons (quaternary nitrogen, nitro groups and other fixed charges stay); keep = as written",
    )
    isotopes: Literal["drop", "keep"] = Field(
        default="drop",
        description="drop = isotope labels are ignored (deuterium is hydrogen); keep = as written",
    )
    stereo: Literal["keep", "drop"] = Field(
        default="keep",
        description="keep = stereoisomers are different molecules; drop = stereocentres and E/Z are ignored",
    )


CONNECTIVITY_BLOCK = 14
"""Letters of an InChIKey that stand for the skeleton, with hydrogens and without charge and stereo."""
STEREO = re.compile(r"[@/\\]")
_CHARGES = re.compile(r"\+|\[[^]]*-")
_ISOTOPES = re.compile(r"\[\d")
_CARBON = Chem.MolFromSmarts("[#6]")
_NEUTRALISABLE = Chem.MolFromSmarts(
    "[$([+,+2,+3,+4;!H0]),$([-,-2,-3,-4;!$(*~[+,+2,+3,+4])]),$([+,+2,+3,+4](~[-])~[-])]"
)
"""Atoms without which the uncharger has nothing to do: cations with a hydrogen, anions that no neighbour
balances, ions such as nitrate. Nitro groups and N-oxides have none."""
_CHOOSER = rdMolStandardize.LargestFragmentChooser(preferOrganic=True)
_UNCHARGER = rdMolStandardize.Uncharger()


def standardise(molecule: Chem.Mol, smiles: str, asked: Standardisation) -> tuple[Chem.Mol, str]:
    """The standard form of a molecule and its canonical isomeric SMILES.

    ``smiles`` is the canonical isomeric SMILES of ``molecule``; both come back as they are where there is
    nothing to do. Fragments are chosen and charges neutralised as RDKit does it (``LargestFragmentChooser``,
    ``Uncharger``). Raises ValueError where what is left is no molecule that RDKit accepts.
    """
    without_isotopes = asked.isotopes == "drop" and _ISOTOPES.search(smiles)
    of_fragments = asked.fragments == "largest" and "." in smiles
    uncharged = asked.charges == "neutral" and _CHARGES.search(smiles) and _is_neutralisable(molecule)
    without_stereo = asked.stereo == "drop" and STEREO.search(smiles)
    if not (without_isotopes or of_fragments or uncharged or without_stereo):
        return molecule, smiles
    changed = Chem.RWMol(molecule)
    if without_isotopes:  # first: of two equal fragments the heavier isotope would be chosen
        for atom in changed.GetAtoms():
            atom.SetIsotope(0)
        changed = Chem.RWMol(Chem.RemoveHs(changed))
    if of_fragments:
        largest = _CHOOSER.choose(changed)
        if largest.HasSubstructMatch(_CARBON):  # else no fragment is organic
            changed = Chem.RWMol(largest)
    if without_stereo:
        Chem.RemoveStereochemistry(changed)
    # Read anew, so that serving, which may be sent this SMILES, sees the same molecule to the last flag:
    # taking away an isotope or a proton can also end what made an atom a stereocentre.
    neutral = _read_anew(_UNCHARGER.uncharge(changed)) if uncharged else None
    # A proton on an aromatic anion (cyclopentadienide) can break the ring: that charge stays.
    standard = neutral or _read_anew(changed)
    if standard is None:
        raise ValueError("its standard form is not a valid molecule")
    return standard, Chem.MolToSmiles(standard)


def connectivity_key(molecule: Chem.Mol, smiles: str) -> str:
    """Equal for the stereoisomers, isotopologues, salts, protonated forms and most tautomers of one molecule.

    ``smiles`` is the canonical isomeric SMILES of ``molecule``, standardised or not. The key is the first
    block of the InChIKey of the standard form. It costs 1.7 times the parse; the SMILES without stereo would
    cost a quarter of one, but tells tautomers apart, and so misses a tenth of the kin of the usual benchmark
    sets. What has no InChI (attachment points, dative bonds) has that SMILES for a key.
    """
    with rdBase.BlockLogs():
        parent, _ = standardise(molecule, smiles, Standardisation())
        key: str = Chem.MolToInchiKey(parent)[:CONNECTIVITY_BLOCK]
        return key or Chem.MolToSmiles(parent, isomericSmiles=False)


def _read_anew(molecule: Chem.Mol) -> Chem.Mol | None:
    return Chem.MolFromSmiles(Chem.MolToSmiles(molecule))


def _is_neutralisable(molecule: Chem.Mol) -> bool:
    found: bool = molecule.HasSubstructMatch(_NEUTRALISABLE)
    return found
