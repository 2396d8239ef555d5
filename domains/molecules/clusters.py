"""Clusters of like fingerprints: Butina's of a data set, and one pass with leaders over a large one.

Overlaps of fingerprints are counted by matrix products of their unpacked bits: on one core 20 to 40 ns for
a pair of 2,048 bits, as fast as popcounts of packed words in numpy, and faster with each core. Bits are
unpacked in blocks, so that memory stays at a few blocks and the packed fingerprints.
"""

from __future__ import annotations

import numpy as np

FURTHEST = (2, 5)
"""Tanimoto distance up to which two molecules are neighbours, as a fraction: 0.4 without rounding."""
LARGEST_BUTINA = 20_000
"""Fingerprints whose every pair is looked at: above, time and the matrix of neighbours grow too large."""
BLOCK = 2048
"""Fingerprints unpacked at once; a multiple of 8."""


def cluster(packed: np.ndarray) -> np.ndarray:
    """Cluster of each fingerprint, int64 [n]: uint8 [n, bits / 8] of distinct fingerprints.

    Up to 20,000 by ``butina``, more by ``leaders``.
    """
    return butina(packed) if len(packed) <= LARGEST_BUTINA else leaders(packed)


def butina(packed: np.ndarray) -> np.ndarray:
    """Cluster around the molecules with the most neighbours, those that are left going by themselves.

    Whoever has the most neighbours (of equal ones the first) takes those that no one has taken: Butina,
    J. Chem. Inf. Comput. Sci. 1999, 39, 747, with neighbours counted once, at the start.
    """
    number = len(packed)
    neighbours = _neighbours(packed)
    counts = np.bitwise_count(neighbours).sum(axis=1, dtype=np.int64)
    clusters = np.full(number, -1)
    for centre in np.argsort(-counts, kind="stable").tolist():
        if clusters[centre] < 0:
            taken = np.flatnonzero(np.unpackbits(neighbours[centre], count=number))
            clusters[taken[clusters[taken] < 0]] = centre
    return clusters


def leaders(packed: np.ndarray) -> np.ndarray:
    """Cluster around leaders: who is near one joins the nearest, of equal ones the first; who is not, leads.

    One pass in order (sphere exclusion: Hudson et al., Quant. Struct.-Act. Relat. 1996, 15, 285). Those
    before decide about those after, so that fingerprints which are added at the end change no cluster.
    """
    number = len(packed)
    sizes = np.bitwise_count(packed).sum(axis=1, dtype=np.float32)
    clusters = np.full(number, -1)
    leading = np.zeros(0, np.int64)
    for start in range(0, number, BLOCK):
        block = np.arange(start, min(start + BLOCK, number))
        bits = _unpacked(packed[block])
        nearest = np.full(len(block), -1.0, np.float32)
        for first in range(0, len(leading), BLOCK):
            some = leading[first : first + BLOCK]
            overlap = bits @ _unpacked(packed[some]).T
            total = sizes[block][:, None] + sizes[some]
            likeness = np.where(_are_near(overlap, total), overlap / np.maximum(total - overlap, 1), -1)
            best = likeness.argmax(axis=1)
            found = likeness[np.arange(len(block)), best]
            nearer = found > nearest
            clusters[block[nearer]] = some[best[nearer]]
            nearest[nearer] = found[nearer]
        free = np.flatnonzero(nearest < 0)
        leading = np.concatenate([leading, _lead(clusters, block[free], bits[free], sizes[block[free]])])
    return clusters


def _lead(clusters: np.ndarray, rows: np.ndarray, bits: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Cluster rows of one block that are near no earlier leader, in place; gives the new leaders."""
    overlap = bits @ bits.T
    total = sizes[:, None] + sizes
    likeness = np.where(_are_near(overlap, total), overlap / np.maximum(total - overlap, 1), -1)
    new: list[int] = []
    for place, row in enumerate(rows.tolist()):
        to_new = likeness[place, new]
        nearest = int(to_new.argmax()) if len(new) else 0
        if len(new) and to_new[nearest] >= 0:
            clusters[row] = rows[new[nearest]]
        else:
            clusters[row] = row
            new.append(place)
    return rows[new]


def _neighbours(packed: np.ndarray) -> np.ndarray:
    """Who is near whom, itself included: bits of uint8 [n, n / 8]."""
    number = len(packed)
    sizes = np.bitwise_count(packed).sum(axis=1, dtype=np.float32)
    neighbours = np.zeros((number, -(-number // 8)), np.uint8)
    for start in range(0, number, BLOCK):
        rows = slice(start, start + BLOCK)
        bits = _unpacked(packed[rows])
        for first in range(start, number, BLOCK):
            columns = slice(first, first + BLOCK)
            overlap = bits @ (bits if first == start else _unpacked(packed[columns])).T
            near = _are_near(overlap, sizes[rows, None] + sizes[columns])
            neighbours[rows, first // 8 : (first + BLOCK) // 8] = np.packbits(near, axis=1)
            neighbours[columns, start // 8 : (start + BLOCK) // 8] = np.packbits(near.T, axis=1)
    return neighbours


def _unpacked(packed: np.ndarray) -> np.ndarray:
    """float32 [k, bits]: counts of bits are exact in it, and its products are the fastest."""
    return np.unpackbits(packed, axis=1).astype(np.float32)


def _are_near(overlap: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Whether 1 - overlap / (total - overlap) is at most ``FURTHEST``, in whole numbers; bool."""
    above, below = FURTHEST
    return (2 * below - above) * overlap >= (below - above) * total
