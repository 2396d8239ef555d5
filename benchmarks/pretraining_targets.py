"""What each target of pretraining pays for: ``python -m benchmarks.pretraining_targets``.

An ablation. The same molecules in the same order are learnt from with all targets, without each of them, and
not at all; then the encoder is asked for boiling points, frozen and tuned, which no pretraining has seen.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.metrics import r2_score

from benchmarks.ablation import pretrain, say_nothing, summary
from benchmarks.ledger import arguments, measured
from benchmarks.molecules import SPEC, encode_all, open_molecules, sample_smiles
from domains.contract import Record, Sample, Target
from domains.molecules import MOLECULES
from flows.yardstick import Yardstick
from models.encoder import Encoder, create_encoder
from models.pretraining import PretrainingModel
from models.settings import TrainingSettings
from models.targets import number_of
from models.training import train
from models.tuning import TaskModel

NAME = "pretraining_targets"
MASKED = ("element", "hydrogens", "charge", "bond")
LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    "all": (),
    "no_masks": MASKED,
    "no_descriptors": ("descriptors",),
    "no_fingerprint": ("fingerprint",),
    "masks_alone": ("descriptors", "fingerprint"),
    "untrained": (*MASKED, "descriptors", "fingerprint"),
}
"""Targets that are left out, by what the arm is called."""
TASK = "boiling-points"
FIGURES = ("frozen_r2", "tuned_r2")
LABELLED, HELD_OUT, TO_CHOOSE_BY = 400, 2000, 80
TUNING_EPOCHS = 15


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("path", nargs="?", help="a file of molecules; default: the embedded corpus")
    parser.add_argument("--records", type=int, default=40_000, help="molecules that are learnt from")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from --seed on")
    parser.add_argument("--arms", nargs="+", choices=LEFT_OUT, default=list(LEFT_OUT))
    options = parser.parse_args()
    source = open_molecules(options.path)

    @cache
    def corpus(seed: int) -> list[Sample]:
        corpus.cache_clear()  # one at a time
        return encode_all(sample_smiles(source, options.records, seed)[0], describe=True)

    lines: dict[str, list[Mapping[str, Any]]] = {arm: [] for arm in options.arms}
    for seed in range(options.seed, options.seed + options.seeds):
        for arm in options.arms:
            line = measured(
                NAME,
                code=["models", "domains/molecules", "benchmarks/ablation.py", f"benchmarks/{NAME}.py"],
                data=source.digest,
                seed=seed,
                device="cuda" if torch.cuda.is_available() else "cpu",
                options={"arm": arm, "records": options.records, "epochs": options.epochs},
                again=options.again,
                measure=partial(ablate, arm, corpus, seed, options.epochs),
            )
            print(
                f"{arm} seed {seed}: frozen R² {line['frozen_r2']}, tuned {line['tuned_r2']}", file=sys.stderr
            )
            lines[arm].append(line)
    table = summary(lines, FIGURES)
    print(json.dumps({"benchmark": NAME, "task": TASK, "seeds": options.seeds, "arms": table}))


def ablate(arm: str, corpus: Callable[[int], Sequence[Sample]], seed: int, epochs: int) -> dict[str, float]:
    """R² on held-out molecules of a task, of the frozen and of the tuned encoder."""
    torch.manual_seed(seed)
    encoder = create_encoder("molecules", "tiny", SPEC)
    targets = [it for it in MOLECULES.pretraining_targets(SPEC) if it.name not in LEFT_OUT[arm]]
    if targets:
        settings = TrainingSettings(epochs=epochs, batch_size=128, learning_rate=1e-3, seed=seed)
        pretrain(PretrainingModel(encoder, targets, mask_ratio=0.4), corpus(seed), settings)
    samples, values = _labelled()
    order = np.random.default_rng(seed).permutation(len(samples))[: LABELLED + HELD_OUT]
    learnt, held = order[:LABELLED], order[LABELLED : LABELLED + HELD_OUT]
    frozen = Yardstick([samples[place] for place in order], values[order], TASK).measure(encoder)
    answered = _tuned(encoder, samples, values, learnt, held, seed)
    return {
        "frozen_r2": round(frozen, 4),
        "tuned_r2": round(float(r2_score(values[held], answered)), 4),
    }


def _tuned(
    encoder: Encoder,
    samples: Sequence[Sample],
    values: np.ndarray,
    learnt: np.ndarray,
    held: np.ndarray,
    seed: int,
) -> np.ndarray:
    model = TaskModel(encoder, (Target(name="value", kind="regression"),), linear_head=False, dropout=0.1)
    model.fit_scaling(values[learnt, None])
    items = [(samples[place], values[place]) for place in learnt]

    def collate(chosen: Sequence[tuple[Sample, float]]) -> dict[str, Any]:
        labels = torch.tensor([[value] for _, value in chosen], dtype=torch.float32)
        return {"batch": encoder.collate([sample for sample, _ in chosen]), "labels": labels}

    with TemporaryDirectory() as folder:
        train(
            model,
            items[TO_CHOOSE_BY:],
            items[:TO_CHOOSE_BY],
            collate=collate,
            lengths=[encoder.tokens(sample) for sample, _ in items[TO_CHOOSE_BY:]],
            settings=TrainingSettings(epochs=TUNING_EPOCHS, batch_size=32, learning_rate=5e-4, seed=seed),
            folder=Path(folder),
            resume=False,
            report=say_nothing,
        )
    model.eval()
    answers = []
    with torch.no_grad():
        for start in range(0, len(held), 128):
            batch = encoder.collate([samples[place] for place in held[start : start + 128]])
            answers.append(model.outputs(model(batch)["logits"])[:, 0].numpy())
    return np.concatenate(answers)


@cache
def _labelled() -> tuple[list[Sample], np.ndarray]:
    source = MOLECULES.embedded()[TASK](SPEC)
    samples, values = [], []
    for row in source.stream():
        record, value = MOLECULES.read(row, SPEC), number_of(row.fields[source.targets[0]])
        if isinstance(record, Record) and value is not None:
            samples.append(MOLECULES.encode(record, SPEC))
            values.append(value)
    return samples, np.array(values)


if __name__ == "__main__":
    main()
