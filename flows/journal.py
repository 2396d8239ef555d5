"""Where a flow says what it does: a console in-process, Prefect in a deployment.

The body of a flow is plain Python; it runs its steps and shows its results through a journal.
"""

from __future__ import annotations

import base64
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

logger = logging.getLogger("groundwork.flows")

WIDTH_OF_LOGS = 160

TRAINING_SLOT = "groundwork-training"
"""Global concurrency limit that every training run takes one slot of."""

SLOT_LEASE = 120.0
"""Seconds after which the slot of a dead run is free again. Renewed every 90, so that a server which is
being restarted at that moment has half a minute to come back."""

Result = TypeVar("Result")


class Journal(Protocol):
    """One run's voice."""

    trusted: bool
    """Whether paths come from the user's own shell; paths in a form are confined to declared roots."""
    flow_run_id: str
    flow_run_url: str

    def step(self, name: str, work: Callable[[], Result]) -> Result:
        """Run one named step."""
        ...

    def training_slot(self) -> AbstractContextManager[None]:
        """Held while a model trains, so that runs do not fight over the device."""
        ...

    def progress(self, description: str, fraction: float) -> None:
        """Show how far the current step is, 0 to 1."""
        ...

    def say(self, message: str) -> None: ...

    def table(self, key: str, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show a small table of results; a key has a history of its own."""
        ...

    def figure(self, key: str, title: str, url: str) -> None:
        """Show a picture that lies at ``url``."""
        ...

    def picture(self, key: str, title: str, png: bytes) -> None:
        """Show a picture that lies nowhere but here."""
        ...

    def link(self, key: str, title: str, url: str) -> None: ...


class ConsoleJournal:
    """Progress bars and tables on a terminal."""

    trusted = True
    flow_run_id = ""
    flow_run_url = ""

    def __init__(self, console: Console | None = None) -> None:
        # A log has no width; a table cut at 80 columns would lose figures.
        self.console = console or Console(stderr=True, width=None if sys.stderr.isatty() else WIDTH_OF_LOGS)
        self._bar = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self.console,
        )
        self._task: TaskID | None = None

    def step(self, name: str, work: Callable[[], Result]) -> Result:
        self._task = self._bar.add_task(name, total=1.0, detail="")
        self._bar.start()
        try:
            result = work()
            self._bar.update(self._task, completed=1.0)
            return result
        finally:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None

    def training_slot(self) -> AbstractContextManager[None]:
        return nullcontext()  # who types a command decides when it runs

    def progress(self, description: str, fraction: float) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=fraction, detail=description)

    def say(self, message: str) -> None:
        self.console.print(message, highlight=False, soft_wrap=True)

    def table(self, key: str, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        drawn = Table(title=title, title_justify="left")
        for column in rows[0]:
            drawn.add_column(column)
        for row in rows:
            drawn.add_row(*(str(value) for value in row.values()))
        self.console.print(drawn)

    def figure(self, key: str, title: str, url: str) -> None:
        self.say(f"{title}: {url}")

    def picture(self, key: str, title: str, png: bytes) -> None:
        pass  # a terminal shows none; whoever made it says where its file is

    def link(self, key: str, title: str, url: str) -> None:
        self.say(f"{title}: {url}")


class PrefectJournal:
    """Tasks, logs and artifacts of the current Prefect flow run."""

    trusted = False

    def __init__(self) -> None:
        from prefect import get_run_logger
        from prefect.artifacts import create_progress_artifact
        from prefect.runtime import flow_run

        self.flow_run_id = str(flow_run.id or "")
        self.flow_run_url = str(flow_run.ui_url or "")
        self._logger = get_run_logger()
        # A percentage; its key is unique to the run, so that runs side by side do not share a history.
        self._progress = UUID(
            str(create_progress_artifact(0.0, key=f"progress-{self.flow_run_id[:8]}", description="Progress"))
        )
        self._shown = -1

    def step(self, name: str, work: Callable[[], Result]) -> Result:
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        # Steps are closures over this run: nothing that could be cached under a key of inputs.
        step: Any = task(name=name, cache_policy=NO_CACHE, persist_result=False)
        result: Result = step(work)()
        return result

    @contextmanager
    def training_slot(self) -> Iterator[None]:
        from prefect.concurrency.sync import concurrency

        self.say("waiting for the training slot")
        # A limit that is missing would be passed silently unless strict; a lease that the server
        # cannot renew for a while must not kill hours of training.
        with concurrency(
            TRAINING_SLOT,
            occupy=1,
            lease_duration=SLOT_LEASE,
            strict=True,
            raise_on_lease_renewal_failure=False,
        ):
            yield

    def progress(self, description: str, fraction: float) -> None:
        from prefect.artifacts import update_progress_artifact

        percent = int(100 * fraction)
        if percent != self._shown:
            self._shown = percent
            update_progress_artifact(self._progress, progress=float(percent), description=description)

    def say(self, message: str) -> None:
        self._logger.info(message)

    def table(self, key: str, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        from prefect.artifacts import create_table_artifact

        create_table_artifact([dict(row) for row in rows], key=_artifact_key(key), description=title)

    def figure(self, key: str, title: str, url: str) -> None:
        from prefect.artifacts import create_image_artifact, create_link_artifact

        if url.startswith("http"):
            create_image_artifact(url, key=_artifact_key(key), description=title)
        else:
            create_link_artifact(url, link_text=title, key=_artifact_key(key))

    def picture(self, key: str, title: str, png: bytes) -> None:
        from prefect.artifacts import create_image_artifact

        data = base64.b64encode(png).decode()
        create_image_artifact(f"data:image/png;base64,{data}", key=_artifact_key(key), description=title)

    def link(self, key: str, title: str, url: str) -> None:
        from prefect.artifacts import create_link_artifact

        create_link_artifact(url, link_text=title, key=_artifact_key(key), description=title)
        self._logger.info("%s: %s", title, url)


def _artifact_key(key: str) -> str:
    """Prefect takes lower-case letters, digits and dashes; a model's name may hold dots."""
    return re.sub(r"[^a-z0-9-]+", "-", key.lower())
