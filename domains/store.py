"""Encoded samples on disk: memory-mapped, named by what went into them, built once, resumed after a crash."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq

from domains.abilities import PacksSamples
from domains.arrays import load_array
from domains.contract import (
    Domain,
    EncodingSpec,
    GroundworkError,
    Reject,
    Row,
    Sample,
    Source,
    digest_of,
    load_domain,
)
from domains.shards import (
    RECORDS,
    REJECTS,
    SHARDS,
    Counts,
    Recipe,
    full_disk_explained,
    join_shards,
    label_array,
    write_shard,
)
from domains.workers import in_workers

FORMAT = 4
"""Version of the files; a change makes every store anew."""

Progress = Callable[[int, int | None], None]


class Store(Sequence[Sample]):
    """Samples of a source in order of its rows. Opening costs nothing; memory does not grow with use."""

    def __init__(self, folder: Path, chosen: np.ndarray | None = None) -> None:
        """Open the complete store in ``folder``; ``chosen`` are the positions it shows, int [n]."""
        manifest = json.loads((folder / "manifest.json").read_text())
        self.folder = folder
        self.source: str = manifest["source"]
        self.origin: str = manifest["origin"]
        self.digest: str = manifest["digest"]
        """Digest of the content: rows, identities, kept columns, rejects and every array."""
        self.counts = Counts(**manifest["counts"])
        """Of the whole source, also in a subset."""
        self._chosen = chosen
        self._starts = {name: load_array(folder / f"{name}.offsets.npy") for name in manifest["arrays"]}
        self._shards = list(manifest["shards"])
        self._bounds = list(accumulate(manifest["shards"].values()))
        """Of each shard, the position after its last sample."""
        self._flats: dict[int, list[tuple[str, np.ndarray, np.ndarray, int]]] = {}
        self._packed_by: str = manifest["packed_by"]
        """The domain whose samples are packed; empty where they lie as they are."""

    def __len__(self) -> int:
        return self.counts.records if self._chosen is None else len(self._chosen)

    def __getitem__(self, index: Any) -> Any:
        """Sample at a position: read-only views on the mapped files, or what its domain makes of them."""
        arrays = self._arrays(index)
        return self._packer.unpack(arrays) if self._packed_by else arrays

    def _arrays(self, index: int) -> Sample:
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"position {index} of {size} samples")
        place = int(index) % size
        if self._chosen is not None:
            place = self._chosen[place]
        shard = bisect_right(self._bounds, place)
        return {
            name: flat[starts[place] - base : starts[place + 1] - base]
            for name, flat, starts, base in self._flats.get(shard) or self._mapped(shard)
        }

    @cached_property
    def _packer(self) -> PacksSamples:
        return cast(PacksSamples, load_domain(self._packed_by))

    def _mapped(self, shard: int) -> list[tuple[str, np.ndarray, np.ndarray, int]]:
        """Name, parts, starts and start of the first part of every array of a shard."""
        folder, first = self.folder / SHARDS / self._shards[shard], self._bounds[shard - 1] if shard else 0
        self._flats[shard] = [
            (name, load_array(folder / f"{name}.npy"), starts, int(starts[first]))
            for name, starts in self._starts.items()
        ]
        return self._flats[shard]

    def __reduce__(self) -> tuple[type[Store], tuple[Path, np.ndarray | None]]:
        return Store, (self.folder, self._chosen)  # the maps are opened again where it is unpickled

    def subset(self, positions: np.ndarray) -> Store:
        """The samples at ``positions``, int [n], in that order, on the same files."""
        positions = np.asarray(positions)
        return Store(self.folder, positions if self._chosen is None else self._chosen[positions])

    def labels(self, target: str) -> Iterator[np.ndarray]:
        """Values of a target of pixel level, float32 [pixels] for each sample in turn."""
        return (self._arrays(place)[label_array(target)] for place in range(len(self)))

    @property
    def tokens(self) -> np.ndarray:
        """Length of the first array of each sample, int64 [n]: what batches of like lengths are made from."""
        if not self._starts:
            return np.zeros(0, np.int64)
        return self._pick(np.diff(next(iter(self._starts.values()))))

    @property
    def rows(self) -> np.ndarray:
        """Row of the source that each sample comes from, int64 [n]."""
        return self._pick(self._read("row").to_numpy())

    @property
    def identities(self) -> list[str]:
        """Identity of each sample, read from disk at each call."""
        return self._texts("identity")

    def column(self, name: str) -> list[str]:
        """Cells of a kept column as text. Raises GroundworkError for a column that was not kept."""
        kept = pq.read_schema(self.folder / RECORDS).names
        if f"kept.{name}" not in kept:
            listed = ", ".join(column.removeprefix("kept.") for column in kept if column.startswith("kept."))
            raise GroundworkError(
                f"the store of {self.source} keeps no column {name!r}; kept: {listed or 'none'}"
            )
        return self._texts(f"kept.{name}")

    def rejects(self) -> Iterator[Reject]:
        """Rows that could not be used, in order; values are cut after 500 characters."""
        with pq.ParquetFile(self.folder / REJECTS) as file:
            for batch in file.iter_batches(batch_size=4096):
                yield from (Reject(**entry) for entry in batch.to_pylist())

    def _texts(self, name: str) -> list[str]:
        texts = self._read(name)
        return (texts if self._chosen is None else texts.take(self._chosen)).to_pylist()

    def _read(self, name: str) -> Any:
        return pq.read_table(self.folder / RECORDS, columns=[name])[name]

    def _pick(self, values: np.ndarray) -> np.ndarray:
        return values if self._chosen is None else values[self._chosen]


# -------------------------------------------------------------------------------------------- building


def build(
    domain_name: str,
    source: Source,
    spec: EncodingSpec,
    root: Path,
    *,
    keep: Sequence[str] = (),
    labels: Sequence[str] = (),
    describe: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> Store:
    """Encode every row of ``source`` below ``root``, or find that done.

    ``keep`` names columns to keep as text, ``labels`` targets of pixel level to keep beside each sample;
    ``describe`` adds the values of sample-level pretraining targets.
    The store's folder is named by the digest of all that decides its content, the domain's code included.
    Finished shards survive a kill; of two processes that build the same, one waits.
    ``progress`` hears of (rows done, rows in all). Raises GroundworkError for an unknown column, a full
    disk, or a worker that died.
    """
    for name in keep:
        if name not in source.columns:
            listed = ", ".join(source.columns[:20]) or "none"
            raise GroundworkError(f"{source.name} has no column {name!r}; its columns are: {listed}")
    domain = load_domain(domain_name)
    recipe = Recipe(spec, tuple(keep), describe, tuple(labels))
    code = [FORMAT, domain.shard_rows, domain_name, _code_digest(domain)]
    key = digest_of([*code, source.digest, spec.digest, keep, describe, labels])
    folder, parts = root / key, root / f"{key}.parts"
    with full_disk_explained(folder):
        root.mkdir(parents=True, exist_ok=True)
    with _lock(root / f"{key}.lock"):
        if not folder.exists():
            for stale in root.glob(f".{key}-*"):
                shutil.rmtree(stale, ignore_errors=True)
            shards = _build_shards(domain, recipe, source, parts, workers, progress)
            packed_by = domain_name if isinstance(domain, PacksSamples) else ""
            named = {"source": source.name, "origin": source.origin, "packed_by": packed_by}
            join_shards(shards, folder, {**named, "format": FORMAT})
        shutil.rmtree(parts, ignore_errors=True)
    return Store(folder)


def _build_shards(
    domain: Domain, recipe: Recipe, source: Source, parts: Path, workers: int, progress: Progress | None
) -> list[Path]:
    # A second pass over the rows costs a thousandth of encoding them, and makes a percentage of progress.
    total = sum(1 for _ in source.stream()) if progress else None
    for stale in parts.glob(".*"):
        shutil.rmtree(stale, ignore_errors=True)
    shards: list[Path] = []

    def jobs() -> Iterator[tuple[str, Recipe, list[Row], Path]]:
        rows = source.stream()
        while (chunk := list(islice(rows, domain.shard_rows))) or not shards:  # no rows make one empty shard
            shards.append(parts / f"{len(shards):06d}")
            yield domain.name, recipe, chunk, shards[-1]

    if total:
        workers = min(workers, -(-total // domain.shard_rows))
    done = 0
    for size in in_workers(workers, _encode, jobs()):
        done += size
        if progress:
            progress(done, total)
    return shards


def _encode(domain_name: str, recipe: Recipe, rows: list[Row], shard: Path) -> int:
    if not shard.exists():  # else it was finished before the process was killed
        write_shard(load_domain(domain_name), recipe, rows, shard)
    return len(rows)


def _code_digest(domain: Domain) -> str:
    """Digest of the domain's source code and of the versions of what it imports.

    So a store made by another featuriser, ours or a library's, is never taken for this one's.
    """
    file = Path(str(sys.modules[type(domain).__module__].__file__))
    is_package = (file.parent / "__init__.py").exists()
    code = "\n".join(
        path.read_text("utf-8") for path in (sorted(file.parent.rglob("*.py")) if is_package else [file])
    )
    imported = sorted(set(re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE)))
    versions = {name: getattr(sys.modules.get(name), "__version__", "") for name in imported}
    return digest_of([code, versions])


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time, and let go by the system if that is killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
