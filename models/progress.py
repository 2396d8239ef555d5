"""What training says while it runs, and as it is stopped; without torch, for whoever only listens."""

from __future__ import annotations

import signal
from dataclasses import dataclass


class Interrupted(BaseException):
    """Training was asked to stop (SIGTERM, Ctrl-C); the checkpoint is written.

    A BaseException, like KeyboardInterrupt, so that no handler of ordinary errors takes it for one.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"training was stopped by {signal.Signals(signum).name}")
        self.signum = signum


@dataclass(frozen=True)
class Progress:
    """Where training stands; losses and rates by name."""

    step: int
    total_steps: int
    metrics: dict[str, float]
