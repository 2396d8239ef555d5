"""From SMILES to the store and to batches, over the parse alone: ``python -m benchmarks.molecule_encoding``.

What is compared is timed on the same strings, chunk by chunk and in turn, so that noise of the machine hits
all of it. Seconds are those of the processor, but for the workers: everything else uses one thread, and what
other processes take is no part of it.
"""

from __future__ import annotations

import gc
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from benchmarks.ledger import arguments, measured, processor
from benchmarks.molecules import SPEC, open_molecules, sample_smiles
from benchmarks.peers import chemprop_python
from domains.contract import Domain, EncodingSpec, Record, Reject, Row
from domains.molecules import MOLECULES, Molecules
from domains.molecules.reading import MoleculeEncoding, structure
from domains.shards import Recipe, write_shard
from domains.store import Store, build

CHUNK = 2000
BATCH = 64
MOLECULE_SPEC = MoleculeEncoding()
RECIPE = Recipe(SPEC, keep=(), describe=False, labels=())
CODE = (
    "domains/molecules",
    "domains/shards.py",
    "domains/store.py",
    "models/molecules/graph_transformer.py",
    "models/encoder.py",
    "benchmarks/molecules.py",
    "benchmarks/molecule_encoding.py",
)
CHEMPROP = Path(__file__).with_name("chemprop_featuriser.py")


class AsWritten(Molecules):
    """The domain without standard form and without duplicate key: a molecule is what its text says."""

    def read(self, row: Row, spec: EncodingSpec) -> Record | Reject:
        with rdBase.BlockLogs():
            found = structure(row.value, MOLECULE_SPEC)
        return (
            Reject(row.index, found, row.value)
            if isinstance(found, str)
            else Record(row.index, row.value, found)
        )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("path", nargs="?", help="a file of molecules; default: the embedded corpus")
    parser.add_argument("--limit", type=int, default=20_000, help="molecules")
    options = parser.parse_args()
    smiles, digest = sample_smiles(open_molecules(options.path), options.limit, options.seed)

    def measure() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            return {**time_encoding(smiles, Path(folder)), **time_store(smiles, Path(folder), options.seed)}

    line = measured(
        "molecule_encoding",
        code=CODE,
        data=digest,
        seed=options.seed,
        device=processor(),
        options={"molecules": len(smiles), "rdkit": rdBase.rdkitVersion},
        again=options.again,
        measure=measure,
    )
    print(json.dumps(line))


# ------------------------------------------------------------------------------------------- encoding


def time_encoding(smiles: list[str], folder: Path) -> dict[str, Any]:
    """Seconds of each chunk over those of its parse, and rates; medians over chunks."""
    with chemprop_featuriser() as chemprop:
        timers: dict[str, Callable[[list[str]], float]] = {
            "parse": time_parse,
            "encode": lambda chunk: time_shard(AsWritten(), chunk, folder / "as-written"),
            "standardised": lambda chunk: time_shard(MOLECULES, chunk, folder / "standardised"),
            "chemprop": chemprop,
        }
        for timer in timers.values():
            timer(smiles[:CHUNK])  # what is filled once in a process is not filled in each chunk
        seconds: dict[str, list[float]] = {name: [] for name in timers}
        for turn, start in enumerate(range(0, len(smiles), CHUNK)):
            chunk = smiles[start : start + CHUNK]
            # A new first one in each turn: what runs later finds the strings in the cache.
            for place in range(len(timers)):
                name = list(timers)[(turn + place) % len(timers)]
                gc.collect()
                seconds[name].append(timers[name](chunk) / len(chunk))

    def over(one: str, other: str) -> float:
        """The median of the ratios: what disturbs a chunk disturbs both sides."""
        return round(median(np.divide(seconds[one], seconds[other])), 3)

    return {
        "encode_over_parse": over("encode", "parse"),
        "standardised_over_parse": over("standardised", "parse"),
        "chemprop_over_parse": over("chemprop", "parse"),
        "chemprop_over_ours": over("chemprop", "encode"),
        "parse_per_s": round(1 / median(seconds["parse"])),
        "standardised_per_s": round(1 / median(seconds["standardised"])),
    }


def time_parse(smiles: list[str]) -> float:
    started = process_time()
    for value in smiles:
        Chem.MolFromSmiles(value)
    return process_time() - started


def time_shard(domain: Domain, smiles: list[str], folder: Path) -> float:
    """What a worker that builds a store does with its rows, to the files that it writes."""
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as place:
        started = process_time()
        write_shard(
            domain, RECIPE, [Row(index, value) for index, value in enumerate(smiles)], Path(place) / "shard"
        )
        return process_time() - started


@contextmanager
def chemprop_featuriser() -> Iterator[Callable[[list[str]], float]]:
    """Chemprop's seconds for SMILES to graphs, by a process in an environment of its own."""
    command = [str(chemprop_python()), str(CHEMPROP)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        stdin, stdout = peer.stdin, peer.stdout
        if stdin is None or stdout is None:
            raise AssertionError

        def time_chunk(smiles: list[str]) -> float:
            stdin.write(json.dumps(smiles) + "\n")
            stdin.flush()
            return float(json.loads(stdout.readline()))

        yield time_chunk
        stdin.close()


# -------------------------------------------------------------------------------------------- the store


def time_store(smiles: list[str], folder: Path, seed: int) -> dict[str, Any]:
    """Seconds of a build by one worker over those by two, and molecules per second in batches of 64."""
    table = folder / "sample.smi"
    table.write_text("\n".join(smiles))
    source = MOLECULES.open(table, SPEC)
    seconds = []
    for workers in (1, 2):
        started = perf_counter()
        store = build("molecules", source, SPEC, folder / f"{workers}", workers=workers)
        seconds.append(perf_counter() - started)
    return {"two_workers_over_one": round(seconds[0] / seconds[1], 3), **time_loading(store, seed)}


def time_loading(store: Store, seed: int) -> dict[str, Any]:
    """Samples drawn in random order from the mapped files and joined into batches, per second of one core."""
    # Here: a worker of ``build`` imports this module, and is to wait for nothing that it has no use for.
    import torch

    from models.encoder import create_encoder

    torch.set_num_threads(1)
    encoder = create_encoder("molecules", "tiny", SPEC)
    order = np.random.default_rng(seed).permutation(len(store))
    rates = []
    for start in range(0, len(order) - BATCH, BATCH):
        started = process_time()
        encoder.collate([store[place] for place in order[start : start + BATCH]])
        rates.append(BATCH / (process_time() - started))
    return {"loader_per_core": round(median(rates))}


if __name__ == "__main__":
    main()
