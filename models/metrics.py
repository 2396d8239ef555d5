"""Figures of merit by kind of target, on measured labels only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, f1_score, log_loss, roc_auc_score

from domains.contract import Target

PRIMARY = {"regression": "mae", "binary": "auroc", "multiclass": "accuracy"}
"""What decides between two models of a task, by the kind of its first target."""

HIGHER_IS_BETTER = {"heldout_loss": False, "mae": False, "auroc": True, "accuracy": True, "miou": True}
"""Every figure that may decide."""


def target_metrics(target: Target, truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Metrics of one target: truth [n], predicted [n, outputs]; empty where none can be computed.

    AUROC and average precision need both classes among the measured rows, F1 the second one.
    """
    measured = np.isfinite(truth)
    truth, predicted = truth[measured], predicted[measured]
    if not len(truth):
        return {}
    if target.kind == "regression":
        error = predicted[:, 0] - truth
        spread = float(np.sum((truth - truth.mean()) ** 2))
        figures = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(np.mean(error**2)))}
        if spread > 0:
            figures["r2"] = 1 - float(np.sum(error**2)) / spread
        return figures
    if target.kind == "binary":
        answered = predicted[:, 0] >= 0.5
        figures = {"accuracy": float(np.mean(answered == (truth > 0.5)))}
        if truth.any():
            figures["f1"] = float(f1_score(truth > 0.5, answered, zero_division=0))
        if 0 < truth.mean() < 1:
            figures["auroc"] = float(roc_auc_score(truth, predicted[:, 0]))
            figures["auprc"] = float(average_precision_score(truth, predicted[:, 0]))
        return figures
    codes = truth.astype(int)
    return {
        "accuracy": float(np.mean(predicted.argmax(1) == codes)),
        "log_loss": float(log_loss(codes, predicted, labels=np.arange(predicted.shape[1]))),
    }


def task_metrics(targets: Sequence[Target], truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Metrics averaged over the targets on which each can be computed.

    Of several binary targets these are the macro averages of multi-label classification, ``auprc`` its mean
    average precision (mAP).
    truth [n, targets], predicted [n, outputs of all targets side by side].
    """
    collected: dict[str, list[float]] = {}
    start = 0
    for column, target in enumerate(targets):
        figures = target_metrics(target, truth[:, column], predicted[:, start : start + target.outputs])
        start += target.outputs
        for name, value in figures.items():
            collected.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in collected.items()}


def primary_metric(targets: Sequence[Target]) -> str:
    """Name of the metric that decides between models of a task."""
    first = targets[0]
    return "miou" if first.level == "pixel" and first.kind != "regression" else PRIMARY[first.kind]


def better(metric: str, challenger: float, champion: float) -> bool:
    """Whether the challenger's figure is strictly better."""
    return challenger > champion if HIGHER_IS_BETTER[metric] else challenger < champion
