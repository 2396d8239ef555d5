"""Graphs as ``torch_geometric`` has them: samples of molecules out and in, and its datasets as tables.

Users' own layers, transforms and loaders work on ``Data``; the encoders work on samples. A dataset that holds
SMILES becomes a table, which every flow reads and the API takes: the molecules are then encoded as any others
are, and the atom features that the dataset brings are not needed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from domains.contract import GroundworkError, Sample
from models.molecules.graph_transformer import GraphTransformerConfig

SMILES = "smiles"


def to_pyg(sample: Sample) -> Data:
    """A sample of N atoms and M bonds -> ``Data`` with the codes as they are.

    ``x`` int64 [N, atom fields]; ``edge_index`` int64 [2, 2 M], every bond in both directions;
    ``edge_attr`` int64 [2 M, bond fields].
    """
    ends = torch.from_numpy(sample["bonds"].astype(np.int64))
    codes = torch.from_numpy(sample["bond_codes"].astype(np.int64))
    return Data(
        x=torch.from_numpy(sample["atoms"].astype(np.int64)),
        edge_index=torch.cat([ends, ends.flip(1)]).T.contiguous(),
        edge_attr=torch.cat([codes, codes]),
    )


def from_pyg(data: Data) -> Sample:
    """``Data`` as ``to_pyg`` makes it, whatever the order of its edges -> the sample.

    Raises GroundworkError for a graph with other features than our codes, and for one whose bonds do not lead
    both ways alike.
    """
    if data.x is None or data.edge_index is None or data.edge_attr is None:
        raise GroundworkError("the graph lacks x, edge_index or edge_attr: make it with to_pyg")
    known = GraphTransformerConfig()
    atoms = _codes("x", data.x, known.atom_fields or [])
    codes = _codes("edge_attr", data.edge_attr, known.bond_fields or [])
    ends = data.edge_index.detach().cpu().numpy()
    if ends.shape != (2, len(codes)):
        raise GroundworkError(
            f"edge_index is {list(ends.shape)} for {len(codes)} rows of edge_attr: it must be [2, edges]"
        )
    if ends.size and (ends.min() < 0 or ends.max() >= len(atoms)):
        raise GroundworkError(f"edge_index names an atom that is not among the {len(atoms)} of x")
    forward, backward = _directed(ends, codes), _directed(ends[::-1], codes)
    if (ends[0] == ends[1]).any() or not np.array_equal(forward, backward):
        raise GroundworkError(
            "a bond is a loop, double, or not the same in both directions: add each once as (i, j) and (j, i)"
        )
    return {
        "atoms": atoms,
        "bonds": np.ascontiguousarray(forward[:, :2].astype(np.uint16)),
        "bond_codes": np.ascontiguousarray(forward[:, 2:].astype(np.uint8)),
    }


def _directed(ends: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Edges that lead from a lower to a higher atom, sorted: int64 [M, 2 + fields]."""
    rows = np.concatenate([ends.T, codes], axis=1)[ends[0] < ends[1]]
    return rows[np.lexsort(rows.T[::-1])]


def _codes(name: str, values: torch.Tensor, fields: Sequence[Sequence[str | int]]) -> np.ndarray:
    codes = values.detach().cpu().numpy()
    sizes = np.array([int(size) for _, size in fields])
    if codes.ndim != 2 or codes.shape[1] != len(fields):
        listed = ", ".join(str(field) for field, _ in fields)
        raise GroundworkError(
            f"{name} is {list(codes.shape)}, not one column for each of {listed}: make the graph with "
            "to_pyg, or let its SMILES be read (write_table)"
        )
    if not np.array_equal(codes, codes.astype(np.uint8)) or (codes >= sizes).any():
        raise GroundworkError(f"{name} holds values that are no codes of ours: make the graph with to_pyg")
    return codes.astype(np.uint8)


def write_table(dataset: Iterable[Data], path: Path, targets: Sequence[str] = ()) -> Path:
    """Write a dataset whose graphs hold ``smiles`` and ``y`` as a CSV that every flow reads.

    ``y`` is [targets] or [1, targets], NaN where not measured; ``targets`` names its columns (``y``, or
    ``y_0`` and so on, by default). Graph by graph, so that memory does not grow. Raises GroundworkError for a
    graph without SMILES or with another number of values, and leaves no file behind.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            names = tuple(targets)
            for index, data in enumerate(dataset):
                smiles, values = _labelled(index, data)
                if index == 0:
                    names = names or _names(len(values))
                    writer.writerow([SMILES, *names])
                if len(values) != len(names):
                    raise GroundworkError(
                        f"graph {index} has {len(values)} values in y, not one for each of {', '.join(names)}"
                    )
                writer.writerow([smiles, *("" if np.isnan(value) else str(value) for value in values)])
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _labelled(index: int, data: Data) -> tuple[str, np.ndarray]:
    smiles = getattr(data, SMILES, None)
    if not isinstance(smiles, str):
        raise GroundworkError(f"graph {index} holds no SMILES: set data.smiles, or turn it with from_pyg")
    if data.y is None:
        return smiles, np.zeros(0)
    return smiles, np.atleast_1d(torch.as_tensor(data.y).detach().cpu().numpy().squeeze())


def _names(count: int) -> tuple[str, ...]:
    return ("y",) if count == 1 else tuple(f"y_{place}" for place in range(count))
