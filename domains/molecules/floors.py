"""The baselines that stand beside every model of molecules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rdkit import rdBase
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors

from domains.contract import Floor, Record
from domains.molecules.descriptors import DESCRIPTORS, descriptors

RADIUS, BITS = 2, 2048
LARGEST = 1e6
"""Descriptors are clipped to ±LARGEST: a few diverge on unusual charges, and float32 squares overflow."""


def molecule_floors() -> Sequence[Floor]:
    return (
        Floor("ECFP4 + random forest", morgan_fingerprints, "forest"),
        Floor("descriptors + random forest", descriptor_matrix, "forest"),
    )


def morgan_fingerprints(records: Sequence[Record]) -> np.ndarray:
    """Bits of the Morgan fingerprint of radius 2 (ECFP4), uint8 [n, 2048].

    Source: Rogers & Hahn, J. Chem. Inf. Model. 2010, 50, 742.
    """
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    matrix = np.zeros((len(records), BITS), np.uint8)
    for row, record in enumerate(records):
        matrix[row] = generator.GetFingerprintAsNumPy(record.value)
    return matrix


def descriptor_matrix(records: Sequence[Record]) -> np.ndarray:
    """The cheap descriptors, log P and molar refractivity, float32 [n, k + 2], gaps as 0."""
    matrix = np.zeros((len(records), len(DESCRIPTORS) + 2), np.float32)
    with rdBase.BlockLogs():
        for row, record in enumerate(records):
            matrix[row, :-2] = descriptors(record.value)
            matrix[row, -2:] = rdMolDescriptors.CalcCrippenDescriptors(record.value)
    return np.clip(np.nan_to_num(matrix, nan=0.0), -LARGEST, LARGEST)
