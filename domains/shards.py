"""Files of the store: one shard of encoded rows, and the joining of shards into one.

Arrays are ``.npy`` (see ``arrays``), and what is kept about rows is Parquet. Nothing here is a pickle.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate, chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from domains.abilities import PacksSamples
from domains.arrays import SampleWriter, load_array, write_offsets
from domains.contract import Domain, EncodingSpec, GroundworkError, Record, Reject, RejectedLabel, Row

LONGEST_ORIGINAL = 500
"""Characters of a rejected value that are kept."""
READ_AT_ONCE, SMALL = 8, 1 << 14
"""Records that are in memory together, and the bytes of a sample up to which they are several."""
SUMMARY, RECORDS, REJECTS = "shard.json", "records.parquet", "rejects.parquet"
SHARDS = "shards"
"""Folder of a store that holds the arrays of each of its shards."""
ROW, IDENTITY, REASON, ORIGINAL = "row", "identity", "reason", "original"


@dataclass(frozen=True)
class Recipe:
    """How rows become what a store holds. Sent to worker processes."""

    spec: EncodingSpec
    keep: tuple[str, ...]
    describe: bool
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Counts:
    """Rows of the source, and what became of them."""

    rows: int
    records: int
    rejects: int


def label_array(target: str) -> str:
    """Name of the array that holds a target of pixel level, beside the arrays of the sample."""
    return f"label.{target}"


def write_shard(domain: Domain, recipe: Recipe, rows: Sequence[Row], folder: Path) -> None:
    """Read and encode ``rows`` into ``folder``, which appears whole or not at all.

    Raises GroundworkError on a full disk, ValueError where the domain's samples differ in their arrays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_explained(folder), _appearing(folder) as place:
        with SampleWriter(place) as samples:
            records, rejects = _encode(domain, recipe, rows, samples)
            arrays = samples.close()
        kept = {f"kept.{name}": [record.fields.get(name, "") for record in records] for name in recipe.keep}
        identities = {IDENTITY: [record.identity for record in records], **kept}
        _write_table(place / RECORDS, [record.row for record in records], identities)
        reasons = {
            REASON: [reject.reason for reject in rejects],
            ORIGINAL: [reject.original[:LONGEST_ORIGINAL] for reject in rejects],
        }
        _write_table(place / REJECTS, [reject.row for reject in rejects], reasons)
        counts = Counts(len(rows), len(records), len(rejects))
        summary = {"counts": asdict(counts), "arrays": list(arrays)}
        digest = _digest(arrays, [place / RECORDS, place / REJECTS])
        (place / SUMMARY).write_text(json.dumps({**summary, "digest": digest}))


def _encode(
    domain: Domain, recipe: Recipe, rows: Sequence[Row], samples: SampleWriter
) -> tuple[list[Record], list[Reject]]:
    records: list[Record] = []
    rejects: list[Reject] = []
    encode = domain.pack if isinstance(domain, PacksSamples) else domain.encode
    remaining, at_once, sample = iter(rows), 1, dict[str, np.ndarray]()
    while turn := [domain.read(row, recipe.spec) for row in islice(remaining, at_once)]:
        for found in turn:
            if isinstance(found, Reject):
                rejects.append(found)
                continue
            try:
                values = domain.labels(found, recipe.labels) if recipe.labels else {}
            except RejectedLabel as error:
                rejects.append(Reject(found.row, str(error), found.identity))
                continue
            sample = dict(encode(found, recipe.spec))
            if recipe.describe:
                sample |= domain.describe(found, recipe.spec)
            samples.append(sample | {label_array(name): array for name, array in values.items()})
            # Only the words are kept: a shard of parsed records of some domains would fill the memory.
            records.append(Record(found.row, found.identity, None, found.fields))
        # Some small ones are read before the first is encoded: the code of each half stays in the processor's
        # caches. Large ones would drive each other out of these.
        at_once = READ_AT_ONCE if sum(array.nbytes for array in sample.values()) <= SMALL else 1
    return records, rejects


def join_shards(shards: Sequence[Path], folder: Path, extra: dict[str, object]) -> None:
    """Make the shards, in order, one complete store in ``folder``, with its ``manifest.json``.

    What is large is not copied: the store has the shards' own files of arrays.
    """
    summaries = [json.loads((shard / SUMMARY).read_text()) for shard in shards]
    filled = [(shard, summary) for shard, summary in zip(shards, summaries, strict=True) if summary["arrays"]]
    names: list[str] = filled[0][1]["arrays"] if filled else []
    with full_disk_explained(folder), _appearing(folder) as place:
        for shard, _ in filled:
            (place / SHARDS / shard.name).mkdir(parents=True)
            for name in names:
                _link(shard / f"{name}.npy", place / SHARDS / shard.name / f"{name}.npy")
        for name in names:
            _join_offsets(place, name, [shard for shard, _ in filled])
        for table in (RECORDS, REJECTS):
            _join_tables(place / table, [shard / table for shard in shards])
        counts = {
            key: sum(summary["counts"][key] for summary in summaries) for key in asdict(Counts(0, 0, 0))
        }
        digest = hashlib.sha256("".join(summary["digest"] for summary in summaries).encode()).hexdigest()[:16]
        held = {shard.name: summary["counts"]["records"] for shard, summary in filled}
        manifest = {**extra, "counts": counts, "arrays": names, "shards": held, "digest": digest}
        (place / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _link(file: Path, place: Path) -> None:
    try:
        os.link(file, place)
    except OSError:  # a file system without hard links, or full: which copying will tell
        shutil.copyfile(file, place)


def _join_offsets(folder: Path, name: str, shards: Sequence[Path]) -> None:
    """Where each part begins, counted from the first of all."""
    lengths = [len(load_array(shard / f"{name}.npy")) for shard in shards]
    bases = list(accumulate(lengths, initial=0))
    starts = [load_array(shard / f"{name}.offsets.npy") for shard in shards]
    moved = (start[:-1] + base for start, base in zip(starts, bases[:-1], strict=True))
    write_offsets(
        folder, name, chain(moved, [np.array(bases[-1:])]), sum(len(start) - 1 for start in starts) + 1
    )


# ----------------------------------------------------------------------------------------------- tables


def _write_table(path: Path, rows: Sequence[int], texts: dict[str, list[str]]) -> None:
    columns = {ROW: pa.array(rows, pa.int64())}
    columns |= {name: pa.array(values, pa.string()) for name, values in texts.items()}
    with path.open("wb") as file:
        pq.write_table(pa.table(columns), file, compression="zstd")


def _join_tables(path: Path, parts: Sequence[Path]) -> None:
    with path.open("wb") as file:
        writer: pq.ParquetWriter | None = None
        for part in parts:
            # In one thread: each of several keeps freed memory of its own, which looks like growth.
            table = pq.read_table(part, use_threads=False)
            writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
        if writer:
            writer.close()


# ------------------------------------------------------------------------------------------------ files


def _digest(arrays: Mapping[str, str], tables: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(arrays.items()):
        digest.update(f"{name} {content}\n".encode())
    for path in tables:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder to write in, that takes the name ``folder`` at the end: killed before, it never was."""
    place = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield place
        try:
            os.rename(place, folder)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise  # else another process was first, with the same content
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn a full disk, and a folder that may not be written, into what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "is on a full disk: free some space, or use another folder"
        elif error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            what = "is not a folder that may be written: change its permissions, or use another"
        else:
            raise
        raise GroundworkError(f"{folder.parent} {what}") from error
