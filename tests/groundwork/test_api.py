"""The service over a real socket: answers, errors, limits, keys, and a change of champion."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from api_fakes import FakeRegistry, LengthPredictor, one_model, predict, running, wait_for

from groundwork.api import access
from groundwork.api.__main__ import main
from groundwork.api.app import Limits


def test_each_input_gets_its_result_in_order(tmp_path: Path) -> None:
    inputs = ["abc", "", "de", 7, None, "explode", "nan", "f" * 100]
    with running(one_model(), tmp_path) as url:
        answer = predict(url, inputs).json()
    assert answer["model"] == {
        "name": "length",
        "version": 1,
        "alias": "champion",
        "run_id": "run1",
        "beats_floor": True,
        "unit": "characters",
        "targets": [
            {"name": "length", "kind": "regression", "level": "sample", "unit": "characters", "classes": []}
        ],
    }
    results = answer["results"]
    assert [result["index"] for result in results] == list(range(8))
    expected = ["ok", "rejected", "ok", "rejected", "rejected", "rejected", "rejected", "ok"]
    assert [result["status"] for result in results] == expected
    assert all((result["reason"] is None) == (result["status"] == "ok") for result in results)
    assert results[2]["predictions"] == {"length": {"prediction": 2.0, "unit": "characters"}}
    assert results[1] == {"index": 1, "status": "rejected", "reason": "not a text", "predictions": None}
    assert "reader bug" not in str(results)


def test_ten_thousand_inputs_come_back_whole(tmp_path: Path) -> None:
    with running(one_model(), tmp_path) as url:
        results = predict(url, ["x" * (1 + i % 50) for i in range(10_000)]).json()["results"]
        assert predict(url, []).json()["results"] == []
    assert [r["predictions"]["length"]["prediction"] for r in results] == [1 + i % 50 for i in range(10_000)]


def test_models_tell_their_versions_and_what_is_loaded(tmp_path: Path) -> None:
    registry = FakeRegistry({"length": {1: LengthPredictor(), 2: LengthPredictor()}}, {"length": 2})
    with running(registry, tmp_path) as url:
        assert registry.loads == []  # nothing is loaded before it is asked for
        predict(url, ["a"], version=1)
        model = httpx.get(f"{url}/v1/models/length").json()
        [decision] = model.pop("history")
        assert httpx.get(f"{url}/v1/models").json() == {"models": [model]}
    assert (decision["action"], decision["version"], decision["reason"]) == ("first", 1, "the first")
    assert decision["champion_before"] is None
    assert (model["name"], model["kind"], model["champion"]) == ("length", "task", 2)
    assert [(v["version"], v["aliases"], v["loaded"]) for v in model["versions"]] == [
        (2, ["champion"], False),
        (1, [], True),
    ]
    assert model["versions"][0]["targets"][0]["unit"] == "characters"
    assert model["versions"][0]["beats_floor"] is True


@pytest.mark.parametrize(
    ("path", "request_", "status", "words"),
    [
        ("/v1/models/lenght/predict", {"json": {"inputs": ["a"]}}, 404, "registered: length"),
        ("/v1/models/length/predict", {"json": {"inputs": ["a"], "alias": "best"}}, 404, "length@champion"),
        ("/v1/models/length/predict", {"json": {"inputs": ["a"], "version": 9}}, 404, "length/9"),
        ("/v1/models/length@champion/predict", {"json": {"inputs": ["a"]}}, 422, "into the body"),
        ("/v1/models/length/predict", {"json": {"inputs": "CCO"}}, 422, "inputs"),
        ("/v1/models/length/predict", {"json": {"smiles": ["CCO"]}}, 422, "inputs"),
        ("/v1/models/length/predict", {"json": {"inputs": [], "version": 0}}, 422, "version"),
        ("/v1/models/length/predict", {"json": {"inputs": [], "alias": "a/b"}}, 422, "alias"),
        ("/v1/models/length/predict", {"content": "{", "headers": {"content-type": "application/json"}},
         422, "JSON"),
        ("/v1/models/length/predict", {"content": '{"inputs":["a"]}'}, 422, ""),
        ("/v1/models/length/predict", {"json": {"inputs": ["a"] * 101}}, 413, "at most 100"),
        ("/v1/models/length/predict", {"json": {"inputs": ["a" * 20_000]}}, 413, "MiB"),
        ("/nowhere", {}, 404, ""),
    ],
)  # fmt: skip
def test_errors_are_one_line_that_says_what_to_do(
    tmp_path: Path, path: str, request_: dict, status: int, words: str
) -> None:
    with running(one_model(), tmp_path, limits=Limits(100, 10_000, 10_000)) as url:
        response = httpx.post(url + path, **request_)
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert words in response.json()["error"]
    assert "\n" not in response.json()["error"]


def test_a_body_of_undeclared_length_is_stopped_at_the_limit(tmp_path: Path) -> None:
    predictor = LengthPredictor()
    with running(one_model(predictor), tmp_path, limits=Limits(request_bytes=10_000)) as url:
        body = (b'{"inputs":["' if i == 0 else b"x" * 1000 for i in range(1000))
        response = httpx.post(
            f"{url}/v1/models/length/predict", content=body, headers={"content-type": "application/json"}
        )
        assert response.status_code == 413
        assert predict(url, ["a"]).status_code == 200


def test_deeply_nested_input_is_refused(tmp_path: Path) -> None:
    with running(one_model(), tmp_path) as url:
        body = '{"inputs":' + "[" * 100_000 + "]" * 100_000 + "}"
        headers = {"content-type": "application/json"}
        response = httpx.post(f"{url}/v1/models/length/predict", content=body, headers=headers)
        assert response.status_code in (400, 422)
        assert set(response.json()) == {"error"}


def test_a_new_champion_takes_over_while_requests_go_on(tmp_path: Path) -> None:
    old, new = LengthPredictor(1, seconds=0.01), LengthPredictor(10)
    registry = FakeRegistry({"length": {1: old, 2: new}}, {"length": 1})
    with running(registry, tmp_path) as url:
        assert predict(url, ["abc"]).json()["model"]["version"] == 1
        answers: list[dict] = []
        stop = threading.Event()

        def ask() -> None:
            with httpx.Client() as http:
                while not stop.is_set():
                    response = http.post(f"{url}/v1/models/length/predict", json={"inputs": ["abc"] * 40})
                    assert response.status_code == 200, response.text
                    answers.append(response.json())

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(answers) > 10)
        registry.champions["length"] = 2
        wait_for(lambda: answers[-1]["model"]["version"] == 2)
        stop.set()
        for thread in threads:
            thread.join(10)
        for answer in answers:  # never a mixture of two versions in one answer
            factor = {1: 1.0, 2: 10.0}[answer["model"]["version"]]
            assert {r["predictions"]["length"]["prediction"] for r in answer["results"]} == {3 * factor}
        [serving] = httpx.get(f"{url}/healthz").json()["serving"]
        assert (serving["reference"], serving["version"]) == ("length@champion", 2)
        assert 'groundwork_serving{reference="length@champion",version="2"} 1.0' in metrics(url)
        assert 'reference="length@champion",version="1"' not in metrics(url)


def test_a_version_that_fails_its_check_is_not_swapped_in(tmp_path: Path) -> None:
    registry = FakeRegistry(
        {"length": {1: LengthPredictor(), 2: LengthPredictor(broken=True)}}, {"length": 1}
    )
    with running(registry, tmp_path) as url:
        predict(url, ["a"])
        registry.champions["length"] = 2
        wait_for(lambda: httpx.get(f"{url}/healthz").json()["status"] == "degraded")
        time.sleep(0.2)
        assert registry.loads.count("length/2") == 1  # not loaded again at every look
        assert predict(url, ["a"]).json()["model"]["version"] == 1
        [failed] = httpx.get(f"{url}/healthz").json()["failed"]
        assert (failed["reference"], failed["version"]) == ("length@champion", 2)
        assert "golden" in failed["reason"]
        assert 'groundwork_failed_checks_total{name="length"} 1.0' in metrics(url)
        response = predict(url, ["a"], version=2)
        assert response.status_code == 500
        assert "length version 2 cannot be served" in response.json()["error"]

        registry.predictors["length"][3] = LengthPredictor(3)
        registry.champions["length"] = 3
        wait_for(lambda: predict(url, ["a"]).json()["model"]["version"] == 3)
        references = [f["reference"] for f in httpx.get(f"{url}/healthz").json()["failed"]]
        assert references == ["length/2"]


def test_a_model_that_is_deleted_is_no_longer_served(tmp_path: Path) -> None:
    registry = one_model()
    with running(registry, tmp_path) as url:
        predict(url, ["a"])
        del registry.champions["length"]
        wait_for(lambda: predict(url, ["a"]).status_code == 404)


def test_the_service_starts_without_mlflow_and_lives_through_its_absence(tmp_path: Path) -> None:
    registry = one_model()
    registry.down = True
    with running(registry, tmp_path) as url:
        response = predict(url, ["a"])
        assert response.status_code == 503
        assert "MLflow" in response.json()["error"]
        assert "Retry-After" in response.headers
        health = httpx.get(f"{url}/healthz")
        assert health.status_code == 200
        assert (health.json()["status"], health.json()["mlflow"]) == ("degraded", "unreachable")
        registry.down = False
        assert predict(url, ["a"]).status_code == 200
        registry.down = True
        wait_for(lambda: httpx.get(f"{url}/healthz").json()["mlflow"] == "unreachable")
        assert predict(url, ["a"]).status_code == 200  # what is loaded goes on answering
        registry.down = False
        wait_for(lambda: httpx.get(f"{url}/healthz").json()["status"] == "ok")


def test_a_full_queue_answers_503_and_a_single_input_overtakes_a_flood(tmp_path: Path) -> None:
    with running(one_model(LengthPredictor(seconds=0.02)), tmp_path) as url:
        predict(url, ["a"])

        async def flood() -> None:
            async with httpx.AsyncClient(timeout=60) as http:
                path = f"{url}/v1/models/length/predict"
                big = [
                    asyncio.create_task(http.post(path, json={"inputs": ["abc"] * 128})) for _ in range(40)
                ]
                await asyncio.sleep(0.2)
                refused = await http.post(path, json={"inputs": ["abc"]})
                assert refused.status_code == 503
                assert refused.headers["Retry-After"] == "1"
                statuses = [(await task).status_code for task in big]
                assert set(statuses) == {200, 503}

                task = asyncio.create_task(http.post(path, json={"inputs": ["abc"] * 1500}))
                await asyncio.sleep(0.1)
                started = time.perf_counter()
                assert (await http.post(path, json={"inputs": ["abc"]})).status_code == 200
                alone = time.perf_counter() - started
                assert not task.done()
                await task
                assert alone < 0.5

        asyncio.run(flood())


def test_a_client_that_leaves_is_not_predicted_for(tmp_path: Path) -> None:
    predictor = LengthPredictor(seconds=0.05)
    with running(one_model(predictor), tmp_path) as url:
        predict(url, ["a"])
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/models/length/predict", json={"inputs": ["abc"] * 5000}, timeout=0.3)
        wait_for(lambda: httpx.get(f"{url}/healthz").json()["serving"][0]["queue"]["held"] == 0)
        time.sleep(0.1)  # the batch that was running
        before = predictor.predicted
        time.sleep(0.3)
        assert predictor.predicted == before < 2000


def test_with_a_key_everything_but_health_asks_for_it(tmp_path: Path) -> None:
    with running(one_model(), tmp_path, api_key="s3cret") as url:
        for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/v1/datasets"):
            assert httpx.get(url + path).status_code == 401
            assert httpx.get(url + path, headers={"X-API-Key": "s3cre"}).status_code == 401
            assert httpx.get(url + path, headers={"X-API-Key": "s3cret"}).status_code == 200
            assert httpx.get(url + path, headers={"Authorization": "Bearer s3cret"}).status_code == 200
        assert predict(url, ["a"]).status_code == 401
        httpx.post(f"{url}/v1/models/length/predict", json={"inputs": ["a"]}, headers={"X-API-Key": "s3cret"})
        stranger = httpx.get(f"{url}/healthz")
        assert stranger.status_code == 200
        assert stranger.json()["serving"] == []  # whether it lives is all a stranger learns
        assert httpx.get(f"{url}/healthz", headers={"X-API-Key": "s3cret"}).json()["serving"]


def test_without_a_key_a_foreign_host_name_is_refused(tmp_path: Path) -> None:
    with running(one_model(), tmp_path) as url:
        assert httpx.get(f"{url}/v1/models", headers={"Host": "evil.example"}).status_code == 400
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
            assert httpx.get(f"{url}/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "key", "allowed"),
    [("127.0.0.1", None, True), ("::1", None, True), ("localhost", None, True), ("0.0.0.0", None, False),  # noqa: S104
     ("::", None, False), ("192.168.1.5", None, False), ("myhost", None, False), ("0.0.0.0", "key", True)],  # noqa: S104
)  # fmt: skip
def test_other_machines_are_let_in_only_with_a_key(host: str, key: str | None, allowed: bool) -> None:
    if allowed:
        access.check_exposure(host, key)
    else:
        with pytest.raises(access.GroundworkError, match="GROUNDWORK_API_KEY"):
            access.check_exposure(host, key)


def test_starting_exposed_or_on_a_taken_port_fails_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GROUNDWORK_HOME", str(tmp_path))
    monkeypatch.delenv("GROUNDWORK_API_KEY", raising=False)
    monkeypatch.setattr("groundwork.api.__main__._set_defaults", lambda home: None)
    assert main(["--host", "0.0.0.0"]) == 1  # noqa: S104
    assert "GROUNDWORK_API_KEY" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in error
    assert "--port" in error
    assert error.count("\n") == 1


def test_an_unexpected_error_shows_nothing_of_the_inside(tmp_path: Path) -> None:
    class Odd(LengthPredictor):
        def answer(self, outputs: object) -> dict:
            raise RuntimeError("secret detail")

    with running(one_model(Odd()), tmp_path) as url:
        response = predict(url, ["a"])
    assert response.status_code == 500
    assert set(response.json()) == {"error"}
    assert "secret" not in response.text


def test_the_documentation_page_needs_no_internet(tmp_path: Path) -> None:
    with running(one_model(), tmp_path) as url:
        page = httpx.get(f"{url}/docs").text
        assets = [part.split('"')[0] for part in page.replace("src=", "href=").split('href="')[1:]]
        assert len(assets) == 3
        for asset in assets:
            assert not urlsplit(asset).netloc
            assert len(httpx.get(url + asset).content) > 1000
        schema = httpx.get(f"{url}/openapi.json").json()
    assert "HTTPValidationError" not in schema["components"]["schemas"]  # every error has one shape
    body = schema["paths"]["/v1/models/{name}/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert body["examples"]["molecules"]["value"] == {"inputs": ["CCO", "c1ccccc1O"]}
    assert "multipart/form-data" in schema["paths"]["/v1/datasets/{name}"]["put"]["requestBody"]["content"]


def test_metrics_count_requests_and_items(tmp_path: Path) -> None:
    with running(one_model(), tmp_path) as url:
        predict(url, ["a", "b", 3])
        predict(url, "nonsense")
        text = metrics(url)
    assert 'groundwork_requests_total{route="/v1/models/{name}/predict",status="200"} 1.0' in text
    assert 'groundwork_requests_total{route="/v1/models/{name}/predict",status="422"} 1.0' in text
    assert 'groundwork_items_total{name="length",status="ok",version="1"} 2.0' in text
    assert 'groundwork_items_total{name="length",status="rejected",version="1"} 1.0' in text
    assert "groundwork_batch_items_bucket" in text


def metrics(url: str) -> str:
    return httpx.get(f"{url}/metrics").text
