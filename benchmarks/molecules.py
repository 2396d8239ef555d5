"""Real molecules for the benchmarks: a seeded sample of a source, as SMILES or as encoded samples."""

from __future__ import annotations

import random
from pathlib import Path
from typing import cast

from domains.contract import Record, Row, Sample, Source, digest_of
from domains.molecules import MOLECULES

SPEC = MOLECULES.encoding()


def open_molecules(path: str | None) -> Source:
    """The rows of a file, or of the embedded corpus."""
    return MOLECULES.open(Path(path), SPEC) if path else MOLECULES.embedded()[MOLECULES.corpus](SPEC)


def sample_smiles(source: Source, limit: int, seed: int) -> tuple[list[str], str]:
    """Up to ``limit`` SMILES that can be used, in random order, and a digest of what was drawn from."""
    rows = [row.value for row in source.stream()]
    random.Random(seed).shuffle(rows)  # noqa: S311 - a sample, not a secret
    usable: list[str] = []
    for value in rows:
        if isinstance(MOLECULES.read(Row(0, value), SPEC), Record):
            usable.append(value)
        if len(usable) == limit:
            break
    return usable, digest_of([source.digest, limit])


def encode_all(smiles: list[str], *, describe: bool = False) -> list[Sample]:
    """Samples as the store holds them, with the values of pretraining targets if ``describe``."""
    records = [cast(Record, MOLECULES.read(Row(index, value), SPEC)) for index, value in enumerate(smiles)]
    return [
        {**MOLECULES.encode(record, SPEC), **(MOLECULES.describe(record, SPEC) if describe else {})}
        for record in records
    ]
