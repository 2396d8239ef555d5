"""A Gaussian process is believed as far as the validation rows speak for it."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import pytest

from domains.contract import Target, load_domain
from flows import dispatch
from flows.finetune import finetune
from flows.home import Home
from flows.jobs import Job
from flows.journal import ConsoleJournal
from flows.settings import settings_class
from flows.stacking import weight_of
from flows.warm_start import WarmStart
from models import registry
from models.gaussian_process import GaussianProcess
from models.predictor import Predictor
from models.registry import Version

VALUE = Target(name="value", kind="regression")
TOXIC = Target(name="toxic", kind="binary", classes=("no", "yes"))
PHASE = Target(name="phase", kind="multiclass", classes=("gas", "liquid", "solid"))


def noisy(truth: np.ndarray, error: float) -> np.ndarray:
    return (truth + np.random.default_rng(1).normal(size=len(truth)) * error)[:, None]


@pytest.mark.parametrize(("rows", "least", "most"), [(4, 0.0, 0.1), (20, 0.02, 0.5), (5000, 0.3, 0.5)])
def test_the_more_rows_the_more_is_believed(rows: int, least: float, most: float) -> None:
    truth = np.random.default_rng(0).normal(size=rows)
    tuned, compared = noisy(truth, 1.0), noisy(truth, 0.1)
    towards = weight_of(VALUE, truth, tuned, compared) - 2 / 3
    away = 2 / 3 - weight_of(VALUE, truth, compared, tuned)
    assert least <= towards <= most
    assert least <= away <= 2 * most


def test_of_classes_the_probability_counts() -> None:
    truth = np.tile([0.0, 1.0], 1000)
    right, lost = np.where(truth, 0.9, 0.1)[:, None], np.full((2000, 1), 0.5)
    assert weight_of(TOXIC, truth, lost, right) > 0.9
    truth = np.tile([0.0, 1.0, 2.0], 1000)
    right = np.eye(3)[truth.astype(int)] * 0.7 + 0.1
    assert weight_of(PHASE, truth, right, np.full((3000, 3), 1 / 3)) < 0.1


def test_gaps_do_not_count_and_nothing_known_is_a_half() -> None:
    truth = np.random.default_rng(0).normal(size=500)
    tuned, compared = noisy(truth, 1.0), noisy(truth, 0.1)
    expected = weight_of(VALUE, truth[:250], tuned[:250], compared[:250])
    truth[250:] = np.nan
    assert weight_of(VALUE, truth, tuned, compared) == pytest.approx(expected)
    assert weight_of(VALUE, np.full(5, np.nan), tuned[:5], compared[:5]) == pytest.approx(2 / 3, abs=0.01)


def tune(home: Home, journal: Any, dataset: Any, **values: Any) -> Version:
    values = {"epochs": 2, "batch_size": 32, "dataset": str(dataset), **values}
    chosen = settings_class("finetune", "molecules")(**values)
    return dispatch.run("finetune", load_domain("molecules"), chosen, home, journal)


def test_a_plain_tuning_has_one_and_a_probe_has_none(home: Home, tables: Any) -> None:
    journal = ConsoleJournal()
    pretraining = settings_class("pretrain", "molecules")(dataset=str(tables / "smiles.csv"), epochs=1)
    foundation = dispatch.run("pretrain", load_domain("molecules"), pretraining, home, journal)

    def process_of(name: str, **options: Any) -> GaussianProcess | None:
        version = tune(home, journal, tables / "logp.csv", name=name, **options)
        return Predictor.load(registry.fetch(version)).process

    plain = process_of("plain")
    assert plain is not None
    assert [part.name for part in plain.parts] == ["embedding", "descriptors", "fingerprint"]
    # It compares by the foundation as it was: tuning has seen the labels.
    assert plain.encoder is not None
    pristine = Predictor.load(registry.fetch(foundation)).encoder.state_dict()
    assert all(plain.encoder.state_dict()[name].equal(tensor) for name, tensor in pristine.items())

    scratch = process_of("scratch", foundation="none")
    assert scratch is not None
    assert [part.name for part in scratch.parts] == ["descriptors", "fingerprint"]
    assert process_of("probe", mode="probe") is None
    assert process_of("without", gaussian_process=False) is None


def test_without_its_foundation_it_goes_on_with_what_is_computed(home: Home, tables: Any) -> None:
    journal = ConsoleJournal()
    said: list[str] = []
    journal.say = said.append  # type: ignore[method-assign]
    pretraining = settings_class("pretrain", "molecules")(dataset=str(tables / "smiles.csv"), epochs=1)
    dispatch.run("pretrain", load_domain("molecules"), pretraining, home, journal)
    version = tune(home, journal, tables / "logp.csv", name="logp")
    mlflow.MlflowClient().delete_registered_model("molecules-foundation")
    settings = settings_class("finetune", "molecules")(
        dataset=str(tables / "logp.csv"), name="logp", epochs=1, batch_size=16
    )
    job = Job.prepare("finetune", load_domain("molecules"), settings, home, journal)
    again = Predictor.load(registry.fetch(finetune(job, WarmStart.load(version))))
    assert again.process is not None
    assert again.process.encoder is None
    assert any("molecules-foundation/1 cannot be had any more" in line for line in said)


def test_it_helps_where_descriptors_tell_all(home: Home, tables: Any) -> None:
    """The octanol-water coefficient of the table is one that descriptors sum up."""
    journal = ConsoleJournal()
    values = {"split": "random", "epochs": 5, "seed": 1}
    alone = tune(home, journal, tables / "logp.csv", name="alone", gaussian_process=False, **values)
    beside = tune(home, journal, tables / "logp.csv", name="beside", **values)
    assert float(beside.tags["value"]) < float(alone.tags["value"])
