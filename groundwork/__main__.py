"""The ``groundwork`` command, and ``python -m groundwork``."""

from __future__ import annotations

import sys

from groundwork.rooms import strays


def main() -> None:
    """Run the command, or say what hides the packages that it needs."""
    try:
        from groundwork.cli import main as command
    except ImportError:
        hiding = strays()
        if not hiding:
            raise
        sys.exit(
            f"error: {hiding[0]} hides Groundwork's own: rename it, or take its folder out of PYTHONPATH"
        )
    command()


if __name__ == "__main__":
    main()
