"""The pixelwise model learns from training pixels; validation samples say how far it is believed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from domains.contract import Sample, Target
from domains.geospatial import RasterEncoding
from domains.geospatial.bands import BandSpec
from domains.shards import label_array
from flows.pixelwise import fit_pixelwise, share_by
from models.encoder import create_encoder
from models.tuning import TaskModel

BURNT = Target(name="burnt", kind="binary", classes=("no", "yes"), values=(0, 1), level="pixel")
COVER = Target(name="cover", kind="multiclass", classes=("a", "b", "c"), values=(0, 1, 2), level="pixel")
BANDS = tuple(
    BandSpec(name=name, wavelength=wavelength, unit="reflectance", gsd=10.0)
    for name, wavelength in (("B4", 665.0), ("B8", 842.0))
)
ENCODING = RasterEncoding(bands=BANDS, chip=16, patch=8)


def chips(count: int, target: Target, seed: int = 0) -> list[Sample]:
    """What a pixel is shows in the ratio of two bands, each of which tells nothing; a strip has no data."""
    random = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        light = random.uniform(0.1, 0.9, (16, 16))
        ratio = random.uniform(0.3, 3.0, (16, 16))
        pixels = np.stack([light, light * ratio]).astype(np.float32)
        pixels[:, :2] = np.nan
        truth = np.digitize(ratio, [2.5] if target.kind == "binary" else [1.0, 2.0])
        samples.append({"pixels": pixels, label_array(target.name): truth.astype(np.float32)})
    return samples


def labelled(target: Target, train: list[Sample], val: list[Sample]) -> Any:
    every = [*train, *val]
    return SimpleNamespace(
        task=SimpleNamespace(targets=(target,)),
        split=SimpleNamespace(train=np.arange(len(train)), val=np.arange(len(train), len(every))),
        store=SimpleNamespace(subset=lambda side: [every[place] for place in side]),
    )


def fitted(target: Target, data: Any) -> TaskModel:
    torch.manual_seed(0)
    encoder = create_encoder("geospatial", "tiny", ENCODING)
    encoder.fit_input(ENCODING, chips(4, target))
    model = TaskModel(encoder, [target], linear_head=False).eval()
    fit_pixelwise(model, data, seed=0)
    return model


def test_the_rarer_class_is_found_from_the_ratio_alone() -> None:
    model = fitted(BURNT, labelled(BURNT, chips(20, BURNT), []))
    assert model.pixelwise is not None
    model.pixelwise.share.fill_(1.0)
    fresh = chips(4, BURNT, seed=9)
    with torch.no_grad():
        answered = model(model.encoder.collate(fresh))  # type: ignore[operator]  # a module's attribute
    truth = np.stack([sample[label_array("burnt")].ravel() for sample in fresh])
    valid = answered["valid"].numpy()
    assert not valid[:, :32].any()
    found = answered["logits"][..., 0].numpy() > 0
    assert (found == truth)[valid].mean() > 0.85
    assert found[valid & (truth == 1)].mean() > 0.9


@pytest.mark.parametrize("target", [BURNT, COVER])
def test_the_more_samples_the_more_the_better_one_is_believed(target: Target) -> None:
    train = chips(20, target)
    few, many = (labelled(target, train, chips(count, target, seed=5)) for count in (2, 60))
    model = fitted(target, few)
    # The network has learnt nothing: what speaks for the other is that it has.
    assert 0.5 < share_by(model, few, 0) < share_by(model, many, 0)
    assert share_by(model, many, 0) > 0.6
    assert model.pixelwise is not None
    model.pixelwise.weight *= -1
    model.pixelwise.bias *= -1
    assert share_by(model, many, 0) < share_by(model, few, 0) < 0.5


def test_nothing_known_is_a_half() -> None:
    blank = chips(3, BURNT)
    for sample in blank:
        sample[label_array("burnt")][:] = 7  # no class
    model = fitted(BURNT, labelled(BURNT, chips(5, BURNT), blank))
    assert share_by(model, labelled(BURNT, [], blank), 0) == pytest.approx(0.5)
