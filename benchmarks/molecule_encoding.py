"""From SMILES to stored sample, over RDKit's parse alone: ``python -m benchmarks.molecule_encoding``.

Both are timed on the same strings, chunk by chunk and in turn, so that noise of the machine hits both.
Seconds are those of the processor: both use one thread, and what other processes take is no part of them.
"""

from __future__ import annotations

import gc
import json
from statistics import median
from time import process_time
from typing import Any

from rdkit import Chem, rdBase

from benchmarks.ledger import arguments, measured, processor
from benchmarks.molecules import SPEC, encode_all, open_molecules, sample_smiles
from domains.contract import Record, Row, Sample
from domains.molecules import MOLECULES
from models.encoder import create_encoder

CHUNK = 250
BATCH = 64


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("path", nargs="?", help="a file of molecules; default: the embedded corpus")
    parser.add_argument("--limit", type=int, default=20_000, help="molecules")
    options = parser.parse_args()
    smiles, digest = sample_smiles(open_molecules(options.path), options.limit, options.seed)
    line = measured(
        "molecule_encoding",
        code=[
            "domains/molecules",
            "models/graph_transformer.py",
            "models/encoder.py",
            "benchmarks/molecules.py",
            "benchmarks/molecule_encoding.py",
        ],
        data=digest,
        seed=options.seed,
        device=processor(),
        options={"molecules": len(smiles), "rdkit": rdBase.rdkitVersion},
        again=options.again,
        measure=lambda: {**time_encoding(smiles), **time_collating(smiles)},
    )
    print(json.dumps(line))


def time_encoding(smiles: list[str]) -> dict[str, Any]:
    """Ratio of the times of each chunk, and rates; medians over chunks."""
    encode_chunk(smiles[:CHUNK])  # the table of atoms is filled once in a process, not once in a chunk
    ratios, parses, encodes = [], [], []
    for start in range(0, len(smiles), CHUNK):
        chunk = smiles[start : start + CHUNK]
        gc.collect()
        # In turn first and second: what runs second finds the strings in the cache.
        if start // CHUNK % 2:
            parse, encode = time_parse(chunk), time_encode(chunk)
        else:
            encode, parse = time_encode(chunk), time_parse(chunk)
        ratios.append(encode / parse)
        parses.append(len(chunk) / parse)
        encodes.append(len(chunk) / encode)
    return {
        "encode_over_parse": round(median(ratios), 3),
        "read_encode_per_s": round(median(encodes)),
        "parse_per_s": round(median(parses)),
    }


def time_parse(smiles: list[str]) -> float:
    started = process_time()
    for value in smiles:
        Chem.MolFromSmiles(value)
    return process_time() - started


def time_encode(smiles: list[str]) -> float:
    started = process_time()
    encode_chunk(smiles)
    return process_time() - started


def encode_chunk(smiles: list[str]) -> list[Sample]:
    """Read, with identity, and encode: what a store and the API do with a row."""
    samples = []
    for index, value in enumerate(smiles):
        record = MOLECULES.read(Row(index, value), SPEC)
        if isinstance(record, Record):
            samples.append(MOLECULES.encode(record, SPEC))
    return samples


def time_collating(smiles: list[str]) -> dict[str, Any]:
    """Samples joined into batches of 64, per second."""
    encoder, samples = create_encoder("molecules", "tiny", SPEC), encode_all(smiles[:4096])
    rates = []
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        started = process_time()
        encoder.collate(batch)
        rates.append(len(batch) / (process_time() - started))
    return {"collate_per_s": round(median(rates))}


if __name__ == "__main__":
    main()
