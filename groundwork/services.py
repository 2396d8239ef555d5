"""The four services of a Groundwork: what is started, where it answers, how one knows that it is well."""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from flows.home import Home

LOOPBACK = "127.0.0.1"
HEALTH_TIMEOUT = 2.0  # seconds; a server that is busy with a long answer still accepts within it


@dataclass(frozen=True)
class Ports:
    """The TCP ports on loopback; each is changed by the option ``--<name>-port``."""

    prefect: int = 4200
    mlflow: int = 5000
    api: int = 8000


@dataclass(frozen=True)
class Addresses:
    """Where the three servers answer."""

    prefect_url: str
    mlflow_url: str
    api_url: str

    @classmethod
    def on(cls, ports: Ports) -> Addresses:
        return cls(*(f"http://{LOOPBACK}:{port}" for port in (ports.prefect, ports.mlflow, ports.api)))

    def environment(self) -> dict[str, str]:
        """What makes Prefect, MLflow and Groundwork clients speak to these servers."""
        # A proxy that the institute prescribes must not be asked for the way to this machine.
        exempt = [part for part in os.environ.get("NO_PROXY", "").split(",") if part]
        no_proxy = ",".join(dict.fromkeys([*exempt, LOOPBACK, "localhost"]))
        return {
            "PREFECT_API_URL": f"{self.prefect_url}/api",
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "GROUNDWORK_API_URL": self.api_url,
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
        }


@dataclass(frozen=True)
class Service:
    """One child of the launcher.

    ``health`` is a URI: ``http://…`` is well when it answers 200, ``file:///….json`` when the file names
    the child's own ``pid``. A service without a port has no ``url`` either.

    All services are started at the same moment: one that ``speaks_to_servers`` waits for them by itself,
    and is ended before them, so that what it was doing can still be saved and reported. ``grace`` is the
    time in seconds from SIGTERM to SIGKILL.
    """

    name: str
    title: str
    command: tuple[str, ...]
    health: str
    port: int | None = None
    url: str = ""
    speaks_to_servers: bool = False
    grace: float = 15.0
    environment: Mapping[str, str] = field(default_factory=dict)


def is_healthy(health: str, pid: int) -> bool:
    """Whether the service whose leading process is ``pid`` is well, by its ``health`` URI."""
    parts = urlsplit(health)
    if parts.scheme == "file":
        try:
            told = json.loads(_file_of(health).read_text())
        except (OSError, ValueError):
            return False
        return isinstance(told, dict) and told.get("pid") == pid
    # http.client rather than a client library: it knows no proxies, and costs `status` no import time.
    connection = http.client.HTTPConnection(parts.hostname or LOOPBACK, parts.port, timeout=HEALTH_TIMEOUT)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def forget_health(health: str) -> None:
    """Before a start: a health file that an earlier process wrote must not speak for the new one."""
    if health.startswith("file:"):
        _file_of(health).unlink(missing_ok=True)


def _file_of(health: str) -> Path:
    return Path(url2pathname(urlsplit(health).path))


def default_services(home: Home, ports: Ports) -> list[Service]:
    """Prefect server, MLflow server, flow runner and API on the state folder ``home``."""
    python = (sys.executable, "-P", "-m")  # -P: a models/ folder in the working folder must not hide ours
    addresses = Addresses.on(ports)
    prefect = Service(
        name="prefect",
        title="Prefect server",
        command=(*python, "prefect", "server", "start", "--host", LOOPBACK, "--port", str(ports.prefect)),
        health=f"{addresses.prefect_url}/api/health",
        port=ports.prefect,
        url=addresses.prefect_url,
        environment={
            "PREFECT_SERVER_UI_ENABLED": "true",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        },
    )
    mlflow = Service(
        name="mlflow",
        title="MLflow server",
        # One worker: four (the default) take 0.98 GB and 10.7 s to start, one takes 0.39 GB and 6.6 s.
        # Clients share this machine's disk, so artifacts need no detour through the server.
        command=(
            *(*python, "mlflow", "server", "--host", LOOPBACK, "--port", str(ports.mlflow)),
            *("--backend-store-uri", home.mlflow_database, "--workers", "1"),
            *("--no-serve-artifacts", "--default-artifact-root", home.mlflow_artifacts.as_uri()),
        ),
        health=f"{addresses.mlflow_url}/health",
        port=ports.mlflow,
        url=addresses.mlflow_url,
    )
    runner = Service(
        name="runner",
        title="Flow runner",
        command=(*python, "flows.deployments"),
        health=(home.root / "runner.json").as_uri(),
        speaks_to_servers=True,
        grace=40.0,  # it gives a training run 30 s to save its checkpoint, then reports what became of it
    )
    api = Service(
        name="api",
        title="Prediction API",
        command=(*python, "groundwork.api", "--host", LOOPBACK, "--port", str(ports.api)),
        health=f"{addresses.api_url}/healthz",
        port=ports.api,
        url=f"{addresses.api_url}/docs",
        speaks_to_servers=True,
    )
    return [prefect, mlflow, runner, api]
