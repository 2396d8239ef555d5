"""What a plain fine-tuning of rasters is worth beside its floors: ``python -m benchmarks.raster_quality``.

Every model sees the same chips, and is judged on the same that none of them has seen. ``ours`` is
``groundwork finetune geospatial`` with nothing chosen but the seed; whatever it chooses, it chooses by
validation chips.

EuroSAT: chips without a location, so no split can be spatial, and near twins may lie on two sides. A tenth is
held out by name; the shipped foundation has not seen it. Burn scars: five folds of whole fires, by the bands
that all of them have; with ``--use-bands B2,B3,B4,B8,B12`` those that have all of these. The foundation has
seen the images of most of them, as it may, but no mask.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from scipy.stats import t as student

from benchmarks.ledger import ROOT, arguments, measured
from benchmarks.state import measuring_home
from domains.contract import digest_of, load_domain
from domains.tables import digest_of_file
from flows.home import Home

if TYPE_CHECKING:
    from models.registry import Version

NAME = "raster_quality"
DATA = ROOT.parent / "shared" / "data" / "geospatial"
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "ours": {},
    "from_scratch": {"foundation": "none"},
    "probe": {"mode": "probe"},
    "from_scratch_probe": {"foundation": "none", "mode": "probe"},
}
NEIGHBOURS = {"knn": "foundation", "from_scratch_knn": "none"}
"""Classes by the nearest neighbours in frozen embeddings, and whose those are."""
LABELS = ("10", "50", "100", "all")
"""Of each class; a fifth of them is to choose by."""
VALIDATION = 5
HELD_OUT = 10
"""One of so many chips is for testing alone."""
FOLDS = 5
SHARED, REFLECTANCES = "B8,B12", "B2,B3,B4,B8,B12"
"""Bands that all fires have as reflectances, and those that most have: of seven, what is visible comes as a
picture for the screen."""
METRICS = {"eurosat": ("accuracy",), "burn_scars": ("miou", "iou_1")}
LEVEL = 0.95
"""Of the intervals of means, by Student's t: seeds and folds are few."""
FLOW = (
    "evaluation",
    "finetune",
    "labelled",
    "stacking",
    "starting_point",
    "temperatures",
    "tune",
    "tuning_plan",
    "yardstick",
)
CODE = (
    *("models", "domains/geospatial", "domains/splits.py", "domains/marks.py"),
    *(f"flows/{name}.py" for name in FLOW),
    "benchmarks/raster_quality.py",
)

Line = Mapping[str, Any]


def main() -> None:
    options = _options()
    if options.held_out:
        print(write_held_out(DATA / "eurosat_rgb.zip", Path(options.held_out)), "chips held out")
        return
    with TemporaryDirectory() as scratch:
        home = measuring_home(Path(scratch, "home"))
        cells = eurosat_cells(options) if options.set == "eurosat" else burn_cells(options)
        lines = [_line(cell, home, Path(scratch), options) for cell in cells]
    print(json.dumps({"set": options.set, "metric": METRICS[options.set][0], **table(lines)}))


def _options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--set", choices=METRICS, default="eurosat")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --seed on")
    parser.add_argument(
        "--labels", nargs="+", choices=LABELS, default=list(LABELS), help="EuroSAT's, per class"
    )
    known = [*OPTIONS, *NEIGHBOURS]
    parser.add_argument("--models", nargs="+", choices=known, help="default: all (kNN: of EuroSAT alone)")
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)), help="of the fires")
    parser.add_argument("--pairs", action="store_true", help="fires before and after, as a change")
    parser.add_argument(
        "--use-bands", help=f"of the fires that have them all (default {SHARED}; {REFLECTANCES} with --pairs)"
    )
    parser.add_argument("--held-out", metavar="ZIP", help="write the chips that are held out, and stop")
    options = parser.parse_args()
    options.models = options.models or [*OPTIONS, *(NEIGHBOURS if options.set == "eurosat" else ())]
    options.use_bands = options.use_bands or (REFLECTANCES if options.pairs else SHARED)
    return options


@dataclass(frozen=True)
class Cell:
    """A model on some labels of a set; ``write`` makes the dataset that it is given."""

    set: str
    model: str
    seed: int
    labels: str
    digest: str
    write: Callable[[Path], Path]
    told: Mapping[str, Any]


def _line(cell: Cell, home: Home, scratch: Path, options: argparse.Namespace) -> Line:
    import torch

    from models.shipped import read_card, shipped_for

    shipped = shipped_for("geospatial") if not cell.model.startswith("from_scratch") else None
    print(f"{cell.set}, {cell.labels}, {cell.model}, seed {cell.seed}", file=sys.stderr)
    line = measured(
        NAME,
        code=CODE,
        data=cell.digest,
        seed=cell.seed,
        device="cuda" if torch.cuda.is_available() else "cpu",
        options={
            "set": cell.set,
            "model": cell.model,
            "labels": cell.labels,
            "foundation": read_card(shipped).digest[:16] if shipped else "none",
            **cell.told,
        },
        again=options.again,
        measure=lambda: (nearest if cell.model in NEIGHBOURS else tuned)(cell, home, scratch),
    )
    print(json.dumps({key: line[key] for key in ("value", "seconds", "steps", "floors")}), file=sys.stderr)
    return line


