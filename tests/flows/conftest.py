"""Tables of real compounds to learn from, and encoders small enough to learn in a second."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from flows.journal import ConsoleJournal

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@pytest.fixture(scope="module", autouse=True)
def small_encoders() -> Iterator[None]:
    """The smallest preset made smaller still, on one thread; few trees, rows to embed and pictures.

    And nothing shipped.
    """
    import torch

    from flows import figures, yardstick
    from models import baselines, shipped
    from models.molecules.graph_transformer import GraphTransformer

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GraphTransformer.presets, "tiny", SMALL)
        patch.setattr(baselines, "TREES", 20)
        patch.setattr(yardstick, "RECORDS", 200)
        patch.setattr(yardstick, "LEARNT_FROM", 150)
        patch.setattr(figures, "WORST", 4)
        patch.setattr(shipped, "FOLDER", Path("nothing is shipped"))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


class HeardJournal(ConsoleJournal):
    """A console journal whose words can be read back; everything goes to a wide terminal of its own."""

    def __init__(self) -> None:
        self.output = io.StringIO()
        super().__init__(Console(file=self.output, width=1000))

    @property
    def text(self) -> str:
        return self.output.getvalue()


@pytest.fixture
def journal() -> HeardJournal:
    return HeardJournal()


@pytest.fixture(scope="session")
def properties(molecules: list[str]) -> Mapping[str, Sequence[str]]:
    """Columns of cells: ``smiles``, a number ``logp``, a binary ``ring``, and ``tpsa`` with gaps."""
    from rdkit import Chem
    from rdkit.Chem import Crippen, rdMolDescriptors

    parsed = [Chem.MolFromSmiles(smiles) for smiles in molecules]
    return {
        "smiles": molecules,
        "logp": [f"{Crippen.MolLogP(molecule):.3f}" for molecule in parsed],
        "ring": [str(int(molecule.GetRingInfo().NumRings() > 1)) for molecule in parsed],
        "tpsa": [
            "" if place % 3 == 0 else f"{rdMolDescriptors.CalcTPSA(molecule):.2f}"
            for place, molecule in enumerate(parsed)
        ],
    }


@pytest.fixture(scope="session")
def tables(properties: Mapping[str, Sequence[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``logp.csv``, ``ring.csv``, ``both.csv`` and ``smiles.csv``."""
    folder = tmp_path_factory.mktemp("tables")
    for name, columns in {
        "logp": ["smiles", "logp"],
        "ring": ["smiles", "ring"],
        "both": ["smiles", "logp", "tpsa"],
        "smiles": ["smiles"],
    }.items():
        rows = zip(*(properties[column] for column in columns), strict=True)
        lines = [",".join(columns), *(",".join(row) for row in rows)]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    # Rows that cannot be used, among those that can: a broken molecule, an empty one, no label.
    with (folder / "logp.csv").open("a") as file:
        file.write("C1CC(,1.0\n,2.0\nCCCCCCCCO,\nCCCCCCCCN,high\n")
    return folder
