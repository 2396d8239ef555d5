"""Foundations that come with the project: what they are is what their cards say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from small_models import contract_of, embed, small_encoder

from domains.contract import GroundworkError
from models import shipped
from models.predictor import Predictor

NAMES = sorted(path.parent.name for path in shipped.FOLDER.glob("*/card.json"))
LARGEST = 8_000_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped foundation of the test's own, ``little``."""
    folder = tmp_path / "little"
    Predictor.save(folder, contract_of(None), small_encoder())
    card = {
        "domain": "molecules",
        "digest": hashlib.sha256((folder / shipped.WEIGHTS).read_bytes()).hexdigest(),
        "command": "groundwork pretrain molecules corpus.parquet",
        "seconds": 12.5,
        "device": "cpu",
        "records": 100,
        "data": "made up",
        "figures": {},
    }
    (folder / shipped.CARD).write_text(json.dumps(card))
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    return folder


def test_it_is_found_by_its_domain_and_loads(folder: Path) -> None:
    assert shipped.shipped_for("molecules") == "little"
    assert shipped.shipped_for("geospatial") is None
    assert shipped.is_shipped("little")
    assert not shipped.is_shipped("little/1")
    assert not shipped.is_shipped("../little")
    loaded = shipped.load_shipped("little")
    assert (embed(loaded.encoder, ["CCO"]) == embed(small_encoder(), ["CCO"])).all()


def test_weights_that_are_not_those_of_the_card_are_refused(folder: Path) -> None:
    weights = folder / shipped.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(GroundworkError, match="not those of its card"):
        shipped.load_shipped("little")
    weights.unlink()
    with pytest.raises(GroundworkError, match="missing"):
        shipped.load_shipped("little")


def test_a_damaged_card_is_one_line(folder: Path) -> None:
    (folder / shipped.CARD).write_text("{}")
    with pytest.raises(GroundworkError, match="install Groundwork again") as error:
        shipped.load_shipped("little")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shipped_is_small_and_whole(name: str) -> None:
    loaded = shipped.load_shipped(name)
    loaded.check_golden()
    assert sum(file.stat().st_size for file in (shipped.FOLDER / name).rglob("*.safetensors")) <= LARGEST
    card = shipped.read_card(name)
    assert loaded.contract.domain == card.domain
    assert card.command.startswith("groundwork pretrain ")
    assert card.seconds > 0
