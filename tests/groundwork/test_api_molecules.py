"""The service as users start it: real molecules, a real registry, a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_fakes import wait_for

from domains.contract import SplitSpec, Target, TaskSpec, load_domain
from flows.home import Home
from groundwork import Client, ServiceError

SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "CCCCCCCCCCCCCCCC(=O)O"]
TARGETS = (Target(name="logp", kind="regression", unit="log units"), Target(name="toxic", kind="binary",
           classes=("no", "yes")))  # fmt: skip


@pytest.fixture(scope="module")
def tracking(module_home: Home) -> str:
    """A registry with two untrained versions of one name; the first is champion."""
    import mlflow

    mlflow.create_experiment("test", (module_home.mlflow_artifacts / "test").as_uri())
    mlflow.set_experiment("test")
    for seed in (1, 2):
        register(module_home.root / str(seed) / "version", seed)
    mlflow.MlflowClient().set_registered_model_alias("logp", "champion", "1")
    return module_home.mlflow_database


def register(folder: Path, seed: int) -> None:
    import mlflow
    import torch

    from models import registry
    from models.molecules.graph_transformer import GraphTransformer
    from models.predictor import Lineage, Predictor, VersionContract
    from models.tuning import TaskModel

    folder.parent.mkdir()
    torch.manual_seed(seed)
    domain = load_domain("molecules")
    encoding = domain.encoding()
    contract = VersionContract(
        kind="task",
        domain="molecules",
        encoding=encoding.model_dump(mode="json"),
        encoding_digest=encoding.digest,
        task=TaskSpec(domain="molecules", targets=TARGETS, split=SplitSpec(method="scaffold", seed=0)),
        split_id="split",
        lineage=Lineage(
            dataset="d", dataset_origin="o", dataset_digest="x", rows=1, rejects=0, foundation="none",
            code="c", mlflow_run="r", flow_run="f",
        ),
    )  # fmt: skip
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    encoder = GraphTransformer.create("tiny", encoding, **small)
    predictor = Predictor.save(folder, contract, TaskModel(encoder, TARGETS, linear_head=False))
    with mlflow.start_run() as run:
        pass
    tags = {
        "kind": "task",
        "domain": "molecules",
        "beats_floor": "false",
        "targets": registry.describe_targets(predictor),
    }
    registry.register("logp", folder, predictor, run.info.run_id, tags)


@pytest.fixture(scope="module")
def url(tracking: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("service")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "GROUNDWORK_HOME": str(home), "MLFLOW_TRACKING_URI": tracking}
    environment.pop("GROUNDWORK_API_KEY", None)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "groundwork.api", "--port", str(port)],
            cwd=home, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: alive(address), 60)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
        print((home / "log").read_text())


def alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_answers_equal_the_predictors_own_and_name_their_version(url: str, tracking: str) -> None:
    from models import registry

    _, predictor = registry.load("logp/1")
    inputs = [SMILES[0], "C1CC", "", *SMILES[1:], "CCO", 5]
    results = Client(url).predict("logp", inputs)
    expected = predictor.answer_values(inputs)
    for result, outputs, reason in zip(results, expected.outputs, expected.reasons, strict=True):
        assert result["reason"] == reason
        if reason is None:
            assert result["predictions"]["logp"]["prediction"] == pytest.approx(outputs[0], abs=1e-5)
            assert result["predictions"]["logp"]["unit"] == "log units"
            chances = result["predictions"]["toxic"]["probabilities"]
            assert chances["yes"] == pytest.approx(outputs[1], abs=1e-5)
            assert sum(chances.values()) == pytest.approx(1)
    assert [result["status"] for result in results].count("rejected") == 3
    answer = httpx.post(f"{url}/v1/models/logp/predict", json={"inputs": ["CCO"]}).json()
    assert (answer["model"]["version"], answer["model"]["beats_floor"]) == (1, False)
    with pytest.raises(ServiceError, match="logp"):
        Client(url).predict("lopg", ["CCO"])


@pytest.mark.slow
def test_ten_thousand_molecules_of_which_three_are_broken(url: str) -> None:
    inputs = [SMILES[i % 5] for i in range(10_000)]
    for place in (17, 4999, 9999):
        inputs[place] = "C1CC("
    results = Client(url).predict("logp", inputs)
    assert [result["index"] for result in results if result["status"] == "rejected"] == [17, 4999, 9999]
    assert all(result["reason"] for result in results if result["status"] == "rejected")
    values = [result["predictions"]["logp"]["prediction"] for result in results[:15]]
    assert values[:5] == pytest.approx(values[5:10], abs=1e-5)


@pytest.mark.slow
def test_a_new_champion_answers_without_a_restart(url: str, tracking: str) -> None:
    import mlflow

    client = Client(url)
    before = client.predict("logp", ["CCO"])
    mlflow.MlflowClient().set_registered_model_alias("logp", "champion", "2")
    path = f"{url}/v1/models/logp/predict"
    wait_for(
        lambda: httpx.post(path, json={"inputs": ["CCO"]}, timeout=30).json()["model"]["version"] == 2, 30
    )
    assert client.predict("logp", ["CCO"]) != before
    assert client.predict("logp", ["CCO"], version=1) == before
    [model] = client.models()
    assert (model["champion"], [version["loaded"] for version in model["versions"]]) == (2, [True, True])
