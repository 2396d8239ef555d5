"""Pictures of a result: parity plots, ROC curves, the worst errors drawn."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, roc_curve

from domains.contract import Domain, Target
from flows.evaluation import Evaluation
from flows.labelled import LabelledData

Shown = Sequence[tuple[str, np.ndarray, str]]
"""(legend, predictions [n, outputs], colour) of each model that is drawn."""

MOST_PANELS = 12
WORST = 24


def result_figure(data: LabelledData, evaluation: Evaluation, title: str) -> Figure:
    """One panel for each target (the first twelve): truth against the model and its best floor."""
    targets = data.task.targets[:MOST_PANELS]
    columns = min(4, len(targets))
    lines = -(-len(targets) // columns)
    figure = Figure(figsize=(4.2 * columns, 4.0 * lines + 0.5), layout="constrained")
    figure.suptitle(title)
    truth = data.labels[data.split.test]
    floor = evaluation.best_floor
    start = 0
    for index, target in enumerate(targets):
        outputs = slice(start, start + target.outputs)
        start += target.outputs
        axes = figure.add_subplot(lines, columns, index + 1)
        measured = np.isfinite(truth[:, index])
        shown = [("model", evaluation.predicted[measured, outputs], "C0")]
        if floor is not None:
            shown.insert(0, (floor.name, floor.predicted[measured, outputs], "0.7"))
        _PANELS[target.kind](axes, target, truth[measured, index], shown)
        axes.set_title(target.name, fontsize=10)
    return figure


def _parity(axes: Axes, target: Target, truth: np.ndarray, shown: Shown) -> None:
    for name, predicted, colour in shown:
        axes.scatter(
            truth,
            predicted[:, 0],
            s=24 if len(truth) < 300 else 6,
            alpha=0.5,
            color=colour,
            label=name,
            linewidths=0,
        )
    unit = f" ({target.unit})" if target.unit else ""
    axes.axline((truth.mean(), truth.mean()), slope=1, color="0.3", linewidth=0.8)
    axes.set(xlabel=f"measured{unit}", ylabel=f"predicted{unit}")
    axes.legend(fontsize=8)


def _roc(axes: Axes, target: Target, truth: np.ndarray, shown: Shown) -> None:
    if 0 < truth.mean() < 1:
        for name, predicted, colour in shown:
            false_positives, true_positives, _ = roc_curve(truth, predicted[:, 0])
            axes.plot(false_positives, true_positives, color=colour, label=name)
        axes.legend(fontsize=8)
    axes.plot([0, 1], [0, 1], color="0.3", linewidth=0.8, linestyle="--")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")


def _confusion(axes: Axes, target: Target, truth: np.ndarray, shown: Shown) -> None:
    predicted = shown[-1][1].argmax(1)
    ConfusionMatrixDisplay.from_predictions(
        truth.astype(int),
        predicted,
        labels=np.arange(len(target.classes)),
        display_labels=target.classes,
        ax=axes,
        colorbar=False,
        include_values=len(target.classes) <= 10,
        xticks_rotation="vertical",
    )


_PANELS = {"regression": _parity, "binary": _roc, "multiclass": _confusion}


def worst_errors_page(domain: Domain, data: LabelledData, evaluation: Evaluation, title: str) -> str:
    """The test rows with the largest errors on the first target, drawn, as an HTML page."""
    target = data.task.targets[0]
    truth = data.labels[data.split.test, 0]
    predicted = evaluation.predicted[:, : target.outputs]
    measured = np.flatnonzero(np.isfinite(truth))
    if target.kind == "multiclass":
        error = 1 - predicted[measured, truth[measured].astype(int)]
    else:
        error = np.abs(predicted[measured, 0] - truth[measured])
    cards = []
    for place in measured[np.argsort(-error)[:WORST]]:
        record = data.records[data.split.test[place]]
        measured_as = (
            f"{truth[place]:.4g} {target.unit}".strip()
            if target.kind == "regression"
            else target.classes[int(truth[place])]
        )
        answered = target.classes[int(predicted[place].argmax())] if target.kind == "multiclass" else ""
        caption = f"measured {measured_as}, predicted {answered or f'{predicted[place, 0]:.4g}'}"
        drawing = domain.draw(record, caption).decode()
        cards.append(f"<figure>{drawing[drawing.index('<svg') :]}</figure>")
    return (
        f"<!doctype html><meta charset='utf-8'><title>{escape(title)}</title>"
        "<style>body{font-family:sans-serif}"
        "figure{display:inline-block;margin:4px;border:1px solid #ddd}</style>"
        f"<h1>{escape(title)}: largest errors on {escape(target.name)}</h1>{''.join(cards)}"
    )
