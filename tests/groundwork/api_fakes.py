"""A registry, a predictor and a domain that need no training, and the service on a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import uvicorn

from domains.contract import GroundworkError, Record, Reject, Row, Sample
from groundwork.api.app import create_app
from groundwork.api.registry import NotRegistered
from models.history import Entry


@dataclass(frozen=True)
class FakeVersion:
    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str
    tags: Mapping[str, str]
    beats_floor: bool | None = True
    created: datetime = datetime(2026, 1, 1, tzinfo=UTC)


class LengthPredictor:
    """Predicts the length of a text, times ``factor``."""

    device = SimpleNamespace(type="cpu")
    examples = ("example",)

    def __init__(self, factor: float = 1.0, *, seconds: float = 0.0, broken: bool = False) -> None:
        self.factor = factor
        self.seconds = seconds
        self.broken = broken
        self.predicted = 0

    def read(self, row: Row) -> Record | Reject:
        if not isinstance(row.value, str) or not row.value:
            return Reject(row.index, "not a text", str(row.value))
        if row.value == "explode":
            raise RuntimeError("reader bug")
        return Record(row.index, row.value, row.value)

    def encode(self, record: Record) -> Sample:
        return {"length": np.array([np.nan if record.value == "nan" else len(record.value)], np.float32)}

    def tokens(self, sample: Sample) -> int:
        return 1

    def predict(self, samples: Sequence[Sample]) -> np.ndarray:
        time.sleep(self.seconds)
        self.predicted += len(samples)
        return np.array([sample["length"] * self.factor for sample in samples], np.float32)

    def answer(self, outputs: np.ndarray) -> dict[str, dict[str, Any]]:
        return {"length": {"prediction": float(outputs[0]), "unit": "characters"}}

    def check_golden(self) -> None:
        if self.broken:
            raise GroundworkError("the version does not give its golden answers")


@dataclass
class FakeRegistry:
    """Names -> versions -> predictors; ``champions`` moves the alias; ``down`` takes MLflow away."""

    predictors: dict[str, dict[int, LengthPredictor]]
    champions: dict[str, int]
    down: bool = False
    loads: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        self._answer()
        return sorted(self.predictors)

    def versions(self, name: str) -> list[FakeVersion]:
        self._answer()
        if name not in self.predictors:
            raise NotRegistered(f"no model is called {name!r}; registered: {', '.join(self.names())}")
        return [self._version(name, number) for number in sorted(self.predictors[name], reverse=True)]

    def history(self, name: str) -> list[Entry]:
        first = Entry(at=datetime(2026, 1, 1, tzinfo=UTC), action="first", version=1, reason="the first")
        return [first] if self.versions(name) else []

    def resolve(self, reference: str) -> FakeVersion:
        name, _, alias = reference.partition("@")
        name, _, number = name.partition("/")
        found = self.versions(name)
        for version in found:
            if (number and version.version == int(number)) or alias in version.aliases:
                return version
        raise NotRegistered(f"{reference!r} is not registered; known: {name}@champion")

    def load(self, version: FakeVersion) -> LengthPredictor:
        self.loads.append(f"{version.name}/{version.version}")
        return self.predictors[version.name][version.version]

    def _version(self, name: str, number: int) -> FakeVersion:
        champion = self.champions.get(name) == number
        tags = {
            "kind": "task",
            "domain": "texts",
            "unit": "characters",
            "targets": '[{"name": "length", "kind": "regression", "unit": "characters", "classes": []}]',
        }
        return FakeVersion(name, number, ("champion",) if champion else (), f"run{number}", tags)

    def _answer(self) -> None:
        if self.down:
            raise ConnectionError("connection refused")


def one_model(predictor: LengthPredictor | None = None) -> FakeRegistry:
    return FakeRegistry({"length": {1: predictor or LengthPredictor()}}, {"length": 1})


@contextmanager
def running(registry: Any, datasets: Path, **options: Any) -> Iterator[str]:
    """The service on a free port of this machine; gives its URL."""
    app = create_app(registry, datasets=datasets, **{"poll_seconds": 0.05, **options})
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def wait_for(condition: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def predict(url: str, inputs: Sequence[Any], **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/models/length/predict", json={"inputs": inputs, **body}, timeout=30)


def put(url: str, name: str, **request: Any) -> httpx.Response:
    return httpx.put(f"{url}/v1/datasets/{name}", timeout=30, **request)
