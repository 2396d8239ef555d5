"""What each part of pretraining rasters pays for: ``python -m benchmarks.raster_pretraining``.

An ablation. The same chips of EuroSAT in the same order are learnt from with all that pretraining asks,
without each of it, and not at all; then the frozen encoder is asked for the classes of other chips, which are
not those that are held out for testing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from benchmarks.ablation import pretrain, summary
from benchmarks.ledger import ROOT, arguments, measured
from benchmarks.raster_quality import is_held_out
from domains.contract import Record, Sample
from domains.geospatial import GEOSPATIAL, RasterEncoding
from domains.tables import digest_of_file
from flows.yardstick import NEIGHBOURS, embed
from models.encoder import create_encoder
from models.pretraining import PretrainingModel
from models.settings import TrainingSettings

NAME = "raster_pretraining"
LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    "all": (),
    "no_patch": ("patch",),
    "no_edges": ("edges",),
    "no_band": ("band",),
    "no_words": ("words",),
    "no_views": ("views",),
    "patch_alone": ("edges", "band", "words", "views"),
    "untrained": ("patch", "edges", "band", "words", "views"),
}
"""What is left out, by what the arm is called."""
CONTRAST, HIDDEN = 0.2, 0.75
KNOWN, ASKED = 4000, 2000
"""Chips whose classes the frozen encoder learns, and is asked for."""
SHOTS = 10
FIGURES = ("knn", "linear", "linear_10")
PENALTIES = {"linear": 0.1, "linear_10": 0.05}
"""Inverse strengths of logistic regressions on standardised embeddings."""


def main() -> None:
    parser = arguments(__doc__)
    archive = ROOT.parent / "shared" / "data" / "geospatial" / "eurosat_rgb.zip"
    parser.add_argument(
        "path", nargs="?", default=str(archive), help="folders of classes, or such an archive"
    )
    parser.add_argument("--records", type=int, default=10_000, help="chips that are learnt from")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from --seed on")
    parser.add_argument("--arms", nargs="+", choices=LEFT_OUT, default=list(LEFT_OUT))
    options = parser.parse_args()
    path = Path(options.path)

    @cache
    def chips() -> tuple[RasterEncoding, list[Sample], np.ndarray]:
        return read(path)

    lines: dict[str, list[Mapping[str, Any]]] = {arm: [] for arm in options.arms}
    for seed in range(options.seed, options.seed + options.seeds):
        for arm in options.arms:
            line = measured(
                NAME,
                code=["models", "domains/geospatial", "benchmarks/ablation.py", f"benchmarks/{NAME}.py"],
                data=digest_of_file(path),
                seed=seed,
                device="cuda" if torch.cuda.is_available() else "cpu",
                options={"arm": arm, "records": options.records, "epochs": options.epochs},
                again=options.again,
                measure=partial(ablate, arm, chips, seed, options.records, options.epochs),
            )
            print(arm, "seed", seed, {figure: line[figure] for figure in FIGURES}, file=sys.stderr)
            lines[arm].append(line)
    table = summary(lines, FIGURES)
    print(json.dumps({"benchmark": NAME, "seeds": options.seeds, "arms": table}))


def read(path: Path) -> tuple[RasterEncoding, list[Sample], np.ndarray]:
    """Chips that are not held out, and their classes."""
    source = GEOSPATIAL.open(path, RasterEncoding())
    spec = source.encoding
    samples, classes = [], []
    for row in source.stream():
        record = GEOSPATIAL.read(row, spec)
        if isinstance(record, Record) and not is_held_out(record.value.scene):
            samples.append(GEOSPATIAL.encode(record, spec))
            classes.append(row.fields[source.targets[0]])
    assert isinstance(spec, RasterEncoding)  # noqa: S101 - narrows the type: it was opened with one
    return spec, samples, np.array(classes)


def ablate(
    arm: str,
    chips: Callable[[], tuple[RasterEncoding, Sequence[Sample], np.ndarray]],
    seed: int,
    records: int,
    epochs: int,
) -> dict[str, float]:
    """How often the classes of other chips are told by the frozen encoder."""
    spec, samples, classes = chips()
    order = np.random.default_rng(seed).permutation(len(samples))
    asked, known, learnt = np.split(order, [ASKED, ASKED + KNOWN])
    torch.manual_seed(seed)
    encoder = create_encoder("geospatial", "tiny", spec)
    corpus = [samples[place] for place in learnt[:records]]
    encoder.fit_input(spec, corpus)
    targets = [it for it in GEOSPATIAL.pretraining_targets(spec) if it.name not in LEFT_OUT[arm]]
    if targets:
        model = PretrainingModel(encoder, targets, HIDDEN, 0.0 if "views" in LEFT_OUT[arm] else CONTRAST)
        settings = TrainingSettings(
            epochs=epochs, batch_size=64, learning_rate=1e-3, weight_decay=0.05, seed=seed
        )
        pretrain(model, corpus, settings)
    embeddings = [embed(encoder, [samples[place] for place in side]) for side in (known, asked)]
    scaler = StandardScaler().fit(embeddings[0])
    mine, others = (scaler.transform(it) for it in embeddings)
    few = np.concatenate([np.flatnonzero(classes[known] == name)[:SHOTS] for name in np.unique(classes)])
    neighbours = KNeighborsClassifier(NEIGHBOURS).fit(mine, classes[known])
    found = {"knn": neighbours.score(others, classes[asked])}
    for figure, rows in (("linear", np.arange(len(mine))), ("linear_10", few)):
        regression = LogisticRegression(C=PENALTIES[figure], max_iter=500).fit(
            mine[rows], classes[known][rows]
        )
        found[figure] = regression.score(others, classes[asked])
    return {figure: round(float(value), 4) for figure, value in found.items()}


if __name__ == "__main__":
    main()
