"""The ledger: what is measured once, what again, and what makes another cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ledger import ROOT, code_digest, measured


def measure(folder: Path, calls: list[int], **changed: Any) -> dict[str, Any]:
    def figures() -> dict[str, int]:
        calls.append(1)
        return {"figure": len(calls)}

    cell = {
        "code": ["domains/contract.py"],
        "data": "d",
        "seed": 0,
        "device": "cpu",
        "options": {},
        "again": False,
    }
    return measured("speed", measure=figures, folder=folder, **{**cell, **changed})


def test_a_cell_is_measured_once_unless_asked_again(tmp_path: Path) -> None:
    calls: list[int] = []
    first = measure(tmp_path, calls)
    assert measure(tmp_path, calls) == first
    assert len(calls) == 1
    assert measure(tmp_path, calls, again=True)["figure"] == 2
    lines = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert [line["figure"] for line in lines] == [1, 2]
    assert measure(tmp_path, calls)["figure"] == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"code": ["domains/splits.py"]},
        {"data": "e"},
        {"seed": 1},
        {"device": "gpu"},
        {"options": {"size": 1}},
    ],
)
def test_whatever_decides_the_figures_makes_another_cell(tmp_path: Path, changed: dict[str, Any]) -> None:
    calls: list[int] = []
    measure(tmp_path, calls)
    measure(tmp_path, calls, **changed)
    assert len(calls) == 2


def test_the_code_of_a_folder_is_all_its_modules() -> None:
    modules = [str(file.relative_to(ROOT)) for file in (ROOT / "domains/molecules").rglob("*.py")]
    assert code_digest(["domains/molecules"]) == code_digest(modules)
    assert code_digest(modules[:-1]) != code_digest(modules)
