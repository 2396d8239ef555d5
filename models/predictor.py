"""A model version that answers: what is in its folder, and raw rows in, predictions out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file

from domains.contract import (
    Domain,
    EncodingSpec,
    GroundworkError,
    Record,
    Reject,
    Row,
    Sample,
    Target,
    TargetSpec,
    TaskSpec,
    load_domain,
    load_encoder_class,
)
from models.encoder import Batch, Encoder
from models.gaussian_process import GaussianProcess
from models.settings import MOST_MEMBERS
from models.targets import is_pixel_task
from models.tuning import TaskModel

CONTRACT, HEAD, ENCODER, GOLDEN = "contract.json", "head.safetensors", "encoder", "golden.json"
PROCESS = "gaussian_process"

GOLDEN_TOLERANCE = 1e-3
"""Largest relative difference from the golden answers, across machines and libraries."""

BATCH = 64
CPU_PIXELS = 2**17
"""Pixels answered at once on a CPU: the features of more leave its caches, and take twice as long."""
ROWS_AT_ONCE = 1024
"""Rows whose samples are in memory together; enough to sort them into batches of like size."""


class Lineage(BaseModel):
    """Where a version came from."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    dataset_origin: str
    dataset_digest: str
    rows: int
    rejects: int
    foundation: str
    """``name/version`` of the foundation, or ``none``."""
    code: str
    """Commit of the code that made it, or its version where there is no repository."""
    mlflow_run: str
    flow_run: str
    simulated: bool = False
    """Whether it learnt from data that a program made up."""


