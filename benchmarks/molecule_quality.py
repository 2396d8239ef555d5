"""What a plain fine-tuning is worth, beside its floors and a peer: ``python -m benchmarks.molecule_quality``.

Every model sees the same rows: the project's deterministic scaffold split, 80/10/10. ``ours`` is ``groundwork
finetune`` with nothing chosen but target and seed; whatever it chooses, it chooses by validation rows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from benchmarks.label_curve import CURVE_SIZES, curve_of, draw_rows, draws_of
from benchmarks.ledger import RESULTS, ROOT, arguments, code_digest, measured
from benchmarks.peers import CHEMPROP, chemprop_predictions
from benchmarks.state import measuring_home
from domains.contract import GroundworkError
from domains.tables import digest_of_file
from domains.workers import in_workers, usable_processors

if TYPE_CHECKING:
    from benchmarks.finetunings import DataSet, FineTuned, FineTunings

NAME = "molecule_quality"
SETS = ("bbbp", "bace", "esol", "lipophilicity", "tox21")
CURVE_SETS = ("esol", "bace")
TARGETS = {"aqsoldb": ("Solubility",)}
"""Where not every column beside the molecules is a target."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "ours": {},
    "from_scratch": {"foundation": "none"},
    "probe": {"mode": "probe"},
}
FLOORS = {"ecfp_forest": "ECFP4 + random forest", "descriptors_forest": "descriptors + random forest"}
PEER = "chemprop"
COMPARED = ("ours", "from_scratch")
"""On few labels."""
HIGHER_IS_BETTER = {"auroc": True, "rmse": False}
CERTAIN = 1.96
"""Standard errors on either side of a mean: 95% of a normal distribution."""

Line = Mapping[str, Any]

# What decides a figure. All of a folder but what is named here: a file that is new counts until it is known
# not to.
NOT_LEARNING = {
    "models": (
        "history.py",
        "map_accuracy.py",
        "pixel_head.py",
        "progress.py",
        "pyfunc.py",
        "registry.py",
        "unet.py",
    ),
    "models/molecules": ("attribution.py", "pyg.py"),
    "domains/molecules": ("drawing.py", "embedded.py"),
}


def modules(folder: str) -> list[str]:
    """The files of a folder that decide a figure."""
    found = sorted((ROOT / folder).glob("*.py"))
    return [f"{folder}/{file.name}" for file in found if file.name not in NOT_LEARNING[folder]]


def _rows_code() -> list[str]:
    labels = ["flows/labelled.py", "models/cells.py", "models/labels.py", "models/targets.py"]
    return [*modules("domains/molecules"), "domains/marks.py", "domains/splits.py", *labels]


def deciding_code() -> dict[str, list[str]]:
    """Files that decide the figures, by what they are figures of."""
    rows = _rows_code()
    names = ("finetune", "ingest", "stacking", "starting_point", "tune", "tuning_plan")
    flow = [f"flows/{name}.py" for name in names]
    learning = sorted({*rows, *modules("models"), *modules("models/molecules"), *flow})
    return {
        "tuned": learning,
        "few": [*learning, "benchmarks/label_curve.py"],
        "floor": [*rows, "models/baselines.py"],
        # Rows of one split id are the same rows: whatever else of the code has changed, the peer's has not.
        "peer": ["benchmarks/peers.py"],
    }


def main() -> None:
    options = _options()
    # Before torch is imported: the processes that train share the processors.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_processors() // options.workers)))
    with TemporaryDirectory() as scratch:
        cells = _cells(scratch, options.state, options.data, options.again)
        if cells.foundation == "none":
            print("there is no foundation: ours is from scratch, and the probe blind", file=sys.stderr)
        try:
            shared = Shared(cells, scratch, options)
            print(json.dumps(_curves(shared, options) if options.curve else _table(shared, options)))
        except GroundworkError as error:
            raise SystemExit(str(error)) from error


@cache
def _cells(scratch: str, state: str | None, data: str, again: bool) -> Cells:
    """The cells as this process measures them, in a state folder of its own unless one is named."""
    home = measuring_home(Path(state).resolve() if state else Path(scratch, str(os.getpid())))
    from benchmarks.finetunings import FineTunings

    return Cells(FineTunings(home), Path(data), foundation_digest(), again)


