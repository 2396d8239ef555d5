"""The one schema of every flow: forms, YAML, command line and logged parameters come from here.

A flow's settings are composed from what the rooms below declare: the domain's encoding, the encoder's
presets, and the settings of pretraining, tuning and training. No other place names these fields.
"""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from domains.abilities import LocatesRecords
from domains.contract import (
    FROM_DATA,
    Domain,
    GroundworkError,
    ReplicateRule,
    Resampling,
    TaskName,
    Transform,
    digest_of,
    first_fault,
    load_domain,
)
from domains.splits import COLUMN_METHODS
from models.settings import (
    FloorSettings,
    PretrainingSettings,
    SizeSettings,
    TrainingSettings,
    TuningSettings,
)

Kind = Literal["pretrain", "finetune", "retrain", "predict"]
KINDS: tuple[Kind, ...] = ("pretrain", "finetune", "retrain", "predict")

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
"""Presets that come with the project: the defaults of each deployment's form, one YAML each."""

LARGEST_PASTE = 512 * 1024
"""Bytes of rows in a form: Prefect caps the parameters of a run at 512 KiB."""

MODEL_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"


class DataSettings(BaseModel):
    """Which rows a flow reads."""

    dataset: Annotated[
        str,
        Field(
            max_length=4096,
            description="An uploaded dataset's name, an embedded one's, or a file or folder in the inbox; "
            "on the command line any path",
        ),
    ] = ""
    pasted: Annotated[
        str,
        Field(
            max_length=LARGEST_PASTE,
            description="Instead of the dataset: rows pasted here as CSV with a header (up to 512 KiB)",
            json_schema_extra={"format": "text"},
        ),
    ] = ""
    input_column: Annotated[
        str, Field(max_length=200, description="Column that holds the input; empty = found by its name")
    ] = ""


class LimitSettings(BaseModel):
    """What pretraining reads beside its dataset, and how much of all."""

    also: Annotated[
        list[str],
        Field(
            max_length=1000,
            description="More datasets to learn from along with it, named as it is; rasters may hold bands "
            "of their own",
        ),
    ] = []
    max_records: Annotated[
        int,
        Field(
            ge=0, le=1_000_000_000, description="Use at most this many records, drawn with the seed; 0 = all"
        ),
    ] = 0
    exclude: Annotated[
        list[str],
        Field(
            max_length=1000,
            description="Datasets that the foundation will be tested on: what is in them, or near kin to it, "
            "is not learnt from",
        ),
    ] = []


class TaskSettings(BaseModel):
    """What a model learns to predict."""

    target: Annotated[
        list[str],
        Field(
            max_length=2000,
            description="Columns to predict; empty = the dataset's own target, or its only other column",
        ),
    ] = []
    task: Annotated[
        Literal["auto"] | TaskName,
        Field(
            description="Kind of the targets; auto = regression for numbers, classification for 0/1 or text"
        ),
    ] = "auto"
    unit: Annotated[
        str,
        Field(
            max_length=40,
            description="Unit of the columns to predict, as the file writes them (K, mol/L, nM); empty = the "
            "dataset's",
        ),
    ] = ""
    transform: Annotated[
        Transform,
        Field(
            description="What is learnt of numbers, and answered: log10 of them; pIC50 = -log10 of a "
            "concentration in mol/L, its unit from `unit` or the column's name (IC50_nM)"
        ),
    ] = "none"
    replicates: Annotated[
        ReplicateRule,
        Field(
            description="Rows that are the same thing become one: median or mean of numbers, majority of "
            "classes, with contradictions left out; first = the first row's label; keep = leave all rows"
        ),
    ] = "median"
    split_column: Annotated[
        str,
        Field(
            max_length=200,
            description="Column with dates or numbers (split: time), or with sides (split: given)",
        ),
    ] = ""
    foundation: Annotated[
        str,
        Field(
            max_length=100,
            description="Pretrained encoder to start from (NAME, NAME@alias, NAME/version); none = from "
            "scratch; auto = the champion of the domain's foundation, or else the one that is shipped",
        ),
    ] = "auto"


