"""Every model beside its floors, on the same held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd

from domains.contract import Floor, GroundworkError, Record, Reject, Row, Sample, Source, Target
from flows.labelled import LabelledData, read_again
from models.baselines import FloorResult, Labelled, fit_floor, fit_pixel_floors
from models.metrics import better, primary_metric
from models.predictor import Predictor
from models.results import PixelResults, Results, SampleResults, pixel_tally
from models.targets import is_pixel_task

ROWS_AT_ONCE = 256

Features = Callable[[Record], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """What a model and its floors answered on the test rows."""

    metric: str
    """The figure that decides."""
    results: Results
    """The model's, as served."""
    floors: list[FloorResult]

    @property
    def metrics(self) -> dict[str, float]:
        return self.results.metrics()

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
    def drawn(self) -> list[tuple[str, Results, str]]:
        """(legend, results, colour) of what figures show: the best floor, and the model on top of it."""
        floor = self.best_floor
        below = [(floor.name, floor.results, "0.7")] if floor is not None else []
        return [*below, ("model", self.results, "C0")]

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
    source: Source, data: LabelledData, predictor: Predictor, *, seed: int, floor_epochs: int
) -> Evaluation:
    """Score a saved version on the raw test rows, exactly as it will be served, beside its floors.

    Floors that are networks learn for ``floor_epochs`` passes at most.
    """
    targets = data.task.targets
    results = answer_test_rows(source, data, predictor)
    floors = predictor.domain.floors(data.task, predictor.spec)
    fitted = (
        _pixel_floors(floors, predictor, source, data, seed, floor_epochs)
        if is_pixel_task(targets)
        else _sample_floors(floors, predictor, source, data, seed)
    )
    return Evaluation(_deciding_metric(targets, results.metrics()), results, fitted)


def answer_test_rows(source: Source, data: LabelledData, predictor: Predictor) -> Results:
    """What a version answers on the raw test rows.

    Raises GroundworkError where it cannot use a row that it is to be compared on.
    """
    rows = _test_rows(source, data)
    targets, test = data.task.targets, data.split.test
    if not is_pixel_task(targets):
        outputs = [predictor.answer_rows(chunk).outputs for chunk in _chunks(rows)]
        return SampleResults(targets, data.labels[test], np.concatenate(outputs))
    labels = data.pixel_labels(test)
    tallies = []
    for chunk in _chunks(rows):
        for predicted in predictor.predict_pixels([_sample(predictor, row) for row in chunk]):
            truth = next(labels)
            if len(truth) != len(predicted):
                raise GroundworkError(f"it answers {len(predicted)} pixels where {len(truth)} are labelled")
            tallies.append(pixel_tally(targets[0], truth, predicted))
    return PixelResults.of(targets[0], tallies)


def _sample(predictor: Predictor, row: Row) -> Sample:
    record = predictor.read(row)
    if isinstance(record, Reject):
        raise GroundworkError(f"row {row.index} cannot be answered: {record.reason}")
    return predictor.encode(record)


def _test_rows(source: Source, data: LabelledData) -> Iterator[Row]:
    """The test rows as the source wrote them; the store, and so the split, is in its order."""
    wanted = set(data.store.rows[data.split.test].tolist())
    return (row for row in source.stream() if row.index in wanted)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        yield chunk


def _sample_floors(
    floors: Sequence[Floor], predictor: Predictor, source: Source, data: LabelledData, seed: int
) -> list[FloorResult]:
    columns: dict[Features, list[np.ndarray]] = {floor.features: [] for floor in floors}
    for record in read_again(predictor.domain, source, predictor.spec, data.store.rows):
        for features, rows in columns.items():  # two floors may look at the same features
            rows.append(features(record))
    matrices = {features: np.stack(rows) for features, rows in columns.items()}
    sides, targets = data.split, data.task.targets
    return [
        fit_floor(
            floor.name,
            floor.estimator,
            targets,
            matrices[floor.features],
            data.labels,
            sides.train,
            sides.test,
            seed,
        )
        for floor in floors
    ]


def _pixel_floors(
    floors: Sequence[Floor],
    predictor: Predictor,
    source: Source,
    data: LabelledData,
    seed: int,
    epochs: int,
) -> list[FloorResult]:
    def labelled(side: np.ndarray) -> Iterator[Labelled]:
        records = read_again(predictor.domain, source, predictor.spec, data.store.rows[side])
        return zip(records, data.pixel_labels(side), strict=True)

    sides, [target] = data.split, data.task.targets
    return fit_pixel_floors(
        floors,
        target,
        (len(sides.train), len(sides.val)),
        labelled(sides.train),
        labelled(sides.val),
        labelled(sides.test),
        epochs=epochs,
        seed=seed,
    )


def _deciding_metric(targets: Sequence[Target], metrics: Mapping[str, float]) -> str:
    """The primary metric, or accuracy where the test rows lack a class and it has no value."""
    metric = primary_metric(targets)
    return metric if metric in metrics else "accuracy"


def prediction_table(data: LabelledData, evaluation: Evaluation, predictor: Predictor) -> pd.DataFrame:
    """Test rows with truth, the model's answers and each floor's, for anyone to check."""
    test = data.split.test
    table: dict[str, object] = {
        "row": data.store.rows[test],
        predictor.domain.input_column: [data.identities[index] for index in test],
    }
    for column, target in enumerate(data.task.targets):
        if target.level == "sample":
            table[target.name] = data.labels[test, column]
    table.update(_answers(evaluation.results, predictor))
    for floor in evaluation.floors:
        for name, values in _answers(floor.results, predictor).items():
            table[f"{floor.name}: {name}"] = values
    return pd.DataFrame(table)


def _answers(results: Results, predictor: Predictor) -> dict[str, np.ndarray]:
    """Answers by row; where pixels are answered, each row's own figures."""
    if isinstance(results, SampleResults):
        return predictor.columns(results.predicted)
    figures = [results.metrics(np.array([place])) for place in range(len(results))]
    names = list(dict.fromkeys(name for row in figures for name in row))
    return {name: np.array([row.get(name, np.nan) for row in figures]) for name in names}
