"""What the service counts, in the Prometheus text format."""

from __future__ import annotations

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Metrics:
    """The service's series. One registry an application, so that two in one process do not mix.

    Label values are route templates, registered names, versions and fixed words: their number is
    bounded by what is registered, not by what clients send.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "groundwork_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "groundwork_request_seconds",
            "Time to the last byte of the answer",
            ["route"],
            registry=self.registry,
        )
        self.items = Counter(
            "groundwork_items", "Inputs answered", ["name", "version", "status"], registry=self.registry
        )
        self.batch_items = Histogram(
            "groundwork_batch_items",
            "Samples in a batch that the model ran",
            ["name"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self.queue_held = Gauge(
            "groundwork_queue_held", "Inputs that admitted requests hold", ["name"], registry=self.registry
        )
        self.serving = Gauge(
            "groundwork_serving",
            "1 while this version answers",
            ["reference", "version"],
            registry=self.registry,
        )
        self.failed_checks = Counter(
            "groundwork_failed_checks", "Versions that could not be loaded", ["name"], registry=self.registry
        )
        self.mlflow_up = Gauge("groundwork_mlflow_up", "1 while MLflow answers", registry=self.registry)


class CountRequests:
    """ASGI middleware: counts and times every request under its route's template."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = "500"  # unless an answer begins
        started = time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, status).inc()
            self.metrics.latency.labels(route).observe(time.perf_counter() - started)
