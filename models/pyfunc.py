"""The version as an MLflow model: MLflow runs this file to load it, so nothing is pickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from models.predictor import Predictor
from models.registry import FOLDER


class VersionModel(PythonModel):
    """A table with the domain's input column in, predictions with status and reason out."""

    def load_context(self, context: PythonModelContext) -> None:
        self.predictor = Predictor.load(Path(context.artifacts[FOLDER]))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        values = model_input[self.predictor.domain.input_column].tolist()
        answers = self.predictor.answer_values(values)
        return pd.DataFrame(
            {
                **self.predictor.columns(answers.outputs),
                "status": ["ok" if reason is None else "rejected" for reason in answers.reasons],
                "reason": [reason or "" for reason in answers.reasons],
            }
        )


mlflow.models.set_model(VersionModel())