class VersionContract(BaseModel):
    """All that is needed to use a version, beside its weights."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["foundation", "task"]
    domain: str
    encoding: dict[str, Any]
    encoding_digest: str
    task: TaskSpec | None = None
    linear_head: bool = False
    computed: bool = False
    """Whether the head sees what the domain computes of a record beside its embedding."""
    members: int = Field(default=1, ge=1, le=MOST_MEMBERS)
    """Models whose outputs are averaged."""
    gaussian_process: bool = False
    """Whether a Gaussian process answers beside them."""
    split_id: str
    lineage: Lineage


@dataclass(frozen=True)
class Answers:
    """Predictions of rows, one for each, in order."""

    outputs: np.ndarray
    """float32 [n, outputs]; NaN in the rows that were rejected."""
    reasons: list[str | None]
    """Why a row was rejected; None for one that was answered."""


class Predictor:
    """A loaded version. Safe to call from several threads; answers do not depend on batch mates."""

    def __init__(
        self,
        contract: VersionContract,
        models: Sequence[Encoder | TaskModel],
        golden: dict[str, Any],
        process: GaussianProcess | None = None,
    ) -> None:
        self.contract = contract
        self.domain: Domain = load_domain(contract.domain)
        self.spec: EncodingSpec = self.domain.encoding(**contract.encoding)
        self.golden = golden
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for model in [*models, *([process] if process is not None else [])]:
            torch.nn.Module.to(model.eval(), self.device)
        self.models = tuple(models)
        """One, or the members of an ensemble."""
        self.process = process
        self.encoder = encoder_of(models[0])

    @classmethod
    def load(cls, folder: Path) -> Predictor:
        """Load a version from its folder. Raises GroundworkError for one that cannot be used."""
        try:
            contract = VersionContract.model_validate_json((folder / CONTRACT).read_text())
            golden = json.loads((folder / GOLDEN).read_text())
            models = [_load_model(place, contract) for place in _places(folder, contract.members)]
            process = _load_process(folder / PROCESS, contract) if contract.gaussian_process else None
        except GroundworkError:
            raise
        except Exception as error:
            raise GroundworkError(
                f"the model version in {folder} cannot be read ({_first_line(error)}): "
                "fetch it again, or register it anew"
            ) from error
        predictor = cls(contract, models, golden, process)
        if predictor.spec.digest != contract.encoding_digest:
            raise GroundworkError(
                f"the model version in {folder} was made with another encoding of {contract.domain} "
                f"({contract.encoding_digest}, here {predictor.spec.digest}): use the code it names, "
                f"{contract.lineage.code}"
            )
        return predictor

    @staticmethod
    def save(
        folder: Path,
        contract: VersionContract,
        *models: Encoder | TaskModel,
        process: GaussianProcess | None = None,
    ) -> Predictor:
        """Write a version to an empty folder, read it back, and record its golden answers."""
        for place, model in zip(_places(folder, contract.members), models, strict=True):
            place.mkdir(parents=True)
            encoder_of(model).save_pretrained(place / ENCODER)
            if isinstance(model, TaskModel):
                state = {
                    name: tensor.contiguous()
                    for name, tensor in model.state_dict().items()
                    if not name.startswith("encoder.")
                }
                save_file(state, place / HEAD)
        if process is not None:
            (folder / PROCESS).mkdir()
            save_file(process.tensors, folder / PROCESS / f"{PROCESS}.safetensors")
            if process.encoder is not None:
                process.encoder.save_pretrained(folder / PROCESS / ENCODER)
        (folder / CONTRACT).write_text(contract.model_dump_json(indent=2))
        (folder / GOLDEN).write_text("{}")
        predictor = Predictor.load(folder)
        inputs = predictor.examples
        answers = predictor.answer_values(inputs)
        predictor.golden = {"inputs": inputs, "outputs": answers.outputs.astype(float).tolist()}
        (folder / GOLDEN).write_text(json.dumps(predictor.golden, indent=2))
        return predictor

    @property
    def examples(self) -> list[Any]:
        """A few valid inputs."""
        return list(self.domain.example(self.spec))

    @property
    def pixel_target(self) -> Target | None:
        """The target, where the version answers each pixel of an input."""
        task = self.contract.task
        return task.targets[0] if task is not None and is_pixel_task(task.targets) else None

    def read(self, row: Row) -> Record | Reject:
        """Parse and standardise one raw row, as training did."""
        return self.domain.read(row, self.spec)

    def encode(self, record: Record) -> Sample:
        """The sample of a record, as in training."""
        sample = self.domain.encode(record, self.spec)
        described = self.contract.computed or self.contract.gaussian_process
        return {**sample, **self.domain.describe(record, self.spec)} if described else sample

    def tokens(self, sample: Sample) -> int:
        """Size of a sample, for batches of like size."""
        return self.encoder.tokens(sample)

    def predict(self, samples: Sequence[Sample]) -> np.ndarray:
        """Samples -> float32 [n, outputs]: units and probabilities, or a foundation's embeddings.

        A version that answers pixels gives their mean: the share of each class, or the mean value.
        """
        if not samples:
            return np.empty((0, self.output_count), dtype=np.float32)
        order = np.argsort([self.tokens(sample) for sample in samples], kind="stable")
        results = np.empty((len(samples), self.output_count), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            answered = self._answer_batch([samples[index] for index in chosen])
            results[chosen] = answered if self.pixel_target is None else _mean_of_pixels(answered)
        return results

    def predict_pixels(self, samples: Sequence[Sample]) -> np.ndarray:
        """Samples of equal size -> float32 [n, pixels, outputs], NaN where there is no data."""
        at_once = BATCH
        if self.device.type == "cpu":
            height, width = samples[0]["pixels"].shape[-2:]
            at_once = max(1, min(BATCH, CPU_PIXELS // (height * width)))
        batches = range(0, len(samples), at_once)
        return np.concatenate([self._answer_batch(samples[start : start + at_once]) for start in batches])

    def _answer_batch(self, samples: Sequence[Sample]) -> np.ndarray:
        """One batch -> float32 [n, outputs], or [n, pixels, outputs] with NaN where there is no data."""
        with torch.inference_mode():
            batch = self.encoder.collate(samples)
            batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
            outputs = [_outputs(model, batch) for model in self.models]
            # One model's answers are its own, to the last bit.
            answered = outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(0)
            if self.process is not None:
                answered = self.process.beside(answered, batch)
            return answered.float().cpu().numpy()

    @property
    def output_count(self) -> int:
        """Numbers per answer."""
        task = self.contract.task
        return task.outputs if task is not None else self.encoder.config.hidden_size

    def answer_values(self, values: Sequence[Any]) -> Answers:
        """Raw input values -> predictions, with a reason for each that could not be used."""
        return self.answer_rows([Row(index, value) for index, value in enumerate(values)])

    def answer_rows(self, rows: Sequence[Row]) -> Answers:
        """Raw rows -> predictions, with a reason for each that could not be used."""
        outputs = np.full((len(rows), self.output_count), np.nan, dtype=np.float32)
        reasons: list[str | None] = [None] * len(rows)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            samples, places = [], []
            for place, row in enumerate(rows[start : start + ROWS_AT_ONCE], start):
                read = self.read(row)
                if isinstance(read, Reject):
                    reasons[place] = read.reason
                else:
                    samples.append(self.encode(read))
                    places.append(place)
            if samples:
                outputs[places] = self.predict(samples)
        return Answers(outputs, reasons)

    def answer(self, outputs: np.ndarray) -> dict[str, dict[str, Any]]:
        """One row of outputs in words: by target, the prediction, its unit and its probabilities."""
        if self.contract.task is None:
            return {"embedding": {"prediction": [float(value) for value in outputs]}}
        described: dict[str, dict[str, Any]] = {}
        start = 0
        for target in self.contract.task.targets:
            values = outputs[start : start + target.outputs].astype(float)
            start += target.outputs
            chances = values if target.kind == "multiclass" else np.array([1 - values[0], values[0]])
            if target.kind == "regression":
                described[target.name] = {"prediction": float(values[0]), "unit": target.unit}
            elif target.level == "pixel":
                shares = dict(zip(target.classes, map(float, chances), strict=True))
                described[target.name] = {
                    "prediction": target.classes[int(chances.argmax())],
                    "shares": shares,
                }
            else:
                described[target.name] = {
                    "prediction": float(values[0])
                    if target.kind == "binary"
                    else target.classes[int(chances.argmax())],
                    "label": target.classes[int(chances.argmax())],
                    "probabilities": dict(zip(target.classes, map(float, chances), strict=True)),
                }
        return described

    def columns(self, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs [n, outputs] as table columns, ``TARGET_prediction`` for each target.

        A regression target's column is its value (``TARGET_TRANSFORM_prediction`` where it has a transform),
        a binary target's the probability of its second class, a multiclass target's the most probable class,
        with ``TARGET_probability_CLASS`` beside it for each. Where pixels are answered,
        ``TARGET_share_CLASS`` is the share of each class.
        A foundation gives ``embedding_0`` and so on.
        """
        if self.contract.task is None:
            return {f"embedding_{index}": outputs[:, index] for index in range(outputs.shape[1])}
        table: dict[str, np.ndarray] = {}
        start = 0
        for target in self.contract.task.targets:
            values = outputs[:, start : start + target.outputs]
            start += target.outputs
            if target.level == "pixel" and target.kind != "regression":
                chances = values if target.kind == "multiclass" else np.hstack([1 - values, values])
                for column, name in enumerate(target.classes):
                    table[f"{target.name}_share_{name}"] = chances[:, column]
            elif target.kind == "multiclass":
                answered = np.isfinite(values).all(1)
                labels = np.full(len(values), None, dtype=object)
                labels[answered] = np.array(target.classes, dtype=object)[values[answered].argmax(1)]
                table[f"{target.name}_prediction"] = labels
                for column, name in enumerate(target.classes):
                    table[f"{target.name}_probability_{name}"] = values[:, column]
            else:
                # IC50_nM_pIC50_prediction: 2.7 under the name of the cells would be read in their unit.
                scale = "" if target.transform == "none" else f"_{target.transform}"
                table[f"{target.name}{scale}_prediction"] = values[:, 0]
        return table

    def check_golden(self) -> None:
        """Answer the golden inputs. Raises GroundworkError when the answers are not those recorded."""
        expected = np.asarray(self.golden["outputs"], dtype=np.float64)
        answered = self.answer_values(self.golden["inputs"]).outputs
        scale = np.maximum(np.abs(expected), 1.0)
        if (
            answered.shape != expected.shape
            or not (np.abs(answered - expected) <= GOLDEN_TOLERANCE * scale).all()
        ):
            raise GroundworkError("the version does not give its golden answers: it is damaged or misread")


