"""The thread from a form to a served answer, through the Prefect API, on real servers."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from groundwork_up import BROKEN, PHENOL, UPLOADED, Groundwork, eventually

pytestmark = pytest.mark.slow


def predicted(running: Groundwork, inputs: list[str], **which: Any) -> dict[str, Any]:
    url = f"{running.addresses.api_url}/v1/models/logp/predict"
    return httpx.post(url, json={"inputs": inputs, **which}, timeout=60).raise_for_status().json()


def test_a_foundation_is_pretrained_from_pasted_rows(running: Groundwork, pretraining: str) -> None:
    version = running.mlflow.get_model_version_by_alias("molecules-foundation", "champion")
    assert version.tags["kind"] == "foundation"
    assert version.tags["flow_run_id"] == pretraining
    artifacts = running.artifacts(pretraining)
    assert artifacts["progress"]["data"] == 100
    [row] = json.loads(artifacts["result"]["data"])
    assert row["version"] == "molecules-foundation/1"
    assert float(row["held-out loss"]) > 0


def test_a_version_says_where_it_comes_from(
    running: Groundwork, first: str, uploaded: dict[str, Any]
) -> None:
    version = running.mlflow.get_model_version("logp", "1")
    run = running.mlflow_run(first)
    assert version.run_id == run.info.run_id
    assert run.info.status == "FINISHED"
    assert version.tags["flow_run_id"] == first
    assert version.tags["kind"] == "task"
    assert version.tags["task"] == "regression"
    assert version.tags["unit"] == "log10"
    assert version.tags["foundation"] == "molecules-foundation/1"
    assert version.tags["dataset_digest"] == uploaded["digest"] == run.inputs.dataset_inputs[0].dataset.digest
    is_ahead = float(version.tags["value"]) < float(version.tags["floor_value"])
    assert version.tags["beats_floor"] == str(is_ahead).lower()
    assert version.tags["promotion"].startswith("first version of logp")
    assert run.data.params["split_id"] == version.tags["split_id"]
    assert run.data.params["epochs"] == "3"
    assert int(run.data.params["dataset_records"]) == UPLOADED
    assert run.data.params["dataset_rejects"] == "1"
    rejects = pd.read_csv(running.artifact(run, "rejects.csv"))
    assert rejects["original"].tolist() == [BROKEN]
    assert rejects["reason"].str.len().min() > 0


def test_prefect_shows_progress_results_and_a_figure(running: Groundwork, first: str) -> None:
    artifacts = running.artifacts(first)
    assert artifacts["progress"]["data"] == 100
    rows = json.loads(artifacts["result"]["data"])
    assert [row["model"].partition(" ")[0] for row in rows] == ["logp/1", "ECFP4", "descriptors"]
    beats = running.mlflow.get_model_version("logp", "1").tags["beats_floor"]
    assert f"beats_floor={beats}" in artifacts["result"]["description"]
    figure = httpx.get(artifacts["figure"]["data"], timeout=60)
    assert artifacts["figure"]["type"] == "image"
    assert figure.headers["content-type"] == "image/png"
    assert figure.content.startswith(b"\x89PNG")
    # The last lines come in after the run has told its end.
    assert eventually(lambda: "first version of logp" in running.said(first))
    assert "1 rejected" in running.said(first)


def test_flow_run_and_mlflow_run_link_to_one_another(running: Groundwork, first: str) -> None:
    run = running.mlflow_run(first)
    link = running.artifacts(first)["mlflow-run"]["data"]
    page = f"{running.addresses.mlflow_url}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert f"]({page})" in link
    there = run.data.tags["prefect.flow_run_url"]
    assert there.startswith(running.addresses.prefect_url)
    assert there.endswith(f"/flow-run/{first}")
    assert there in run.data.tags["mlflow.note.content"]


def test_the_api_answers_with_the_version_and_a_reason(running: Groundwork, first: str) -> None:
    answer = predicted(running, [PHENOL, BROKEN], version=1)
    assert answer["model"]["version"] == 1
    assert answer["model"]["run_id"] == running.mlflow_run(first).info.run_id
    assert (
        str(answer["model"]["beats_floor"]).lower()
        == running.mlflow.get_model_version("logp", "1").tags["beats_floor"]
    )
    good, bad = answer["results"]
    assert good["status"] == "ok"
    assert np.isfinite(good["predictions"]["logp"]["prediction"])
    assert bad["status"] == "rejected"
    assert bad["predictions"] is None
    assert bad["reason"]


def test_a_file_outside_of_the_roots_is_refused(running: Groundwork, outside: tuple[str, Path]) -> None:
    run, file = outside
    state = running.ended(run)
    assert state["type"] == "FAILED"
    assert f"there is no dataset {str(file)!r}" in state["message"]
    assert str(running.home.inbox) in state["message"]


@pytest.mark.parametrize(
    ("field", "value"), [("epochs", -1), ("learning_rate", 2), ("split", "by mood"), ("name", "Not A Name")]
)
def test_a_value_out_of_range_is_refused_with_its_field(running: Groundwork, field: str, value: Any) -> None:
    answer = running.submit("finetune-molecules", dataset="melting-points", **{field: value})
    assert answer.status_code in (409, 422)
    assert f"'{field}'" in answer.json()["detail"]


def test_a_remote_command_is_run_by_the_services(running: Groundwork, first: str, tmp_path: Path) -> None:
    file = tmp_path / "fresh.csv"
    file.write_text(f"id,smiles\n1,{PHENOL}\n2,{BROKEN}\n3,\n4,{PHENOL}\n")
    done = running.command("predict", "logp", str(file), "--output", "fresh.parquet", "--remote")
    assert done.returncode == 0, done.stderr
    assert "fresh.parquet" in done.stderr
    written = pd.read_parquet(running.home.outputs / "fresh.parquet")
    assert written["id"].tolist() == ["1", "2", "3", "4"]
    assert written["status"].tolist() == ["ok", "rejected", "rejected", "ok"]
    direct = predicted(running, [PHENOL])["results"][0]["predictions"]["logp"]["prediction"]
    assert written["logp_prediction"][[0, 3]].tolist() == pytest.approx([direct, direct], rel=1e-5)


def test_a_fresh_process_answers_as_training_and_the_api_did(
    running: Groundwork, first: str, table: str, tmp_path: Path
) -> None:
    logged = pd.read_parquet(running.artifact(running.mlflow_run(first), "test_predictions.parquet"))
    raw = list(csv.DictReader(io.StringIO(table)))
    inputs = [raw[row]["smiles"] for row in logged["row"]]
    np.testing.assert_array_equal(logged["logp"], [float(raw[row]["logp"]) for row in logged["row"]])

    script = (
        "import json, sys, mlflow, pandas;"
        "model = mlflow.pyfunc.load_model('models:/logp/1');"
        "answer = model.predict(pandas.DataFrame({'smiles': json.loads(sys.argv[1])}));"
        "answer.to_json(sys.argv[2], double_precision=15)"
    )
    done = running.python("-c", script, json.dumps([*inputs, BROKEN]), str(tmp_path / "fresh.json"))
    assert done.returncode == 0, done.stderr
    fresh = pd.read_json(tmp_path / "fresh.json")
    assert fresh["status"].tolist() == ["ok"] * len(inputs) + ["rejected"]
    values = fresh["logp_prediction"].to_numpy()[:-1]
    answered = predicted(running, inputs, version=1)["results"]
    api = [it["predictions"]["logp"]["prediction"] for it in answered]
    np.testing.assert_allclose(values, logged["logp_prediction"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(api, logged["logp_prediction"], rtol=1e-5, atol=1e-6)
    assert np.std(values) > 0.1
