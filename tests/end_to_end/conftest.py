"""One ``groundwork up`` for all of these tests, and a small table of real molecules to learn from."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from groundwork_up import BROKEN, UPLOADED, Groundwork, Stopped, eventually, groundwork_up


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
    """Settings of a run that takes long enough to be stopped twice in the middle of it."""
    return {
        "pasted": table,
        "target": ["logp"],
        "name": "interrupted",
        "foundation": "none",
        "epochs": 6,
        "batch_size": 4,
    }


@pytest.fixture(scope="package")
def cancelled(running: Groundwork, interrupted: dict[str, Any]) -> Stopped:
    """A run that was cancelled in the middle of its training."""
    run = running.start("finetune-molecules", **interrupted)
    eventually(lambda: running.percent(run) >= 5, 180)
    running.cancel(run)
    running.ended(run)
    return running.stopped(run)


@pytest.fixture(scope="package")
def killed(running: Groundwork, interrupted: dict[str, Any], cancelled: Stopped) -> Stopped:
    """The same, resumed: its process was killed within an epoch of its training, and its runner with it."""
    run = running.start("finetune-molecules", **interrupted, resume=True)
    eventually(lambda: running.percent(run) >= 40, 180)
    [own] = [it for it in running.processes() if it.environ().get("PREFECT__FLOW_RUN_ID") == run]
    os.kill(running.pid("runner"), signal.SIGKILL)
    own.kill()
    return running.stopped(run)


@pytest.fixture(scope="package")
def undisturbed(running: Groundwork, interrupted: dict[str, Any], killed: Stopped, table: str) -> str:
    """The name of what the same settings and rows come to in a terminal, which waits for no training slot."""
    file = running.home.root / "undisturbed.csv"
    file.write_text(table)
    options = [f"--set={key}={interrupted[key]}" for key in ("foundation", "epochs", "batch_size")]
    done = running.command(
        "finetune", "molecules", str(file), "--target=logp", "--name=undisturbed", *options
    )
    assert done.returncode == 0, done.stderr
    return "undisturbed"


@pytest.fixture(scope="package")
def outside(running: Groundwork, tmp_path_factory: pytest.TempPathFactory, table: str) -> tuple[str, Path]:
    """A run that names a file of the machine which no root holds; the run's id and the file."""
    file = tmp_path_factory.mktemp("private") / "private.csv"
    file.write_text(table)
    return running.start("finetune-molecules", dataset=str(file), target=["logp"]), file


@pytest.fixture(scope="package")
def pretraining(running: Groundwork, table: str, outside: tuple[str, Path]) -> str:
    """Flow run that pretrained on pasted rows. ``outside`` starts with it: most of a start is waiting."""
    run = running.start("pretrain-molecules", dataset="", pasted=table, epochs=1)
    running.complete(run)
    return run


@pytest.fixture(scope="package")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the file that is uploaded, again and again under the same name."""
    return tmp_path_factory.mktemp("laboratory")


@pytest.fixture(scope="package")
def uploaded(running: Groundwork, table: str, laboratory: Path) -> dict[str, Any]:
    """What the API said of the dataset ``measured-logp``: half of the rows, and one that is broken."""
    file = laboratory / "logp.csv"
    file.write_text("\n".join([*table.splitlines()[: 1 + UPLOADED], f"{BROKEN},1.0"]) + "\n")
    return running.api.upload(file, "measured-logp")


@pytest.fixture(scope="package")
def first(running: Groundwork, pretraining: str, uploaded: dict[str, Any]) -> str:
    """Flow run that learnt ``logp/1`` from the upload, too briefly to be good.

    It is retrained, brought back, and serves.
    """
    run = running.start(
        "finetune-molecules",
        dataset=uploaded["name"],
        target=["logp"],
        name="logp",
        unit="log10",
        size="tiny",
        split="random",
        epochs=3,
        batch_size=16,
        learning_rate=3e-4,
    )
    running.complete(run)
    return run
