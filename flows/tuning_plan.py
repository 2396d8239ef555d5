"""What suits a tuning where its settings leave it open: passes, batches and rates."""

from __future__ import annotations

from dataclasses import dataclass

from domains.contract import TargetLevel
from models.settings import Kept, Mode, TrainingSettings, TuningSettings

BATCH = 32
"""Records of a step."""
FEWEST_AT_ONCE, MANY_STEPS = 8, 128
"""Where pixels carry the labels, fewer records say as much, as long as an epoch has no more steps."""

FEWEST_EPOCHS = {"foundation": 10, "varied": 30, "nothing": 30}
FEWEST_STEPS = {"foundation": 300, "varied": 750, "nothing": 600}
"""By what a model begins with; ``varied`` is a foundation whose encoder shows samples anew at every pass."""
MOST_EPOCHS = 60
"""Where the rows are so few that an epoch is hardly a step, more would only learn them by heart."""

PATIENCE = 15

LEARNING_RATES: dict[Mode, float] = {"probe": 1e-2, "lora": 2e-3, "full": 5e-4, "ensemble": 5e-4}
"""Peak rates by mode: the fewer weights learn, the larger their steps may be."""
RATE_OF_PIXELS, DECAY_OF_PIXELS = 2e-3, 0.5
"""Where every weight learns: convolutions that begin with nothing on top of a foundation that knows much need
larger steps than it, and the lower a layer of it lies, the less is it to change."""


@dataclass(frozen=True)
class TuningPlan:
    """How a model is tuned: nothing is open any more."""

    training: TrainingSettings
    layer_decay: float
    """Learning rate of a layer of the encoder, as a share of that of the layer above it."""
    patience: int | None
    """Epochs without a better validation loss before stopping, if it stops early."""
    keeps: Kept
    """Of which epoch the weights are kept: of the best validation loss, or the last."""

    @property
    def parameters(self) -> dict[str, float | str]:
        """What a run records."""
        training = self.training
        return {
            "chosen_epochs": training.epochs,
            "chosen_batch_size": training.batch_size,
            "chosen_learning_rate": training.learning_rate,
            "chosen_layer_decay": self.layer_decay,
            "chosen_weights": self.keeps,
        }


def plan_tuning(
    training: TrainingSettings,
    tuning: TuningSettings,
    *,
    records: int,
    level: TargetLevel,
    has_foundation: bool,
    varies: bool,
    member: int = 0,
) -> TuningPlan:
    """What was asked for, with what was left open for so many training records; members differ in seed.

    ``varies`` says whether the encoder augments its samples, see ``Encoder.varies``.
    The rate falls to nothing by the last epoch, and the weights that are kept come from there more often than
    not: too many epochs cost more than they bring. Where the loss on validation rows is a poor judge the last
    are kept, unless epochs or patience were asked for. Where pixels are labelled, on a foundation, the few
    scenes to choose by differ more from what comes than one epoch from the next; and where samples are shown
    anew at every pass, a model that is ever surer of itself loses more by its errors than it gains by making
    fewer, and would be taken from the middle of the schedule.
    """
    batch = training.batch_size or suiting_batch(records, level)
    every_weight = tuning.mode in ("full", "ensemble")
    by_layer = every_weight and has_foundation and level == "pixel"
    # A chip whose pixels are labelled says thousands of things at each pass.
    is_shown_anew = every_weight and level == "sample" and varies
    begun = ("varied" if is_shown_anew else "foundation") if has_foundation else "nothing"
    steps = -(-records // batch)
    suiting = min(MOST_EPOCHS, max(FEWEST_EPOCHS[begun], -(-FEWEST_STEPS[begun] // steps)))
    rate = RATE_OF_PIXELS if by_layer else LEARNING_RATES[tuning.mode]
    decay = tuning.layer_decay or (DECAY_OF_PIXELS if by_layer else 1.0)
    is_left_open = not (training.epochs or tuning.patience)
    keeps: Kept = "last" if (by_layer or is_shown_anew) and is_left_open else "best"
    chosen = {
        "epochs": training.epochs or suiting,
        "batch_size": batch,
        "learning_rate": training.learning_rate or rate,
        "seed": training.seed + member,
    }
    return TuningPlan(
        training.model_copy(update=chosen),
        decay if every_weight else 1.0,
        patience=None if keeps == "last" else tuning.patience or PATIENCE,
        keeps=keeps,
    )


def suiting_batch(records: int, level: TargetLevel) -> int:
    """How many of so many training records make a step: a power of two."""
    batch = BATCH if level == "sample" else FEWEST_AT_ONCE
    while batch < BATCH and records > batch * MANY_STEPS:
        batch *= 2
    return batch