def tuned(cell: Cell, home: Home, scratch: Path) -> dict[str, Any]:
    """Fine-tune as a user would, and read what the run has logged."""
    from rich.console import Console

    from flows import dispatch
    from flows.journal import ConsoleJournal
    from flows.settings import settings_class
    from models.registry import Version

    domain = load_domain("geospatial")
    path = cell.write(scratch / digest_of([cell.digest, cell.labels, cell.seed]))
    told = {"dataset": str(path), "seed": cell.seed, **cell.told, **OPTIONS[cell.model]}
    told["name"] = f"{cell.set.replace('_', '-')}-{digest_of([told, cell.labels])}"
    settings = settings_class("finetune", "geospatial")(**told)
    started = perf_counter()
    version = dispatch.run(
        "finetune", domain, settings, home, ConsoleJournal(Console(stderr=True, quiet=True))
    )
    assert isinstance(version, Version)  # noqa: S101 - narrows the type: so does every fine-tuning
    return {**_logged(version, METRICS[cell.set]), "seconds": round(perf_counter() - started, 1)}


def nearest(cell: Cell, home: Home, scratch: Path) -> dict[str, Any]:
    """Which class the nearest chips are of, in the embeddings of a foundation or of an untrained encoder.

    There is nothing to choose, so that they are of all labelled chips, also of those that others choose by.
    """
    import torch

    from domains.contract import Record, Sample
    from domains.geospatial import GEOSPATIAL, RasterEncoding
    from flows.yardstick import Neighbours
    from models.encoder import create_encoder
    from models.shipped import load_shipped, shipped_for

    started = perf_counter()
    path = cell.write(scratch / digest_of([cell.digest, cell.labels, cell.seed]))
    source = GEOSPATIAL.open(path, RasterEncoding())
    sides: dict[bool, list[tuple[Sample, str]]] = {True: [], False: []}
    for row in source.stream():
        record = GEOSPATIAL.read(row, source.encoding)
        if isinstance(record, Record):
            sample = GEOSPATIAL.encode(record, source.encoding)
            sides[row.fields["split"] == "test"].append((sample, row.fields["label"]))
    (known, known_classes), (asked, asked_classes) = (zip(*sides[it], strict=True) for it in (False, True))
    torch.manual_seed(cell.seed)
    shipped = shipped_for("geospatial") if NEIGHBOURS[cell.model] == "foundation" else None
    encoder = (
        load_shipped(shipped).encoder if shipped else create_encoder("geospatial", "tiny", source.encoding)
    )
    encoder.fit_input(source.encoding, known)
    classes = [np.array(known_classes), np.array(asked_classes)]
    accuracy = round(Neighbours(known, asked, classes, "label").measure(encoder), 4)
    seconds = round(perf_counter() - started, 1)
    return {"value": accuracy, "accuracy": accuracy, "steps": 0, "seconds": seconds, "floors": {}}


def _logged(version: Version, metrics: Sequence[str]) -> dict[str, Any]:
    import mlflow

    logged = mlflow.get_run(version.run_id).data.metrics
    floors: dict[str, dict[str, float]] = {}
    for name, value in logged.items():
        for metric in metrics:
            if name.startswith("floor_") and name.endswith(f"_{metric}"):
                floors.setdefault(name[6 : -len(metric) - 1], {})[metric] = round(value, 4)
    figures = {metric: round(logged[f"test_{metric}"], 4) for metric in metrics}
    return {
        "value": figures[metrics[0]],
        **figures,
        "steps": round(logged["training_steps"]),
        "training_seconds": round(logged.get("training_seconds", float("nan")), 1),
        "floors": floors,
    }


def table(lines: Sequence[Line]) -> dict[str, Any]:
    """By labels and model: the mean, half of its 95% interval over seeds or folds, and the seconds."""
    found: dict[str, dict[str, dict[Any, tuple[float, float]]]] = {}
    for line in lines:
        rows = found.setdefault(line["labels"] if line["set"] == "eurosat" else "all", {})
        drawn = line["labels"], line["seed"]
        rows.setdefault(line["model"], {})[drawn] = line["value"], line["seconds"]
        # The same floors stand in the lines of every model of a draw: they are counted once.
        for name, figures in line["floors"].items():
            rows.setdefault(name, {})[drawn] = figures[METRICS[line["set"]][0]], 0.0
    return {
        "labels": {
            labels: {model: _summary(list(values.values())) for model, values in rows.items()}
            for labels, rows in found.items()
        }
    }


def _summary(values: Sequence[tuple[float, float]]) -> dict[str, float]:
    figures, count = np.array([value for value, _ in values]), len(values)
    summary = {"mean": round(float(figures.mean()), 4), "seconds": round(sum(took for _, took in values))}
    if count < 2:
        return summary
    reach = student.ppf((1 + LEVEL) / 2, count - 1) * figures.std(ddof=1) / count**0.5
    return {**summary, "interval": round(float(reach), 4)}


