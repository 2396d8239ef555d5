"""Molecules as graphs of torch_geometric, and its datasets as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import MOLECULES, SPEC, samples_of
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINEConv
from torch_geometric.transforms import ToUndirected

from domains.contract import GroundworkError, Sample
from domains.molecules import Molecules
from models.molecules.pyg import from_pyg, to_pyg, write_table

ALANINE = "C[C@H](N)C(=O)O"


def assert_same(found: Sample, expected: Sample) -> None:
    assert set(found) == set(expected)
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])


@st.composite
def graphs(draw: st.DrawFn) -> Sample:
    """Samples of any codes and any simple graph."""
    number = draw(st.integers(1, 12))
    pairs = [(begin, end) for begin in range(number) for end in range(begin + 1, number)]
    bonds = sorted(draw(st.sets(st.sampled_from(pairs)))) if pairs else []

    def codes(rows: int, sizes: Sequence[int]) -> np.ndarray:
        row = st.tuples(*(st.integers(0, size - 1) for size in sizes))
        table = draw(st.lists(row, min_size=rows, max_size=rows))
        return np.array(table, np.uint8).reshape(rows, len(sizes))

    return {
        "atoms": codes(number, [size for _, size in Molecules.ATOM_FIELDS]),
        "bonds": np.array(bonds, np.uint16).reshape(-1, 2),
        "bond_codes": codes(len(bonds), [size for _, size in Molecules.BOND_FIELDS]),
    }


@settings(max_examples=200, deadline=None)
@given(graphs(), st.randoms(use_true_random=False))
def test_a_sample_comes_back_whatever_the_order_of_the_edges(sample: Sample, random) -> None:
    data = to_pyg(sample)
    order = list(range(data.edge_index.shape[1]))
    random.shuffle(order)
    data.edge_index, data.edge_attr = data.edge_index[:, order], data.edge_attr[order]
    assert_same(from_pyg(data), sample)


def test_real_molecules_come_back(molecules: list[str]) -> None:
    for sample in samples_of([*molecules, ALANINE, "C", "[Na+].[Cl-]", "F/C=C/F"]):
        data = to_pyg(sample)
        data.validate()
        assert_same(from_pyg(data), sample)


def test_the_graph_is_one_that_torch_geometric_knows() -> None:
    sample = samples_of([ALANINE])[0]
    data = to_pyg(sample)
    assert (data.num_nodes, data.num_edges, data.is_undirected()) == (6, 10, True)
    assert not data.has_self_loops()
    embedded = torch.nn.Embedding(119, 8)(data.x[:, 0])
    layer = GINEConv(torch.nn.Linear(8, 8), edge_dim=2)
    assert layer(embedded, data.edge_index, data.edge_attr.float()).shape == (6, 8)


def test_a_batch_can_be_taken_apart_again() -> None:
    samples = samples_of([ALANINE, "c1ccccc1"])
    parts = Batch.from_data_list([to_pyg(sample) for sample in samples]).to_data_list()
    for part, sample in zip(parts, samples, strict=True):
        assert_same(from_pyg(part), sample)


def test_bonds_told_once_are_made_to_lead_both_ways_by_its_own_transform() -> None:
    sample = samples_of([ALANINE])[0]
    data = to_pyg(sample)
    data.edge_index, data.edge_attr = data.edge_index[:, :5], data.edge_attr[:5]
    with pytest.raises(GroundworkError, match="not the same in both directions"):
        from_pyg(data)
    assert_same(from_pyg(ToUndirected()(data)), sample)


def changed(**values: torch.Tensor | None) -> Data:
    data = to_pyg(samples_of([ALANINE])[0])
    for name, value in values.items():
        setattr(data, name, value)
    return data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed(x=None), "lacks x, edge_index or edge_attr"),
        (changed(x=torch.zeros(6, 9)), r"x is \[6, 9\], not one column for each of element, degree"),
        (changed(x=torch.full((6, 7), 200)), "x holds values that are no codes of ours"),
        (changed(x=torch.full((6, 7), -1)), "x holds values that are no codes of ours"),
        (changed(x=torch.full((6, 7), 0.5)), "x holds values that are no codes of ours"),
        (changed(edge_attr=torch.zeros(10, 3)), r"edge_attr is \[10, 3\]"),
        (changed(edge_attr=torch.zeros(8, 2)), r"edge_index is \[2, 10\] for 8 rows"),
        (changed(edge_index=torch.full((2, 10), 6)), "names an atom that is not among the 6"),
        (changed(edge_index=torch.zeros((2, 10), dtype=torch.long)), "a bond is a loop"),
    ],
)
def test_graphs_that_are_not_ours_are_refused(data: Data, said: str) -> None:
    with pytest.raises(GroundworkError, match=said) as error:
        from_pyg(data)
    assert "\n" not in str(error.value)


# ----------------------------------------------------------------------------------------------- tables


def labelled(smiles: str, *values: float) -> Data:
    return Data(x=torch.zeros(1, 9), y=torch.tensor([values]), smiles=smiles)


def test_a_dataset_of_smiles_becomes_a_table_that_is_read(tmp_path: Path) -> None:
    dataset = [labelled("CCO", 1.0, 0.1), labelled("F[C@H](Cl)Br, not", float("nan"), 2.5)]
    path = write_table(dataset, tmp_path / "set.csv", ["toxic", "logp"])
    source = MOLECULES.open(path, SPEC)
    rows = list(source.stream())
    assert source.columns == ("smiles", "toxic", "logp")
    assert [row.value for row in rows] == ["CCO", "F[C@H](Cl)Br, not"]
    assert [row.fields["toxic"] for row in rows] == ["1.0", ""]
    assert [row.fields["logp"] for row in rows] == ["0.1", "2.5"]


@pytest.mark.parametrize(
    ("y", "columns"),
    [
        (torch.tensor([1.0]), "smiles,y"),
        (torch.tensor(3), "smiles,y"),
        (torch.zeros(1, 2), "smiles,y_0,y_1"),
        (None, "smiles"),
    ],
)
def test_columns_have_names_of_their_own(tmp_path: Path, y: torch.Tensor | None, columns: str) -> None:
    path = write_table([Data(smiles="CC", y=y)], tmp_path / "set.csv")
    assert path.read_text().splitlines()[0] == columns


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ([labelled("CC", 1.0), Data(y=torch.ones(1))], "graph 1 holds no SMILES"),
        ([labelled("CC", 1.0), labelled("CCC", 1.0, 2.0)], "graph 1 has 2 values in y"),
    ],
)
def test_a_dataset_that_does_not_fit_leaves_nothing_behind(
    tmp_path: Path, dataset: list[Data], said: str
) -> None:
    with pytest.raises(GroundworkError, match=said):
        write_table(dataset, tmp_path / "set.csv")
    assert not list(tmp_path.iterdir())
