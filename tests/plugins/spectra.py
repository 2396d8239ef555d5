"""A third domain in one file: spectra of any length, to prove that the contract is open.

It is installed like any plugin, by its entry points; nothing in Groundwork knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn

from domains.contract import (
    EncodingSpec,
    Floor,
    GroundworkError,
    Record,
    Reject,
    Row,
    Sample,
    Source,
    TargetSpec,
    TaskSpec,
    digest_of,
)
from domains.tables import FORMATS, open_table
from models.encoder import Batch, Embeddings, Encoder, EncoderConfig, Masked

WINDOW = 8


class SpectrumEncoding(EncodingSpec):
    """Intensities are cut into windows of eight channels."""

    shortest: int = Field(default=WINDOW, ge=WINDOW, description="Fewest channels of a spectrum")


class Spectra:
    name = "spectra"
    noun = "spectrum"
    input_column = "intensities"
    encoding = SpectrumEncoding
    split_methods = ("random",)
    corpus = "simulated-spectra"
    yardstick = "simulated-spectra"
    tasks = ("regression", "classification")
    shard_rows = 1024
    formats = FORMATS

    def example(self, spec: EncodingSpec) -> tuple[str, ...]:
        return " ".join(map(str, range(16))), " ".join(["1"] * 24)

    def embedded(self) -> Mapping[str, Callable[[EncodingSpec], Source]]:
        return {"simulated-spectra": _simulated}

    def open(self, path: Path, spec: EncodingSpec, input_column: str | None = None) -> Source:
        table = open_table(path)
        column = input_column or self.input_column
        if column not in table.columns:
            raise GroundworkError(f"{path.name} has no column {column!r}")

        def stream() -> Iterator[Row]:
            for index, (cells, _) in enumerate(table.rows()):
                fields = dict(zip(table.columns, cells, strict=True))
                yield Row(index, fields[column], fields)

        return Source(path.name, str(path), table.digest, table.columns, stream, spec, input_column=column)

    def read(self, row: Row, spec: EncodingSpec) -> Record | Reject:
        try:
            values = np.array(str(row.value).split(), dtype=np.float32)
        except ValueError:
            return Reject(row.index, "not a list of numbers", str(row.value))
        if len(values) < WINDOW:
            return Reject(row.index, f"fewer than {WINDOW} channels", str(row.value))
        return Record(row.index, digest_of(values.tolist()), values, row.fields)

    def encode(self, record: Record, spec: EncodingSpec) -> Sample:
        windows = len(record.value) // WINDOW
        return {"windows": record.value[: windows * WINDOW].reshape(windows, WINDOW)}

    def kinship(self, record: Record) -> str:
        return record.identity

    def pretraining_targets(self, spec: EncodingSpec) -> Sequence[TargetSpec]:
        return (TargetSpec("window", "token", "reals", WINDOW), *self.computed(spec))

    def computed(self, spec: EncodingSpec) -> Sequence[TargetSpec]:
        return (TargetSpec("area", "sample", "reals", 1),)

    def describe(self, record: Record, spec: EncodingSpec) -> Sample:
        return {"area": np.array([record.value.mean()], dtype=np.float32)}

    def labels(self, record: Record, targets: Sequence[str]) -> Sample:
        raise ValueError("spectra have no pixels")

    def groups(self, records: Iterable[Record], method: str) -> np.ndarray:
        return np.unique([record.identity for record in records], return_inverse=True)[1]

    def floors(self, task: TaskSpec, spec: EncodingSpec) -> Sequence[Floor]:
        return (Floor("moments + neighbours", _moments, "neighbours"),)

    def draw(self, record: Record, caption: str) -> bytes:
        points = " ".join(f"{x},{50 - 10 * y:.1f}" for x, y in enumerate(record.value))
        return f"<svg><polyline points='{points}'/><text>{caption}</text></svg>".encode()


def _moments(record: Record) -> np.ndarray:
    return np.array([record.value.mean(), record.value.std(), record.value.argmax()])


def _simulated(spec: EncodingSpec) -> Source:
    """One Gaussian line each, at a place that is the target."""

    def stream() -> Iterator[Row]:
        rng = np.random.default_rng(7)
        for index in range(240):
            length, place = int(rng.choice([32, 40, 64])), rng.uniform(4, 28)
            values = np.exp(-(((np.arange(length) - place) / 3) ** 2)) + rng.normal(0, 0.02, length)
            text = "broken" if index == 11 else " ".join(f"{value:.3f}" for value in values)
            yield Row(index, text, {"intensities": text, "line": f"{place:.3f}"})

    name, columns = "simulated-spectra", ("intensities", "line")
    digest = digest_of(f"{name}, seed 7")
    return Source(
        name,
        __name__,
        digest,
        columns,
        stream,
        spec,
        "intensities",
        ("line",),
        {"line": "channel"},
        simulated=True,
    )


class SpectrumEncoderConfig(EncoderConfig):
    model_type = "test_spectrum_encoder"
    hidden_size: int = 32


class SpectrumEncoder(Encoder):
    config_class = SpectrumEncoderConfig
    presets: ClassVar[dict[str, dict[str, int]]] = {"tiny": {"hidden_size": 32}}
    lora_modules: ClassVar[list[str]] = ["embedding"]

    def __init__(self, config: SpectrumEncoderConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Linear(WINDOW, config.hidden_size)
        self.place = nn.Embedding(64, config.hidden_size)
        self.hidden = nn.Parameter(torch.zeros(config.hidden_size))
        self.mixing = nn.TransformerEncoderLayer(
            config.hidden_size, 4, 64, dropout=0.0, batch_first=True, norm_first=True
        )
        self.post_init()

    @staticmethod
    def tokens(sample: Sample) -> int:
        return len(sample["windows"])

    def collate(self, samples: Sequence[Sample]) -> Batch:
        size = torch.tensor([len(sample["windows"]) for sample in samples])
        padded = [torch.from_numpy(np.array(sample["windows"], dtype=np.float32)) for sample in samples]
        batch = {"size": size, "windows": nn.utils.rnn.pad_sequence(padded, batch_first=True)}
        if "area" in samples[0]:
            batch["area"] = torch.from_numpy(np.stack([sample["area"] for sample in samples]))
        return batch

    def forward(self, batch: Batch, hide: torch.Tensor | None = None) -> Embeddings:
        places = torch.arange(batch["windows"].shape[1], device=batch["size"].device)
        mask = places < batch["size"][:, None]
        tokens = self.embedding(batch["windows"])
        if hide is not None:
            tokens = torch.where(hide[..., None], self.hidden, tokens)
        tokens = self.mixing(tokens + self.place(places), src_key_padding_mask=~mask) * mask[..., None]
        return Embeddings(tokens, tokens.sum(1) / batch["size"][:, None], mask)

    def masked_forward(
        self,
        batch: Batch,
        targets: Sequence[TargetSpec],
        ratio: float,
        generator: Any = None,
        *,
        views: bool = False,
    ) -> Masked:
        mask = torch.arange(batch["windows"].shape[1], device=batch["size"].device) < batch["size"][:, None]
        hide = (torch.rand(mask.shape, generator=generator, device=mask.device) < ratio) & mask
        embedded = self(batch, hide)
        return Masked(
            {"window": embedded.tokens[hide], "area": embedded.pooled},
            {"window": batch["windows"][hide], "area": batch["area"]},
        )


SPECTRA = Spectra()
