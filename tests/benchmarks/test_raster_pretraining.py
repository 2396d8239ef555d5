"""The ablation of what pretraining asks of rasters leaves out what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import ablation, raster_pretraining
from benchmarks.raster_quality import is_held_out
from domains.geospatial import GEOSPATIAL


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Dark and bright chips, a folder of each."""
    chance = np.random.default_rng(0)
    for name, bright in (("dark", 60), ("bright", 180)):
        (tmp_path / name).mkdir()
        for place in range(30):
            pixels = chance.normal(bright, 20, (64, 64, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{name}_{place}.png")
    return tmp_path


def test_an_arm_is_trained_on_what_is_left(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[tuple[set[str], float]] = []

    def watched(model: Any, *rest: Any) -> None:
        learnt.append(({target.name for target in model.targets}, model.contrast))
        ablation.pretrain(model, *rest)

    monkeypatch.setattr(raster_pretraining, "pretrain", watched)
    for name, value in {"KNOWN": 20, "ASKED": 10}.items():
        monkeypatch.setattr(raster_pretraining, name, value)
    spec, samples, classes = raster_pretraining.read(folders)
    names = [path.name for path in folders.rglob("*.png")]
    assert len(samples) == len(classes) == sum(not is_held_out(name) for name in names)
    known = {target.name for target in GEOSPATIAL.pretraining_targets(spec)}
    assert {name for out in raster_pretraining.LEFT_OUT.values() for name in out} == known | {"views"}
    for arm in ("no_words", "no_views", "untrained"):
        found = raster_pretraining.ablate(arm, lambda: (spec, samples, classes), 0, 16, 1)
        assert found["linear"] > 0.8  # how bright a chip is is told at once
        assert set(found) == set(raster_pretraining.FIGURES)
    assert learnt == [(known - {"words"}, raster_pretraining.CONTRAST), (known, 0.0)]
