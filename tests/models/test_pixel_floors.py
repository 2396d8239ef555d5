"""Floors of pixel level: each learns what can be seen, from training pixels alone, and answers all pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from domains.contract import EstimatorName, Floor, Record, Target
from models import baselines, unet
from models.baselines import FloorResult, fit_pixel_floors
from models.results import PixelResults
from models.threshold import Threshold
from models.unet import DrawnImages, Image, train_unet

COVER = Target(name="mask", kind="multiclass", classes=("a", "b", "c"), level="pixel", values=(0, 1, 5))
BURNT = Target(name="mask", kind="binary", classes=("0", "1"), level="pixel", values=(0, 1))
HEIGHT = Target(name="mask", kind="regression", unit="m", level="pixel")
SIDE = 10

Pairs = Sequence[tuple[Record, np.ndarray]]


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "TREES", 20)


def chips(count: int, seed: int, classes: int = 3) -> Pairs:
    """Noise around the code of each pixel, in two channels; a row without data, and one without labels."""
    random = np.random.default_rng(seed)
    made = []
    for row in range(count):
        codes = random.integers(0, classes, (SIDE, SIDE))
        pixels = (codes + random.normal(0, 0.1, (2, SIDE, SIDE))).astype(np.float32)
        pixels[:, 0] = np.nan
        truth = codes.astype(np.float32)
        truth[1] = np.nan
        made.append((Record(row, "", pixels), truth.ravel()))
    return made


def pixels_of(record: Record) -> np.ndarray:
    return record.value.reshape(2, -1).T


def first_of(record: Record) -> np.ndarray:
    return record.value[:1].reshape(1, -1).T


def fit(
    estimator: EstimatorName,
    target: Target,
    train: Pairs,
    test: Pairs,
    val: Pairs | None = None,
    epochs: int = 30,
) -> list[FloorResult]:
    features = {"unet": lambda record: record.value, "threshold": first_of}.get(estimator, pixels_of)
    floors, val = [Floor("floor", features, estimator)], train[:2] if val is None else val
    return fit_pixel_floors(floors, target, (len(train), len(val)), train, val, test, epochs=epochs, seed=0)


@pytest.mark.parametrize("estimator", ["forest", "neighbours", "linear", "unet"])
def test_it_learns_from_pixels_and_skips_those_without_data(estimator: EstimatorName) -> None:
    [floor] = fit(estimator, COVER, chips(12, 0), chips(3, 1), epochs=50)
    assert isinstance(floor.results, PixelResults)
    assert floor.results.confusion.sum() == 3 * SIDE * (SIDE - 2)
    assert floor.metrics["miou"] > 0.85


@pytest.mark.parametrize("estimator", ["forest", "linear", "unet"])
def test_numbers_are_learnt(estimator: EstimatorName) -> None:
    scaled = [(record, 100 + 20 * truth) for record, truth in chips(15, 0)]
    [floor] = fit(estimator, HEIGHT, scaled[:12], scaled[12:], epochs=50)
    assert floor.metrics["r2"] > 0.8


@pytest.mark.parametrize("estimator", ["forest", "threshold", "unet"])
def test_what_saw_one_class_answers_it(estimator: EstimatorName) -> None:
    train = [(record, np.ones_like(truth)) for record, truth in chips(10, 0, classes=2)]
    [floor] = fit(estimator, BURNT, train, chips(2, 1, classes=2), epochs=10)
    assert isinstance(floor.results, PixelResults)
    assert not floor.results.confusion[:, 0].any()


def test_test_labels_teach_nothing() -> None:
    train, test = chips(6, 0, 2), chips(2, 1, 2)
    other = [(record, 1 - truth) for record, truth in test]
    for estimator in ("threshold", "unet"):
        [one], [turned] = (fit(estimator, BURNT, train, asked, epochs=3) for asked in (test, other))  # type: ignore[arg-type]
        assert isinstance(one.results, PixelResults)
        assert isinstance(turned.results, PixelResults)
        np.testing.assert_array_equal(one.results.confusion, turned.results.confusion[::-1])


def test_networks_are_left_out_on_request() -> None:
    assert fit("unet", BURNT, chips(4, 0, 2), chips(2, 1, 2), epochs=0) == []


# ------------------------------------------------------------------------------------------- threshold


@pytest.mark.parametrize("sign", [1, -1])
def test_a_threshold_finds_direction_and_cut(sign: int) -> None:
    values = sign * np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.8])[:, None]
    fitted = Threshold().fit(values, np.array([0, 0, 0, 1, 1, 1]))
    assert fitted.cut == pytest.approx(sign * 0.5)
    assert fitted.predict_proba(values)[:, 1].tolist() == [0, 0, 0, 1, 1, 1]


def test_no_other_cut_has_a_larger_mean_iou() -> None:
    from sklearn.metrics import jaccard_score

    random = np.random.default_rng(3)
    truth = (random.random(300) < 0.1).astype(int)
    values = (random.normal(truth, 1.0).round(1))[:, None]
    fitted = Threshold().fit(values, truth)
    found = jaccard_score(truth, fitted.predict_proba(values)[:, 1], average="macro")
    every = [
        jaccard_score(truth, (values[:, 0] > cut) == above, average="macro")
        for cut in np.arange(-2.95, 4, 0.1)
        for above in (True, False)
    ]
    assert found == pytest.approx(max(every))


def test_what_it_cannot_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="one feature"):
        Threshold().fit(np.zeros((4, 2)), np.array([0, 1, 0, 1]))
    with pytest.raises(ValueError, match="3 classes"):
        fit("threshold", COVER, chips(4, 0), chips(2, 1))


# ----------------------------------------------------------------------------------------------- U-Net


def squares(count: int, seed: int) -> list[Image]:
    """The class of a pixel is whether it lies in a square whose border is all that is seen."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        pixels, inside = random.normal(0, 0.3, (1, 18, 18)), np.zeros((18, 18))
        top, left = random.integers(1, 8, 2)
        inside[top : top + 9, left : left + 9] = 1
        border = inside.copy()
        border[top + 1 : top + 8, left + 1 : left + 8] = 0
        images.append(Image((pixels + 3 * border).astype(np.float32), inside.astype(np.float32)))
    return images


