"""From rows to stored samples: the step that every training flow begins with."""

from __future__ import annotations

import os
from collections.abc import Sequence

from domains.contract import Domain, EncodingSpec, GroundworkError, Source
from domains.store import Store, build
from flows.home import Home
from flows.journal import Journal


def ingest(
    domain: Domain,
    source: Source,
    spec: EncodingSpec,
    home: Home,
    journal: Journal,
    *,
    keep: Sequence[str] = (),
    labels: Sequence[str] = (),
    describe: bool = False,
) -> Store:
    """Encode every row of a source, or find that done.

    ``keep`` names columns kept beside the samples, ``labels`` targets of pixel level; ``describe`` adds the
    values of sample-level pretraining targets. Raises GroundworkError when not one row could be used.
    """

    def report(done: int, total: int | None) -> None:
        journal.progress(f"{done:,} rows", done / total if total else 0.0)

    store = build(
        domain.name,
        source,
        spec,
        home.stores,
        keep=tuple(keep),
        labels=tuple(labels),
        describe=describe,
        workers=_workers(),
        progress=report,
    )
    if not len(store):
        first = next(iter(store.rejects()), None)
        why = f"; the first reason: {first.reason}" if first else ""
        raise GroundworkError(f"no valid {domain.noun} in {source.origin}{why}")
    journal.say(
        f"{source.name}: {store.counts.records:,} of {store.counts.rows:,} rows can be used, "
        f"{store.counts.rejects:,} rejected"
    )
    return store


def _workers() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
