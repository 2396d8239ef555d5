"""Physical descriptors that cost little beside the parse: targets of pretraining, features of a floor."""

from __future__ import annotations

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdMolDescriptors

_TOO_COSTLY = {
    *(
        "chi2v",
        "chi2n",
        "chi3v",
        "chi3n",
        "chi4v",
        "chi4n",
        "kappa2",
        "kappa3",
        "Phi",
    ),  # 50-120 µs each: paths
    *("CrippenClogP", "CrippenMR"),  # 300 µs: they add every hydrogen first
    "NumHBA",  # 40 µs of patterns; lipinskiHBA, which costs none, is kept
}
_PROPERTIES = [
    name for name in rdMolDescriptors.Properties.GetAvailableProperties() if name not in _TOO_COSTLY
]
_CALCULATOR = rdMolDescriptors.Properties(_PROPERTIES)
_SURFACES = (
    ("PEOE_VSA", 14, rdMolDescriptors.PEOE_VSA_),
    ("SMR_VSA", 10, rdMolDescriptors.SMR_VSA_),
    ("SlogP_VSA", 12, rdMolDescriptors.SlogP_VSA_),
)

DESCRIPTORS: tuple[str, ...] = (
    *_PROPERTIES,
    *(f"{name}{place + 1}" for name, bins, _ in _SURFACES for place in range(bins)),
    "SlogP_heavy",
    "SMR_heavy",
)
"""Names of what ``descriptors`` computes, in order. Masses in g/mol, surfaces in Å²; the rest are counts,
fractions and topological indices (RDKit's ``Properties``). The last two sum the contributions of the heavy
atoms to log P and molar refractivity (Wildman & Crippen, J. Chem. Inf. Comput. Sci. 1999, 39, 868): the
surface bins have computed them already."""


def descriptors(molecule: Chem.Mol) -> np.ndarray:
    """The values of ``DESCRIPTORS``, float32 [k]; NaN where a descriptor is not defined."""
    with rdBase.BlockLogs():
        try:
            values = list(_CALCULATOR.ComputeProperties(molecule))
            for _, _, surface in _SURFACES:
                values.extend(surface(molecule))
            _forget_crippen(molecule)
            values.extend(rdMolDescriptors.CalcCrippenDescriptors(molecule, includeHs=False))
            _forget_crippen(molecule)
        except (RuntimeError, ValueError):
            return np.full(len(DESCRIPTORS), np.nan, np.float32)
    with np.errstate(over="ignore"):
        found = np.array(values, np.float32)
    found[~np.isfinite(found)] = np.nan
    return found


def _forget_crippen(molecule: Chem.Mol) -> None:
    """RDKit keeps the two sums with the molecule, and gives them again to whoever asks with hydrogens."""
    for kept in ("_crippenLogP", "_crippenMR"):
        molecule.ClearProp(kept)
