"""Fine-tunings as a user runs them, and what they answered on the test rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from rich.console import Console

from domains.contract import GroundworkError, Target, digest_of, load_domain
from flows import dispatch
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.settings import FlowSettings, settings_class
from models.comparison import resampled
from models.registry import Version
from models.results import SampleResults

DOMAIN = load_domain("molecules")
METRICS = {"regression": "rmse", "binary": "auroc"}
"""What a set is judged by, by the kind of its targets; over several targets their mean."""
DRAWS = 1000
LABEL = "label: "
"""What the table of a run's rows calls its columns of labels by, before the target's name."""


@dataclass(frozen=True)
class DataSet:
    """A file of molecules with measured targets."""

    name: str
    path: Path
    targets: tuple[str, ...]
    digest: str


def open_set(name: str, folder: Path, targets: tuple[str, ...] = ()) -> DataSet:
    """The set ``name`` of a folder; every column but the molecules' is a target unless they are named.

    Raises GroundworkError where there is no such file.
    """
    paths = [folder / f"{name}{suffix}" for suffix in (".csv", ".csv.gz")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise GroundworkError(
            f"there is no {paths[0].name} in {folder}: name the folder of the sets with --data"
        )
    source = DOMAIN.open(path, DOMAIN.encoding())
    others = tuple(column for column in source.columns if column != source.input_column)
    return DataSet(name, path, targets or others, source.digest)


@dataclass(frozen=True)
class FineTuned:
    """One fine-tuning: its version, and tables that its MLflow run keeps."""

    version: Version
    seconds: float

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        described = json.loads(self.version.tags["targets"])
        return tuple(Target.model_validate(target) for target in described)

    @property
    def kind(self) -> str:
        """Raises GroundworkError for classes of more than two, which no set of this benchmark has."""
        kinds = {target.kind for target in self.targets}
        if len(kinds) > 1 or not kinds <= set(METRICS):
            raise GroundworkError(
                f"{self.version.tags['dataset']} asks for {', '.join(sorted(kinds))}: "
                f"its targets must all be {' or all '.join(METRICS)}"
            )
        return kinds.pop()

    @property
    def split_id(self) -> str:
        return self.version.tags["split_id"]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Every labelled row: ``smiles``, ``side`` and the targets, NaN where not measured."""
        table = self._table("split.parquet")
        labels = {f"{LABEL}{target.name}": target.name for target in self.targets}
        return table.rename(columns={"identity": "smiles", **labels})[["smiles", "side", *labels.values()]]

    def results(self, floor: str = "") -> SampleResults:
        """What the model answered on the test rows, or the floor of that name."""
        before = f"{floor}: " if floor else ""
        names = [target.name for target in self.targets]
        truth = self._answers[names].to_numpy(float)
        predicted = self._answers[[f"{before}{name}_prediction" for name in names]].to_numpy(float)
        return SampleResults(self.targets, truth, predicted)

    @cached_property
    def _answers(self) -> pd.DataFrame:
        return self._table("test_predictions.parquet")

    def _table(self, name: str) -> pd.DataFrame:
        path = mlflow.artifacts.download_artifacts(run_id=self.version.run_id, artifact_path=name)
        return pd.read_parquet(path)


class FineTunings:
    """Runs fine-tunings on a state folder; one that was run already in this process is not run again."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._done: dict[str, FineTuned] = {}
        self._of_rows: dict[tuple[Path, int], FineTuned] = {}

    @staticmethod
    def settings(data: DataSet, seed: int, **options: Any) -> FlowSettings:
        """Settings of ``groundwork finetune molecules FILE --target … --seed …`` with these options."""
        told = {"dataset": str(data.path), "target": list(data.targets), "seed": seed, **options}
        # A name for each cell: it then has no champion that it must be compared with.
        told["name"] = f"{data.name}-{digest_of(told)}".lower()
        return settings_class("finetune", "molecules")(**told)

    @staticmethod
    def digest(settings: FlowSettings) -> str:
        """Equal for the same choices about other rows, under another name or with another seed."""
        left_out = {"dataset", "pasted", "target", "name", "seed", "resume"}
        return digest_of(settings.model_dump(mode="json", exclude=left_out))

    @staticmethod
    def rows_digest(settings: FlowSettings) -> str:
        """Equal for the same choices about which rows there are and which of them are held out."""
        decides = {"task", "transform", "replicates", "split", *DOMAIN.encoding.model_fields}
        return digest_of(settings.model_dump(mode="json", include=decides))

    def run(self, data: DataSet, seed: int, **options: Any) -> FineTuned:
        """Fine-tune on a set with a seed and these options, and nothing else said."""
        settings = self.settings(data, seed, **options)
        if settings.digest not in self._done:
            started = perf_counter()
            journal = ConsoleJournal(Console(stderr=True, quiet=True))
            version = dispatch.run("finetune", DOMAIN, settings, self.home, journal)
            assert isinstance(version, Version)  # noqa: S101 - narrows the type: so does every fine-tuning
            made = FineTuned(version, perf_counter() - started)
            self._done[settings.digest] = self._of_rows[data.path, seed] = made
        return self._done[settings.digest]

    def rows_of(self, data: DataSet, seed: int) -> FineTuned:
        """Any fine-tuning on a set: split and floors are the same, whatever was trained."""
        known = self._of_rows.get((data.path, seed))
        return known or self.run(data, seed, foundation="none", epochs=1)


def figures(results: SampleResults, kind: str) -> dict[str, Any]:
    """The figure of a cell, and its standard error from the test rows (bootstrap over single rows)."""
    metric = METRICS[kind]
    value = results.metrics().get(metric, float("nan"))
    random = np.random.default_rng(0)  # the same draws for every model
    rows = len(results)
    drawn = random.integers(0, rows, (DRAWS, rows))
    counts = np.zeros((DRAWS, rows))
    np.add.at(counts, (np.arange(DRAWS)[:, None], drawn), 1)
    draws = rmse_draws(results, counts) if metric == "rmse" else resampled(metric, results, counts)
    error = float(np.nanstd(draws))
    return {"metric": metric, "value": round(value, 5), "row_error": round(error, 5), "test_rows": rows}


def rmse_draws(results: SampleResults, counts: np.ndarray) -> np.ndarray:
    """Mean over the targets of the RMSE on each draw; counts [draws, n] -> float64 [draws]."""
    by_target = []
    for column in range(len(results.targets)):
        measured = np.isfinite(results.truth[:, column])
        squared = (results.predicted[measured, column] - results.truth[measured, column]) ** 2
        drawn = counts[:, measured]
        by_target.append(np.sqrt(drawn @ squared / np.maximum(drawn.sum(1), 1)))
    return np.mean(by_target, axis=0)


def training_labels(rows: pd.DataFrame) -> int:
    """Rows that a model may learn from or choose by."""
    return int((rows["side"] != "test").sum())
