"""Files of the store: one shard of encoded rows, and the joining of shards into one.

Every array is one flat ``.npy`` with an ``.offsets.npy`` (int64 [n + 1]) that says where each record's
part begins. What is kept about rows is Parquet. Nothing here is a pickle.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from domains.contract import Domain, EncodingSpec, GroundworkError, Record, Reject, RejectedLabel, Row

LONGEST_ORIGINAL = 500
"""Characters of a rejected value that are kept."""
READ_AT_ONCE = 8
"""Records that are in memory together."""
SUMMARY = "shard.json"
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
    records, rejects, samples = _encode(domain, recipe, rows)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_explained(folder), _appearing(folder) as place:
        for name in samples[0] if samples else ():
            _write_parts(place, name, [sample[name] for sample in samples])
        kept = {f"kept.{name}": [record.fields.get(name, "") for record in records] for name in recipe.keep}
        identities = {IDENTITY: [record.identity for record in records], **kept}
        _write_table(place / "records.parquet", [record.row for record in records], identities)
        reasons = {
            REASON: [reject.reason for reject in rejects],
            ORIGINAL: [reject.original[:LONGEST_ORIGINAL] for reject in rejects],
        }
        _write_table(place / "rejects.parquet", [reject.row for reject in rejects], reasons)
        counts = Counts(len(rows), len(records), len(rejects))
        summary = {"counts": asdict(counts), "arrays": list(samples[0]) if samples else []}
        (place / SUMMARY).write_text(json.dumps({**summary, "digest": _digest(place)}))


def _encode(
    domain: Domain, recipe: Recipe, rows: Sequence[Row]
) -> tuple[list[Record], list[Reject], list[dict[str, np.ndarray]]]:
    records, rejects, samples = [], [], []
    for found in _by_turns(rows, lambda row: domain.read(row, recipe.spec)):
        if isinstance(found, Reject):
            rejects.append(found)
            continue
        try:
            values = domain.labels(found, recipe.labels) if recipe.labels else {}
        except RejectedLabel as error:
            rejects.append(Reject(found.row, str(error), found.identity))
            continue
        sample = dict(domain.encode(found, recipe.spec))
        if recipe.describe:
            sample |= domain.describe(found, recipe.spec)
        samples.append(sample | {label_array(name): array for name, array in values.items()})
        # Only the words are kept: a shard of parsed records of some domains would fill the memory.
        records.append(Record(found.row, found.identity, None, found.fields))
    return records, rejects, samples


def _by_turns(rows: Sequence[Row], read: Callable[[Row], Record | Reject]) -> Iterator[Record | Reject]:
    # Some are read before the first is encoded: the code of each half stays in the processor's caches.
    for start in range(0, len(rows), READ_AT_ONCE):
        yield from [read(row) for row in rows[start : start + READ_AT_ONCE]]


def join_shards(shards: Sequence[Path], folder: Path, extra: dict[str, object]) -> None:
    """Write the shards, in order, as one complete store into ``folder``, with its ``manifest.json``."""
    summaries = [json.loads((shard / SUMMARY).read_text()) for shard in shards]
    filled = [
        (shard, summary["arrays"])
        for shard, summary in zip(shards, summaries, strict=True)
        if summary["arrays"]
    ]
    names: list[str] = filled[0][1] if filled else []
    with full_disk_explained(folder), _appearing(folder) as place:
        for name in names:
            _join_parts(place, name, [shard for shard, _ in filled])
        for table in ("records.parquet", "rejects.parquet"):
            _join_tables(place / table, [shard / table for shard in shards])
        counts = {
            key: sum(summary["counts"][key] for summary in summaries) for key in asdict(Counts(0, 0, 0))
        }
        digest = hashlib.sha256("".join(summary["digest"] for summary in summaries).encode()).hexdigest()[:16]
        manifest = {**extra, "counts": counts, "arrays": names, "digest": digest}
        (place / "manifest.json").write_text(json.dumps(manifest, indent=1))


# ----------------------------------------------------------------------------------------------- arrays


def load_array(path: Path) -> np.ndarray:
    """A plain, read-only array over the mapped file (``np.memmap`` itself is slow to slice)."""
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped.view(np.ndarray)


def _write_parts(folder: Path, name: str, parts: Sequence[np.ndarray]) -> None:
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    kind = (parts[0].dtype, parts[0].shape[1:])
    if any((part.dtype, part.shape[1:]) != kind for part in parts):
        raise ValueError(f"array {name!r} differs in dtype or in its other axes from sample to sample")
    _write_array(
        folder / f"{name}.npy", parts[0].dtype, (int(offsets[-1]), *kind[1]), [np.concatenate(parts)]
    )
    _write_array(folder / f"{name}.offsets.npy", offsets.dtype, offsets.shape, [offsets])


def _join_parts(folder: Path, name: str, shards: Sequence[Path]) -> None:
    # One shard is mapped at a time: pages of a file that was copied stay with the process while it is mapped.
    flats = [shard / f"{name}.npy" for shard in shards]
    starts = [shard / f"{name}.offsets.npy" for shard in shards]
    bases = np.cumsum([0, *(len(load_array(flat)) for flat in flats)])
    first = load_array(flats[0])
    _write_array(
        folder / f"{name}.npy", first.dtype, (int(bases[-1]), *first.shape[1:]), map(load_array, flats)
    )
    records = sum(len(load_array(start)) - 1 for start in starts)
    moved = (load_array(start)[:-1] + base for start, base in zip(starts, bases[:-1], strict=True))
    parts = chain(moved, [bases[-1:]])
    _write_array(folder / f"{name}.offsets.npy", np.dtype(np.int64), (records + 1,), parts)


def _write_array(path: Path, dtype: np.dtype, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> None:
    # Not np.save: that reports a full disk without saying so.
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part).data.cast("B") if part.size else b"")


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


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            _update(digest, file)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, file: IO[bytes]) -> None:
    while chunk := file.read(1 << 20):
        digest.update(chunk)


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