# --------------------------------------------------------------------------------------------- EuroSAT


def is_held_out(name: str) -> bool:
    """Whether a chip is for testing alone: by the CRC-32 of the name of its file."""
    return zlib.crc32(PurePosixPath(name).name.encode()) % HELD_OUT == 0


def write_held_out(archive: Path, path: Path) -> int:
    """Write the chips that no foundation may learn from into an archive of their own; how many there are."""
    with ZipFile(archive) as source, ZipFile(path, "w", ZIP_STORED) as target:
        chosen = [name for name in source.namelist() if name.endswith(".jpg") and is_held_out(name)]
        for name in chosen:
            target.writestr(name, source.read(name))
    return len(chosen)


def eurosat_cells(options: argparse.Namespace) -> Iterator[Cell]:
    archive = DATA / "eurosat_rgb.zip"
    with ZipFile(archive) as source:
        names = sorted(name for name in source.namelist() if name.endswith(".jpg"))
    digest = digest_of_file(archive)
    for seed in range(options.seed, options.seed + options.seeds):
        for labels in options.labels:
            sides = eurosat_sides(names, labels, seed)

            def write(folder: Path, sides: Mapping[str, str] = sides) -> Path:
                return write_eurosat(archive, folder.with_suffix(".zip"), sides)

            for model in options.models:
                yield Cell("eurosat", model, seed, labels, digest, write, {})


def eurosat_sides(names: Sequence[str], labels: str, seed: int) -> dict[str, str]:
    """The side of each chip: so many of each class drawn by the seed, and all that are held out."""
    sides = {name: "test" for name in names if is_held_out(name)}
    by_class: dict[str, list[str]] = {}
    for name in names:
        if name not in sides:
            by_class.setdefault(PurePosixPath(name).parent.name, []).append(name)
    for number, pool in enumerate(by_class.values()):
        order = np.random.default_rng([seed, number]).permutation(len(pool))
        wanted = order if labels == "all" else order[: int(labels)]
        for place, chosen in enumerate(wanted):
            sides[pool[chosen]] = "val" if place % VALIDATION == 0 else "train"
    return sides


def write_eurosat(archive: Path, path: Path, sides: Mapping[str, str]) -> Path:
    """An archive of some chips with a table of their classes and sides."""
    if not path.exists():
        with ZipFile(archive) as source, ZipFile(path, "w", ZIP_STORED) as target:
            rows = ["path,label,split"]
            for name, side in sides.items():
                target.writestr(f"images/{PurePosixPath(name).name}", source.read(name))
                rows.append(f"images/{PurePosixPath(name).name},{PurePosixPath(name).parent.name},{side}")
            target.writestr("labels.csv", "\n".join(rows) + "\n")
    return path


# ------------------------------------------------------------------------------------------ burn scars


def burn_cells(options: argparse.Namespace) -> Iterator[Cell]:
    folder = DATA / "burn_scars"
    images = ("images", "images_before") if options.pairs else ("images",)
    names = options.use_bands.split(",")
    fires = sorted(
        path.name
        for path in (folder / images[-1]).glob("*.tif")  # fewer have an image from before
        if all(_has_bands(folder / part / path.name, names) for part in images)
    )
    parts = ("images", "masks", *images[1:])
    digest = digest_of([digest_of_file(folder / part / fire) for fire in fires for part in parts])
    told = {"use_bands": options.use_bands, **({"task": "change"} if options.pairs else {})}
    for fold in options.folds:
        sides = fold_of(fires, fold)

        def write(target: Path, sides: Mapping[str, str] = sides) -> Path:
            return write_fires(folder, target, sides, pairs=options.pairs)

        for model in options.models:
            yield Cell("burn_scars", model, options.seed, f"fold {fold}", digest, write, told)


def _has_bands(path: Path, names: Sequence[str]) -> bool:
    """Whether a scene holds all of these."""
    import rasterio

    with rasterio.open(path) as scene:
        return set(names) <= set(scene.descriptions)


def fold_of(fires: Sequence[str], fold: int) -> dict[str, str]:
    """The side of each fire: every fifth is for testing, and of the others every fifth to choose by."""
    others = [fire for place, fire in enumerate(fires) if place % FOLDS != fold]
    sides = {fire: "test" for fire in fires if fire not in others}
    return sides | {
        fire: "val" if place % VALIDATION == fold % VALIDATION else "train"
        for place, fire in enumerate(others)
    }


def write_fires(folder: Path, target: Path, sides: Mapping[str, str], *, pairs: bool) -> Path:
    """A folder ``train``, ``val`` and ``test`` of images and masks."""
    import shutil

    for fire, side in sides.items():
        for part in ("images", "masks", *(("images_before",) if pairs else ())):
            place = target / side / part
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / part / fire, place / fire)
    return target


if __name__ == "__main__":
    main()