def encoder_of(model: Encoder | TaskModel) -> Encoder:
    """The encoder of a model whose additions are merged, as they are in every version."""
    encoder = model.encoder if isinstance(model, TaskModel) else model
    assert isinstance(encoder, Encoder)  # noqa: S101 - narrows the type
    return encoder


def _places(folder: Path, members: int) -> list[Path]:
    """Where the weights of each model of a version lie."""
    return [folder, *(folder / f"member-{number}" for number in range(2, members + 1))]


def _load_encoder(place: Path, contract: VersionContract) -> Encoder:
    encoder, loaded = load_encoder_class(contract.domain).from_pretrained(
        place / ENCODER, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    # The loader only warns of a tensor that is not there, and leaves it at a random start.
    if lacking := sorted(loaded["missing_keys"]):
        raise ValueError(f"{ENCODER} lacks {lacking[:3]}")
    return encoder


def _computed(contract: VersionContract) -> tuple[TargetSpec, ...]:
    domain = load_domain(contract.domain)
    return tuple(domain.computed(domain.encoding(**contract.encoding)))


def _load_process(place: Path, contract: VersionContract) -> GaussianProcess:
    if contract.task is None:
        raise ValueError("a foundation has no Gaussian process")
    encoder = _load_encoder(place, contract) if (place / ENCODER).is_dir() else None
    state = load_file(place / f"{PROCESS}.safetensors")
    return GaussianProcess(contract.task.targets, _computed(contract), encoder, state)


def _load_model(place: Path, contract: VersionContract) -> Encoder | TaskModel:
    encoder = _load_encoder(place, contract)
    if contract.task is None:
        return encoder
    computed = _computed(contract) if contract.computed else ()
    model = TaskModel(encoder, contract.task.targets, linear_head=contract.linear_head, computed=computed)
    missing = model.load_state_dict(load_file(place / HEAD), strict=False).missing_keys
    if any(not name.startswith("encoder.") for name in missing):
        raise ValueError(f"{HEAD} lacks {missing[:3]}")
    return model


def _outputs(model: Encoder | TaskModel, batch: Batch) -> torch.Tensor:
    """[n, outputs], or [n, pixels, outputs] with NaN where there is no data."""
    if not isinstance(model, TaskModel):
        return model(batch).pooled
    answered = model(batch)
    outputs = model.outputs(answered["logits"])
    return torch.where(answered["valid"][..., None], outputs, torch.nan) if "valid" in answered else outputs


def _mean_of_pixels(answered: np.ndarray) -> np.ndarray:
    """float32 [n, pixels, outputs] -> float64 [n, outputs], pixels without data left out."""
    known = np.isfinite(answered)
    return np.where(known, answered, 0).sum(1, dtype=np.float64) / np.maximum(known.sum(1), 1)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
