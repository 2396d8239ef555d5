"""How much a frozen encoder knows of a small task: a figure to watch while it is being pretrained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from domains.contract import Domain, EncodingSpec, Record, Sample
from models.encoder import Encoder
from models.targets import number_of

RECORDS, LEARNT_FROM = 2000, 1500
BATCH = 128
PENALTIES = np.logspace(-1, 4, 11)


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
        was_training = encoder.training
        encoder.eval()
        embedded = []
        with torch.no_grad():
            for start in range(0, len(self.samples), BATCH):
                batch = encoder.collate(self.samples[start : start + BATCH])
                batch = {name: tensor.to(encoder.device) for name, tensor in batch.items()}
                embedded.append(encoder(batch).pooled.float().cpu().numpy())
        encoder.train(was_training)
        learnt = len(self.samples) * LEARNT_FROM // RECORDS
        features = np.concatenate(embedded)
        scaler = StandardScaler().fit(features[:learnt])
        fitted = RidgeCV(PENALTIES).fit(scaler.transform(features[:learnt]), self.values[:learnt])
        return float(fitted.score(scaler.transform(features[learnt:]), self.values[learnt:]))
