"""Physical descriptors that cost little beside the parse: targets of pretraining, features of a floor."""

from __future__ import annotations

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdMolDescriptors

COSTLY = frozenset({"chi3v", "chi4v", "chi3n", "chi4n", "kappa3", "Phi"})
"""Left out: 80 to 120 µs each, paths of length 3 and 4; and Phi, a product of two that are kept."""

_PROPERTIES = [name for name in rdMolDescriptors.Properties.GetAvailableProperties() if name not in COSTLY]
_CALCULATOR = rdMolDescriptors.Properties(_PROPERTIES)
_SURFACES = (
    ("PEOE_VSA", 14, rdMolDescriptors.PEOE_VSA_),
    ("SMR_VSA", 10, rdMolDescriptors.SMR_VSA_),
    ("SlogP_VSA", 12, rdMolDescriptors.SlogP_VSA_),
)

DESCRIPTORS: tuple[str, ...] = (
    *_PROPERTIES,
    *(f"{name}{bin_ + 1}" for name, bins, _ in _SURFACES for bin_ in range(bins)),
)
"""Names of what ``descriptors`` computes, in order. Masses in g/mol, surfaces in Å²; the rest are counts,
fractions and topological indices (RDKit's ``Properties``)."""


def descriptors(molecule: Chem.Mol) -> np.ndarray:
    """The values of ``DESCRIPTORS``, float32 [k]; NaN where a descriptor is not defined."""
    with rdBase.BlockLogs():
        try:
            values = list(_CALCULATOR.ComputeProperties(molecule))
            for _, _, surface in _SURFACES:
                values.extend(surface(molecule))
        except (RuntimeError, ValueError):
            return np.full(len(DESCRIPTORS), np.nan, np.float32)
    with np.errstate(over="ignore"):
        found = np.array(values, np.float32)
    found[~np.isfinite(found)] = np.nan
    return found
