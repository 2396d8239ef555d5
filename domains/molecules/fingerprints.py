"""Circular fingerprints: features of a floor, and a target of pretraining."""

from __future__ import annotations

from functools import cache

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

RADIUS, BITS = 2, 2048


def morgan_fingerprint(molecule: Chem.Mol) -> np.ndarray:
    """Bits of the Morgan fingerprint of radius 2 (ECFP4), uint8 [2048] of zeros and ones.

    Source: Rogers & Hahn, J. Chem. Inf. Model. 2010, 50, 742.
    """
    return _generator().GetFingerprintAsNumPy(molecule)


@cache
def _generator() -> rdFingerprintGenerator.FingerprintGenerator64:
    return rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
