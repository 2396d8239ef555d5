"""Domain-adaptive pretraining: an encoder first learns what a task's own records are like.

Gururangan et al., Don't Stop Pretraining: Adapt Language Models to Domains and Tasks, ACL 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from domains.contract import Sample
from flows.jobs import TrainingRun
from flows.labelled import LabelledData
from flows.settings import settings_class
from models.encoder import Batch, Encoder
from models.pretraining import PretrainingModel
from models.settings import PretrainingSettings, TrainingSettings, TuningSettings
from models.training import train

LEARNING_RATE = 3e-4
"""Below that of pretraining: what the encoder knows is to be kept."""
BATCH = 32


def adapt(run: TrainingRun, encoder: Encoder, data: LabelledData, member: int) -> None:
    """Pretrain ``encoder`` in place on the records that a tuning may see, without their labels."""
    job = run.job
    settings = job.settings.part(TrainingSettings)
    epochs = job.settings.part(TuningSettings).adapt_epochs
    training, validation = data.store.subset(data.split.train), data.store.subset(data.split.val)
    torch.manual_seed(settings.seed + member)
    encoder.restore_decoder()
    targets = job.domain.pretraining_targets(job.spec)
    hiding = settings_class("pretrain", job.domain.name)().part(PretrainingSettings)
    model = PretrainingModel(encoder, targets, hiding.mask_ratio, hiding.contrast)
    model.fit_scaling(data.store.subset(data.split.train[:20_000]))
    job.journal.say(f"adapting to {len(training):,} {job.domain.noun}s, {epochs} epochs")

    def collate(samples: Sequence[Sample]) -> dict[str, Batch]:
        return {"batch": encoder.collate(samples)}

    result = train(
        model,
        training,
        validation,
        collate=collate,
        lengths=data.store.tokens[data.split.train],
        settings=settings.model_copy(
            update={
                "epochs": epochs,
                "batch_size": settings.batch_size or BATCH,
                "learning_rate": LEARNING_RATE,
                "seed": settings.seed + member,
            }
        ),
        folder=run.folder.checkpoints / f"adapting-{member + 1}",
        resume=run.resume,
        # Its losses are of another kind than those of tuning, which the run is about.
        report=lambda progress: job.journal.progress(
            f"adapting, step {progress.step:,} of {progress.total_steps:,}",
            progress.step / progress.total_steps,
        ),
    )
    job.journal.say(f"adapted in {result.seconds:.0f} s, validation loss {result.best_loss:.4g}")
