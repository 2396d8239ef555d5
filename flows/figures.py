"""Pictures of a result: parity plots, ROC curves, confusion matrices, the worst errors drawn."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, roc_curve

from domains.abilities import DrawsWeights
from domains.contract import Record, Target
from flows.evaluation import Evaluation
from flows.jobs import Job
from flows.labelled import LabelledData, read_again
from models.comparison import LEVEL, Comparison
from models.metrics import HIGHER_IS_BETTER
from models.molecules.attribution import attribute_atoms, can_attribute
from models.predictor import Predictor
from models.results import PixelResults, SampleResults, class_ious
from models.tuning import TaskModel

Shown = Sequence[tuple[str, np.ndarray, str]]
"""(legend, predictions [n, outputs], colour) of each model that is drawn."""

MOST_PANELS = 12
WORST = 24


def result_figure(data: LabelledData, evaluation: Evaluation, title: str) -> Figure:
    """Truth against the model and its best floor, one panel for each target (the first twelve)."""
    if isinstance(evaluation.results, PixelResults):
        return _pixel_figure(evaluation, evaluation.results, title)
    targets = data.task.targets[:MOST_PANELS]
    columns = min(4, len(targets))
    lines = -(-len(targets) // columns)
    figure = Figure(figsize=(4.2 * columns, 4.0 * lines + 0.5), layout="constrained")
    figure.suptitle(title)
    truth = data.labels[data.split.test]
    start = 0
    for index, target in enumerate(targets):
        outputs = slice(start, start + target.outputs)
        start += target.outputs
        axes = figure.add_subplot(lines, columns, index + 1)
        measured = np.isfinite(truth[:, index])
        shown = [
            (name, results.predicted[measured, outputs], colour)
            for name, results, colour in evaluation.drawn
            if isinstance(results, SampleResults)
        ]
        _PANELS[target.kind](axes, target, truth[measured, index], shown)
        axes.set_title(target.name, fontsize=10)
    return figure


def _pixel_figure(evaluation: Evaluation, results: PixelResults, title: str) -> Figure:
    """Pixels by class: where they went, and how well each class is found beside the best floor."""
    target = results.target
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    figure.suptitle(title)
    drawn = [entry for entry in evaluation.drawn if isinstance(entry[1], PixelResults)]
    if target.kind == "regression":
        bars = {name: [found.metrics()["mae"], found.metrics()["rmse"]] for name, found, _ in drawn}
        labels = [f"{error} ({target.unit})" if target.unit else error for error in ("MAE", "RMSE")]
    else:
        shares = results.confusion / np.maximum(results.confusion.sum(1, keepdims=True), 1)
        left = figure.add_subplot(1, 2, 1)
        ConfusionMatrixDisplay(shares, display_labels=target.classes).plot(
            ax=left, colorbar=False, values_format=".2f", xticks_rotation="vertical"
        )
        left.set_title("share of each class's pixels", fontsize=10)
        bars = {
            name: np.nan_to_num(class_ious(found.confusion)).tolist()
            for name, found, _ in drawn
            if isinstance(found, PixelResults)
        }
        labels = list(target.classes)
    axes = figure.add_subplot(1, 2, 2)
    places = np.arange(len(labels))
    width = 0.8 / len(drawn)
    for index, (name, _, colour) in enumerate(drawn):
        axes.barh(
            places + (index - (len(drawn) - 1) / 2) * width, bars[name], width, label=name, color=colour
        )
    axes.set_yticks(places, labels)
    axes.set_xlabel("error" if target.kind == "regression" else "intersection over union")
    axes.legend(fontsize=8)
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


def promotion_figure(comparison: Comparison, floor: float | None, title: str) -> Figure:
    """The figures on the same rows, and by how much the challenger is better in each draw of them."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    figure.suptitle(title)
    figures, draws = figure.subplots(1, 2)
    shown = {"challenger": comparison.challenger, "champion": comparison.champion}
    if floor is not None:
        shown["best floor"] = floor
    figures.barh(list(shown), list(shown.values()), color=["C0", "C1", "0.7"][: len(shown)])
    for place, value in enumerate(shown.values()):
        figures.annotate(f" {value:.4g}", (value, place), va="center", fontsize=9)
    figures.invert_yaxis()
    figures.margins(x=0.2)
    wanted = "higher" if HIGHER_IS_BETTER[comparison.metric] else "lower"
    figures.set_xlabel(f"{comparison.metric} ({wanted} is better), {comparison.records:,} rows")
    draws.hist(comparison.differences, bins=50, color="C0", alpha=0.6)
    draws.axvline(0, color="0.2", linewidth=1)
    for edge in comparison.interval:
        draws.axvline(edge, color="C0", linestyle="--", linewidth=1)
    draws.set(
        xlabel=f"by how much the challenger is better ({LEVEL:.0%} between the dashes)",
        ylabel="draws",
        title=f"probability of being better {comparison.probability:.2f}",
    )
    return figure


