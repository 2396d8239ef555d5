"""What a model takes by itself is told from passes beside which nothing was read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import mapping
from benchmarks.mapping import ModelClock
from domains.geospatial.scenes import Scene


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the clock sees, to be set."""
    seconds = [0.0]
    monkeypatch.setattr(mapping, "perf_counter", lambda: seconds[0])
    return seconds


def test_a_pass_beside_a_read_counts_as_others_of_as_many_tiles(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Model(nn.Module):
        def forward(self, batch: dict[str, torch.Tensor], takes: float, *, reads: bool) -> None:
            if reads:
                Scene.read(None, 1.0)  # type: ignore[arg-type]  # replaced below
            now[0] += takes

    def read(_: Any, takes: float) -> None:
        now[0] += takes

    monkeypatch.setattr(Scene, "read", read)
    model = Model()
    clock = ModelClock(SimpleNamespace(models=[model]))  # type: ignore[arg-type]  # all that it looks at
    four, nine = ({"pixels": torch.zeros(count, 3, 8, 8)} for count in (4, 9))
    with clock.listening():
        model(four, 1.0, reads=False)
        now[0] += 100  # between passes
        model(four, 3.0, reads=False)
        model(four, 10.0, reads=True)
        assert clock.seconds == 1 + 3 + 2
        model(nine, 6.0, reads=True)  # of as many there is no other: the second of reading counts too
        assert clock.seconds == 1 + 3 + 2 + 7
