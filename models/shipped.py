"""Foundations that come with the project, for who has not pretrained one.

Each is the folder of a version below ``models/foundations``, as a flow of the project wrote it, beside
``card.json``, which says how to make it again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from domains.contract import GroundworkError
from models.predictor import ENCODER, Predictor

FOLDER = Path(__file__).with_name("foundations")
CARD = "card.json"
WEIGHTS = f"{ENCODER}/model.safetensors"


class Card(BaseModel):
    """Where a shipped foundation comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: str
    digest: str
    """SHA-256 of the weights."""
    command: str
    """What was typed to make it."""
    seconds: float
    """What its training took, on ``device``."""
    device: str
    records: int
    data: str
    """What it has learnt from, under which licences."""
    figures: dict[str, float]
    """What was measured while it was trained, by name."""


def shipped_for(domain: str) -> str | None:
    """Name of the foundation that comes with the project for a domain; None where there is none."""
    names = sorted(path.parent.name for path in FOLDER.glob(f"*/{CARD}"))
    return next((name for name in names if read_card(name).domain == domain), None)


def is_shipped(name: str) -> bool:
    """Whether a foundation of this name comes with the project."""
    return "/" not in name and (FOLDER / name / CARD).is_file()


def read_card(name: str) -> Card:
    """The card of a shipped foundation. Raises GroundworkError for one that cannot be read."""
    try:
        return Card.model_validate_json((FOLDER / name / CARD).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise GroundworkError(
            f"the card of the foundation {name} cannot be read: install Groundwork again"
        ) from error


def load_shipped(name: str) -> Predictor:
    """Load a shipped foundation. Raises GroundworkError where its weights are not those of its card."""
    weights = FOLDER / name / WEIGHTS
    found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "missing"
    if found != read_card(name).digest:
        raise GroundworkError(
            f"the weights of the foundation {name} are not those of its card ({found[:12]}): "
            "install Groundwork again, or start from another foundation"
        )
    return Predictor.load(FOLDER / name)