def worst_errors_page(
    job: Job, data: LabelledData, evaluation: Evaluation, title: str, predictor: Predictor | None = None
) -> str:
    """The test rows with the largest errors on the first target, drawn, as an HTML page.

    With the ``predictor`` that answered, and of a domain that can show it, tokens are coloured by what they
    add to the answer.
    """
    target = data.task.targets[0]
    captions = _worst(data, evaluation)
    wanted = data.store.rows[data.split.test[list(captions)]] if captions else np.zeros(0, np.int64)
    caption_of = dict(zip(wanted.tolist(), captions.values(), strict=True))
    drawings = {
        record.row: _draw(job, record, caption_of[record.row], target, predictor).decode()
        for record in read_again(job.domain, job.source, job.spec, wanted)
    }
    drawn = [drawings[row] for row in wanted.tolist()]
    cards = [f"<figure>{drawing[drawing.index('<svg') :]}</figure>" for drawing in drawn]
    explained = predictor if predictor is not None and _explained(job, predictor) else None
    legend = f"<p>{_legend(target, explained)}</p>" if explained else ""
    return (
        f"<!doctype html><meta charset='utf-8'><title>{escape(title)}</title>"
        "<style>body{font-family:sans-serif}"
        "figure{display:inline-block;margin:4px;border:1px solid #ddd}</style>"
        f"<h1>{escape(title)}: largest errors on {escape(target.name)}</h1>{legend}{''.join(cards)}"
    )


def _explained(job: Job, predictor: Predictor | None) -> list[TaskModel]:
    """The models whose answers can be shared out among atoms, and shown so; none where they cannot."""
    if predictor is None or not isinstance(job.domain, DrawsWeights):
        return []
    return [model for model in predictor.models if can_attribute(model)]


def _draw(job: Job, record: Record, caption: str, target: Target, predictor: Predictor | None) -> bytes:
    models = _explained(job, predictor)
    if predictor is None or not models or not isinstance(job.domain, DrawsWeights):
        return job.domain.draw(record, caption)
    sample = predictor.encode(record)
    # Members may find different classes the most probable: all of them explain what they say together.
    answered = predictor.predict([sample])[0, : target.outputs]
    chosen = int(answered.argmax())
    added = np.mean([attribute_atoms(model, sample, target, chosen).atoms for model in models], axis=0)
    return job.domain.draw_weights(record, caption, added.tolist())


def _legend(target: Target, predictor: Predictor) -> str:
    what = f"P({target.classes[1]})" if target.kind == "binary" else target.name
    if target.kind == "multiclass":
        what = "the logit of the most probable class"
    beside = " The Gaussian process that answers beside the network has no share in it." * bool(
        predictor.process
    )
    return (
        f"Orange atoms raise {escape(what)}, blue ones lower it, against the same graph with every atom "
        f"hidden (integrated gradients).{beside}"
    )


def _worst(data: LabelledData, evaluation: Evaluation) -> dict[int, str]:
    """Places in the test side and captions of the largest errors, the largest first."""
    target, results = data.task.targets[0], evaluation.results
    if isinstance(results, PixelResults):
        figure = "mae" if target.kind == "regression" else "accuracy"
        found = [results.metrics(np.array([place])).get(figure, np.nan) for place in range(len(results))]
        values = np.array(found) * (-1 if figure == "mae" else 1)
        order = [int(place) for place in np.argsort(values) if np.isfinite(values[place])][:WORST]
        return {place: f"{figure} {found[place]:.3g}" for place in order}
    if not isinstance(results, SampleResults):
        raise TypeError("results of another kind")
    truth, predicted = results.truth[:, 0], results.predicted[:, : target.outputs]
    measured = np.flatnonzero(np.isfinite(truth))
    if target.kind == "multiclass":
        error = 1 - predicted[measured, truth[measured].astype(int)]
    else:
        error = np.abs(predicted[measured, 0] - truth[measured])
    captions = {}
    for place in measured[np.argsort(-error)[:WORST]].tolist():
        if target.kind == "regression":
            measured_as = f"{truth[place]:.4g} {target.unit}".strip()
        else:
            measured_as = target.classes[int(truth[place])]
        answered = target.classes[int(predicted[place].argmax())] if target.kind == "multiclass" else ""
        captions[place] = f"measured {measured_as}, predicted {answered or f'{predicted[place, 0]:.4g}'}"
    return captions
