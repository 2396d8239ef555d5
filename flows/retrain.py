"""Train the models of a domain again where something has changed, and promote what is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from filelock import FileLock, Timeout

from domains.contract import Domain, GroundworkError
from flows.home import Home
from flows.jobs import Job
from flows.journal import Journal
from flows.recipes import Fingerprint, recipe_of
from flows.settings import FlowSettings, PromotionSettings, RetrainSettings
from flows.tracking import connect
from models.registry import CHAMPION, Version, champion, history, names, note_unchanged, versions

SHOWN_OF_HISTORY = 10


@dataclass(frozen=True)
class Outcome:
    """What became of one model."""

    model: str
    outcome: Literal["promoted", "refused", "unchanged", "skipped", "failed"]
    version: str
    """Reference of the version that was made; of the champion where none was."""
    reason: str


def retrain(domain: Domain, settings: FlowSettings, home: Home, journal: Journal) -> list[Outcome]:
    """Retrain the models that ``settings`` name, or all of the domain that have a champion.

    A model of which neither data, nor configuration, nor code has changed is left alone. Models that cannot
    be retrained do not keep the others from it. Raises GroundworkError when a training failed, or a model
    that was asked for by name could not be retrained.
    """
    connect(home)
    asked = settings.part(RetrainSettings).model
    confidence = settings.part(PromotionSettings).confidence
    chosen = list(dict.fromkeys(asked)) or _task_models(domain)
    if not chosen:
        journal.say(f"no model of {domain.name} has a champion yet: there is nothing to retrain")
        return []
    # A schedule may come due while the run before is still at work; whoever is killed lets go of it.
    lock = FileLock(home.runs / f"retrain-{domain.name}.lock", timeout=0)
    try:
        with lock:
            outcomes = [_retrain(name, domain, confidence, home, journal) for name in chosen]
    except Timeout:
        journal.say(f"a retraining of {domain.name} is under way: this one leaves the work to it")
        return []
    journal.table(f"retraining-{domain.name}", f"Retraining of {domain.name}", [vars(it) for it in outcomes])
    for it in outcomes:
        if it.outcome != "skipped":
            _show_history(it.model, journal)
    _raise_failures(outcomes, required=asked)
    return outcomes


def _task_models(domain: Domain) -> list[str]:
    holders = [holder for name in names() if (holder := champion(name)) is not None]
    return [
        holder.name
        for holder in holders
        if holder.tags.get("kind") == "task" and holder.tags.get("domain") == domain.name
    ]


def _retrain(name: str, domain: Domain, confidence: float, home: Home, journal: Journal) -> Outcome:
    try:
        holder = _champion(name, domain)
        made_again = recipe_of(holder).resolve(domain.name, name, confidence)
        job = Job.prepare("finetune", domain, made_again, home, journal)
    except GroundworkError as error:
        journal.say(f"{name} is not retrained: {error}")
        return Outcome(name, "skipped", f"{name}@{CHAMPION}", str(error))
    unchanged, why = _compare(Fingerprint.of(job), holder)
    journal.say(f"{name}: {why}")
    if unchanged:
        note_unchanged(holder, why, journal.flow_run_id)
        return Outcome(name, "unchanged", holder.reference, why)
    # Here: most nights nothing has changed, and torch need not be imported to find that.
    from flows.finetune import finetune
    from flows.warm_start import WarmStart

    try:
        version = finetune(job, after=WarmStart.load(holder))
    except GroundworkError as error:
        journal.say(f"retraining {name} failed: {error}")
        return Outcome(name, "failed", holder.reference, str(error))
    promoted = CHAMPION in version.aliases
    reason = version.tags.get("promotion", "")
    return Outcome(name, "promoted" if promoted else "refused", version.reference, f"{why}; {reason}")


def _champion(name: str, domain: Domain) -> Version:
    holder = champion(name)
    if holder is None:
        raise GroundworkError(f"{name} has no champion: fine-tune it first")
    if holder.tags.get("kind") != "task" or holder.tags.get("domain") != domain.name:
        raise GroundworkError(f"{holder.reference} is no task of {domain.name}")
    return holder


def _compare(now: Fingerprint, holder: Version) -> tuple[bool, str]:
    """Whether nothing has changed since the champion, or the last version that was tried; and in words.

    Since the champion: after a rollback, training would only make again what was rolled back from.
    """
    latest = versions(holder.name)[0]
    for version in (latest, holder):
        if now == Fingerprint.kept_by(version):
            return True, f"neither data, configuration nor code has changed since {version.reference}"
    kept = Fingerprint.kept_by(latest)
    if kept is None:
        return False, f"what {latest.reference} was made from is not recorded"
    return False, f"{' and '.join(now.changes_since(kept))} changed since {latest.reference}"


def _show_history(name: str, journal: Journal) -> None:
    entries = history(name)[:SHOWN_OF_HISTORY]
    title = f"{name}: the latest {len(entries)} of its history"
    journal.table(f"history-{name}", title, [entry.row(name) for entry in entries])


def _raise_failures(outcomes: list[Outcome], required: list[str]) -> None:
    failed = [it for it in outcomes if it.outcome == "failed" or (it.outcome == "skipped" and required)]
    if failed:
        told = "; ".join(f"{it.model}: {it.reason}" for it in failed)
        raise GroundworkError(f"{len(failed)} of {len(outcomes)} models could not be retrained: {told}")
