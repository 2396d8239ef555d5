"""A flow run sends its heartbeats before it ends, and does not wait for a server that is gone."""

from __future__ import annotations

import time
from threading import Event

import pytest
from prefect.events.worker import EventsWorker

from flows import heartbeats


class Sender:
    """Stands in for Prefect's queue of events."""

    def __init__(self, ready: Event) -> None:
        self.ready, self.is_empty = ready, False

    def wait_until_empty(self) -> None:
        self.is_empty = self.ready.wait(20)


def test_heartbeats_are_sent_before_a_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = Event()
    sender = Sender(ready)
    monkeypatch.setattr(EventsWorker, "instance", lambda: sender)
    ready.set()
    heartbeats.send_heartbeats()
    assert sender.is_empty


def test_a_server_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = Event()
    monkeypatch.setattr(EventsWorker, "instance", lambda: Sender(ready))
    monkeypatch.setattr(heartbeats, "LAST_WORDS", 0.05)
    began = time.monotonic()
    heartbeats.send_heartbeats()
    assert time.monotonic() - began < 10
    ready.set()
