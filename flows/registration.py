"""Saving a version, registering it with its tags, and giving it the alias it earned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from domains.store import Store
from flows.jobs import TrainingRun
from flows.tracking import TrackedRun, code_version
from models.predictor import Lineage, Predictor
from models.registry import Promotion, Version, describe_targets, promote, register


def lineage(run: TrainingRun, store: Store, foundation: str) -> Lineage:
    """Where a version being made comes from."""
    source = run.job.source
    return Lineage(
        dataset=source.name,
        dataset_origin=source.origin,
        dataset_digest=source.digest,
        rows=store.counts.rows,
        rejects=store.counts.rejects,
        foundation=foundation,
        code=code_version(),
        mlflow_run=run.tracked.run_id,
        flow_run=run.job.journal.flow_run_id,
        simulated=source.simulated,
    )


def register_version(
    name: str,
    folder: Path,
    predictor: Predictor,
    run: TrackedRun,
    decision: Promotion,
    tags: Mapping[str, str],
) -> Version:
    """Register and promote or refuse a version whose folder is written."""
    contract = predictor.contract
    described = {
        "kind": contract.kind,
        "domain": contract.domain,
        "split_id": contract.split_id,
        "encoding_digest": contract.encoding_digest,
        "dataset": contract.lineage.dataset,
        "dataset_digest": contract.lineage.dataset_digest,
        "foundation": contract.lineage.foundation,
        "code": contract.lineage.code,
        "flow_run_id": contract.lineage.flow_run,
        "simulated": "true" if contract.lineage.simulated else "",
        **tags,
    }
    if contract.task is not None:
        described["task"] = ",".join(sorted({target.kind for target in contract.task.targets}))
        described["unit"] = ",".join(sorted({target.unit for target in contract.task.targets if target.unit}))
        described["targets"] = describe_targets(predictor)[:5000]
    tagged = {key: value for key, value in described.items() if value}
    version = register(name, folder, predictor, run.run_id, tagged)
    return promote(version, decision)
