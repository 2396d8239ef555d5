"""What requests and answers look like; the OpenAPI page is drawn from these."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from fastapi.openapi.models import Example
from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """Every error has this shape."""

    error: str = Field(description="One line: what is wrong and what to do next.")


PREDICT_EXAMPLES: dict[str, Example] = {
    "molecules": {"value": {"inputs": ["CCO", "c1ccccc1O"]}},
    "rasters": {
        "summary": "an image, here a PNG of 8 × 8 pixels",
        "value": {
            "inputs": [
                "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAHUlEQVR42mNUCtJjwAaYGHAA0iVY"
                "kDlhMkq0sAMAtvwBSJ5yBwgAAAAASUVORK5CYII="
            ]
        },
    },
    "challenger": {"summary": "by the challenger", "value": {"inputs": ["CCO"], "alias": "challenger"}},
    "version": {"summary": "by a version of your choice", "value": {"inputs": ["CCO"], "version": 3}},
}


class PredictRequest(BaseModel):
    """Inputs, and which version answers."""

    model_config = ConfigDict(extra="forbid")

    inputs: list[Any] = Field(
        description="One value of the model's domain each: for molecules a SMILES string; for rasters an "
        "image as a data URI (`data:image/tiff;base64,…`, also png and jpeg), at most as large as the "
        "model's chips. Paths and addresses are not opened."
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
    level: str = Field(
        "sample",
        description="`sample`: one answer for each input. `pixel`: a class or value for each pixel, answered "
        "here as the `shares` of the classes and the most frequent one, or as the mean value.",
    )
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


class HistoryEntry(BaseModel):
    """One decision on a name."""

    at: datetime
    action: str = Field(description="`first`, `promoted`, `refused`, `rolled back` or `unchanged`.")
    version: int | None = Field(description="The version that was decided on.")
    champion_before: int | None = Field(description="The champion when it was decided.")
    reason: str
    metric: str
    values: dict[str, float] = Field(description="What was compared: challenger, champion and floor.")
    flow_run: str
    mlflow_run: str
    times: int = Field(description="How often in a row, up to `last`.")
    last: datetime | None = Field(description="The latest of those times, where there were several.")


class ModelDetails(ModelOut):
    """One registered name with its versions and every decision on it, both newest first."""

    history: list[HistoryEntry]


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

    rows: int | None = Field(
        description="Rows, or chips of scenes; null where counting would take more than a second."
    )
    columns: list[str] = Field(description="The columns of its rows, in order.")
    digest: str = Field(description="Equal content, equal digest; runs and versions record it.")
    remarks: list[str] = Field(description="What to know before learning from it, in whole sentences.")
    use: str = Field(description="What to write in a form.")


class Health(BaseModel):
    """Whether the process lives, and what it is serving."""

    status: Literal["ok", "degraded"]
    mlflow: Literal["reachable", "unreachable", "not asked yet"]
    uptime_seconds: float
    serving: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
