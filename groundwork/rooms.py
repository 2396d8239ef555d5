"""Where Python finds our packages: folders called `models` or `flows` are common, and may hide ours.

Imports nothing of ours, so that it can still speak when they are hidden.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOMS = ("domains", "models", "flows", "groundwork", "configs")
HERE = Path(__file__).resolve().parents[1]


def found_at(name: str) -> Path | None:
    """The folder or file that ``import name`` would take; None for none, or a folder without code."""
    specification = importlib.util.find_spec(name)
    if specification is None or specification.origin is None:
        return None
    origin = Path(specification.origin).resolve()
    return origin.parent if origin.name == "__init__.py" else origin


def strays() -> list[Path]:
    """What Python takes instead of ours."""
    found = ((name, found_at(name)) for name in ROOMS)
    return [place for name, place in found if place is not None and place != HERE / name]
