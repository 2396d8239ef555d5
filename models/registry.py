"""Model versions in MLflow: registering, promoting, finding and fetching them.

Every version carries tags, so that plain MLflow queries answer what users ask: ``kind``, ``domain``,
``task``, ``unit``, ``split_id``, ``foundation``, ``dataset``, ``dataset_digest``, ``metric`` and its
``value``, ``beats_floor`` and the ``promotion`` decision in words. Every move of an alias is made here,
and leaves an entry in the name's history (``models.history``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, Schema

from domains.contract import GroundworkError
from models.history import Action, Entry, read_history, write_entry, write_unchanged

if TYPE_CHECKING:
    from models.predictor import Predictor

CHAMPION, CHALLENGER = "champion", "challenger"
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""What MLflow answers for a name, version or alias that is not there."""

FOLDER = "version"
"""Name of the folder of a version's files: MLflow keeps it as the name of the artifact."""


class UnknownModel(GroundworkError):
    """No model, version or alias of that name is registered."""


@dataclass(frozen=True)
class Version:
    """One registered version of a model."""

    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str
    tags: Mapping[str, str]
    created: datetime

    @property
    def reference(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def beats_floor(self) -> bool | None:
        """Whether it beats the best floor on its test rows; None for a foundation, which has none."""
        value = self.tags.get("beats_floor")
        return None if value is None else value == "true"


@dataclass(frozen=True)
class Promotion:
    """What became of a new version, and why."""

    promoted: bool
    reason: str
    values: Mapping[str, float] = field(default_factory=dict)
    """What was compared, by what it is a figure of: ``challenger``, ``champion``, ``floor``."""


def names() -> list[str]:
    """Every registered name, sorted."""
    found = []
    token = None
    while True:
        page = MlflowClient().search_registered_models(max_results=200, page_token=token)
        found += [model.name for model in page]
        token = page.token
        if not token:
            return sorted(found)


def versions(name: str) -> list[Version]:
    """Versions of a name, newest first. Raises UnknownModel."""
    client = MlflowClient()
    aliases = _aliases(client, name)
    # The search leaves each version's aliases out; the model's own record has them.
    found = client.search_model_versions(f"name = '{name}'", max_results=1000)
    return sorted((_version(entry, aliases) for entry in found), key=lambda v: v.version, reverse=True)


def resolve(reference: str) -> Version:
    """Find a version by ``name`` (its champion), ``name@alias`` or ``name/number``.

    Raises UnknownModel, naming what there is.
    """
    name, _, alias = reference.partition("@")
    name, _, number = name.partition("/")
    client = MlflowClient()
    aliases = _aliases(client, name)
    try:
        if number:
            return _version(client.get_model_version(name, number), aliases)
        return _version(client.get_model_version_by_alias(name, alias or CHAMPION), aliases)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        known = [f"{name}/{version.version}" for version in versions(name)[:5]]
        known += [f"{name}@{known_alias}" for known_alias in sorted(aliases)]
        raise UnknownModel(
            f"{reference!r} is not registered; known: {', '.join(known) or 'no version'}"
        ) from error


def fetch(version: Version) -> Path:
    """Folder with the files of a version, on this machine."""
    uri = f"models:/{version.name}/{version.version}/artifacts/{FOLDER}"
    try:
        return Path(mlflow.artifacts.download_artifacts(uri))
    except (MlflowException, OSError) as error:
        raise GroundworkError(
            f"the files of {version.reference} cannot be fetched ({str(error).splitlines()[0][:160]}): "
            "is the artifact store reachable?"
        ) from error


def load(reference: str) -> tuple[Version, Predictor]:
    """Resolve, fetch and load a version."""
    from models.predictor import (
        Predictor,  # with torch, which whoever asks for names and versions does without
    )

    version = resolve(reference)
    return version, Predictor.load(fetch(version))


def register(name: str, folder: Path, predictor: Predictor, run_id: str, tags: Mapping[str, str]) -> Version:
    """Register the version saved in ``folder`` under ``name``, with signature and input example.

    Raises GroundworkError for a name that MLflow refuses, ValueError for a folder not called FOLDER.
    """
    if folder.name != FOLDER:
        raise ValueError(f"the folder of a version must be called {FOLDER!r}, not {folder.name!r}")
    client = MlflowClient()
    inputs = pd.DataFrame({predictor.domain.input_column: predictor.examples})
    # MLflow ties a model to the active run; leaving the context ends the run, which its owner undoes or
    # confirms.
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={FOLDER: str(folder)},
            signature=_signature(predictor),
            input_example=inputs,
            # Inferring requirements would import the model anew and take seconds.
            pip_requirements=["groundwork"],
        )
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise GroundworkError(f"{name!r} cannot be a model's name: {error.message}") from error
    created = client.create_model_version(
        name, source=logged.model_uri, run_id=run_id, tags=dict(tags), model_id=logged.model_id
    )
    return _version(created, _aliases(client, name))


def promote(version: Version, decision: Promotion) -> Version:
    """Record a decision on the version and move the alias it earns."""
    client = MlflowClient()
    client.set_model_version_tag(version.name, str(version.version), "promotion", decision.reason)
    client.update_model_version(version.name, str(version.version), description=_described(version, decision))
    before = _aliases(client, version.name).get(CHAMPION)
    action: Action = "refused"
    if decision.promoted:
        action = "first" if before is None else "promoted"
    _write_move(version, action, before, decision)
    alias = CHAMPION if decision.promoted else CHALLENGER
    client.set_registered_model_alias(version.name, alias, str(version.version))
    if decision.promoted and CHALLENGER in _aliases(client, version.name):
        client.delete_registered_model_alias(version.name, CHALLENGER)
    return resolve(version.reference)


