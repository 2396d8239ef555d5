"""One ``groundwork up`` for all of these tests, and a small table of real molecules to learn from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from groundwork_up import Groundwork, groundwork_up


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