def test_it_sees_what_is_around_a_pixel() -> None:
    network = train_unet(BURNT, squares(40, 0), squares(8, 1), epochs=14, seed=0)
    assert 90_000 < sum(weights.numel() for weights in network.parameters()) < 200_000
    asked = squares(6, 2)
    right = [(network.answer(image.pixels)[:, 0] > 0.5) == image.labels.ravel() for image in asked]
    assert np.mean(right) > 0.93  # a pixel alone says nothing of where in the square it is


def test_the_seed_decides_and_gaps_are_no_values() -> None:
    images = squares(12, 0)
    one, again, other = (train_unet(BURNT, images, images[:2], epochs=2, seed=seed) for seed in (1, 1, 2))
    pixels = images[0].pixels.copy()
    np.testing.assert_array_equal(one.answer(pixels), again.answer(pixels))
    assert np.abs(one.answer(pixels) - other.answer(pixels)).max() > 1e-3
    pixels[0, 3:5, 4] = np.nan
    missing = np.isnan(one.answer(pixels)).reshape(18, 18)
    np.testing.assert_array_equal(missing, np.isnan(pixels[0]))


def test_of_more_images_than_fit_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unet, "MOST_VALUES", 5 * 18 * 18)
    drawn = DrawnImages(20, seed=0)
    for image in squares(20, 0):
        drawn.offer(image.pixels, image.labels.ravel())
    assert len(drawn.images) == 5
    assert drawn.images[0].labels.shape == (18, 18)