def _options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--sets", nargs="+", help=f"default: {' '.join(SETS)}; of the curve: two of them")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from --seed on")
    known = [*OPTIONS, *FLOORS, PEER]
    parser.add_argument("--models", nargs="+", choices=known, help="default: all but chemprop")
    parser.add_argument("--chemprop", action="store_true", help=f"{CHEMPROP} too, which takes long")
    parser.add_argument("--curve", action="store_true", help="few labels, with and without the foundation")
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "data" / "molecules"))
    parser.add_argument(
        "--state", help="a state folder, whose champion is the foundation; default: a scratch one"
    )
    parser.add_argument(
        "--workers", type=int, default=usable_processors(), help="processes; default: one for each processor"
    )
    options = parser.parse_args()
    options.models = options.models or [*OPTIONS, *FLOORS]
    if options.chemprop and PEER not in options.models:
        options.models.append(PEER)
    return options


@dataclass(frozen=True)
class Cell:
    """A model on a set, on all rows or on a draw of so many labels."""

    set: str
    model: str
    seed: int
    """Of the draw as well."""
    labels: int | None = None


class Cells:
    """Looks cells up in the ledger, and has those measured that are not there."""

    def __init__(
        self, tunings: FineTunings, folder: Path, foundation: str, again: bool, ledger: Path = RESULTS
    ) -> None:
        self.tunings = tunings
        self.folder = folder
        self.foundation = foundation
        self.again = again
        self.ledger = ledger
        # Modules stay as they were imported, whatever becomes of their files in the hours that this may take.
        self.code = deciding_code()
        self.began_with = {kind: code_digest(code) for kind, code in self.code.items()}

    def open(self, name: str) -> DataSet:
        from benchmarks.finetunings import open_set

        return open_set(name, self.folder, TARGETS.get(name, ()))

    def plain(self, data: DataSet, model: str, seed: int) -> Line:
        """A model on all the rows of a set."""
        if model in OPTIONS:
            return self._tuned(data, model, seed, {"labels": "all"}, lambda: data)
        if model in FLOORS:
            rows = self.tunings.rows_digest(self.tunings.settings(data, seed))
            return self._measured(
                {"set": data.name, "model": model, "labels": "all", "rows": rows},
                "floor",
                data.digest,
                seed,
                lambda: _figures(self.tunings.rows_of(data, seed), FLOORS[model]),
            )
        split_id = self.plain(data, "ecfp_forest", seed)["split_id"]
        return self._measured(
            {"set": data.name, "model": model, "labels": "all", "version": CHEMPROP, "split": split_id},
            "peer",
            data.digest,
            seed,
            lambda: self._peer(data, seed),
        )

    def few(self, data: DataSet, model: str, labels: int, draw: int) -> Line:
        """A model on a draw of the labels, judged on the same test rows."""
        split_id = self.plain(data, "ecfp_forest", 0)["split_id"]
        told = {"labels": labels, "split": split_id}

        def rows() -> DataSet:
            from benchmarks.finetunings import DataSet

            whole = self.tunings.rows_of(data, 0)
            drawn = draw_rows(whole.rows, data.targets, whole.kind, labels, draw)
            path = self.tunings.home.inbox / f"{data.name}-{labels}-{draw}.csv"
            drawn.to_csv(path, index=False)
            return DataSet(path.stem, path, data.targets, data.digest)

        given = {"split": "given", "split_column": "side"}
        return self._tuned(data, model, draw, told, rows, **given)

    def _tuned(
        self,
        data: DataSet,
        model: str,
        seed: int,
        told: Line,
        rows: Callable[[], DataSet],
        **given: Any,
    ) -> Line:
        options = {**OPTIONS[model], **given}
        scratch = options.get("foundation") == "none"
        key = {
            "set": data.name,
            "model": model,
            "settings": self.tunings.digest(self.tunings.settings(data, seed, **options)),
            "foundation": "none" if scratch else self.foundation,
            **told,
        }
        kind = "few" if given else "tuned"
        return self._measured(
            key, kind, data.digest, seed, lambda: _figures(self.tunings.run(rows(), seed, **options))
        )

    def _peer(self, data: DataSet, seed: int) -> Line:
        from benchmarks.finetunings import figures
        from models.results import SampleResults

        tuned = self.tunings.rows_of(data, seed)
        names = [target.name for target in tuned.targets]
        kind = "regression" if tuned.kind == "regression" else "classification"
        answered = chemprop_predictions(tuned.rows, names, kind, seed).to_numpy(float)
        truth = tuned.rows.loc[tuned.rows["side"] == "test", names].to_numpy(float)
        return figures(SampleResults(tuned.targets, truth, answered), tuned.kind)

    def _measured(self, key: Line, kind: str, digest: str, seed: int, measure: Callable[[], Line]) -> Line:
        if code_digest(self.code[kind]) != self.began_with[kind]:
            raise GroundworkError(
                "the code has changed since this benchmark was started: start it again to go on from here"
            )
        line = measured(
            NAME,
            code=self.code[kind],
            data=digest,
            seed=seed,
            device=accelerator(),
            options=key,
            again=self.again,
            measure=measure,
            folder=self.ledger,
        )
        shown = (
            f"{key['set']} {key['labels']} {key['model']} seed {seed}: {line['metric']} {line['value']:.4f}"
        )
        print(shown, file=sys.stderr)
        return line


