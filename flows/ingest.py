"""From rows to stored samples: the step that every training flow begins with."""

from __future__ import annotations

from collections.abc import Sequence

from domains.contract import Domain, EncodingSpec, GroundworkError, Source
from domains.store import Store, build
from domains.workers import usable_processors
from flows.home import Home
from flows.journal import Journal

MOST_WORKERS = 8
"""More would wait for the one process that writes."""


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
        workers=min(MOST_WORKERS, usable_processors()),
        progress=report,
    )
    if not len(store):
        first = next(iter(store.rejects()), None)
        why = f"; the first reason: {first.reason}" if first else ""
        raise GroundworkError(f"no valid {domain.noun} in {source.origin}{why}")
    first = next(iter(store.rejects()), None)
    journal.say(
        f"{source.name}: {store.counts.records:,} of {store.counts.rows:,} rows can be used, "
        f"{store.counts.rejects:,} rejected"
        + (f"; the first, {first.original[:60]}: {first.reason}" if first else "")
    )
    return store
