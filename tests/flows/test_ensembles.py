"""Several tunings from other seeds: one version that answers with their mean, resumed in the midst."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch

from domains.contract import load_domain
from flows import dispatch
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.settings import settings_class
from models import registry
from models.encoder import create_encoder
from models.predictor import Predictor
from models.progress import Interrupted
from models.registry import Version

pytestmark = pytest.mark.slow

MOLECULES = load_domain("molecules")
INPUTS = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O"]


class Impatient(ConsoleJournal):
    """Presses Ctrl-C in the second of three trainings."""

    def progress(self, description: str, fraction: float) -> None:
        if description.startswith("step") and 0.4 < fraction < 0.6:
            os.kill(os.getpid(), signal.SIGINT)


def tune(home: Home, journal: ConsoleJournal, dataset: Path, **values: Any) -> Version:
    chosen = {"epochs": 3, "batch_size": 32, "mode": "ensemble", "members": 3, "name": "logp"}
    # What stands beside the members is the same for all of them.
    values = {**chosen, "gaussian_process": False, **values}
    settings = settings_class("finetune", "molecules")(dataset=str(dataset), target=["logp"], **values)
    return dispatch.run("finetune", MOLECULES, settings, home, journal)


def answers(version: Version) -> np.ndarray:
    return registry.load(version.reference)[1].answer_values(INPUTS).outputs


@pytest.fixture(scope="module")
def ensemble(module_home: Home, tables: Path) -> Version:
    return tune(module_home, ConsoleJournal(), tables / "logp.csv")


def test_it_answers_with_the_mean_of_members_that_differ(ensemble: Version) -> None:
    _, predictor = registry.load(ensemble.reference)
    assert predictor.contract.members == 3
    alone = [
        Predictor(predictor.contract, [model], predictor.golden).answer_values(INPUTS).outputs
        for model in predictor.models
    ]
    assert np.ptp(alone, axis=0).min() > 1e-4
    np.testing.assert_allclose(answers(ensemble), np.mean(alone, axis=0), rtol=1e-5, atol=1e-6)


def test_what_it_cost_is_what_its_members_cost(ensemble: Version) -> None:
    metrics = mlflow.MlflowClient().get_run(ensemble.run_id).data.metrics
    _, predictor = registry.load(ensemble.reference)
    each = sum(weights.numel() for weights in predictor.models[0].parameters())
    assert metrics["training_trainable_parameters"] == 3 * each
    assert metrics["training_steps"] == 3 * 3 * 4


def test_stopped_in_its_second_member_it_goes_on_there(
    ensemble: Version, module_home: Home, tables: Path
) -> None:
    with pytest.raises(Interrupted):
        tune(module_home, Impatient(), tables / "logp.csv", name="again")
    heard: list[float] = []
    journal = ConsoleJournal()
    journal.progress = lambda description, fraction: heard.append(fraction)  # type: ignore[method-assign]
    resumed = tune(module_home, journal, tables / "logp.csv", name="again", resume=True)
    assert min(heard) > 1 / 3
    np.testing.assert_array_equal(answers(resumed), answers(ensemble))


def test_an_ensemble_goes_on_from_an_ensemble(ensemble: Version, module_home: Home, tables: Path) -> None:
    from flows.finetune import finetune
    from flows.jobs import Job
    from flows.warm_start import WarmStart

    values = {"epochs": 1, "mode": "ensemble", "members": 3, "name": "logp", "learning_rate": 1e-7}
    values["gaussian_process"] = False
    settings = settings_class("finetune", "molecules")(
        dataset=str(tables / "logp.csv"), target=["logp"], **values
    )
    job = Job.prepare("finetune", MOLECULES, settings, module_home, ConsoleJournal())
    made = finetune(job, WarmStart.load(ensemble))
    # Steps of a ten-millionth change nothing that shows: each member has begun where its own one ended.
    np.testing.assert_allclose(answers(made), answers(ensemble), atol=1e-3)


class OneSlot(ConsoleJournal):
    """A journal with a training slot that waits for ever where it is held already."""

    held = False

    @contextmanager
    def training_slot(self) -> Iterator[None]:
        assert not self.held, "it would wait for itself"
        self.held = True
        yield
        self.held = False


def test_members_adapt_while_the_run_holds_its_slot(home: Home, tables: Path) -> None:
    adapted = tune(home, OneSlot(), tables / "logp.csv", members=2, epochs=1, adapt_epochs=1)
    assert registry.load(adapted.reference)[1].contract.members == 2


def test_layers_learn_at_rates_of_their_own(ensemble: Version, home: Home, tables: Path) -> None:
    slow = tune(home, ConsoleJournal(), tables / "logp.csv", mode="full", epochs=1, layer_decay=1e-4)
    plain = tune(home, ConsoleJournal(), tables / "logp.csv", mode="full", epochs=1, name="plain")

    def moved(version: Version) -> float:
        """How far the atoms' embedding is from where every training of this seed begins."""
        return float(registry.load(version.reference)[1].encoder.atom_embedding.table.weight.detach().sum())

    torch.manual_seed(0)
    fresh = create_encoder("molecules", "tiny", MOLECULES.encoding())
    start = float(fresh.atom_embedding.table.weight.detach().sum())
    assert moved(slow) == pytest.approx(start, abs=1e-5)
    assert moved(plain) != pytest.approx(start, abs=1e-3)
    rates = mlflow.MlflowClient().get_metric_history(slow.run_id, "learning_rate")
    assert max(point.value for point in rates) > 1e-5
