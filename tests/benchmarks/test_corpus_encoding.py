"""The benchmark of a whole corpus watches what it starts, and kills all of it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from benchmarks import corpus_encoding
from benchmarks.molecules import open_molecules
from domains.molecules import MOLECULES


def test_a_build_is_watched_and_comes_to_what_it_comes_to_here(tmp_path: Path) -> None:
    built, peak = corpus_encoding.watched(None, 300, tmp_path / "watched")
    here = corpus_encoding.build_here(corpus_encoding.first(open_molecules(None), 300), tmp_path / "here")
    assert built["rows"] == 300
    assert {**built, "seconds": 0} == {**here, "seconds": 0}
    assert 1e7 < peak.own < peak.resident


@pytest.mark.slow
def test_a_build_is_killed_with_its_workers_and_goes_on(tmp_path: Path) -> None:
    rows = 3 * MOLECULES.shard_rows
    before = set(psutil.pids())
    assert corpus_encoding.kill_half_way(None, rows, tmp_path / "killed") >= 1
    left = [it for it in psutil.process_iter(["status", "cmdline"]) if it.pid not in before]
    living = [it for it in left if it.info["status"] != psutil.STATUS_ZOMBIE]
    assert not [it for it in living if "multiprocessing" in " ".join(it.info["cmdline"] or ())]
    again, _ = corpus_encoding.watched(None, rows, tmp_path / "killed")
    whole, _ = corpus_encoding.watched(None, rows, tmp_path / "whole")
    assert again["digest"] == whole["digest"]
    assert again["records"] + again["rejects"] == rows
