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

FLOWS = """
import json, sys
from flows.finetune import finetune
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.predict import predict
from flows.pretrain import pretrain
from flows.settings import settings_class
from domains.contract import load_domain

home, journal, spectra = Home.current(), ConsoleJournal(), load_domain("spectra")
learn = {"epochs": 2, "batch_size": 32}
foundation = pretrain(spectra, settings_class("pretrain", "spectra")(**learn), home, journal)
tuned = finetune(
    spectra,
    settings_class("finetune", "spectra")(dataset="simulated-spectra", name="lines", **learn),
    home,
    journal,
)
asked = settings_class("predict", "spectra")(model="lines", dataset=sys.argv[1], output=sys.argv[2])
written = predict(asked, home, journal)
print(json.dumps({
    "foundation": [foundation.reference, foundation.aliases, dict(foundation.tags)],
    "tuned": [tuned.reference, tuned.aliases, dict(tuned.tags)],
    "rows": written.rows,
    "rejected": written.rejected,
}))
"""

SERVED = """
import json, sys
from pathlib import Path
from fastapi.testclient import TestClient
from groundwork.api.app import create_app
from groundwork.api.registry import MlflowRegistry

app = create_app(MlflowRegistry(), datasets=Path(sys.argv[1]))
with TestClient(app, base_url="http://127.0.0.1") as client:
    body = {"inputs": json.load(sys.stdin)}
    print(json.dumps({
        "lines": client.post("/v1/models/lines/predict", json=body).json(),
        "foundation": client.post("/v1/models/spectra-foundation/predict", json=body).json(),
        "models": client.get("/v1/models").json(),
    }))
"""

FORM = """
import json
from prefect.utilities.callables import parameter_schema
from flows import deployments
from flows.deployments import build_flow

built = build_flow("finetune", "spectra")
entry = deployments.finetune_spectra
print(json.dumps([built.name, entry.name, sorted(parameter_schema(built).model_dump()["properties"])]))
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
    output = str(module_home.root / "answers.csv")
    return json.loads(python("-c", FLOWS, str(table), output, home=module_home).stdout.splitlines()[-1])


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
def test_it_is_served(made: dict, module_home: Home) -> None:
    served = python(
        "-c", SERVED, str(module_home.datasets), home=module_home, stdin=json.dumps([*SPECTRA, 5])
    )
    answers = json.loads(served.stdout.splitlines()[-1])
    assert "results" in answers["lines"], answers["lines"]
    assert answers["lines"]["model"]["version"] == 1, answers
    results = answers["lines"]["results"]
    assert [result["status"] for result in results] == ["ok", "rejected", "ok", "rejected"]
    assert results[0]["predictions"]["line"]["unit"] == "channel"
    embedded = answers["foundation"]["results"][0]["predictions"]["embedding"]["prediction"]
    assert len(embedded) == 32
    assert {model["name"] for model in answers["models"]["models"]} == {"lines", "spectra-foundation"}


@pytest.mark.slow
def test_mlflow_loads_it(made: dict, module_home: Home) -> None:
    script = (
        "import mlflow, pandas as pd; model = mlflow.pyfunc.load_model('models:/lines@champion'); "
        f"print(model.predict(pd.DataFrame({{'intensities': {SPECTRA!r}}}))['status'].tolist())"
    )
    answered = python("-c", script, home=module_home)
    assert answered.stdout.splitlines()[-1] == "['ok', 'rejected', 'ok']"


@pytest.mark.slow
def test_its_form_and_its_command_exist(module_home: Home) -> None:
    built, entry, fields = json.loads(python("-c", FORM, home=module_home).stdout.splitlines()[-1])
    assert built == entry == "finetune-spectra"
    assert {"shortest", "epochs", "mode", "dataset"} <= set(fields)
    assert "max_atoms" not in fields
    shown = python("-m", "groundwork", "finetune", "spectra", "--help", home=module_home).stdout
    assert "--shortest" in shown
    assert "--max-atoms" not in shown


def test_without_the_plugin_the_domain_is_unknown() -> None:
    from domains.contract import GroundworkError, load_domain

    with pytest.raises(GroundworkError, match="no domain is called 'spectra'"):
        load_domain("spectra")
