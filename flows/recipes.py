"""What a version was made from, kept so that it can be made again, and compared so that it need not be."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict, ValidationError

from domains.contract import GroundworkError, digest_of, load_domain, load_encoder_class
from flows.jobs import Job
from flows.settings import DataSettings, FlowSettings, PromotionSettings, settings_class
from flows.sources import dataset_name
from flows.tracking import TrackedRun
from models.registry import Version

ARTIFACT = "recipe.json"
FINGERPRINT = "fingerprint"
"""Tag of a version with what it was made from."""

ROOMS = Path(__file__).resolve().parent.parent
LEARNING_ROOMS = ("domains", "models", "flows")

NOT_CONFIGURATION = {"dataset", "pasted", "name", "resume", *PromotionSettings.model_fields}
"""Settings that do not change what is learnt: the rows count by their content, whatever they are called."""


class Recipe(BaseModel):
    """A dataset by its name, and the settings in which a run differed from the presets of its time.

    Presets that move are therefore a change of configuration.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, job: Job) -> Recipe:
        """What ``job`` does."""
        kept = job.settings.model_dump(mode="json", exclude_defaults=True, exclude=NOT_CONFIGURATION)
        return cls(dataset=_dataset(job), settings=kept)

    def resolve(self, domain: str, name: str, confidence: float) -> FlowSettings:
        """Settings of a fine-tuning that makes ``name`` again. Raises GroundworkError for outdated ones."""
        told = {**self.settings, "dataset": self.dataset, "name": name, "confidence": confidence}
        try:
            return settings_class("finetune", domain)(**told)
        except ValidationError as error:
            problem = error.errors()[0]
            raise GroundworkError(
                f"the settings that {name} was made with are no longer understood "
                f"({'.'.join(map(str, problem['loc']))}: {problem['msg']}): fine-tune it once more"
            ) from error


def keep(tracked: TrackedRun, job: Job) -> None:
    """Keep the recipe with a run."""
    tracked.log_text(ARTIFACT, Recipe.of(job).model_dump_json(indent=2))


def recipe_of(version: Version) -> Recipe:
    """The recipe that a version was made by. Raises GroundworkError where it is gone or was not kept."""
    try:
        path = mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path=ARTIFACT)
        return Recipe.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except (MlflowException, OSError, ValidationError) as error:
        raise GroundworkError(
            f"{version.reference} does not tell how it was made: fine-tune it once more, and it will"
        ) from error


@dataclass(frozen=True)
class Fingerprint:
    """Digests of all that decides what is learnt."""

    data: str
    configuration: str
    code: str

    @classmethod
    def of(cls, job: Job) -> Fingerprint:
        """Of what ``job`` does."""
        chosen = job.settings.model_dump(mode="json", exclude=NOT_CONFIGURATION)
        return cls(job.source.digest, digest_of(chosen), code_digest(job.domain.name))

    @classmethod
    def kept_by(cls, version: Version) -> Fingerprint | None:
        """Of what a version was made from; None where it does not say."""
        try:
            return cls(**json.loads(version.tags.get(FINGERPRINT, "")))
        except (ValueError, TypeError):
            return None

    def __str__(self) -> str:
        return json.dumps(self.__dict__)

    def changes_since(self, earlier: Fingerprint) -> list[str]:
        """Which of data, configuration and code differ."""
        return [name for name, digest in self.__dict__.items() if digest != getattr(earlier, name)]


@cache
def code_digest(domain: str) -> str:
    """Digest of the source files that decide what is learnt; texts about them and tests do not count."""
    files = [path for room in LEARNING_ROOMS for path in sorted((ROOMS / room).rglob("*.py"))]
    for kind in (type(load_domain(domain)), load_encoder_class(domain)):
        file = Path(str(sys.modules[kind.__module__].__file__)).resolve()
        if file not in files:  # of a plugin
            files.append(file)
    digest = sha256()
    for path in files:
        name = path.relative_to(ROOMS) if path.is_relative_to(ROOMS) else path.name
        digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _dataset(job: Job) -> str:
    """A name by which the rows are found again, from wherever that is done."""
    asked = job.settings.part(DataSettings)
    if asked.pasted:
        return dataset_name(job.source.name)
    if asked.dataset in job.domain.embedded() or not job.journal.trusted:
        return asked.dataset
    path = Path(asked.dataset).expanduser()
    return str(path.resolve()) if path.exists() else asked.dataset
