"""Accuracy of a map by class, and how much of the test area each class covers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flows.evaluation import Evaluation
from flows.labelled import LabelledData
from models.map_accuracy import class_accuracies, estimate_areas
from models.results import PixelResults

CLASS, USERS, PRODUCERS, IOU = "class", "users_accuracy", "producers_accuracy", "iou"
MAPPED, ESTIMATED, REACH = "mapped_share", "estimated_share", "estimated_share_95"
GROUPS = "groups"


def class_table(data: LabelledData, evaluation: Evaluation) -> pd.DataFrame | None:
    """A row for each class; None where the answers are no classes of pixels.

    Shares are of the labelled test pixels: as mapped, and with the map's errors set right, plus or minus
    ``REACH`` (95%). Of the test pixels all is known: the intervals are of the ground that the groups of the
    split (blocks, scenes) are a random sample of, since pixels of a chip, and chips of a block, are alike.
    """
    results = evaluation.results
    if not isinstance(results, PixelResults) or results.target.kind == "regression":
        return None
    if not results.confusion.sum():
        return None
    accuracies = class_accuracies(results.confusion)
    areas = estimate_areas(results.sums, data.split.groups[data.split.test])
    return pd.DataFrame(
        {
            CLASS: results.target.classes,
            USERS: accuracies.users,
            PRODUCERS: accuracies.producers,
            IOU: accuracies.iou,
            MAPPED: areas.mapped,
            ESTIMATED: areas.estimated,
            REACH: areas.reach,
            GROUPS: areas.clusters,
        }
    )


def shown(table: pd.DataFrame) -> list[dict[str, str]]:
    """The table in words, for people."""
    return [
        {
            "class": str(row[CLASS]),
            "user's accuracy": _figure(row[USERS]),
            "producer's accuracy": _figure(row[PRODUCERS]),
            "IoU": _figure(row[IOU]),
            "mapped (% of the test area)": f"{100 * row[MAPPED]:.2f}",
            f"estimated (95% interval, groups: {row[GROUPS]})": f"{100 * row[ESTIMATED]:.2f} ± "
            + ("unknown" if np.isnan(row[REACH]) else f"{100 * row[REACH]:.2f}"),
        }
        for row in table.to_dict("records")
    ]


def _figure(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
