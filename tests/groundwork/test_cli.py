"""The command: what it refuses, in one line each, and what it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from domains.contract import GroundworkError
from flows.home import Home
from flows.settings import settings_class
from groundwork import cli
from groundwork.commands import _validated


@pytest.fixture
def table(tmp_path: Path, molecules: list[str]) -> Path:
    """Molecules with a measured column, and columns that cannot be learnt."""
    path = tmp_path / "table.csv"
    rows = {"smiles": molecules[:40], "length": [len(smiles) for smiles in molecules[:40]]}
    pd.DataFrame({**rows, "constant": 1.5, "gap": "", "word": "x"}).to_csv(path, index=False)
    return path


def run(monkeypatch: pytest.MonkeyPatch, home: Home, *arguments: str) -> int:
    """Exit code of the command with these arguments, run in this process."""
    monkeypatch.setenv("GROUNDWORK_HOME", str(home.root))
    for name, value in home.environment().items():
        monkeypatch.setenv(name, value)  # so that what the command sets is undone
    monkeypatch.setattr(sys, "argv", ["groundwork", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


REFUSED = [
    (("finetune", "molecules", "missing.csv"), "there is no file missing.csv"),
    (("finetune", "molecules", "{empty}"), "empty.csv is empty"),
    (("finetune", "molecules", "{table}", "--target", "nope"), "no column 'nope'; columns: length, constant"),
    (("finetune", "molecules", "{table}"), "say which column to predict with --target"),
    (("finetune", "molecules", "{invalid}", "--target", "y"), "no valid molecule in"),
    (("finetune", "molecules", "{table}", "--target", "constant"), "'constant' is constant (1.5)"),
    (("finetune", "molecules", "{table}", "--target", "gap"), "'gap' has no value in any usable row"),
    (("finetune", "molecules", "{table}", "--target", "word"), "'word' is constant (x)"),
    (
        ("finetune", "molecules", "{table}", "--epochs", "-1"),
        "--epochs: input should be greater than or equal",
    ),
    (("finetune", "molecules", "{table}", "--epochs", "many"), "--epochs: input should be a valid integer"),
    (
        ("finetune", "molecules", "{table}", "--split", "guess"),
        "--split: 'guess' is not one of 'auto', 'scaff",
    ),
    (("finetune", "molecules", "{table}", "--epoch", "3"), "no such option: --epoch (Possible options: "),
    (("up", "--api-port", "0"), "--api-port: input should be greater than or equal to 1"),
    (("predict", "--output", "x.csv"), "missing argument 'MODEL'; see"),
    (("finetune", "molecules", "{table}", "--set", "speed=9"), "there is no setting 'speed'"),
    (("finetune", "molecules", "{table}", "--set", "speed"), "--set needs key=value"),
    (
        ("finetune", "molecules", "{table}", "--config", "missing.yaml"),
        "there is no config file",
    ),
    (("finetune", "molecules", "{table}", "--target", "length", "--resume"), "no interrupted run"),
    (
        ("finetune", "molecules", "{table}", "--target", "length", "--remote"),
        "--remote needs a running",
    ),
    (("predict", "nothing", "{table}"), "no model is called 'nothing'"),
    (("models",), "no model is registered yet"),
    (("models", "nothing"), "no model is called 'nothing'"),
    (("history", "nothing"), "no model is called 'nothing'"),
    (("rollback", "nothing"), "no model is called 'nothing'"),
    (("retrain", "molecules", "--model", "nothing"), "nothing has no champion: fine-tune it first"),
    (("retrain", "molecules", "--confidence", "1"), "--confidence: input should be less than 1"),
]


@pytest.mark.parametrize(
    ("arguments", "said"), REFUSED, ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: tuple[str, ...],
    said: str,
    home: Home,
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    empty, invalid = table.with_name("empty.csv"), table.with_name("invalid.csv")
    empty.touch()
    invalid.write_text("smiles,y\nxx,1\nyy(,2\n")
    places = {"table": str(table), "empty": str(empty), "invalid": str(invalid)}
    code = run(monkeypatch, home, *(argument.format(**places) for argument in arguments))
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 1
    assert len(errors) == 1
    assert said in errors[0]


@pytest.mark.parametrize("arguments", [(), ("finetune",), ("finetune", "molecules")])
def test_without_arguments_the_help_is_shown(
    arguments: tuple[str, ...],
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, home, *arguments) == cli.USAGE
    said = capsys.readouterr()
    assert "Usage:" in said.out
    assert not said.err


def test_full_disk_is_said_in_one_line(
    home: Home, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Home, "free_space", lambda self: 3 * 2**20)
    assert run(monkeypatch, home, "finetune", "molecules", str(table), "--target", "length") == 1
    assert "is full: 3 MB free, at least 256 MB needed" in capsys.readouterr().err


def test_options_go_over_pairs_and_pairs_over_a_file(tmp_path: Path) -> None:
    from groundwork.commands import _from_config, _from_pairs

    config = tmp_path / "mine.yaml"
    config.write_text("epochs: 3\nbatch_size: 16\nseed: 1\n")
    given = {**_from_config(config), **_from_pairs(["epochs=4", "batch-size=32"]), "epochs": "5"}
    settings = _validated(settings_class("finetune", "molecules"), given)
    assert settings.model_dump(include={"epochs", "batch_size", "seed", "split"}) == {
        "epochs": 5,
        "batch_size": 32,
        "seed": 1,
        "split": "scaffold",  # from the presets
    }


def test_lists_may_be_written_as_text() -> None:
    settings = _validated(settings_class("finetune", "molecules"), {"target": "a, b"})
    assert settings.model_dump()["target"] == ["a", "b"]
    with pytest.raises(GroundworkError, match="--task"):
        _validated(settings_class("finetune", "molecules"), {"task": "guess"})


def test_asking_for_help_does_not_import_torch() -> None:
    script = (
        "import sys; sys.argv = ['groundwork', '--help']\n"
        "from groundwork.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in ("pretrain", "finetune", "predict", "up", "doctor"))