class ResumeSettings(BaseModel):
    """Going on after an interruption."""

    resume: Annotated[
        bool, Field(description="Continue the interrupted run of exactly these settings from its checkpoint")
    ] = False


class PromotionSettings(BaseModel):
    """When a new version takes the place of the champion."""

    confidence: Annotated[
        float,
        Field(
            ge=0.5,
            lt=1,
            description="Least probability of being better than the champion (paired bootstrap of the test "
            "rows) at which a new version takes its place",
        ),
    ] = 0.9


class RetrainSettings(BaseModel):
    """What is trained again."""

    model: Annotated[
        list[str],
        Field(
            max_length=1000,
            description="Models to train again where their data, settings or code have changed; "
            "empty = all that have a champion",
        ),
    ] = []


class ScheduleSettings(BaseModel):
    """When a deployment runs by itself. Read as it is first registered; from then on Prefect's UI decides."""

    schedule: str = "0 2 * * *"
    """Cron expression: minute, hour, day of the month, month, day of the week."""
    time_zone: str = "UTC"
    """As in the time zone database (``Europe/Zurich``)."""


class PredictionSettings(BaseModel):
    """Which model answers, and where the answers go."""

    model: Annotated[
        str,
        Field(
            min_length=1,
            max_length=100,
            description="Model to ask: NAME (its champion), NAME@alias or NAME/version",
        ),
    ]
    output: Annotated[
        str,
        Field(
            max_length=4096,
            description="File to write: a table (.parquet, .csv) or the map of a scene (.tif); "
            "empty = one in the outputs folder",
        ),
    ] = ""
    resample: Annotated[
        Resampling,
        Field(
            description="How pixels of another size are brought to those that the model reads, and that its "
            "map has; no = refused"
        ),
    ] = "no"
    polygons: Annotated[
        str,
        Field(
            max_length=4096,
            description="File to write, beside a map of classes, its patches to: polygons with their area in "
            "hectares (.gpkg); empty = none",
        ),
    ] = ""


Part = TypeVar("Part", bound=BaseModel)


class FlowSettings(BaseModel):
    """Base of every flow's settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def part(self, kind: type[Part]) -> Part:
        """The fields that one room declared, as that room's own settings.

        Raises GroundworkError for values that do not go together, which only the room knows.
        """
        own = type(self).model_fields
        try:
            return kind(**{name: getattr(self, name) for name in kind.model_fields if name in own})
        except ValidationError as error:
            raise GroundworkError(first_fault(error)) from error

    @property
    def digest(self) -> str:
        """Equal for two runs that do the same thing; resuming does not change what is done."""
        return digest_of(self.model_dump(mode="json", exclude={"resume"}))


def foundation_name(domain: str) -> str:
    """Name under which a domain's foundation is registered unless another is given."""
    return f"{domain}-foundation"


@cache
def settings_class(kind: Kind, domain_name: str) -> type[FlowSettings]:
    """The settings of one flow of one domain. Raises GroundworkError for an unknown domain."""
    domain = load_domain(domain_name)
    fields: dict[str, tuple[Any, FieldInfo]] = {}
    for part in _parts(kind, domain):
        for name, info in part.model_fields.items():
            if info.json_schema_extra != FROM_DATA:
                fields[name] = (info.annotation, info)
    if "task" in fields:
        fields["task"] = (Literal[("auto", *domain.tasks)], fields["task"][1])
    if kind == "pretrain":
        fields["dataset"] = _redefault(fields["dataset"], domain.corpus)
    presets, _ = read_presets(kind, domain_name)
    for name, value in presets.items():
        if name not in fields:
            raise GroundworkError(
                f"{kind}-{domain_name}.yaml sets {name!r}, which is not a setting of that flow"
            )
        fields[name] = _redefault(fields[name], value)
    made: type[FlowSettings] = create_model(  # type: ignore[call-overload]
        f"{kind.title()}{domain_name.title()}", __base__=FlowSettings, **fields
    )
    _check_presets(made, presets, f"{kind}-{domain_name}.yaml")
    return made


