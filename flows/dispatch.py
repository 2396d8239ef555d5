"""From the name of a flow to its work, for a deployment and a command line alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domains.contract import Domain
from flows.home import Home
from flows.jobs import Job
from flows.journal import Journal
from flows.settings import FlowSettings, Kind

if TYPE_CHECKING:
    from flows.predict import PredictedFile
    from flows.retrain import Outcome
    from models.registry import Version


def run(
    kind: Kind, domain: Domain, settings: FlowSettings, home: Home, journal: Journal
) -> Version | PredictedFile | list[Outcome]:
    """Do the work of one flow. Raises GroundworkError for input that cannot be used.

    The data are opened first and torch is imported then, which takes seconds: nobody waits for it to be told
    of a typo.
    """
    if kind == "pretrain" or kind == "finetune":
        job = Job.prepare(kind, domain, settings, home, journal)
        if kind == "pretrain":
            from flows.pretrain import pretrain

            return pretrain(job)
        from flows.finetune import finetune

        return finetune(job)
    if kind == "retrain":
        from flows.retrain import retrain

        return retrain(domain, settings, home, journal)
    from flows.predict import predict

    return predict(settings, home, journal)
