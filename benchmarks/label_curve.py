"""How many labels a foundation saves: draws of few labels, and where the curves meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

CURVE_SIZES = (25, 50, 100, 250)
"""Labels that a model is given; one in ``VALIDATION`` of them is to choose by, the others to learn from."""
VALIDATION = 5
MOST_TRIES = 1000


def draws_of(size: int) -> int:
    """How many draws of ``size`` labels there are: of few, each tells little."""
    return 10 if size <= 100 else 3


def draw_rows(rows: pd.DataFrame, targets: Sequence[str], kind: str, size: int, draw: int) -> pd.DataFrame:
    """``size`` of the rows that are not for testing, and all that are.

    ``rows`` has ``smiles``, ``side`` (train, val, test) and the targets, NaN where not measured. Of a
    molecule with several rows one can be drawn, or it could lie on two sides. A larger draw of the same
    number holds the smaller one. Classes are drawn until both are among the rows to learn from and among
    those to choose by, as long as the set has one target.
    """
    pool = rows[rows["side"] != "test"].drop_duplicates("smiles")
    if len(pool) <= size:
        raise ValueError(f"{size} of {len(pool)} rows are no draw")
    smallest = min(CURVE_SIZES)
    for attempt in range(MOST_TRIES):
        order = np.random.default_rng([draw, attempt]).permutation(len(pool))
        is_validation = np.arange(len(pool)) % VALIDATION == 0
        first = pool.iloc[order[:smallest]]
        sides = [first[is_validation[:smallest]], first[~is_validation[:smallest]]]
        if kind == "regression" or len(targets) > 1 or all(side[targets[0]].nunique() > 1 for side in sides):
            break
    chosen = pool.iloc[order[:size]].assign(side=np.where(is_validation[:size], "val", "train"))
    return pd.concat([chosen, rows[rows["side"] == "test"]])


def curve_of(
    lines: Mapping[int, Mapping[str, Sequence[Mapping[str, Any]]]], higher_is_better: bool
) -> dict[str, Any]:
    """Lines by number of labels and model, draw by draw -> means, and the draws in which ours is ahead."""
    sizes = sorted(lines)
    values = {
        model: [[float(line["value"]) for line in lines[size][model]] for size in sizes]
        for model in ("ours", "from_scratch")
    }
    means = {model: [float(np.mean(drawn)) for drawn in values[model]] for model in values}
    sign = 1 if higher_is_better else -1
    ahead = [
        sum(sign * (mine - other) > 0 for mine, other in zip(ours, scratch, strict=True))
        for ours, scratch in zip(values["ours"], values["from_scratch"], strict=True)
    ]
    met = matching_labels(sizes, means["ours"], means["from_scratch"][-1], higher_is_better)
    return {
        "metric": lines[sizes[0]]["ours"][0]["metric"],
        "labels": sizes,
        **{model: [round(mean, 4) for mean in found] for model, found in means.items()},
        "draws": [len(drawn) for drawn in values["ours"]],
        "draws_ahead": ahead,
        "labels_that_match_from_scratch_on_all": met,
    }


def matching_labels(
    sizes: Sequence[int], means: Sequence[float], reference: float, higher_is_better: bool
) -> int | None:
    """Labels at which ``means`` first reach ``reference``; None where they never do.

    Between two sizes the figure is taken to be linear in the logarithm of the labels, as learning curves
    nearly are.
    """
    sign = 1 if higher_is_better else -1
    gaps = [sign * (mean - reference) for mean in means]
    for place, gap in enumerate(gaps):
        if gap >= 0:
            if place == 0:
                return sizes[0]
            before = gaps[place - 1]
            share = -before / (gap - before)
            low, high = np.log(sizes[place - 1]), np.log(sizes[place])
            return int(np.ceil(np.exp(low + share * (high - low)) - 1e-9))
    return None
