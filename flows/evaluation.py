"""Every model beside its floors, on the same held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from domains.contract import Domain, Row, Target
from flows.labelled import LabelledData
from models.baselines import FloorResult, fit_floor
from models.metrics import better, primary_metric, task_metrics
from models.predictor import Predictor


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model and of its floors on the test rows."""

    metric: str
    """The figure that decides."""
    metrics: dict[str, float]
    predicted: np.ndarray
    """float32 [n test rows, outputs], as served."""
    floors: list[FloorResult]

    @property
    def value(self) -> float:
        return self.metrics[self.metric]

    @property
    def best_floor(self) -> FloorResult | None:
        scored = [floor for floor in self.floors if self.metric in floor.metrics]
        best = None
        for floor in scored:
            if best is None or better(self.metric, floor.metrics[self.metric], best.metrics[self.metric]):
                best = floor
        return best

    @property
    def beats_floor(self) -> bool:
        floor = self.best_floor
        return floor is not None and better(self.metric, self.value, floor.metrics[self.metric])

    def rows(self, model_name: str, unit: str) -> list[dict[str, str]]:
        """The table that is shown: the model first, then its floors."""
        entries: list[tuple[str, Mapping[str, float]]] = [(model_name, self.metrics)]
        entries += [(floor.name, floor.metrics) for floor in self.floors]
        heads = {
            name: f"{name} ({unit})" if unit and name in {"mae", "rmse"} else name for name in self.metrics
        }
        return [
            {
                "model": name,
                **{
                    head: f"{figures[metric]:.4g}" if metric in figures else "–"
                    for metric, head in heads.items()
                },
            }
            for name, figures in entries
        ]


def evaluate(
    domain: Domain, data: LabelledData, predictor: Predictor, raw: Sequence[Row], seed: int
) -> Evaluation:
    """Score a saved version on the raw test rows, exactly as it will be served, beside its floors."""
    targets = data.task.targets
    test = data.split.test
    predicted = predictor.answer_rows(raw).outputs
    metrics = task_metrics(targets, data.labels[test], predicted)
    floors = [
        fit_floor(
            floor.name,
            floor.estimator,
            targets,
            floor.features(data.records),
            data.labels,
            data.split.train,
            test,
            seed,
        )
        for floor in domain.floors(data.task)
    ]
    return Evaluation(_deciding_metric(targets, metrics), metrics, predicted, floors)


def _deciding_metric(targets: Sequence[Target], metrics: Mapping[str, float]) -> str:
    """The primary metric, or accuracy where the test rows lack a class and it has no value."""
    metric = primary_metric(targets)
    return metric if metric in metrics else "accuracy"


def prediction_table(data: LabelledData, evaluation: Evaluation, predictor: Predictor) -> pd.DataFrame:
    """Test rows with truth, the model's answers and each floor's, for anyone to check."""
    test = data.split.test
    table: dict[str, object] = {
        "row": data.store.rows[test],
        predictor.domain.input_column: [data.records[index].identity for index in test],
    }
    for column, target in enumerate(data.task.targets):
        table[target.name] = data.labels[test, column]
    table.update(predictor.columns(evaluation.predicted))
    for floor in evaluation.floors:
        for name, values in predictor.columns(floor.predicted).items():
            table[f"{floor.name}: {name}"] = values
    return pd.DataFrame(table)
