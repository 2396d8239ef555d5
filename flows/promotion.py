"""Which version of a name answers by default: the gate between challenger and champion."""

from __future__ import annotations

from domains.contract import GroundworkError, Source
from flows.evaluation import Evaluation, answer_test_rows
from flows.labelled import LabelledData
from models.metrics import better
from models.predictor import Predictor
from models.registry import Promotion, Version, champion, fetch


def decide_task(name: str, source: Source, data: LabelledData, evaluation: Evaluation) -> Promotion:
    """Promote the first version of a name; later ones must beat the champion on the same rows.

    The champion answers the challenger's test rows afresh. It may have been trained on some of them,
    which can only make the gate harder to pass.
    """
    task, holder = data.task, champion(name)
    floor = "beats" if evaluation.beats_floor else "does not beat"
    if holder is None:
        return Promotion(True, f"first version of {name}; it {floor} its floor")
    if holder.tags.get("kind") != "task" or holder.tags.get("domain") != task.domain:
        return Promotion(False, f"the champion {holder.reference} is of another kind")
    try:
        predictor = Predictor.load(fetch(holder))
    except GroundworkError as error:
        return Promotion(False, f"the champion {holder.reference} cannot be compared: {error}")
    known = predictor.contract.task
    if known is None or [t.name for t in known.targets] != [t.name for t in task.targets]:
        return Promotion(False, f"the champion {holder.reference} predicts other targets")
    if [t.classes for t in known.targets] != [t.classes for t in task.targets]:
        return Promotion(False, f"the champion {holder.reference} tells other classes apart")
    try:
        figures = answer_test_rows(source, data, predictor).metrics()
    except GroundworkError as error:
        return Promotion(False, f"the champion {holder.reference} cannot answer the same rows: {error}")
    rows = len(data.split.test)
    return _compare(evaluation.metric, evaluation.value, figures[evaluation.metric], holder, rows)


def decide_foundation(name: str, domain: str, split_id: str, loss: float) -> Promotion:
    """Promote the first foundation; later ones must have the lower loss on the same held-out rows."""
    holder = champion(name)
    if holder is None:
        return Promotion(True, f"first version of {name}")
    if holder.tags.get("kind") != "foundation" or holder.tags.get("domain") != domain:
        return Promotion(False, f"the champion {holder.reference} is of another kind")
    if holder.tags.get("split_id") != split_id:
        return Promotion(
            False, f"the champion {holder.reference} was held to other rows: their losses do not compare"
        )
    return _compare("heldout_loss", loss, float(holder.tags["value"]), holder, None)


def _compare(metric: str, value: float, held: float, holder: Version, rows: int | None) -> Promotion:
    wins = better(metric, value, held)
    where = f" on the same {rows:,} test rows" if rows else " on the same held-out rows"
    verdict = "better than" if wins else "not better than"
    return Promotion(wins, f"{metric} {value:.4g}, {verdict} {held:.4g} of {holder.reference}{where}")
