"""The Python client against the service on a real socket."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from api_fakes import FakeRegistry, LengthPredictor, one_model, running

import groundwork.client
from groundwork import Client, ServiceError


def test_predict_gives_one_plain_result_for_each_input(tmp_path: Path) -> None:
    registry = FakeRegistry({"length": {1: LengthPredictor(), 2: LengthPredictor(10)}}, {"length": 1})
    with running(registry, tmp_path) as url, Client(url) as client:
        good, bad = client.predict("length", ["abc", 5])
        assert good["predictions"]["length"]["prediction"] == 3.0
        assert (bad["status"], bad["reason"]) == ("rejected", "not a text")
        assert client.predict("length", ["abc"], version=2)[0]["predictions"]["length"]["prediction"] == 30.0
        assert client.predict("length", []) == []
        assert [model["name"] for model in client.models()] == ["length"]


def test_long_lists_are_sent_in_parts_answered_by_one_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = FakeRegistry({"length": {1: LengthPredictor(), 2: LengthPredictor(10)}}, {"length": 1})
    monkeypatch.setattr(groundwork.client, "INPUTS_PER_REQUEST", 7)
    answered = LengthPredictor.answer

    def promote_then_answer(self: LengthPredictor, outputs: object) -> dict:
        registry.champions["length"] = 2
        return answered(self, outputs)  # type: ignore[arg-type]

    monkeypatch.setattr(LengthPredictor, "answer", promote_then_answer)
    with running(registry, tmp_path) as url:
        results = Client(url).predict("length", ["x" * i for i in range(1, 31)])
    assert [result["index"] for result in results] == list(range(30))
    assert [result["predictions"]["length"]["prediction"] for result in results] == list(range(1, 31))


def test_upload_and_list(tmp_path: Path) -> None:
    table = tmp_path / "My esol.csv"
    table.write_text("smiles,logp\nCCO,-0.3\n")
    with running(one_model(), tmp_path / "datasets") as url, Client(url) as client:
        assert client.upload(table, "esol")["rows"] == 1
        assert [entry["name"] for entry in client.datasets()] == ["esol"]
        with pytest.raises(ServiceError, match="not a file"):
            client.upload(tmp_path / "none.csv", "esol")


def test_errors_are_the_services_own_words(tmp_path: Path) -> None:
    with running(one_model(), tmp_path, api_key="key") as url:
        assert Client(url, "key").models()
        with pytest.raises(ServiceError, match="registered: length") as raised:
            Client(url, "key").predict("lenght", ["a"])
        assert raised.value.status == 404
        with pytest.raises(ServiceError, match="API key"):
            Client(url).models()
    with pytest.raises(ServiceError, match="groundwork up"):
        Client(url).models()


def test_a_busy_service_is_asked_again_until_patience_ends() -> None:
    asked: list[str] = []

    def busy_twice(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if len(asked) <= 2:
            return httpx.Response(503, headers={"Retry-After": "0.01"}, json={"error": "the queue is full"})
        return httpx.Response(200, json={"models": []})

    client = Client()
    client._http = httpx.Client(base_url="http://service", transport=httpx.MockTransport(busy_twice))
    assert client.models() == []
    assert len(asked) == 3

    asked.clear()
    client._patience = 0.0
    with pytest.raises(ServiceError, match="queue is full") as raised:
        client.models()
    assert (raised.value.status, len(asked)) == (503, 1)


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, groundwork; print([m for m in sys.modules if m in ('domains', 'numpy', 'httpx')]); "
        "from groundwork import Client; "
        "print([m for m in ('torch', 'mlflow', 'prefect', 'rdkit', 'models', 'flows') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split("\n")[:2] == ["[]", "[]"]
