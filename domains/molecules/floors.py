"""The baselines that stand beside every model of molecules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rdkit import rdBase
from rdkit.Chem import rdMolDescriptors

from domains.contract import Floor, Record
from domains.molecules.descriptors import descriptors
from domains.molecules.fingerprints import morgan_fingerprint

LARGEST = 1e6
"""Descriptors are clipped to ±LARGEST: a few diverge on unusual charges, and float32 squares overflow."""


def molecule_floors() -> Sequence[Floor]:
    return (
        Floor("ECFP4 + random forest", ecfp4, "forest"),
        Floor("descriptors + random forest", cheap_descriptors, "forest"),
    )


def ecfp4(record: Record) -> np.ndarray:
    """Bits of the Morgan fingerprint, uint8 [2048]."""
    return morgan_fingerprint(record.value)


def cheap_descriptors(record: Record) -> np.ndarray:
    """The cheap descriptors, log P and molar refractivity, float32 [k + 2], gaps as 0."""
    with rdBase.BlockLogs():
        crippen = rdMolDescriptors.CalcCrippenDescriptors(record.value)
        values = np.concatenate([descriptors(record.value), crippen]).astype(np.float32)
    return np.clip(np.nan_to_num(values, nan=0.0), -LARGEST, LARGEST)
