"""The checkpoints of a training run as they lie on disk; without torch, for whoever only looks for one."""

from __future__ import annotations

import json
from pathlib import Path

from domains.contract import GroundworkError

TRAINER_STATE = "trainer_state.json"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run: the trainer writes its state file last."""
    complete = [path for path in folder.glob("checkpoint-*") if (path / TRAINER_STATE).is_file()]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def checkpoint_step(checkpoint: Path) -> int:
    """Optimiser steps behind a checkpoint. Raises GroundworkError when its state is unreadable."""
    try:
        return int(json.loads((checkpoint / TRAINER_STATE).read_text())["global_step"])
    except (OSError, ValueError, KeyError) as error:
        raise corrupt(checkpoint, error) from error


def corrupt(checkpoint: Path, error: Exception) -> GroundworkError:
    """What to say of a checkpoint that cannot be read, and what to do about it."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
    return GroundworkError(
        f"the checkpoint {checkpoint} cannot be read ({reason[:120]}); delete that folder to go on from "
        "the one before it, or run without resume to start anew"
    )
