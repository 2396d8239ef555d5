"""A ledger of measurements: one JSON line for each cell, in ``benchmarks/results/NAME.jsonl``.

A cell is keyed by all that decides its figures: the code that matters, the data, the seed, the device and
the options. A cell that is in the ledger is not measured again unless asked, so that figures are never
picked from several tries.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from domains.contract import digest_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results")

Figures = Mapping[str, Any]


def measured(
    name: str,
    *,
    code: Iterable[str],
    data: str,
    seed: int,
    device: str,
    options: Mapping[str, Any],
    again: bool,
    measure: Callable[[], Figures],
    folder: Path = RESULTS,
) -> dict[str, Any]:
    """The line of a cell: from the ledger, or measured now and appended to it.

    ``code`` names files and folders below the repository's root; ``data`` is a content digest.
    """
    key = {
        "benchmark": name,
        "code": code_digest(code),
        "data": data,
        "seed": seed,
        "device": device,
        **options,
    }
    ledger = folder / f"{name}.jsonl"
    if not again and (known := _last(ledger, digest_of(key))) is not None:
        return known
    line = {"cell": digest_of(key), **key, **measure(), "measured": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    folder.mkdir(exist_ok=True)
    with ledger.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line


def code_digest(paths: Iterable[str]) -> str:
    """Digest of Python files, and of those in folders, by path and content."""
    files = [
        file
        for path in paths
        for file in (sorted((ROOT / path).rglob("*.py")) if (ROOT / path).is_dir() else [ROOT / path])
    ]
    return digest_of(
        {str(file.relative_to(ROOT)): sha256(file.read_bytes()).hexdigest() for file in sorted(files)}
    )


def processor() -> str:
    """Model name of this machine's CPU, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0, help="seed of samples and weights")
    parser.add_argument("--again", action="store_true", help="measure also what is in the ledger already")
    return parser


def _last(ledger: Path, cell: str) -> dict[str, Any] | None:
    if not ledger.exists():
        return None
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    return next((line for line in reversed(lines) if line["cell"] == cell), None)