class Shared:
    """Has cells measured by several processes, and then finds them in the ledger."""

    def __init__(self, cells: Cells, scratch: str, options: argparse.Namespace) -> None:
        self.cells = cells
        self._known = (scratch, options.state, options.data, options.again)
        self._workers = options.workers

    def measure(self, jobs: Iterable[Sequence[Cell]]) -> None:
        """Measure cells; those of one job by one process, where the later ones use what the first one ran."""
        for _ in in_workers(self._workers, _measure, ((*self._known, job) for job in jobs)):
            pass
        self.cells.again = False

    def find(self, cell: Cell) -> Line:
        """A cell that has been measured."""
        return _of(self.cells, cell)


def _measure(scratch: str, state: str | None, data: str, again: bool, job: Sequence[Cell]) -> None:
    for cell in job:
        _of(_cells(scratch, state, data, again), cell)


def _of(cells: Cells, cell: Cell) -> Line:
    data = cells.open(cell.set)
    if cell.labels is None:
        return cells.plain(data, cell.model, cell.seed)
    return cells.few(data, cell.model, cell.labels, cell.seed)


def _figures(tuned: FineTuned, floor: str = "") -> Line:
    from benchmarks.finetunings import figures, training_labels

    return {
        **figures(tuned.results(floor), tuned.kind),
        "training_labels": training_labels(tuned.rows),
        "split_id": tuned.split_id,
        **({} if floor else {"seconds": round(tuned.seconds, 1)}),
    }


def foundation_digest() -> str:
    """Digest of the weights that a plain fine-tuning starts from; ``none`` where it starts from scratch."""
    from flows.settings import foundation_name
    from models import registry, shipped

    holder = registry.champion(foundation_name("molecules"))
    if holder is not None:
        return digest_of_file(registry.fetch(holder) / shipped.WEIGHTS)
    name = shipped.shipped_for("molecules")
    return "none" if name is None else shipped.read_card(name).digest[:16]


def accelerator() -> str:
    """Where the models are trained. Without torch, which a table that is known already does without."""
    return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"


# ------------------------------------------------------------------------------------------------ tables


def _table(shared: Shared, options: argparse.Namespace) -> dict[str, Any]:
    seeds = range(options.seed, options.seed + options.seeds)
    sets = options.sets or SETS
    _measure_plain(shared, sets, options.models, seeds)
    if PEER in options.models:  # it asks for the split of a floor
        shared.measure([[Cell(name, PEER, seed)] for name in sets for seed in seeds])
    found = {
        name: {model: [shared.find(Cell(name, model, seed)) for seed in seeds] for model in options.models}
        for name in sets
    }
    return {"benchmark": NAME, "split": "scaffold 80/10/10", "seeds": options.seeds, **summary(found)}


def _measure_plain(shared: Shared, sets: Sequence[str], models: Sequence[str], seeds: Iterable[int]) -> None:
    """Measure models on all rows: the largest sets first, so that no process is left alone with one."""
    ordered = sorted(sets, key=lambda name: -shared.cells.open(name).path.stat().st_size)
    floors = [model for model in FLOORS if model in models]
    tuned = [[model] for model in models if model in OPTIONS] or [[]]
    tuned[0] += floors  # which come with any fine-tuning
    shared.measure(
        [Cell(name, model, seed) for model in together]
        for name in ordered
        for seed in seeds
        for together in tuned
    )


