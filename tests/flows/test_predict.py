"""A file of rows answered: one row out for each row in, in order, whatever the rows are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from domains.contract import GroundworkError, load_domain
from flows.dispatch import run
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.predict import PredictedFile, predict
from flows.settings import settings_class
from models import registry
from models.predictor import Predictor
from models.registry import Version

ROWS = """id,smiles,note
7,CCO,ethanol
7,CCO,"again, with a comma"
8,C1CC(,broken
9,,empty
10,c1ccccc1O,
11,OCC,ethanol respelt
"""


@pytest.fixture(scope="module")
def version(module_home: Home, tables: Path) -> Version:
    settings = settings_class("finetune", "molecules")(
        dataset=str(tables / "both.csv"), target=["logp", "tpsa"], name="both", split="random", epochs=1
    )
    return run("finetune", load_domain("molecules"), settings, module_home, ConsoleJournal())


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return path


def ask(home: Home, journal: Any, **values: Any) -> PredictedFile:
    given = {name: str(value) for name, value in values.items()}
    return predict(settings_class("predict", "molecules")(**given), home, journal)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_one_row_for_each_row_in_order(
    module_home: Home, version: Version, rows: Path, tmp_path: Path, journal: Any, suffix: str
) -> None:
    output = tmp_path / f"out.{suffix}"
    written = ask(module_home, journal, model="both@champion", dataset=rows, output=output)
    assert (written.rows, written.rejected, written.path) == (6, 2, output)
    read = pd.read_parquet if suffix == "parquet" else pd.read_csv
    table = read(output)
    assert list(table.columns) == [
        "id", "smiles", "note", "logp_prediction", "tpsa_prediction", "status", "reason",
    ]  # fmt: skip
    assert table["id"].astype(str).tolist() == ["7", "7", "8", "9", "10", "11"]
    assert table["note"][1] == "again, with a comma"
    assert table["status"].tolist() == ["ok", "ok", "rejected", "rejected", "ok", "ok"]
    assert table["reason"][3] == "empty"
    assert table["reason"][2]
    assert table.loc[[2, 3], ["logp_prediction", "tpsa_prediction"]].isna().all().all()
    expected = registry.load("both")[1].answer_values(["CCO", "CCO", "c1ccccc1O", "OCC"]).outputs
    answered = table.loc[[0, 1, 4, 5], ["logp_prediction", "tpsa_prediction"]].to_numpy()
    np.testing.assert_allclose(answered, expected, atol=1e-5, rtol=1e-5)
    assert answered[0] == pytest.approx(answered[1])
    assert answered[0] == pytest.approx(answered[3], abs=1e-5)


def test_the_file_says_who_answered(
    module_home: Home, version: Version, rows: Path, tmp_path: Path, journal: Any
) -> None:
    written = ask(module_home, journal, model="both/1", dataset=rows, output=tmp_path / "o.parquet")
    metadata = pq.read_schema(written.path).metadata
    assert metadata[b"groundwork.model"] == b"both/1"
    assert metadata[b"groundwork.mlflow_run"].decode() == version.run_id
    assert "6 rows, 2 rejected, by both/1" in journal.text


def test_chunks_join_into_one_file(
    module_home: Home, version: Version, rows: Path, tmp_path: Path, journal: Any, monkeypatch
) -> None:
    """A first chunk of nothing but rejects must not decide what the columns hold."""
    whole = pd.read_parquet(
        ask(module_home, journal, model="both", dataset=rows, output=tmp_path / "a.parquet").path
    )
    monkeypatch.setattr("flows.predict.CHUNK", 2)
    parts = pd.read_parquet(
        ask(module_home, journal, model="both", dataset=rows, output=tmp_path / "b.parquet").path
    )
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-5)
    rows.write_text("smiles,n\nx(,1\ny(,2\nCCO,3\nCCN,4\n")
    rejects_first = pd.read_parquet(
        ask(module_home, journal, model="both", dataset=rows, output=tmp_path / "c.parquet").path
    )
    assert rejects_first["logp_prediction"].isna().tolist() == [True, True, False, False]


def test_without_an_output_it_lies_in_the_outputs_folder(
    module_home: Home, version: Version, rows: Path, journal: Any
) -> None:
    written = ask(module_home, journal, model="both", dataset=rows)
    assert written.path == module_home.outputs / "rows-both-1.parquet"
    assert written.path.is_file()


def test_a_form_writes_nowhere_else(module_home: Home, version: Version, rows: Path) -> None:
    class Form(ConsoleJournal):
        trusted = False

    (module_home.inbox / "rows.csv").write_bytes(rows.read_bytes())
    for output in ("../escaped.parquet", str(rows.with_name("escaped.parquet")), "a/../../x.csv"):
        with pytest.raises(GroundworkError, match=r"lies outside of .*: give a plain file name"):
            ask(module_home, Form(), model="both", dataset="rows", output=output)
    assert not list(module_home.root.parent.rglob("escaped*"))
    written = ask(module_home, Form(), model="both", dataset="rows", output="mine.csv")
    assert written.path == module_home.outputs / "mine.csv"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": "nothing"}, "no model is called 'nothing'; registered: both"),
        ({"model": "both@staging"}, "'both@staging' is not registered; known: both/1, both@champion"),
        ({"dataset": "nowhere.csv"}, r"there is no file nowhere\.csv: check the path"),
        ({"output": "out.xlsx"}, r"output 'out\.xlsx' must end in \.parquet or \.csv"),
        ({"output": "/nowhere/out.csv"}, "the folder /nowhere of the output does not exist: make it first"),
        ({"input_column": "structure"}, "has no column 'structure'"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    module_home: Home, version: Version, rows: Path, journal: Any, values: dict[str, str], said: str
) -> None:
    with pytest.raises(GroundworkError, match=said) as error:
        ask(module_home, journal, **{"model": "both", "dataset": rows, **values})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("smiles,n\n", "no rows|holds no"),
        ("smiles,status\nCCO,done\n", "has a column 'status' already: rename it first"),
        ("smiles,logp_prediction\nCCO,1\n", "has a column 'logp_prediction' already"),
    ],
)
def test_files_that_cannot_be_answered_leave_none_behind(
    module_home: Home, version: Version, rows: Path, tmp_path: Path, journal: Any, text: str, said: str
) -> None:
    rows.write_text(text)
    with pytest.raises(GroundworkError, match=said):
        ask(module_home, journal, model="both", dataset=rows, output=tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_the_input_is_never_written_over(
    module_home: Home, version: Version, rows: Path, tmp_path: Path, journal: Any
) -> None:
    before = rows.read_bytes()
    link = tmp_path / "link.csv"
    link.symlink_to(rows)
    for output in (rows, link):
        with pytest.raises(GroundworkError, match=rf"the output {output.name} is the input itself"):
            ask(module_home, journal, model="both", dataset=rows, output=output)
    assert rows.read_bytes() == before


def test_an_older_answer_stays_until_the_new_one_is_whole(
    module_home: Home, version: Version, rows: Path, tmp_path: Path, journal: Any, monkeypatch
) -> None:
    output = tmp_path / "out.parquet"
    ask(module_home, journal, model="both", dataset=rows, output=output)
    before = output.read_bytes()
    monkeypatch.setattr("flows.predict.CHUNK", 2)
    answer = Predictor.answer_rows

    def fail_on_the_last(predictor: Predictor, chunk: Any) -> Any:
        if chunk[0].index == 4:
            raise OSError(28, "No space left on device")
        return answer(predictor, chunk)

    monkeypatch.setattr(Predictor, "answer_rows", fail_on_the_last)
    with pytest.raises(GroundworkError, match=r"cannot be written \(No space left on device\)"):
        ask(module_home, journal, model="both", dataset=rows, output=output)
    assert output.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "rows.csv"]


def test_a_foundation_answers_with_embeddings(
    module_home: Home, version: Version, rows: Path, tables: Path, tmp_path: Path, journal: Any
) -> None:
    settings = settings_class("pretrain", "molecules")(dataset=str(tables / "smiles.csv"), epochs=1)
    run("pretrain", load_domain("molecules"), settings, module_home, journal)
    written = ask(
        module_home, journal, model="molecules-foundation", dataset=rows, output=tmp_path / "e.parquet"
    )
    table = pd.read_parquet(written.path)
    assert table.shape == (6, 3 + 32 + 2)
    assert table["embedding_31"].notna().sum() == 4
