"""Molecules: SMILES and mol blocks in, graphs as integer codes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np

from domains import tables
from domains.contract import (
    EncodingSpec,
    Floor,
    Record,
    Reject,
    Row,
    Sample,
    Source,
    TargetSpec,
    TaskName,
    TaskSpec,
)
from domains.molecules import drawing, embedded, floors, reading, scaffolds
from domains.molecules.descriptors import DESCRIPTORS, descriptors
from domains.molecules.encoding import ATOM_FIELDS, BOND_FIELDS, encode
from domains.molecules.fingerprints import BITS, morgan_fingerprint
from domains.molecules.reading import MoleculeEncoding
from domains.molecules.standardising import connectivity_key

__all__ = ["MOLECULES", "MoleculeEncoding", "Molecules"]


class Molecules:
    """The domain of molecules; see ``domains.contract.Domain`` for what each method owes."""

    name = "molecules"
    noun = "molecule"
    input_column = "smiles"
    encoding: type[EncodingSpec] = MoleculeEncoding
    split_methods = scaffolds.SPLIT_METHODS
    corpus = "chemicals"
    yardstick = "melting-points"
    tasks: tuple[TaskName, ...] = ("regression", "classification")
    shard_rows = 8192
    formats: Mapping[str, str] = MappingProxyType({**tables.FORMATS, **reading.STRUCTURE_FORMATS})

    ATOM_FIELDS = ATOM_FIELDS
    BOND_FIELDS = BOND_FIELDS
    DESCRIPTORS = DESCRIPTORS

    def example(self, spec: EncodingSpec) -> tuple[str, ...]:
        return (
            "CCO",
            "CC(=O)Oc1ccccc1C(=O)O",
            "C[C@H](N)C(=O)O",
            "C[C@H]1CC[C@H](O)CC1",
            "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
        )

    def embedded(self) -> Mapping[str, Callable[[EncodingSpec], Source]]:
        return embedded.embedded_sources()

    def open(self, path: Path, spec: EncodingSpec, input_column: str | None = None) -> Source:
        return reading.open_source(path, spec, input_column)

    def read(self, row: Row, spec: EncodingSpec) -> Record | Reject:
        return reading.read(row, cast(MoleculeEncoding, spec))

    def encode(self, record: Record, spec: EncodingSpec) -> Sample:
        return encode(record)

    def kinship(self, record: Record) -> str:
        """First block of the InChIKey: equal for stereoisomers, isotopologues, salts and most tautomers."""
        return connectivity_key(record.value, record.identity)

    def pretraining_targets(self, spec: EncodingSpec) -> Sequence[TargetSpec]:
        """A token or relation target is the column of ``atoms`` or ``bond_codes`` with its name."""
        sizes = dict(ATOM_FIELDS + BOND_FIELDS)
        return (
            *(
                TargetSpec(name, "token", "classes", sizes[name])
                for name in ("element", "hydrogens", "charge")
            ),
            TargetSpec("bond", "relation", "classes", sizes["bond"]),
            *self.computed(spec),
        )

    def computed(self, spec: EncodingSpec) -> Sequence[TargetSpec]:
        return (
            TargetSpec("descriptors", "sample", "reals", len(DESCRIPTORS)),
            TargetSpec("fingerprint", "sample", "bits", BITS),
        )

    def describe(self, record: Record, spec: EncodingSpec) -> Sample:
        return {
            "descriptors": descriptors(record.value),
            "fingerprint": np.packbits(morgan_fingerprint(record.value)),
        }

    def labels(self, record: Record, targets: Sequence[str]) -> Sample:
        raise ValueError("molecules have no pixels")  # no source of molecules has targets of that level

    def groups(self, records: Iterable[Record], method: str) -> np.ndarray:
        return scaffolds.group_records(records, method)

    def floors(self, task: TaskSpec, spec: EncodingSpec) -> Sequence[Floor]:
        return floors.molecule_floors()

    def draw(self, record: Record, caption: str) -> bytes:
        return drawing.draw_molecule(record, caption)

    def draw_weights(self, record: Record, caption: str, weights: Sequence[float]) -> bytes:
        """As ``draw``; orange atoms raise the answer, blue ones lower it."""
        return drawing.draw_molecule(record, caption, weights)


MOLECULES = Molecules()
