"""Groups of molecules that a split must keep together."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds import MurckoScaffold

from domains.contract import GroundworkError, Record

SPLIT_METHODS = ("scaffold", "random")


def group_records(records: Iterable[Record], method: str) -> np.ndarray:
    """Group of each record, int64 [n], numbered by first appearance.

    ``scaffold``: the Bemis-Murcko framework without stereo, as MoleculeNet, DeepChem and Chemprop cut it
    (Bemis & Murcko, J. Med. Chem. 1996, 39, 2887); as there, all molecules without a ring share the
    empty scaffold and are one group. ``random``: one group per molecule, so that duplicates stay together.
    Raises GroundworkError for another method.
    """
    if method == "random":
        return _numbered(record.identity for record in records)
    if method == "scaffold":
        with rdBase.BlockLogs():
            return _numbered(_scaffold(record) for record in records)
    raise GroundworkError(f"molecules cannot be split by {method!r}: use one of {', '.join(SPLIT_METHODS)}")


def _scaffold(record: Record) -> str:
    try:
        return MurckoScaffold.MurckoScaffoldSmiles(mol=record.value, includeChirality=False)
    except (RuntimeError, ValueError):  # cutting side chains can leave atoms that RDKit refuses
        return Chem.MolToSmiles(record.value, isomericSmiles=False)


def _numbered(keys: Iterable[Hashable]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
