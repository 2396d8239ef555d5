"""The launcher on stand-ins that start at once, and (slow) on the real servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from domains.contract import GroundworkError
from flows.home import Home
from groundwork.processes import MARKER, family
from groundwork.running import LaunchRecord, running, status, wait_until_healthy
from groundwork.services import Addresses, Ports

SERVER = """
import http.server, sys, subprocess
if "with-grandchild" in sys.argv:
    # In a session of its own, so that a signal to the server's group would miss it.
    subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(300)"], start_new_session=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
RUNNER = """
import json, os, signal, sys, time, urllib.request
def save(*_):
    time.sleep(0.5)
    answer = urllib.request.urlopen(os.environ["PREFECT_API_URL"]).status
    json.dump({"server": answer}, open("saved.json", "w"))
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
told = {"pid": os.getpid(), "environment": dict(os.environ), "folder": os.getcwd(), "path": sys.path}
json.dump(told, open("runner.json", "w"))
time.sleep(300)
"""
SILENT = "import time; time.sleep(300)"
BROKEN = "import sys; sys.exit('the database is locked')"

LAUNCH = """
import json, os, sys
from domains.contract import GroundworkError
from flows.home import Home
from groundwork.launcher import up
from groundwork.services import Ports, Service
try:
    services = [Service(**it) for it in json.loads(os.environ["TEST_SERVICES"])] or None
    sys.exit(up(Home.current(), Ports(*json.loads(os.environ["TEST_PORTS"])), services))
except GroundworkError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [it.getsockname()[1] for it in sockets]
    for it in sockets:
        it.close()
    return ports


def eventually(what: Callable[[], object], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def lives(process: psutil.Process) -> bool:
    # Orphans that have ended stay as zombies for as long as the system's first process likes.
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-P", "-S", "-c", code, *(str(it) for it in arguments)]


class Launches:
    """Starts ``up`` in processes of its own, and leaves none of their descendants behind."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "state")
        self.ports = Ports(*free_ports(3))
        self.processes: list[subprocess.Popen[bytes]] = []

    def server(self, name: str = "prefect", *flags: str) -> dict[str, object]:
        port = getattr(self.ports, name)
        url = f"http://127.0.0.1:{port}"
        command = python(SERVER, port, *flags)
        described = {"name": name, "title": f"{name} server", "command": command, "port": port}
        return {**described, "url": url, "health": f"{url}/health"}

    def runner(self) -> dict[str, object]:
        health = (self.home.root / "runner.json").as_uri()
        command = python(RUNNER)
        runner = {"name": "runner", "title": "flow runner", "command": command, "health": health}
        return {**runner, "speaks_to_servers": True}

    def up(self, *services: dict[str, object], prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "GROUNDWORK_HOME": str(self.home.root),
            "TEST_SERVICES": json.dumps(services),
            "TEST_PORTS": json.dumps([self.ports.prefect, self.ports.mlflow, self.ports.api]),
        }
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", LAUNCH],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        self.processes.append(process)
        return process

    def record(self) -> LaunchRecord:
        record = LaunchRecord.read(self.home)
        assert record is not None
        return record

    def pid(self, name: str) -> int:
        return next(child.pid for child in self.record().children if child.name == name)

    def descendants(self) -> list[psutil.Process]:
        """Whatever was started on this folder, by any launch."""
        found = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
            except (psutil.Error, OSError):
                continue  # another user's, a zombie, or gone
            if MARKER in environment and environment.get("GROUNDWORK_HOME") == str(self.home.root):
                found.append(process)
        return found

    def clear(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for process in self.descendants():
            process.kill()


@pytest.fixture
def launches(tmp_path: Path) -> Iterator[Launches]:
    launches = Launches(tmp_path)
    yield launches
    launches.clear()


def test_up_brings_all_up_and_a_signal_ends_all_in_order(launches: Launches) -> None:
    (launches.home.root / "models").mkdir(parents=True)
    (launches.home.root / "models" / "__init__.py").write_text("raise ImportError('a stray folder')")
    assert running(launches.home) is None
    assert status(launches.home) == 3

    process = launches.up(launches.server("prefect", "with-grandchild"), launches.runner())
    addresses = wait_until_healthy(launches.home, 20, process)

    assert addresses == running(launches.home) == Addresses.on(launches.ports)
    assert status(launches.home) == 0
    assert len(family(launches.record().launch)) == 3
    told = json.loads((launches.home.root / "runner.json").read_text())
    assert told["folder"] == str(launches.home.root)
    assert "" not in told["path"]
    assert told["environment"]["PYTHONSAFEPATH"] == "1"
    assert told["environment"]["PREFECT_API_URL"] == f"http://127.0.0.1:{launches.ports.prefect}/api"
    assert told["environment"]["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{launches.ports.mlflow}"
    assert "127.0.0.1" in told["environment"]["NO_PROXY"]

    assert process.stdout is not None
    printed = [process.stdout.readline().decode() for _ in range(4)]
    assert printed[-1].split() == ["prefect", "server", addresses.prefect_url]

    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == b""
    # The runner was told first, and could still speak to the server while it saved.
    assert json.loads((launches.home.root / "saved.json").read_text()) == {"server": 200}
    assert launches.descendants() == []
    assert running(launches.home) is None


def test_a_killed_child_is_started_again_and_the_others_are_left_alone(launches: Launches) -> None:
    process = launches.up(launches.server("prefect", "with-grandchild"), launches.runner())
    wait_until_healthy(launches.home, 20, process)
    before = {name: launches.pid(name) for name in ("prefect", "runner")}
    grandchild = psutil.Process(before["prefect"]).children()[0]

    os.kill(before["prefect"], signal.SIGKILL)
    eventually(lambda: launches.pid("prefect") not in (0, before["prefect"]), 30)
    wait_until_healthy(launches.home, 10, process)
    assert launches.pid("runner") == before["runner"]
    assert {child.name: child.restarts for child in launches.record().children} == {"prefect": 1, "runner": 0}
    assert not lives(grandchild)

    os.kill(before["runner"], signal.SIGKILL)
    eventually(lambda: launches.pid("runner") not in (0, before["runner"]))
    wait_until_healthy(launches.home, 10, process)
    assert status(launches.home) == 0


def test_a_signal_during_the_start_ends_what_was_started(launches: Launches) -> None:
    never = {**launches.server("mlflow"), "command": python(SILENT)}
    process = launches.up(launches.server(), never)
    eventually(lambda: len(launches.descendants()) == 2)
    assert status(launches.home) == 1
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert launches.descendants() == []


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(launches: Launches) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SERVER
    process = launches.up({**launches.server(), "command": python(deaf, launches.ports.prefect), "grace": 1})
    wait_until_healthy(launches.home, 20, process)
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 0
    assert launches.descendants() == []


def test_a_second_up_on_the_same_folder_is_refused(launches: Launches) -> None:
    first = launches.up(launches.server())
    wait_until_healthy(launches.home, 20, first)
    second = launches.up(launches.server())
    _, errors = second.communicate(timeout=20)
    assert second.returncode == 1
    assert errors.count(b"\n") == 1
    assert f"process {first.pid}" in errors.decode()
    assert status(launches.home) == 0


def test_a_taken_port_is_named_with_its_holder_and_the_option(launches: Launches) -> None:
    with socket.create_server(("127.0.0.1", launches.ports.mlflow)):
        process = launches.up(launches.server(), launches.server("mlflow"))
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.count(b"\n") == 1
    message = errors.decode()
    assert str(launches.ports.mlflow) in message
    assert "--mlflow-port" in message
    assert str(os.getpid()) in message or sys.platform != "linux"
    assert str(launches.ports.prefect) not in message
    assert launches.descendants() == []


def test_what_a_killed_launcher_left_is_ended_and_a_stranger_is_not(launches: Launches) -> None:
    first = launches.up(launches.server("prefect", "with-grandchild"))
    wait_until_healthy(launches.home, 20, first)
    server = psutil.Process(launches.pid("prefect"))
    grandchild = server.children()[0]
    first.kill()
    first.wait()
    assert running(launches.home) is None
    if sys.platform == "linux":
        eventually(lambda: not lives(server))
    assert lives(grandchild)

    # By now the server's pid may belong to someone else.
    stranger = subprocess.Popen(python(SILENT))
    launches.processes.append(stranger)
    file = LaunchRecord.file(launches.home)
    file.write_text(file.read_text().replace(f'"pid": {server.pid},', f'"pid": {stranger.pid},'))
    second = launches.up(launches.server())
    wait_until_healthy(launches.home, 20, second)
    assert not lives(grandchild)
    assert stranger.poll() is None


def test_a_service_that_does_not_start_is_reported_with_its_last_words(launches: Launches) -> None:
    process = launches.up(launches.server(), {**launches.server("mlflow"), "command": python(BROKEN)})
    with pytest.raises(GroundworkError, match="ended with exit code 1"):
        wait_until_healthy(launches.home, 20, process)
    _, errors = process.communicate()
    assert errors.count(b"\n") == 1
    assert "the database is locked" in errors.decode()
    assert "mlflow.log" in errors.decode()
    assert launches.descendants() == []


def test_a_full_disk_is_named_with_the_space_needed(launches: Launches, tmp_path: Path) -> None:
    small = tmp_path / "state"
    small.mkdir()
    in_namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=4m tmpfs {small}"
    if not shutil.which("unshare") or subprocess.run([*in_namespace, mount], capture_output=True).returncode:
        pytest.skip("a small tmpfs can be mounted only on a Linux with user namespaces")
    process = launches.up(launches.server(), prefix=(*in_namespace, f'{mount} && exec "$@"', "sh"))
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.count(b"\n") == 1
    assert str(small) in errors.decode()
    assert "256 MB needed" in errors.decode()
    assert launches.descendants() == []
