"""A third domain, installed as a plugin, goes through every flow and face with no change elsewhere.

The plugin is found by its entry points. Each process here has it on the path from its start, since what
is installed is looked up once; the test's own process stays as it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.home import Home

PLUGINS = Path(__file__).with_name("plugins")

ALL = """
import json, sys

import mlflow
import pandas as pd
from fastapi.testclient import TestClient
from prefect.utilities.callables import parameter_schema
from typer.testing import CliRunner

from domains.contract import load_domain
from flows import deployments, yardstick
from flows.dispatch import run
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.settings import settings_class
from groundwork.api.app import create_app
from groundwork.api.registry import MlflowRegistry
from groundwork.cli import app as command
from models import baselines

# Fewer spectra to embed after each epoch, and smaller forests.
yardstick.RECORDS, yardstick.LEARNT_FROM, baselines.TREES = 200, 150, 20
home, journal, spectra = Home.current(), ConsoleJournal(), load_domain("spectra")
learn = {"epochs": 2, "batch_size": 32}
foundation = run("pretrain", spectra, settings_class("pretrain", "spectra")(**learn), home, journal)
settings = settings_class("finetune", "spectra")(dataset="simulated-spectra", name="lines", **learn)
tuned = run("finetune", spectra, settings, home, journal)
asked = settings_class("predict", "spectra")(model="lines", dataset=sys.argv[1], output=sys.argv[2])
written = run("predict", spectra, asked, home, journal)
shown = {
    "foundation": [foundation.reference, foundation.aliases, dict(foundation.tags)],
    "tuned": [tuned.reference, tuned.aliases, dict(tuned.tags)],
    "rows": written.rows,
    "rejected": written.rejected,
}

inputs = json.load(sys.stdin)
app = create_app(MlflowRegistry(), datasets=home.datasets)
with TestClient(app, base_url="http://127.0.0.1") as client:
    shown["api"] = {
        "lines": client.post("/v1/models/lines/predict", json={"inputs": inputs}).json(),
        "foundation": client.post("/v1/models/spectra-foundation/predict", json={"inputs": inputs}).json(),
        "models": client.get("/v1/models").json(),
    }
table = mlflow.pyfunc.load_model("models:/lines@champion").predict(pd.DataFrame({"intensities": inputs}))
shown["pyfunc"] = table["status"].tolist()
built = deployments.build_flow("finetune", "spectra")
shown["flows"] = [built.name, deployments.finetune_spectra.name]
shown["form"] = list(parameter_schema(built).model_dump()["properties"])
shown["help"] = CliRunner().invoke(command, ["finetune", "spectra", "--help"]).stdout
print(json.dumps(shown))
"""

SPECTRA = [" ".join(str(value) for value in range(16)), "broken", " ".join(["0.5"] * 40)]


def python(*arguments: str, home: Home, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A Python of its own that sees the plugin and the test's state folder."""
    path = os.pathsep.join([str(PLUGINS), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path, **home.environment()}
    done = subprocess.run(
        [sys.executable, *arguments],
        input=stdin, capture_output=True, text=True, timeout=240, cwd=home.root, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def table(module_home: Home) -> Path:
    path = module_home.root / "spectra.csv"
    path.write_text("id,intensities\n" + "".join(f"{place},{row}\n" for place, row in enumerate(SPECTRA)))
    return path


@pytest.fixture(scope="module")
def made(module_home: Home, table: Path) -> dict:
    """What flows, API, MLflow, Prefect and the command line make of it, in one process."""
    output = str(module_home.root / "answers.csv")
    done = python("-c", ALL, str(table), output, home=module_home, stdin=json.dumps(SPECTRA))
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_it_pretrains_tunes_and_registers(made: dict) -> None:
    reference, aliases, tags = made["foundation"]
    assert (reference, aliases, tags["domain"]) == ("spectra-foundation/1", ["champion"], "spectra")
    reference, aliases, tags = made["tuned"]
    assert (reference, aliases, tags["domain"]) == ("lines/1", ["champion"], "spectra")
    assert (tags["foundation"], tags["unit"]) == ("spectra-foundation/1", "channel")
    assert tags["floor"] == "moments + neighbours"


@pytest.mark.slow
def test_a_file_is_answered(made: dict, module_home: Home) -> None:
    assert (made["rows"], made["rejected"]) == (3, 1)
    lines = (module_home.root / "answers.csv").read_text().splitlines()
    assert lines[0].replace('"', "") == "id,intensities,line_prediction,status,reason"
    assert [line.count("rejected") for line in lines[1:]] == [0, 1, 0]
    assert "not a list of numbers" in lines[2]


@pytest.mark.slow
def test_it_is_served(made: dict) -> None:
    faces = made["api"]
    lines = faces["lines"]
    assert lines["model"]["version"] == 1
    assert [result["status"] for result in lines["results"]] == ["ok", "rejected", "ok"]
    assert lines["results"][0]["predictions"]["line"]["unit"] == "channel"
    embedded = faces["foundation"]["results"][0]["predictions"]["embedding"]["prediction"]
    assert len(embedded) == 32
    assert {model["name"] for model in faces["models"]["models"]} == {"lines", "spectra-foundation"}


@pytest.mark.slow
def test_mlflow_loads_it(made: dict) -> None:
    assert made["pyfunc"] == ["ok", "rejected", "ok"]


@pytest.mark.slow
def test_its_form_holds_its_own_settings(made: dict) -> None:
    assert made["flows"] == ["finetune-spectra", "finetune-spectra"]
    assert {"shortest", "epochs", "mode", "dataset"} <= set(made["form"])
    assert "max_atoms" not in made["form"]


@pytest.mark.slow
def test_its_command_exists(made: dict) -> None:
    assert "--shortest" in made["help"]
    assert "--max-atoms" not in made["help"]


def test_without_the_plugin_the_domain_is_unknown() -> None:
    from domains.contract import GroundworkError, load_domain

    with pytest.raises(GroundworkError, match="no domain is called 'spectra'"):
        load_domain("spectra")
