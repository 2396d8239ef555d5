"""What requests and answers look like; the OpenAPI page is drawn from these."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """Every error has this shape."""

    error: str = Field(description="One line: what is wrong and what to do next.")


class PredictRequest(BaseModel):
    """Inputs, and which version answers."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"inputs": ["CCO", "c1ccccc1O"]},
                {"inputs": ["CCO"], "alias": "challenger"},
                {"inputs": ["CCO"], "version": 3},
            ]
        },
    )

    inputs: list[Any] = Field(
        description="One value of the model's domain each: for molecules a SMILES string."
    )
    version: int | None = Field(None, ge=1, description="Answer with this version; `alias` is then ignored.")
    alias: str = Field(
        "champion",
        pattern=r"^[A-Za-z0-9_-]{1,255}$",
        description="Answer with the version that holds this alias now.",
    )


class TargetOut(BaseModel):
    """One property that a version predicts."""

    name: str
    kind: str = Field(description="`regression`, `binary` or `multiclass`.")
    unit: str = ""
    classes: list[str] = []


class VersionOut(BaseModel):
    """One registered version."""

    name: str
    version: int
    aliases: list[str]
    kind: str | None = Field(description="`task` answers predict; `foundation` is to be fine-tuned first.")
    domain: str | None
    targets: list[TargetOut]
    unit: str | None
    beats_floor: bool | None = Field(
        description="Whether it was better than the baselines on the same held-out rows; null where untested."
    )
    run_id: str = Field(description="The MLflow run that made it.")
    foundation: str | None = None
    dataset_digest: str | None = None
    split_id: str | None = None
    created: datetime
    loaded: bool = Field(description="Whether it is in memory and answers at once.")


class ModelOut(BaseModel):
    """One registered name with its versions, newest first."""

    name: str
    kind: str | None
    champion: int | None = Field(description="The version that answers when none is asked for.")
    versions: list[VersionOut]


class ModelsOut(BaseModel):
    models: list[ModelOut]


class AnsweredBy(BaseModel):
    """The version that answered: every figure can be traced to its run and data."""

    name: str
    version: int
    alias: str | None
    run_id: str
    beats_floor: bool | None
    unit: str | None
    targets: list[TargetOut]


class Result(BaseModel):
    """The answer to one input."""

    index: int = Field(description="Position in `inputs`, from zero.")
    status: Literal["ok", "rejected"]
    reason: str | None = Field(description="Why the input could not be used.")
    predictions: dict[str, dict[str, Any]] | None = Field(description="By target; null for a rejected input.")


class PredictResponse(BaseModel):
    model: AnsweredBy
    results: list[Result] = Field(description="One for each input, in their order.")


class DatasetOut(BaseModel):
    """One dataset that forms and commands can name."""

    name: str
    file: str
    bytes: int
    modified: datetime


class DatasetsOut(BaseModel):
    datasets: list[DatasetOut]


class UploadOut(DatasetOut):
    """A dataset that has just come in."""

    rows: int | None = Field(description="Null where counting would take more than a second.")
    columns: list[str] = Field(description="The columns of the file, in order.")
    digest: str = Field(description="Equal content, equal digest; runs and versions record it.")
    use: str = Field(description="What to write in a form.")


class Health(BaseModel):
    """Whether the process lives, and what it is serving."""

    status: Literal["ok", "degraded"]
    mlflow: Literal["reachable", "unreachable", "not asked yet"]
    uptime_seconds: float
    serving: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
