"""A state folder to measure in, that knows nothing of the user's own."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from flows.home import Home


def measuring_home(root: Path) -> Home:
    """The state folder at ``root``, made if need be, with MLflow on its own database.

    To be called before MLflow and torch are imported, which read the environment once.
    """
    home = Home(root).create()
    os.environ.update(home.environment())
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # never a server that happens to run
    from flows.tracking import connect

    for talkative in ("mlflow", "alembic"):  # of tables and signatures; what fails is raised as well
        logging.getLogger(talkative).setLevel(logging.CRITICAL)
    connect(home)
    return home
