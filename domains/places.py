"""How far records lie from one another on the ground, whatever maps they come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import KDTree

from domains.abilities import Place

CANDIDATES = 8
"""Nearest middles that are looked at more closely: outlines of several sizes may lie side by side."""
AT_ONCE = 4096


def nearest(asked: Sequence[Place | None], others: Sequence[Place | None]) -> tuple[np.ndarray, np.ndarray]:
    """Metres from each of ``asked`` to the nearest of ``others``, float64 [n], and which that is, int64 [n].

    Between outlines: 0 where they touch or overlap. Straight through the Earth, which is less than along its
    surface by 0.1% at 1,000 km. NaN and −1 where the place is not known, or none of the others' is.
    """
    metres, which = np.full(len(asked), np.nan), np.full(len(asked), -1)
    mine, of_mine = _known(asked)
    theirs, of_theirs = _known(others)
    if not len(mine) or not len(theirs):
        return metres, which
    tree = KDTree(theirs.mean(1))
    for start in range(0, len(mine), AT_ONCE):
        outlines, places = mine[start : start + AT_ONCE], of_mine[start : start + AT_ONCE]
        count = min(CANDIDATES, len(theirs))
        found = tree.query(outlines.mean(1), k=np.arange(1, count + 1))[1]
        apart = _apart(outlines[:, None], theirs[found])
        best = apart.argmin(1)
        metres[places] = np.take_along_axis(apart, best[:, None], 1)[:, 0]
        which[places] = of_theirs[np.take_along_axis(found, best[:, None], 1)[:, 0]]
    return metres, which


def _known(places: Sequence[Place | None]) -> tuple[np.ndarray, np.ndarray]:
    """Outlines [m, 4, 3] of those that are known, and their positions [m]."""
    known = [position for position, place in enumerate(places) if place is not None]
    outlines = [place for place in places if place is not None]
    return np.array(outlines, np.float64).reshape(-1, 4, 3), np.array(known, np.int64)


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Metres between quadrangles [..., 4, 3] that broadcast, [...]: 0 where one lies in the other."""
    one, other = np.broadcast_arrays(one, other)
    metres = np.minimum(_to_edges(one, other), _to_edges(other, one))
    return np.where(_reaches_into(one, other) | _reaches_into(other, one), 0.0, metres)


def _to_edges(corners: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Least distance of corners [..., 4, 3] from the edges of outlines, [...]."""
    begin = outline[..., None, :, :]
    along = np.roll(outline, -1, -2)[..., None, :, :] - begin
    way = corners[..., :, None, :] - begin
    share = (way * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12)
    off = way - share.clip(0, 1)[..., None] * along
    return np.sqrt((off**2).sum(-1)).min((-2, -1))


def _reaches_into(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether a corner or the middle of ``one`` lies within ``other``, seen from above; bool [...]."""
    middle = other.mean(-2, keepdims=True)
    points = np.concatenate([one, one.mean(-2, keepdims=True)], -2)
    # On the same side of all four edges, as the triple product with the way up says.
    edges = (np.roll(other, -1, -2) - other)[..., None, :, :]
    ways = points[..., :, None, :] - other[..., None, :, :]
    turns = (np.cross(edges, ways) * middle[..., None, :, :]).sum(-1)
    is_inside = (turns >= 0).all(-1) | (turns <= 0).all(-1)
    # Points on the other side of the Earth are seen from above, too.
    is_near = ((points - middle) ** 2).sum(-1) <= ((other - middle) ** 2).sum(-1).max(-1, keepdims=True)
    return (is_inside & is_near).any(-1)