def summary(found: Mapping[str, Mapping[str, Sequence[Line]]]) -> dict[str, Any]:
    """Lines by set, model and seed -> mean, interval and rank of each model."""
    sets = {
        name: {
            "metric": next(iter(models.values()))[0]["metric"],
            "test_rows": next(iter(models.values()))[0]["test_rows"],
            "models": {model: spread(lines) for model, lines in models.items()},
        }
        for name, models in found.items()
    }
    told: dict[str, Any] = {
        "interval": "95%: mean ± 1.96 standard errors, of the test rows (bootstrap) and of the seeds",
        "sets": sets,
        "mean_rank": mean_ranks(sets),
    }
    for other in ("from_scratch", PEER):
        if all({"ours", other} <= set(entry["models"]) for entry in sets.values()):
            told[f"ahead_of_{other}"] = [
                name for name, entry in sets.items() if _is_ahead(entry, "ours", other)
            ]
    return told


def spread(lines: Sequence[Line]) -> dict[str, Any]:
    """Mean over seeds with its interval.

    The seeds share their test rows, so that more of them take away the error of the seeds alone.
    """
    values = np.array([line["value"] for line in lines])
    of_seeds = values.var(ddof=1) / len(values) if len(values) > 1 else 0.0
    of_rows = float(np.mean([line["row_error"] ** 2 for line in lines]))
    mean, reach = float(values.mean()), CERTAIN * float(np.sqrt(of_rows + of_seeds))
    highest = 1.0 if lines[0]["metric"] == "auroc" else np.inf
    interval = np.clip([mean - reach, mean + reach], 0.0, highest)
    seconds = [line["seconds"] for line in lines if "seconds" in line]
    return {
        "mean": round(mean, 4),
        "interval": [round(float(end), 4) for end in interval],
        **({"seconds": round(float(np.mean(seconds)), 1)} if seconds else {}),
    }


def mean_ranks(sets: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Rank of each model's mean, 1 the best, averaged over the sets; ties share their ranks.

    Only of models that every set has, and among these.
    """
    models = [
        model
        for model in next(iter(sets.values()))["models"]
        if all(model in entry["models"] for entry in sets.values())
    ]
    ranks = [rankdata([_cost(entry, model) for model in models]) for entry in sets.values()]
    return {model: round(float(rank), 2) for model, rank in zip(models, np.mean(ranks, axis=0), strict=True)}


def _cost(entry: Mapping[str, Any], model: str) -> float:
    mean = float(entry["models"][model]["mean"])
    return -mean if HIGHER_IS_BETTER[entry["metric"]] else mean


def _is_ahead(entry: Mapping[str, Any], model: str, other: str) -> bool:
    return _cost(entry, model) < _cost(entry, other)


# ------------------------------------------------------------------------------------------------ curves


def _curves(shared: Shared, options: argparse.Namespace) -> dict[str, Any]:
    seeds, sets = range(options.seed, options.seed + options.seeds), options.sets or CURVE_SETS
    _measure_plain(shared, sets, (*COMPARED, "ecfp_forest"), seeds)  # it knows the split
    draws = [(name, size, draw) for name in sets for size in CURVE_SIZES for draw in range(draws_of(size))]
    shared.measure([[Cell(name, it, draw, size) for it in COMPARED] for name, size, draw in draws])
    curves = {}
    for name in sets:
        few = {
            size: {
                model: [shared.find(Cell(name, model, draw, size)) for draw in range(draws_of(size))]
                for model in COMPARED
            }
            for size in CURVE_SIZES
        }
        whole = {model: [shared.find(Cell(name, model, seed)) for seed in seeds] for model in COMPARED}
        every = int(whole["ours"][0]["training_labels"])
        curves[name] = curve_of({**few, every: whole}, HIGHER_IS_BETTER[whole["ours"][0]["metric"]])
    return {"benchmark": f"{NAME} --curve", "sets": curves}


if __name__ == "__main__":
    main()
