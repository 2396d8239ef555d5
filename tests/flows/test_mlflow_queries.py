"""The queries that the README shows, run as they are written there, on a registry filled by the flows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mlflow
import pytest

from domains.contract import load_domain
from flows.dispatch import run
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.settings import settings_class
from models.registry import Version

README = Path(__file__).parents[2] / "README.md"
HEADING = "## Asking MLflow"


@pytest.fixture(scope="module")
def versions(module_home: Home, tables: Path) -> list[Version]:
    """``esol/1`` and ``esol/2`` on one dataset, ``ring/1`` on another."""
    made = []
    for name, table, rate in [("esol", "logp", 1e-9), ("esol", "logp", 3e-3), ("ring", "ring", 3e-3)]:
        settings = settings_class("finetune", "molecules")(
            dataset=str(tables / f"{table}.csv"), name=name, split="random", epochs=6, learning_rate=rate
        )
        made.append(run("finetune", load_domain("molecules"), settings, module_home, ConsoleJournal()))
    return made


@pytest.fixture
def queries(module_home: Home) -> dict[str, Any]:
    """What the README's Python defines; MLflow's address is in the environment, as it says."""
    section = README.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert blocks, f"README.md shows no Python below {HEADING!r}"
    namespace: dict[str, Any] = {}
    exec("\n".join(blocks), namespace)  # noqa: S102 - the project's own README
    return namespace


@pytest.mark.slow
def test_best_version_of_a_name(versions: list[Version], queries: dict[str, Any]) -> None:
    assert int(queries["best_version"]("esol").version) == 2
    assert float(versions[1].tags["value"]) < float(versions[0].tags["value"])
    assert int(queries["best_version"]("ring").version) == 1


@pytest.mark.slow
def test_versions_that_used_a_dataset(versions: list[Version], queries: dict[str, Any]) -> None:
    esol, _, ring = versions
    found = queries["versions_that_used"](esol.tags["dataset_digest"])
    assert sorted((entry.name, int(entry.version)) for entry in found) == [("esol", 1), ("esol", 2)]
    [only] = queries["versions_that_used"](ring.tags["dataset_digest"])
    assert only.name == "ring"
    assert queries["versions_that_used"]("nothing") == []


@pytest.mark.slow
def test_what_is_live(versions: list[Version], queries: dict[str, Any]) -> None:
    mlflow.MlflowClient().create_registered_model("without-a-version")
    live = {
        name: (int(entry.version), entry.tags["beats_floor"])
        for name, entry in queries["what_is_live"]().items()
    }
    assert live == {
        "esol": (2, versions[1].tags["beats_floor"]),
        "ring": (1, versions[2].tags["beats_floor"]),
    }


@pytest.mark.slow
def test_the_tags_that_the_readme_names_are_there(versions: list[Version]) -> None:
    section = README.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_]+)`", section.rpartition("```")[2]))
    assert {"beats_floor", "split_id", "dataset_digest"} <= named
    assert named <= set(versions[0].tags)
