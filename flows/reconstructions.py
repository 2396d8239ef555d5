"""Pictures of held-out records as an encoder fills them in, while it is being pretrained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from domains.abilities import DrawsReconstructions
from domains.contract import Source
from domains.mixture import Mixture
from flows.jobs import TrainingRun
from models.encoder import Reconstructs
from models.pretraining import PretrainingModel
from models.progress import Progress

SHOWN = 6
"""Records in a picture."""
FOLDER = "reconstructions"


@dataclass
class Reconstructions:
    """The same few records, hidden in the same places, each time they are drawn."""

    model: PretrainingModel
    encoder: Reconstructs
    domain: DrawsReconstructions
    sources: Sequence[Source]
    held_out: Mixture
    epochs: int = 0
    """How many have ended."""

    @classmethod
    def of(
        cls, run: TrainingRun, model: PretrainingModel, sources: Sequence[Source], held_out: Mixture
    ) -> Reconstructions | None:
        """None where the domain or the encoder has no pictures of it."""
        domain, encoder = run.job.domain, model.encoder
        if not isinstance(domain, DrawsReconstructions) or not isinstance(encoder, Reconstructs):
            return None
        chosen = np.linspace(0, len(held_out) - 1, min(SHOWN, len(held_out))).round().astype(int)
        return cls(model, encoder, domain, sources, held_out.subset(np.unique(chosen)))

    def report(self, run: TrainingRun, progress: Progress) -> None:
        """Keep a picture after the first epoch, the second, the fourth and so on, and after the last."""
        self.epochs += 1
        is_last = progress.step >= progress.total_steps
        if self.epochs & (self.epochs - 1) and not is_last:
            return
        path = f"{FOLDER}/step-{progress.step:07d}.png"
        run.tracked.log_picture(path, self.draw())
        if is_last:
            title = f"{run.job.name}: held-out {run.job.domain.noun}s as seen, masked and filled in"
            run.job.journal.figure(f"{FOLDER}-{run.job.name}", title, run.tracked.artifact_url(path))

    def draw(self) -> bytes:
        """PNG of every record as seen, masked and filled in; the model is left as it was."""
        was_training = self.model.training
        self.model.eval()
        generator = torch.Generator(self.model.encoder.device).manual_seed(0)
        shown = [
            (
                self.sources[int(sample.get("source", 0))].encoding,
                self.encoder.reconstruct(sample, self.model.mask_ratio, self.model.heads, generator),
            )
            for sample in self.held_out
        ]
        self.model.train(was_training)
        return self.domain.draw_reconstructions(shown)
