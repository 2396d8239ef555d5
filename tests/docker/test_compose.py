"""The containers' promises that can be checked without an engine: exposure, pins, secrets, commands."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.home import LIVENESS, PRIVACY, THREADS

DOCKER = Path(__file__).resolve().parents[2] / "docker"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
SECRET = re.compile(r"PASSWORD|SECRET|API_KEY|TOKEN")
OURS = [name for name, service in SERVICES.items() if service.get("command", [""])[0] == "python"]
WORKER = "prefecthq/prefect:3.8.8-python3.11-kubernetes"


def variables(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((name, str(value)) for name, value in service.get("environment", {}).items())


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert isinstance(port, str)
        assert port.startswith("127.0.0.1:"), port


def test_databases_and_objects_have_no_port_and_no_way_out() -> None:
    inner = [each for each in SERVICES.values() if each["networks"] == ["data"]]
    assert len(inner) == 4
    assert not any("ports" in each for each in inner)
    networks = yaml.safe_load((DOCKER / "compose.yaml").read_text())["networks"]
    assert networks["data"] == {"internal": True}


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_by_a_tag(name: str) -> None:
    assert SERVICES[name]["image"].partition(":")[2] not in {"", "latest"}


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_has_a_value_or_a_default(name: str) -> None:
    for variable, value in variables(SERVICES[name]):
        if SECRET.search(variable):
            assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), variable
        elif "://" in value:
            assert not re.search(r"//[^/:@]+:(?!\$\{\w+:\?)[^@/]+@", value), variable


def test_the_example_names_every_variable_and_gives_no_secret() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    example = (DOCKER / "env.example").read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    optional = set(re.findall(r"\$\{(\w+):-", text))
    assert required == set(re.findall(r"^(\w+)=$", example, re.MULTILINE))
    assert optional == set(re.findall(r"^# (\w+)=\S+$", example, re.MULTILINE))


@pytest.mark.parametrize("name", OURS)
def test_what_python_is_to_run_is_there(name: str) -> None:
    _, *command = SERVICES[name]["command"]
    if command[0] == "-m":
        assert importlib.util.find_spec(command[1]) is not None
    else:
        assert (DOCKER / Path(command[0]).name).is_file()


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_limited_and_wait_for_health(name: str) -> None:
    service = SERVICES[name]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    for other, waits in service.get("depends_on", {}).items():
        if waits["condition"] == "service_healthy":
            own = SERVICES[other].get("healthcheck", {})
            assert own.get("test"), f"{other} tells nobody whether it is well"


def test_the_image_sets_what_the_launcher_sets_for_its_children() -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text()
    for variable, value in {**PRIVACY, **THREADS, **LIVENESS}.items():
        assert re.search(rf"\b{variable}={re.escape(value)}(\s|$)", dockerfile), variable
    assert re.search(r"^USER groundwork$", dockerfile, re.MULTILINE)


def test_the_job_template_uses_exactly_the_variables_it_declares() -> None:
    text = (DOCKER / "kubernetes" / "base-job-template.json").read_text()
    template = json.loads(text)
    assert set(re.findall(r"\{\{ (\w+) \}\}", text)) == template["variables"]["properties"].keys()
    # Prefect's Kubernetes worker finds the container to run by this name.
    manifest = template["job_configuration"]["job_manifest"]
    assert manifest["spec"]["template"]["spec"]["containers"][0]["name"] == "prefect-job"


def test_kubernetes_runs_the_images_of_compose_without_privileges() -> None:
    manifests = yaml.safe_load_all((DOCKER / "kubernetes" / "groundwork.yaml").read_text())
    deployments = [each for each in manifests if each["kind"] == "Deployment"]
    assert len(deployments) == 3
    for deployment in deployments:
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        assert container["image"] in {SERVICES["api"]["image"], WORKER}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert "limits" in container["resources"]
