"""One ``groundwork up`` for all of these tests, and a small table of real molecules to learn from."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from groundwork_up import Groundwork, Killed, eventually, groundwork_up


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Groundwork]:
    """Starting takes 15 to 30 seconds, so that all tests share it; each uses model names of its own."""
    with groundwork_up(tmp_path_factory.mktemp("groundwork") / "home") as started:
        yield started


@pytest.fixture(scope="package")
def table(molecules: list[str]) -> str:
    """CSV of molecules with their computed logP (Crippen): real chemistry that a small model can learn."""
    from rdkit import Chem
    from rdkit.Chem.Crippen import MolLogP

    rows = [f"{smiles},{MolLogP(Chem.MolFromSmiles(smiles)):.4f}" for smiles in molecules]
    return "\n".join(["smiles,logp", *rows]) + "\n"


@pytest.fixture(scope="package")
def interrupted(table: str) -> dict[str, Any]:
    """Settings of a run that takes long enough to be stopped in the middle of it."""
    return {
        "pasted": table,
        "target": ["logp"],
        "name": "interrupted",
        "foundation": "none",
        "epochs": 6,
        "batch_size": 2,
    }


@pytest.fixture(scope="package")
def to_be_killed(interrupted: dict[str, Any]) -> dict[str, Any]:
    return {**interrupted, "name": "killed", "batch_size": 8}


@pytest.fixture(scope="package")
def killed(running: Groundwork, to_be_killed: dict[str, Any]) -> Killed:
    """A run whose process was killed within an epoch of its training, and its runner with it."""
    run = running.start("finetune-molecules", **to_be_killed)
    checkpoints = "finetune-*/checkpoints/checkpoint-*/trainer_state.json"
    eventually(lambda: list(running.home.runs.glob(checkpoints)) and running.percent(run) >= 20, 180)
    [own] = [it for it in running.processes() if it.environ().get("PREFECT__FLOW_RUN_ID") == run]
    os.kill(running.pid("runner"), signal.SIGKILL)
    own.kill()
    return Killed(run, time.monotonic())
