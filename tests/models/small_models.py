"""Encoders small enough to train in a second, and samples of real molecules for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from domains.contract import EncodingSpec, Record, Row, Sample, SplitSpec, Target, TaskSpec, load_domain
from models.molecules.graph_transformer import GraphTransformer
from models.predictor import Lineage, VersionContract
from models.tuning import TaskModel

MOLECULES = load_domain("molecules")
SPEC = MOLECULES.encoding()
AS_WRITTEN = MOLECULES.encoding(fragments="all", charges="keep")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
LOGP = Target(name="logp", kind="regression", unit="log units")
TOXIC = Target(name="toxic", kind="binary", classes=("no", "yes"))
PHASE = Target(name="phase", kind="multiclass", classes=("gas", "liquid", "solid"))


def small_encoder(seed: int = 0, **overrides: float) -> GraphTransformer:
    """A freshly initialised encoder 32 wide, ready to embed."""
    torch.manual_seed(seed)
    encoder = GraphTransformer.create("tiny", **{**SIZES, **overrides})
    assert isinstance(encoder, GraphTransformer)
    return encoder.eval()


def record_of(smiles: str, spec: EncodingSpec = SPEC) -> Record:
    """The record of a valid SMILES."""
    record = MOLECULES.read(Row(0, smiles), spec)
    assert isinstance(record, Record), record
    return record


def samples_of(smiles: Sequence[str], *, described: bool = False, spec: EncodingSpec = SPEC) -> list[Sample]:
    """Encoded molecules, with their descriptors where pretraining needs them."""
    records = [record_of(text, spec) for text in smiles]
    return [
        {
            **MOLECULES.encode(record, SPEC),
            **(MOLECULES.describe(record, SPEC) if described else {}),
        }
        for record in records
    ]


def embed(encoder: GraphTransformer, smiles: Sequence[str], spec: EncodingSpec = SPEC) -> np.ndarray:
    """Pooled embeddings [n, D] of molecules embedded in one batch."""
    with torch.no_grad():
        return encoder(encoder.collate(samples_of(smiles, spec=spec))).pooled.numpy()


def contract_of(targets: Sequence[Target] | None, **changes: object) -> VersionContract:
    """The contract of a version that predicts ``targets``, or of a foundation."""
    task = None
    if targets is not None:
        task = TaskSpec(
            domain="molecules", targets=tuple(targets), split=SplitSpec(method="scaffold", seed=0)
        )
    lineage = Lineage(
        dataset="esol.csv", dataset_origin="/data/esol.csv", dataset_digest="abc", rows=3, rejects=1,
        foundation="none", code="1234567", mlflow_run="run", flow_run="",
    )  # fmt: skip
    known = VersionContract(
        kind="foundation" if task is None else "task",
        domain="molecules",
        encoding=SPEC.model_dump(mode="json"),
        encoding_digest=SPEC.digest,
        task=task,
        split_id="split",
        lineage=lineage,
    )
    return known.model_copy(update=changes)


def task_model(*targets: Target, seed: int = 0, linear_head: bool = False) -> TaskModel:
    """An untrained model of a task on a small encoder."""
    encoder = small_encoder(seed)
    return TaskModel(encoder, targets, linear_head=linear_head).eval()
