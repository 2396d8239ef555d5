"""How much a frozen encoder knows of a small task: a figure to watch while it is being pretrained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from domains.contract import Domain, EncodingSpec, Record, Sample, Source
from domains.store import Store
from models.encoder import Encoder
from models.targets import number_of

RECORDS, LEARNT_FROM = 2000, 1500
BATCH = 128
NEIGHBOURS = 5
PENALTIES = np.logspace(-1, 4, 11)


class Neighbours:
    """How often the nearest neighbours in frozen embeddings are of the same class, where a corpus tells one.

    Folders of a class each do. The class is not learnt from: this only watches what is learnt without it.
    """

    def __init__(
        self, known: Sequence[Sample], asked: Sequence[Sample], classes: Sequence[np.ndarray], name: str
    ) -> None:
        """``classes`` are those of the samples that are ``known``, and of those that are ``asked``."""
        self.known, self.asked, self.name = known, asked, name
        self.classes = classes

    @classmethod
    def of(cls, source: Source, known: Store, asked: Store) -> Neighbours | None:
        """The first target of a source, where it is a class in words; None where it is not."""
        name = class_column(source)
        if not name:
            return None
        chance = np.random.default_rng(0)
        sides = [
            store.subset(np.sort(chance.permutation(len(store))[:most]))
            for store, most in ((known, LEARNT_FROM), (asked, RECORDS - LEARNT_FROM))
        ]
        cells = [np.array(side.column(name)) for side in sides]
        if not len(sides[1]) or len(np.unique(cells[0])) < 2 or number_of(str(cells[0][0])) is not None:
            return None
        return cls(sides[0], sides[1], cells, name)

    def measure(self, encoder: Encoder) -> float:
        """Accuracy of the five nearest."""
        known, asked = embed(encoder, self.known), embed(encoder, self.asked)
        scaler = StandardScaler().fit(known)
        fitted = KNeighborsClassifier(NEIGHBOURS).fit(scaler.transform(known), self.classes[0])
        return float(fitted.score(scaler.transform(asked), self.classes[1]))


def class_column(source: Source) -> str:
    """The first target of whole records that a source knows of; empty where there is none."""
    return next((name for name in source.targets if name not in source.pixel_targets), "")


def embed(encoder: Encoder, samples: Sequence[Sample]) -> np.ndarray:
    """Frozen embeddings of samples, float32 [n, D]; the encoder is left as it was."""
    was_training = encoder.training
    encoder.eval()
    embedded = []
    with torch.no_grad():
        for start in range(0, len(samples), BATCH):
            batch = encoder.collate([samples[it] for it in range(start, min(start + BATCH, len(samples)))])
            batch = {name: tensor.to(encoder.device) for name, tensor in batch.items()}
            embedded.append(encoder(batch).pooled.float().cpu().numpy())
    encoder.train(was_training)
    return np.concatenate(embedded)


class Yardstick:
    """A ridge regression on frozen embeddings of records of the domain's yardstick, by their first target.

    The records are the same whatever is pretrained, and so are those that are held out: figures of two
    pretrainings compare. They are for watching, and choose nothing.
    """

    def __init__(self, samples: Sequence[Sample], values: np.ndarray, name: str) -> None:
        self.samples = samples
        self.values = values
        self.name = name

    @classmethod
    def of(cls, domain: Domain, spec: EncodingSpec) -> Yardstick | None:
        """The yardstick of a domain, read and encoded; None for one that has none."""
        if not domain.yardstick:
            return None
        source = domain.embedded()[domain.yardstick](spec)
        samples, values = [], []
        for row in islice(source.stream(), 2 * RECORDS):
            record, value = domain.read(row, spec), number_of(row.fields.get(source.targets[0], ""))
            if isinstance(record, Record) and value is not None:
                samples.append(domain.encode(record, spec))
                values.append(value)
        order = np.random.default_rng(0).permutation(len(samples))[:RECORDS]
        return cls([samples[place] for place in order], np.array(values)[order], source.name)

    def measure(self, encoder: Encoder) -> float:
        """Share of the variance of held-out values that is explained (R²)."""
        learnt = len(self.samples) * LEARNT_FROM // RECORDS
        features = embed(encoder, self.samples)
        scaler = StandardScaler().fit(features[:learnt])
        fitted = RidgeCV(PENALTIES).fit(scaler.transform(features[:learnt]), self.values[:learnt])
        return float(fitted.score(scaler.transform(features[learnt:]), self.values[learnt:]))
