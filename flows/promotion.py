"""Which version of a name answers by default: the gate between challenger and champion.

One gate for every version of a task, fine-tuned by hand or retrained on a schedule: challenger, champion and
floor answer the same held-out rows, and a bootstrap says how sure the difference is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domains.contract import GroundworkError, Source, Target
from flows.evaluation import Evaluation, answer_test_rows
from flows.heldout import held_out_for
from flows.labelled import LabelledData
from models.comparison import Comparison, compare
from models.metrics import better
from models.predictor import Predictor
from models.registry import Promotion, Version, champion, fetch
from models.results import PixelResults, Results, SampleResults


@dataclass(frozen=True)
class Decision:
    """What became of a challenger, and by which comparison."""

    promotion: Promotion
    comparison: Comparison | None = None
    floor: float | None = None
    """The best floor's figure on the compared rows."""

    @classmethod
    def refuse(cls, reason: str) -> Decision:
        """Without a comparison."""
        return cls(Promotion(False, reason))


def decide_task(
    name: str, source: Source, data: LabelledData, evaluation: Evaluation, *, confidence: float, seed: int
) -> Decision:
    """Promote the first version of a name; later ones must be better than the champion, and surely so.

    The champion answers the challenger's test rows afresh. Where the challenger's split does not go on
    from the champion's, it may have been trained on some of them, which can only make the gate harder to
    pass. Rows that it knew keep the labels that it knew: new labels must not be able to replace what they
    are judged by. A name whose champion was registered above its floor never gets one that is below.
    """
    task, holder = data.task, champion(name)
    if holder is None:
        floor = "beats" if evaluation.beats_floor else "does not beat"
        return Decision(Promotion(True, f"first version of {name}; it {floor} its floor"))
    if holder.tags.get("kind") != "task" or holder.tags.get("domain") != task.domain:
        return Decision.refuse(f"the champion {holder.reference} is of another kind")
    try:
        predictor = Predictor.load(fetch(holder))
    except GroundworkError as error:
        return Decision.refuse(f"the champion {holder.reference} cannot be compared: {error}")
    known = predictor.contract.task
    if known is None or [t.name for t in known.targets] != [t.name for t in task.targets]:
        return Decision.refuse(f"the champion {holder.reference} predicts other targets")
    for one, other in zip(known.targets, task.targets, strict=True):
        if (one.kind == "regression") != (other.kind == "regression"):
            was, now = ("numbers" if it.kind == "regression" else "classes" for it in (one, other))
            return Decision.refuse(
                f"the champion {holder.reference} answers {one.name!r} with {was}, this one with {now}: "
                "look at what the column holds now"
            )
    if [t.classes for t in known.targets] != [t.classes for t in task.targets]:
        return Decision.refuse(f"the champion {holder.reference} tells other classes apart")
    if any(_differ_in_unit(one, other) for one, other in zip(known.targets, task.targets, strict=True)):
        units = [", ".join(t.unit or "no unit" for t in side.targets) for side in (known, task)]
        return Decision.refuse(
            f"the champion {holder.reference} answers in {units[0]}, this one in {units[1]}"
        )
    try:
        answered = answer_test_rows(source, data, predictor)
    except GroundworkError as error:
        return Decision.refuse(f"the champion {holder.reference} cannot answer the same rows: {error}")
    judge = _Judge.of(holder, data)
    if not judge.rows.any():
        return Decision.refuse(
            f"the labels of all {len(judge.rows):,} test rows have changed since {holder.reference}: nothing "
            f"tells which are right; if the new ones are, `groundwork rollback {name} --to` the new version"
        )
    comparison = compare(
        evaluation.metric,
        judge.judged(evaluation.results),
        judge.judged(answered),
        data.split.groups[data.split.test][judge.rows],
        seed=seed,
    )
    best = evaluation.best_floor
    floor_value = judge.judged(best.results).metrics().get(evaluation.metric) if best else None
    promoted, reason = _verdict(comparison, holder, evaluation, _unit(data, evaluation), confidence)
    figures = {"challenger": comparison.challenger, "champion": comparison.champion, "floor": floor_value}
    values = {of: value for of, value in figures.items() if value is not None and np.isfinite(value)}
    return Decision(Promotion(promoted, reason + judge.remark(holder), values), comparison, floor_value)


