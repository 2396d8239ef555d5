"""In which arithmetic a training multiplies: the one that is faster where it runs, unless it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from small_models import LOGP, samples_of, task_model
from small_rasters import encoder_of, textures
from torch import nn

from domains.contract import Sample, Target
from models.rasters.blocks import attend
from models.settings import TrainingSettings
from models.training import train
from models.tuning import TaskModel

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU decides for itself")

SLOPE = Target(name="slope", kind="regression", unit="")
Precision = Literal["auto", "fp32", "bf16"]


def raster_model() -> tuple[TaskModel, list[Sample]]:
    return TaskModel(encoder_of(), [SLOPE], linear_head=False), textures(8, 3)


def molecule_model() -> tuple[TaskModel, list[Sample]]:
    return task_model(LOGP), samples_of(["CCO", "CCN", "CCC", "c1ccccc1", "CO", "CN", "CC", "C"])


def dtype_of_products(
    model: TaskModel, samples: Sequence[Sample], folder: Path, precision: Precision
) -> torch.dtype:
    """What a feed-forward layer gives while ``model`` learns."""
    seen: set[torch.dtype] = set()
    layer = next(part for name, part in model.named_modules() if name.endswith("feed_forward_input"))
    assert isinstance(layer, nn.Linear)
    layer.register_forward_hook(lambda _layer, _input, output: seen.add(output.dtype))
    encoder: Any = model.encoder

    def collate(items: Sequence[Any]) -> dict[str, Any]:
        chosen, labels = zip(*items, strict=True)
        return {"batch": encoder.collate(chosen), "labels": torch.from_numpy(np.stack(labels))}

    items = [(sample, np.float32([place])) for place, sample in enumerate(samples)]
    settings = TrainingSettings(epochs=1, batch_size=4, learning_rate=1e-3, precision=precision)
    result = train(
        model, items, items, collate=collate, lengths=[1] * len(items), settings=settings, folder=folder,
        resume=False, report=lambda _: None,
    )  # fmt: skip
    assert np.isfinite(result.best_loss)
    assert all(weights.dtype == torch.float32 for weights in model.parameters())
    [dtype] = seen
    return dtype


@pytest.mark.parametrize(
    ("make", "instructions", "precision", "expected"),
    [
        (raster_model, "amx_bf16", "auto", torch.bfloat16),
        (raster_model, "avx512_bf16", "auto", torch.bfloat16),
        (raster_model, "avx512_f", "auto", torch.float32),
        (raster_model, "amx_bf16", "fp32", torch.float32),
        (raster_model, "avx512_f", "bf16", torch.bfloat16),
        (molecule_model, "amx_bf16", "auto", torch.float32),  # its products are too small to gain
    ],
)
def test_auto_takes_the_faster_one(
    make: Any,
    instructions: str,
    precision: Precision,
    expected: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True})
    assert dtype_of_products(*make(), tmp_path, precision) == expected


@pytest.mark.parametrize("has_gaps", [False, True])
def test_attention_on_a_cpu_is_as_in_single_precision(has_gaps: bool) -> None:
    query, key, value = torch.randn(3, 2, 4, 16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    query.requires_grad_()
    bias = torch.zeros(2, 1, 1, 16).masked_fill(torch.arange(16) > 12, -3e4) if has_gaps else None
    expected = attend(query.float(), key.float(), value.float(), bias)
    with torch.autocast("cpu", torch.bfloat16):
        attended = attend(query, key, value, bias)
    assert attended.dtype == torch.bfloat16
    torch.testing.assert_close(attended, expected.bfloat16())
    attended.sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()
