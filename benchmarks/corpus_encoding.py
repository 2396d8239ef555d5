"""A whole corpus into the store, its memory, and a kill -9: ``python -m benchmarks.corpus_encoding``.

Three builds in processes of their own: of a part of the rows, of all of them, and of all of them once more,
killed in the middle with everything that it had started, and started again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.ledger import arguments, measured, processor
from benchmarks.molecules import SPEC, open_molecules
from domains.contract import Source, digest_of
from domains.molecules import MOLECULES
from domains.store import build

NAME = "corpus_encoding"
WORKERS = 2
BETWEEN_LOOKS = 0.2
"""Seconds between two looks at the memory."""


@dataclass(frozen=True)
class Peak:
    """Bytes."""

    own: int
    """Without mapped files, which the system takes back when it needs them."""
    resident: int


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("path", nargs="?", help="a file of molecules; default: the embedded corpus")
    parser.add_argument("--part", type=int, default=300_000, help="rows of the smaller build")
    parser.add_argument("--rows", type=int, default=0, help="rows of the larger one; default: all")
    parser.add_argument("--build", help="only build, into this folder, and say what came of it")
    options = parser.parse_args()
    source = open_molecules(options.path)
    if options.build:
        print(json.dumps(build_here(first(source, options.rows), Path(options.build))))
        return
    rows = options.rows or sum(1 for _ in source.stream())
    line = measured(
        NAME,
        code=["domains/contract.py", "domains/molecules", "domains/shards.py", "domains/store.py",
              "domains/workers.py", "benchmarks/corpus_encoding.py"],
        data=source.digest,
        seed=options.seed,
        device=processor(),
        options={"rows": rows, "part": min(options.part, rows)},
        again=options.again,
        measure=lambda: compare(options.path, rows, min(options.part, rows)),
    )  # fmt: skip
    print(json.dumps(line))


def first(source: Source, rows: int) -> Source:
    """The source with its first rows only; with 0, as it is."""
    if not rows:
        return source
    return replace(
        source,
        stream=lambda: islice(source.stream(), rows),
        digest=digest_of([source.digest, rows]),
    )


def build_here(source: Source, folder: Path) -> dict[str, Any]:
    """Build the store of a source; what came of it."""
    started = time.perf_counter()
    store = build("molecules", source, SPEC, folder, workers=WORKERS)
    return {"digest": store.digest, "seconds": round(time.perf_counter() - started, 1), **vars(store.counts)}


def compare(path: str | None, rows: int, part: int) -> dict[str, Any]:
    """Peak memory of a part and of all rows, and whether a killed build ends with the same content."""
    with TemporaryDirectory() as scratch:
        small, small_peak = watched(path, part, Path(scratch) / "part")
        whole, peak = watched(path, rows, Path(scratch) / "whole")
        killed_at = kill_half_way(path, rows, Path(scratch) / "killed")
        again, _ = watched(path, rows, Path(scratch) / "killed")
    growth = (peak.own - small_peak.own) / max(1, rows - part)
    return {
        "peak_resident_mb": round(peak.resident / 1e6),
        "peak_mb": round(peak.own / 1e6),
        "peak_mb_of_part": round(small_peak.own / 1e6),
        "growth_bytes_per_row": round(growth, 1),
        "records": whole["records"],
        "rejects": whole["rejects"],
        "seconds": whole["seconds"],
        "seconds_of_part": small["seconds"],
        "killed_after_shards": killed_at,
        "seconds_after_kill": again["seconds"],
        "same_digest": again["digest"] == whole["digest"],
    }


def command(path: str | None, rows: int, folder: Path) -> list[str]:
    named = [path] if path else []
    return [sys.executable, "-m", "benchmarks.corpus_encoding", *named, f"--rows={rows}", f"--build={folder}"]


def watched(path: str | None, rows: int, folder: Path) -> tuple[dict[str, Any], Peak]:
    """What a build came to, and the most that one of its processes held."""
    child = subprocess.Popen(command(path, rows, folder), stdout=subprocess.PIPE, text=True)
    own = resident = 0
    while child.poll() is None:
        for process in _family(child.pid):
            try:
                memory = process.memory_info()
            except psutil.Error:
                continue
            own = max(own, memory.rss - getattr(memory, "shared", 0))
            resident = max(resident, memory.rss)
        time.sleep(BETWEEN_LOOKS)
    if child.returncode or child.stdout is None:
        raise SystemExit(f"the build of {rows:,} rows has failed")
    return json.loads(child.stdout.read()), Peak(own, resident)


def kill_half_way(path: str | None, rows: int, folder: Path) -> int:
    """Begin a build, kill it with its workers when half of its shards are there; how many there were."""
    child = subprocess.Popen(command(path, rows, folder), stdout=subprocess.DEVNULL, start_new_session=True)
    half = max(1, rows // MOLECULES.shard_rows // 2)
    while child.poll() is None:
        done = len(list(folder.glob("*.parts/[0-9]*")))
        if done >= half:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return done
        time.sleep(BETWEEN_LOOKS)
    raise SystemExit("the build ended before it could be killed: give it more rows")


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


if __name__ == "__main__":
    main()
