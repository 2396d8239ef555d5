"""Which version answered for a name, when, and why: kept for good, since MLflow forgets where an alias was.

Each entry is a tag of the registered model, ``history.<time>`` with the time in UTC and the entry as JSON,
so that it outlives the versions and runs that it speaks of. ``models.registry`` alone moves aliases, and
writes an entry with every move.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from mlflow.tracking import MlflowClient
from pydantic import BaseModel, ConfigDict, Field, ValidationError

PREFIX = "history."
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
LONGEST_REASON = 1000

Action = Literal["first", "promoted", "refused", "rolled back", "unchanged"]


class Entry(BaseModel):
    """One decision on a name."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    at: datetime
    action: Action
    champion_before: int | None = Field(default=None, validation_alias="from", serialization_alias="from")
    """Version that was champion when it was decided; None before the first."""
    version: int | None = Field(default=None, validation_alias="to", serialization_alias="to")
    """Version that was decided on: the new champion, or the one that was refused."""
    reason: str
    metric: str = ""
    values: dict[str, float] = {}
    """What was compared, by what it is a figure of: ``challenger``, ``champion``, ``floor``."""
    flow_run: str = ""
    mlflow_run: str = ""
    times: int = 1
    """How often in a row: nights on which nothing had changed are one entry."""
    last: datetime | None = None
    """The latest of those times, where there were several."""

    def row(self, name: str) -> dict[str, str]:
        """The entry as a line of a table."""
        when = (self.last or self.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        repeated = f" ({self.times} times since {self.at.astimezone():%Y-%m-%d})" if self.times > 1 else ""
        return {
            "when": when,
            "what": self.action,
            "version": f"{name}/{self.version}",
            "champion before": "–" if self.champion_before is None else f"{name}/{self.champion_before}",
            "reason": f"{self.reason}{repeated}",
        }


def read_history(tags: Mapping[str, str]) -> list[Entry]:
    """Entries among the tags of a registered model, newest first."""
    entries = []
    for key in sorted((key for key in tags if key.startswith(PREFIX)), reverse=True):
        try:
            entries.append(Entry.model_validate_json(tags[key]))
        except ValidationError:
            continue  # somebody's own tag
    return entries


def write_entry(name: str, entry: Entry) -> None:
    """Keep an entry with the registered model ``name``."""
    kept = entry.model_copy(update={"reason": entry.reason[:LONGEST_REASON]})
    key = f"{PREFIX}{kept.at.astimezone(UTC).strftime(TIME)}"
    MlflowClient().set_registered_model_tag(name, key, kept.model_dump_json(exclude_none=True))


def write_unchanged(name: str, entry: Entry) -> Entry:
    """Keep that nothing was to be done: in the newest entry, if that says the same of the same version."""
    newest = next(iter(read_history(MlflowClient().get_registered_model(name).tags)), None)
    if newest is not None and newest.action == "unchanged" and newest.version == entry.version:
        told = {"reason": entry.reason, "flow_run": entry.flow_run}
        entry = newest.model_copy(update={**told, "times": newest.times + 1, "last": entry.at})
    write_entry(name, entry)
    return entry
