"""The encoder that a fine-tuning begins with: a version's, a foundation's, or a fresh one."""

from __future__ import annotations

import copy

import torch

from domains.contract import GroundworkError
from flows.adapting import adapt
from flows.jobs import Job, TrainingRun
from flows.labelled import LabelledData
from flows.settings import TaskSettings, foundation_name
from flows.warm_start import WarmStart
from models.encoder import Encoder, create_encoder
from models.predictor import encoder_of
from models.registry import champion, load
from models.settings import SizeSettings, TrainingSettings, TuningSettings
from models.shipped import is_shipped, load_shipped, shipped_for


def starting_point(
    run: TrainingRun,
    data: LabelledData,
    after: WarmStart | None,
    weights: WarmStart | None,
    member: int,
    known: str,
) -> tuple[Encoder, str]:
    """The encoder to start from, ready for these samples, and the reference of its foundation.

    Members of an ensemble differ where they begin with nothing, or with another ensemble; ``known`` is the
    foundation that the first of them has found, empty for that one. Raises GroundworkError for an encoder
    that does not fit.
    """
    job = run.job
    if weights is not None:
        encoder = copy.deepcopy(encoder_of(weights.model(member)))
        origin, foundation = weights.version.reference, weights.foundation
    else:
        asked = job.settings.part(TaskSettings).foundation if after is None else after.foundation
        wanted = known or asked
        encoder, foundation = _foundation(job, wanted, member)
        origin = foundation
        if wanted == "auto" and foundation != "none" and (misfit := _misfit(encoder, job, data)):
            job.journal.say(f"{foundation} cannot be used here ({misfit}): the encoder starts from nothing")
            encoder, foundation = _foundation(job, "none", member)
    if misfit := _misfit(encoder, job, data):
        raise GroundworkError(f"{origin} cannot be used here: {misfit}")
    if job.settings.part(TuningSettings).adapt_epochs and weights is None:
        adapt(run, encoder, data, member)
    encoder.discard_decoder()
    return encoder, foundation


def foundation_encoder(job: Job, data: LabelledData, reference: str) -> Encoder | None:
    """A foundation's encoder as it was registered; None for ``none``, and where there is no such any more."""
    if reference == "none":
        return None
    try:
        encoder, _ = _foundation(job, reference, 0)
    except GroundworkError as error:
        job.journal.say(f"{reference} cannot be had any more: {error}")
        return None
    if _misfit(encoder, job, data):
        return None
    encoder.discard_decoder()
    return encoder


def _misfit(encoder: Encoder, job: Job, data: LabelledData) -> str:
    """Make an encoder ready for the samples; why that cannot be done, or nothing."""
    try:
        encoder.fit_input(job.spec, data.store.subset(data.split.train))
    except GroundworkError as error:
        return str(error)
    return ""


def _foundation(job: Job, wanted: str, member: int) -> tuple[Encoder, str]:
    """The encoder that is wanted, and its name: of a version, of one that is shipped, or ``none``."""
    domain, settings = job.domain, job.settings
    if wanted == "auto":
        holder = champion(foundation_name(domain.name))
        wanted = holder.reference if holder is not None else shipped_for(domain.name) or "none"
    if wanted == "none":
        torch.manual_seed(settings.part(TrainingSettings).seed + member)
        return create_encoder(domain.name, settings.part(SizeSettings).size, job.spec), "none"
    if is_shipped(wanted) and champion(wanted) is None:
        predictor, reference = load_shipped(wanted), wanted
    else:
        version, predictor = load(wanted)
        reference = version.reference
    if predictor.contract.domain != domain.name:
        raise GroundworkError(
            f"{reference} knows {predictor.contract.domain}, not {domain.name}: choose another foundation"
        )
    return predictor.encoder, reference
