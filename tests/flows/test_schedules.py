"""The schedules that deployments are first registered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from domains.contract import GroundworkError, domain_names
from flows import settings
from flows.schedules import schedule_of
from flows.settings import KINDS


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings, "CONFIGS", tmp_path)
    return tmp_path / "retrain-molecules.yaml"


def test_every_domain_is_retrained_at_night_and_nothing_else_runs_by_itself() -> None:
    for domain in domain_names():
        scheduled = {kind: made for kind in KINDS if (made := schedule_of(kind, domain)) is not None}
        assert list(scheduled) == ["retrain"]
        assert scheduled["retrain"].active
        assert scheduled["retrain"].timezone == "UTC"


def test_the_yaml_says_when(presets: Path) -> None:
    presets.write_text('schedule: "30 4 * * 1"\ntime_zone: Europe/Zurich\n')
    made = schedule_of("retrain", "molecules")
    assert made is not None
    assert (made.cron, made.timezone) == ("30 4 * * 1", "Europe/Zurich")


@pytest.mark.parametrize("text", ["schedule: at night", "time_zone: Mars/Olympus", "schedule: 7"])
def test_a_schedule_that_there_is_not_is_one_line(presets: Path, text: str) -> None:
    presets.write_text(f"{text}\n")
    with pytest.raises(GroundworkError, match="the schedule in retrain-molecules") as error:
        schedule_of("retrain", "molecules")
    assert "\n" not in str(error.value)