def read_presets(kind: Kind, domain_name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Defaults of a deployment: those of its form, and when it runs by itself."""
    told = read_config(CONFIGS / f"{kind}-{domain_name}.yaml")
    when = {
        name: told.pop(name) for name in ScheduleSettings.model_fields if kind == "retrain" and name in told
    }
    return told, when


def _check_presets(model: type[FlowSettings], presets: dict[str, Any], file: str) -> None:
    """Pydantic takes defaults as they are: a form would offer what nobody may type."""
    try:
        model(**presets)
    except ValidationError as error:
        for problem in error.errors():
            if problem["loc"][0] in presets:
                raise GroundworkError(f"{file}: {problem['loc'][0]}: {problem['msg']}") from error


def read_config(path: Path) -> dict[str, Any]:
    """Settings by name from a YAML file; nothing where there is no such preset.

    Raises GroundworkError for a file that is not a mapping of settings.
    """
    if not path.is_file():
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GroundworkError(f"{path} is not YAML: {' '.join(str(error).split())[:160]}") from error
    if not isinstance(values, dict):
        raise GroundworkError(f"{path} must hold settings as `name: value` lines")
    return {str(name): value for name, value in values.items()}


def _parts(kind: Kind, domain: Domain) -> list[type[BaseModel]]:
    if kind == "predict":
        return [PredictionSettings, DataSettings]
    if kind == "retrain":
        return [RetrainSettings, PromotionSettings]
    if kind == "pretrain":
        return [
            DataSettings,
            _name_settings(foundation_name(domain.name)),
            SizeSettings,
            LimitSettings,
            PretrainingSettings,
            TrainingSettings,
            domain.encoding,
            ResumeSettings,
        ]
    return [
        DataSettings,
        TaskSettings,
        _name_settings(""),
        TuningSettings,
        TrainingSettings,
        _split_settings(domain),
        SizeSettings,
        domain.encoding,
        *([FloorSettings] if "segmentation" in domain.tasks else []),
        PromotionSettings,
        ResumeSettings,
    ]


def _name_settings(default: str) -> type[BaseModel]:
    pattern = MODEL_NAME if default else f"^$|{MODEL_NAME}"
    described = "Name to register under: lower-case letters, digits, dot, dash" + (
        "" if default else "; empty = the dataset's name"
    )
    return create_model(
        "NameSettings", name=(str, Field(default=default, pattern=pattern, description=described))
    )


def _split_settings(domain: Domain) -> type[BaseModel]:
    described = (
        "How test rows are held out: by group, so that no group is on both sides (80/10/10); "
        f"auto = {domain.split_methods[0]} where the data allow it; time = the latest of split_column; "
        "given = as split_column says: train, val or test"
    )
    methods: Any = Literal[("auto", *domain.split_methods, *COLUMN_METHODS)]
    fields: dict[str, Any] = {"split": (methods, Field(default="auto", description=described))}
    if isinstance(domain, LocatesRecords):
        fields["buffer"] = (
            float,
            Field(
                default=0.0,
                ge=0,
                le=1e7,
                description=f"Metres around test {domain.noun}s: what lies within is not learnt from",
            ),
        )
    return create_model("SplitSettings", **fields)


def _redefault(field: tuple[Any, FieldInfo], default: Any) -> tuple[Any, FieldInfo]:
    annotation, info = field
    return annotation, FieldInfo.merge_field_infos(info, default=default)


def signature(model: type[FlowSettings]) -> inspect.Signature:
    """The settings as a function's parameters, for tools that draw forms from signatures.

    Constraints go into the annotation; description and default into the default's field.
    """
    parameters = []
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else None
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=Field(info.default, description=info.description, json_schema_extra=extra),
                annotation=Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation,
            )
        )
    return inspect.Signature(parameters)
