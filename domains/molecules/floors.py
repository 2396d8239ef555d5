"""The baselines that stand beside every model of molecules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from rdkit import rdBase
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors

from domains.contract import Floor, Record
from domains.molecules.descriptors import descriptors

RADIUS, BITS = 2, 2048
LARGEST = 1e6
"""Descriptors are clipped to ±LARGEST: a few diverge on unusual charges, and float32 squares overflow."""


def molecule_floors() -> Sequence[Floor]:
    return (
        Floor("ECFP4 + random forest", morgan_fingerprint, "forest"),
        Floor("descriptors + random forest", cheap_descriptors, "forest"),
    )


def morgan_fingerprint(record: Record) -> np.ndarray:
    """Bits of the Morgan fingerprint of radius 2 (ECFP4), uint8 [2048].

    Source: Rogers & Hahn, J. Chem. Inf. Model. 2010, 50, 742.
    """
    return _generator().GetFingerprintAsNumPy(record.value)


@cache
def _generator() -> rdFingerprintGenerator.FingerprintGenerator64:
    return rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)


def cheap_descriptors(record: Record) -> np.ndarray:
    """The cheap descriptors, log P and molar refractivity, float32 [k + 2], gaps as 0."""
    with rdBase.BlockLogs():
        crippen = rdMolDescriptors.CalcCrippenDescriptors(record.value)
        values = np.concatenate([descriptors(record.value), crippen]).astype(np.float32)
    return np.clip(np.nan_to_num(values, nan=0.0), -LARGEST, LARGEST)
