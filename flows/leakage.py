"""How near test rows lie to training rows: what is side by side is alike, and a test by it flatters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from domains.abilities import LocatesRecords, Place
from domains.contract import Domain, GroundworkError, Record
from domains.places import nearest
from domains.splits import Split

METRES = "metres"


def noting_places(domain: Domain, records: Iterable[Record], noted: list[Place | None]) -> Iterator[Record]:
    """The records, each with its place added to ``noted`` where the domain knows of places."""
    for record in records:
        if isinstance(domain, LocatesRecords):
            noted.append(domain.place(record))
        yield record


def within_buffer(places: Sequence[Place | None], split: Split, buffer: float) -> np.ndarray:
    """Positions of training rows that are less than ``buffer`` metres from a test row, int64 [m].

    Raises GroundworkError where that would leave nothing to learn from.
    """
    if not buffer or not places:
        return np.zeros(0, np.int64)
    metres, _ = nearest(_at(places, split.train), _at(places, split.test))
    near = split.train[metres < buffer]
    if len(near) == len(split.train):
        raise GroundworkError(f"a buffer of {buffer:g} m around the test rows leaves nothing to learn from")
    return near


def leakage_table(rows: np.ndarray, places: Sequence[Place | None], split: Split) -> pd.DataFrame | None:
    """For each test row the nearest training row and how far that is; None where no place is known.

    ``rows`` are those of the source by position.
    """
    if not places:
        return None
    metres, which = nearest(_at(places, split.test), _at(places, split.train))
    if not np.isfinite(metres).any():
        return None
    known = which >= 0
    neighbours = np.full(len(which), -1)
    neighbours[known] = rows[split.train[which[known]]]
    return pd.DataFrame({"row": rows[split.test], "nearest_training_row": neighbours, METRES: metres})


def said(table: pd.DataFrame, noun: str) -> str:
    """The table in one sentence."""
    metres = table[METRES].dropna()
    touching = int((metres < 1).sum())
    unknown = len(table) - len(metres)
    more = [f"{touching:,} of {len(metres):,} test {noun}s touch one"] * bool(touching)
    more += [f"the place of {unknown:,} is not known"] * bool(unknown)
    return (
        f"nearest training {noun}: min {metres.min():,.0f} m, median {metres.median():,.0f} m"
        + f" ({'; '.join(more)})" * bool(more)
    )


def leakage_figure(table: pd.DataFrame, noun: str, title: str) -> Figure:
    """How many test rows lie how far from what was learnt from; metres on a scale that shows near and far."""
    metres = table[METRES].dropna().to_numpy()
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    farthest = max(float(metres.max()), 10.0)
    axes.hist(metres, bins=np.r_[0, np.geomspace(1, farthest * 1.001, 30)], color="C0")
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel=f"metres to the nearest training {noun}", ylabel=f"test {noun}s")
    axes.set_title(title, fontsize=10)
    return figure


def _at(places: Sequence[Place | None], positions: np.ndarray) -> list[Place | None]:
    return [places[position] for position in positions.tolist()]
