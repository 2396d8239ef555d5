"""Which rows were held out for a version, and by which labels it was judged: kept with its run.

So a later version can be held to the same rows. A file that is replaced every night may bring other labels
for them; a gate that judged by those could be moved by them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from flows.labelled import LabelledData
from flows.tracking import TrackedRun
from models.registry import Version
from models.targets import is_pixel_task

ARTIFACT = "split.parquet"
LABEL = "label: "
"""What the columns of labels are called by, before the target's name."""
LABEL_DIGEST = "label_digest"
"""Of the pixels of a test row, where pixels carry the labels."""


@dataclass(frozen=True)
class HeldOut:
    """Rows of a version by identity: their side and their labels."""

    table: pd.DataFrame

    @property
    def sides(self) -> dict[str, str]:
        """Side of each identity."""
        return dict(zip(self.table["identity"], self.table["side"], strict=True))

    def labels_then(self, identities: Sequence[str], labels: np.ndarray) -> np.ndarray:
        """``labels`` [n, targets] as they were: those of rows that it knew, the given ones of the others.

        Of a record that occurs several times, the first takes the first label and so on. A label that was
        missing then, or is now, is the given one.
        """
        columns = [name for name in self.table if str(name).startswith(LABEL)]
        wanted = set(identities)
        known: dict[str, list[np.ndarray]] = {}
        for identity, row in zip(self.table["identity"], self.table[columns].to_numpy(float), strict=True):
            if identity in wanted:
                known.setdefault(identity, []).append(row)
        then = labels.copy()
        for place, identity in enumerate(identities):
            if known.get(identity):
                former = known[identity].pop(0)
                both = np.isfinite(former) & np.isfinite(labels[place])
                then[place, both] = former[both]
        return then

    def has_changed(self, data: LabelledData) -> np.ndarray:
        """Whether the labelled pixels of each test row are others than it knew; bool [n test rows]."""
        known = dict(zip(self.table["identity"], self.table[LABEL_DIGEST], strict=True))
        now = zip(_test_identities(data), _pixel_digests(data), strict=True)
        return np.array([known.get(identity, "") not in ("", digest) for identity, digest in now])


def keep(tracked: TrackedRun, data: LabelledData) -> None:
    """Keep sides and labels with a run."""
    table = pd.DataFrame({"identity": data.identities, "side": data.split.sides})
    if is_pixel_task(data.task.targets):
        digests = np.full(len(table), "", dtype=object)
        digests[data.split.test] = _pixel_digests(data)
        table[LABEL_DIGEST] = digests
    else:
        for column, target in enumerate(data.task.targets):
            table[f"{LABEL}{target.name}"] = data.labels[:, column]
    tracked.log_table(ARTIFACT, table)


def held_out_for(version: Version) -> HeldOut | None:
    """What was held out for a version; None where that is gone or was not kept."""
    try:
        path = mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path=ARTIFACT)
        return HeldOut(pd.read_parquet(path))
    except (MlflowException, OSError):
        return None


def _test_identities(data: LabelledData) -> list[str]:
    return [data.identities[place] for place in data.split.test]


def _pixel_digests(data: LabelledData) -> list[str]:
    return [
        hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()[:16]
        for labels in data.pixel_labels(data.split.test)
    ]