def _differ_in_unit(one: Target, other: Target) -> bool:
    """Whether two targets are different quantities; a unit that nobody gave is no other unit."""
    return one.transform != other.transform or (
        bool(one.unit) and bool(other.unit) and one.unit != other.unit
    )


@dataclass(frozen=True)
class _Judge:
    """By which rows and labels a champion and its challenger are compared."""

    rows: np.ndarray
    """Which test rows count, bool [n]: without pixels, all; else those whose pixels are still labelled so."""
    labels: np.ndarray
    """float64 [n, targets], of each row as the champion knew it; [n, 0] where pixels carry the labels."""
    changed: int
    """Rows whose label is another one now."""

    @classmethod
    def of(cls, holder: Version, data: LabelledData) -> _Judge:
        test = data.split.test
        labels, every = data.labels[test], np.ones(len(test), bool)
        known = held_out_for(holder)
        if known is None:
            return cls(every, labels, 0)
        if data.task.targets[0].level == "pixel":
            changed = known.has_changed(data)
            return cls(~changed, labels, int(changed.sum()))
        then = known.labels_then([data.identities[place] for place in test], labels)
        return cls(every, then, int((~np.isclose(then, labels, equal_nan=True)).any(axis=1).sum()))

    def judged(self, results: Results) -> Results:
        if isinstance(results, SampleResults):
            return SampleResults(results.targets, self.labels, results.predicted)
        assert isinstance(results, PixelResults)  # noqa: S101 - narrows the type: there are no other results
        return results.at(self.rows)

    def remark(self, holder: Version) -> str:
        if not self.changed:
            return ""
        if self.rows.all():
            return f"; {self.changed:,} of them by the label that {holder.reference} was tested by"
        return f"; without {self.changed:,} whose labels have changed since {holder.reference}"


def _verdict(
    comparison: Comparison, holder: Version, evaluation: Evaluation, unit: str, confidence: float
) -> tuple[bool, str]:
    """Whether the challenger is promoted, and why."""
    metric, gain = comparison.metric, comparison.gain
    if not (np.isfinite(gain) and len(comparison.differences)):
        return False, f"{metric} cannot be computed on the test rows that {holder.reference} can be judged by"
    low, high = comparison.interval if gain >= 0 else comparison.interval[::-1]
    sign = 1 if gain >= 0 else -1
    reason = (
        f"{metric} {comparison.challenger:.4g}{unit} against {comparison.champion:.4g}{unit} of "
        f"{holder.reference} on the same {comparison.records:,} rows: "
        f"{'better' if gain >= 0 else 'worse'} by {abs(gain):.3g} [{sign * low:.3g}, {sign * high:.3g}], "
        f"probability of being better {comparison.probability:.2f}"
    )
    if comparison.probability < confidence:
        return False, f"{reason}, less than the {confidence:g} asked for"
    floor = evaluation.best_floor
    if holder.beats_floor and floor is not None and not evaluation.beats_floor:
        below = f"{floor.metrics[metric]:.4g}{unit} of {floor.name}"
        return False, f"{reason}; but not better than its floor, {below}, as {holder.reference} was"
    return True, reason


def _unit(data: LabelledData, evaluation: Evaluation) -> str:
    unit = data.task.targets[0].unit
    return f" {unit}" if unit and evaluation.metric == "mae" else ""


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
    held = float(holder.tags["value"])
    wins = better("heldout_loss", loss, held)
    verdict = "better than" if wins else "not better than"
    reason = f"heldout_loss {loss:.4g}, {verdict} {held:.4g} of {holder.reference} on the same held-out rows"
    return Promotion(wins, reason, {"challenger": loss, "champion": held})
