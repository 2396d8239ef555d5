"""Groups of molecules that a split must keep together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds import MurckoScaffold

from domains.contract import GroundworkError, Record
from domains.molecules.clusters import cluster
from domains.molecules.fingerprints import morgan_fingerprint
from domains.splits import numbered

SPLIT_METHODS: tuple[str, ...] = ("scaffold", "random", "scaffold-balanced", "cluster")


def group_records(records: Iterable[Record], method: str) -> np.ndarray:
    """Group of each record, int64 [n].

    ``scaffold`` and ``scaffold-balanced``: the Bemis-Murcko framework without stereo, as MoleculeNet,
    DeepChem and Chemprop cut it (Bemis & Murcko, J. Med. Chem. 1996, 39, 2887); as there, all molecules
    without a ring share the empty scaffold and are one group. ``cluster``: molecules with like ECFP4 (see
    ``clusters``).
    ``random``: one group per molecule, so that duplicates stay together.
    Raises GroundworkError for another method.
    """
    if method == "random":
        return numbered(record.identity for record in records)
    if method in ("scaffold", "scaffold-balanced"):
        with rdBase.BlockLogs():
            return numbered(_scaffold(record) for record in records)
    if method == "cluster":
        return _clusters(records)
    raise GroundworkError(f"molecules cannot be split by {method!r}: use one of {', '.join(SPLIT_METHODS)}")


def _scaffold(record: Record) -> str:
    try:
        return MurckoScaffold.MurckoScaffoldSmiles(mol=record.value, includeChirality=False)
    except (RuntimeError, ValueError):  # cutting side chains can leave atoms that RDKit refuses
        return Chem.MolToSmiles(record.value, isomericSmiles=False)


def _clusters(records: Iterable[Record]) -> np.ndarray:
    """Equal fingerprints are clustered once: copies and stereoisomers stay together, and count once."""
    packed = [np.packbits(morgan_fingerprint(record.value)).tobytes() for record in records]
    if not packed:
        return np.zeros(0, np.int64)
    distinct = list(dict.fromkeys(packed))
    fingerprints = np.frombuffer(b"".join(distinct), np.uint8).reshape(len(distinct), -1)
    return cluster(fingerprints)[numbered(packed)]