def rollback(name: str, to: int | None = None, reason: str = "") -> Version:
    """Make an earlier version champion again: ``to``, or the champion that this one took the place of.

    Raises UnknownModel for a name or version that is not registered, GroundworkError where there is
    nothing to go back to.
    """
    aliases = _aliases(MlflowClient(), name)
    before = aliases.get(CHAMPION)
    if to is None:
        to = _champion_before(name, before)
    elif to == before:
        raise GroundworkError(f"{name}/{to} is the champion already: name another version with --to")
    version = resolve(f"{name}/{to}")
    _write_move(version, "rolled back", before, Promotion(True, reason or "asked for; no reason was given"))
    client = MlflowClient()
    client.set_registered_model_alias(name, CHAMPION, str(to))
    if aliases.get(CHALLENGER) == to:
        client.delete_registered_model_alias(name, CHALLENGER)
    return resolve(version.reference)


def history(name: str) -> list[Entry]:
    """What was decided on a name, and why, newest first. Raises UnknownModel."""
    return read_history(_registered(MlflowClient(), name).tags)


def note_unchanged(version: Version, reason: str, flow_run: str) -> Entry:
    """Record that a retraining of the champion ``version`` had nothing to do."""
    entry = Entry(
        at=datetime.now(UTC), action="unchanged", version=version.version, reason=reason, flow_run=flow_run
    )
    return write_unchanged(version.name, entry)


def _write_move(version: Version, action: Action, before: int | None, decision: Promotion) -> None:
    """Before the alias moves: an entry too many says what was meant, a move without one cannot be told."""
    entry = Entry(
        at=datetime.now(UTC),
        action=action,
        champion_before=before,
        version=version.version,
        reason=decision.reason,
        metric=version.tags.get("metric", ""),
        values=dict(decision.values),
        flow_run="" if action == "rolled back" else version.tags.get("flow_run_id", ""),
        mlflow_run=version.run_id,
    )
    write_entry(version.name, entry)


def _champion_before(name: str, current: int | None) -> int:
    """The version that ``current`` took the place of, as the history tells, if it is still registered."""
    if current is None:
        raise GroundworkError(f"{name} has no champion to roll back: name a version with --to")
    kept = {version.version for version in versions(name)}
    sought = current
    for entry in history(name):
        # Rolling back twice goes back two steps: what a rollback left is not gone back to.
        if entry.version == sought and entry.action in ("first", "promoted"):
            if entry.champion_before is None:
                raise GroundworkError(
                    f"{name}/{current} took no other version's place: name a version with --to"
                )
            if entry.champion_before in kept:
                return entry.champion_before
            sought = entry.champion_before
    raise GroundworkError(
        f"the history does not tell which version of {name} came before {name}/{current}: name one with --to"
    )


def _described(version: Version, decision: Promotion) -> str:
    """What the MLflow page of a version says first."""
    tags = version.tags
    unit = f" {tags['unit']}" if tags.get("unit") and tags.get("metric") == "mae" else ""
    lines = [f"{'promoted' if decision.promoted else 'refused'}: {decision.reason}"]
    if "metric" in tags:
        lines.insert(
            0, f"{tags['metric']} **{tags['value']}{unit}** on held-out rows of {tags.get('dataset', '')}"
        )
    if "beats_floor" in tags and "floor" in tags:
        floor = f"{tags['floor_value']}{unit} ({tags['floor']})"
        lines.insert(1, f"best floor: {floor}; beats_floor={tags['beats_floor']}")
    return "  \n".join(lines)


def champion(name: str) -> Version | None:
    """The champion of a name, or None where there is none yet."""
    try:
        return resolve(f"{name}@{CHAMPION}")
    except UnknownModel:
        return None


def _aliases(client: MlflowClient, name: str) -> dict[str, int]:
    return {alias: int(number) for alias, number in _registered(client, name).aliases.items()}


def _registered(client: MlflowClient, name: str) -> RegisteredModel:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        known = ", ".join(names()[:10]) or "none yet; run `groundwork finetune` first"
        raise UnknownModel(f"no model is called {name!r}; registered: {known}") from error


def _version(entry: ModelVersion, aliases: Mapping[str, int]) -> Version:
    number = int(entry.version)
    return Version(
        name=entry.name,
        version=number,
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
        run_id=entry.run_id or "",
        tags=dict(entry.tags),
        created=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC),
    )


def _signature(predictor: Predictor) -> ModelSignature:
    example = predictor.examples[0]
    column = predictor.domain.input_column
    if isinstance(example, str):
        inputs = Schema([ColSpec("string", column)])
    else:
        inputs = mlflow.models.infer_signature(pd.DataFrame({column: predictor.examples})).inputs
    answered = predictor.columns(np.zeros((1, predictor.output_count), dtype=np.float32))
    outputs = [
        ColSpec("string" if values.dtype == object else "float", name) for name, values in answered.items()
    ]
    return ModelSignature(
        inputs, Schema([*outputs, ColSpec("string", "status"), ColSpec("string", "reason")])
    )


def describe_targets(predictor: Predictor) -> str:
    """Targets of a version as JSON, for its ``targets`` tag."""
    task = predictor.contract.task
    return json.dumps([target.model_dump(mode="json") for target in task.targets] if task else [])
