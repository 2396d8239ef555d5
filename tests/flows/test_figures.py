"""Pictures of a result: what is drawn of calibration, and which atoms made the worst errors."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from domains.contract import Record, Row, Target, load_domain
from domains.molecules import Molecules
from flows.calibration import calibration_figure, reliability
from flows.evaluation import Evaluation
from flows.figures import worst_errors_page
from models.baselines import FloorResult
from models.encoder import create_encoder
from models.results import PixelResults, SampleResults, pixel_tally
from models.tuning import TaskModel

MOLECULES = load_domain("molecules")
LOGP = Target(name="logp", kind="regression", unit="log units")
TOXIC = Target(name="toxic", kind="binary", classes=("no", "yes"))
PHASE = Target(name="phase", kind="multiclass", classes=("gas", "liquid", "solid"))


def evaluated(targets: Sequence[Target], truth: np.ndarray, predicted: np.ndarray) -> tuple[Any, Evaluation]:
    results = SampleResults(tuple(targets), truth, predicted)
    floor = FloorResult("forest", SampleResults(tuple(targets), truth, predicted / 2 + 0.1))
    metric = "auroc" if targets[0].kind == "binary" else "accuracy"
    return SimpleNamespace(task=SimpleNamespace(targets=tuple(targets))), Evaluation(metric, results, [floor])


def test_each_bin_holds_as_many_rows_and_their_means() -> None:
    chance = np.linspace(0, 1, 205)
    said, found, sizes = reliability(chance, chance > 0.5)
    assert sizes.sum() == 205
    assert set(sizes) == {20, 21}
    assert (np.diff(said) > 0).all()
    assert found[0] == 0
    assert found[-1] == 1
    assert said @ sizes / 205 == pytest.approx(0.5)


@pytest.mark.parametrize(("rows", "bins"), [(1, 1), (9, 1), (25, 2), (5000, 10)])
def test_few_rows_are_cut_into_few_bins(rows: int, bins: int) -> None:
    assert len(reliability(np.linspace(0, 1, rows), np.ones(rows, bool))[0]) == bins


def test_the_error_of_calibration_is_told_beside_the_floors() -> None:
    random = np.random.default_rng(0)
    chance = random.random(5000)
    truth = (random.random(5000) < chance).astype(float)
    figure = calibration_figure(*evaluated([TOXIC], truth[:, None], chance[:, None]), "t")
    assert figure is not None
    [axes] = figure.axes
    floor, model = (text.get_text() for text in axes.get_legend().get_texts())
    assert floor.startswith("forest: ECE 0.1")
    assert float(model.removeprefix("model: ECE ")) < 0.03  # the chances are true
    assert axes.get_xlabel() == "P(yes)"


def test_targets_of_classes_have_a_panel_each_and_gaps_do_not_count() -> None:
    random = np.random.default_rng(0)
    truth = np.stack(
        [random.normal(size=90), random.integers(0, 2, 90), random.integers(0, 3, 90)], 1
    ).astype(float)
    truth[::2, 1] = np.nan
    phases = random.dirichlet([1, 1, 1], 90)
    predicted = np.hstack([truth[:, :1], random.random((90, 1)), phases])
    figure = calibration_figure(*evaluated([LOGP, TOXIC, PHASE], truth, predicted), "t")
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["toxic", "phase"]
    binary, phase = (axes.containers[-1].lines[0].get_xdata() for axes in figure.axes)
    assert len(binary) == 4  # of 45 rows
    assert len(phase) == 9
    assert min(phase) > 1 / 3


def test_numbers_have_no_calibration_of_probabilities() -> None:
    data, evaluation = evaluated([LOGP], np.zeros((5, 1)), np.zeros((5, 1)))
    assert calibration_figure(data, evaluation, "t") is None


def test_pixels_have_a_curve_of_their_own() -> None:
    random = np.random.default_rng(0)
    chance = random.random(20_000)
    truth = (random.random(20_000) < chance).astype(float)
    burnt = Target(name="mask", kind="binary", classes=("no", "burnt"), level="pixel", values=(0, 1))
    true, flattened = (
        PixelResults.of(burnt, [pixel_tally(burnt, truth, said[:, None])])
        for said in (chance, chance / 2 + 0.25)
    )
    evaluation = Evaluation("miou", true, [FloorResult("U-Net", flattened)])
    figure = calibration_figure(evaluated([TOXIC], truth[:1, None], chance[:1, None])[0], evaluation, "t")
    assert figure is not None
    [axes] = figure.axes
    floor, model = (text.get_text() for text in axes.get_legend().get_texts())
    assert floor.startswith("U-Net: ECE 0.12")
    assert float(model.removeprefix("model: ECE ")) < 0.02
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("P(burnt)", "share of pixels where it is so")


# -------------------------------------------------------------------------------------- the worst errors


class Coloured(Molecules):
    """Molecules whose drawings show weights; remembers those that it was given."""

    def __init__(self) -> None:
        self.given: dict[str, list[float]] = {}

    def draw_weights(self, record: Record, caption: str, weights: Sequence[float]) -> bytes:
        self.given[record.identity] = list(weights)
        return super().draw_weights(record, caption, weights)


SMILES = ["CCO", "c1ccccc1O", "CC(=O)O"]


@pytest.fixture
def job() -> Any:
    spec = MOLECULES.encoding()
    source = SimpleNamespace(
        origin="here", stream=lambda: (Row(index, smiles) for index, smiles in enumerate(SMILES))
    )
    return SimpleNamespace(domain=Coloured(), source=source, spec=spec)


def page_of(job: Any, target: Target, truth: list[float], predicted: list[list[float]], **more: Any) -> str:
    data, evaluation = evaluated([target], np.array(truth)[:, None], np.array(predicted))
    data.store = SimpleNamespace(rows=np.arange(3))
    data.split = SimpleNamespace(test=np.arange(3))
    return worst_errors_page(job, data, evaluation, "title", **more)


def model_of(target: Target) -> TaskModel:
    torch.manual_seed(0)
    encoder = create_encoder("molecules", "tiny", MOLECULES.encoding())
    return TaskModel(encoder, [target], linear_head=False).eval()


@pytest.mark.parametrize("target", [LOGP, TOXIC, PHASE], ids=lambda target: target.kind)
def test_the_worst_are_drawn_with_what_their_atoms_add(job: Any, target: Target) -> None:
    predicted = [[0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]]
    model = model_of(target)

    def predict(samples: Sequence[Any]) -> np.ndarray:
        with torch.no_grad():
            return model.outputs(model(model.encoder.collate(samples))["logits"]).numpy()

    page = page_of(
        job,
        target,
        [1.0, 0.0, 0.0],
        [row[: target.outputs] for row in predicted],
        predictor=SimpleNamespace(
            models=[model],
            process=None,
            predict=predict,
            encode=lambda record: MOLECULES.encode(record, job.spec),
        ),
    )
    assert {smiles: len(weights) for smiles, weights in job.domain.given.items()} == {
        "CCO": 3, "Oc1ccccc1": 7, "CC(=O)O": 4,
    }  # fmt: skip
    assert page.count("<svg") == 3
    assert page.count("<ellipse") > 3
    assert "Orange atoms raise" in page


def test_without_the_model_molecules_are_drawn_as_they_are(job: Any) -> None:
    page = page_of(job, LOGP, [1.0, 2.0, 3.0], [[1.5], [2.0], [3.1]])
    assert page.count("<svg") == 3
    assert job.domain.given == {}
    assert "Orange" not in page
