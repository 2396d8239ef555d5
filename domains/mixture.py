"""Samples of several sources as one sequence, each of which says where it is from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from domains.contract import Sample
from domains.store import Store


class Mixture(Sequence[Sample]):
    """The samples of some stores, one store after the other.

    Of several stores each sample has ``source``, int64 [], the place of its store among them.
    """

    def __init__(self, stores: Sequence[Store], chosen: np.ndarray | None = None) -> None:
        """``chosen`` are the positions that it shows, int [n]."""
        self.stores = tuple(stores)
        self._ends = np.cumsum([len(store) for store in stores])
        self._chosen = np.arange(self._ends[-1]) if chosen is None else np.asarray(chosen)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: Any) -> Any:
        place = self._chosen[index]
        which = int(np.searchsorted(self._ends, place, side="right"))
        sample = self.stores[which][int(place - self._ends[which])]  # from its end, so below zero
        return sample if len(self.stores) == 1 else {**sample, "source": np.int64(which)}

    def subset(self, positions: np.ndarray) -> Mixture:
        """The samples at ``positions``, int [n], in that order."""
        return Mixture(self.stores, self._chosen[positions])

    def parts(self) -> list[Store]:
        """What it shows of each store, in order."""
        starts = np.concatenate([[0], self._ends[:-1]])
        return [
            store.subset(self._chosen[(self._chosen >= start) & (self._chosen < end)] - start)
            for store, start, end in zip(self.stores, starts, self._ends, strict=True)
        ]

    @property
    def tokens(self) -> np.ndarray:
        """As ``Store.tokens``."""
        return np.concatenate([store.tokens for store in self.stores])[self._chosen]

    @property
    def identities(self) -> list[str]:
        """As ``Store.identities``."""
        every = [identity for store in self.stores for identity in store.identities]
        return [every[place] for place in self._chosen.tolist()]
