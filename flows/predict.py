"""Answer a file of rows with a registered version: one row out for each row in, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from domains.abilities import MapWriter, Resamples, WrittenMap
from domains.contract import EncodingSpec, GroundworkError, Row, Source
from flows.home import Home
from flows.journal import Journal
from flows.settings import DataSettings, FlowSettings, PredictionSettings
from flows.sources import dataset_name, open_source
from flows.tracking import connect
from models.predictor import Predictor
from models.registry import Version, load

CHUNK = 2048
TABLES = (".parquet", ".csv")


@dataclass(frozen=True)
class PredictedFile:
    """What a prediction wrote: a table, or a map of one scene."""

    path: Path
    version: Version
    rows: int
    rejected: int
    map: WrittenMap | None = None
    polygons: Path | None = None
    """The patches of the map."""

    def described(self) -> dict[str, object]:
        """What it is, as one row of a table."""
        if self.map is None:
            return {"file": str(self.path), "rows": self.rows, "rejected": self.rejected}
        shares = {name: f"{share:.1%}" for name, share in self.map.shares.items()}
        files = {"map": str(self.path), "quick look": str(self.path.with_suffix(".png"))}
        if self.polygons is not None:
            files["polygons"] = str(self.polygons)
        return {**files, **shares}


def predict(settings: FlowSettings, home: Home, journal: Journal) -> PredictedFile:
    """Write the input's columns, a prediction column per target, ``status`` and ``reason``; or a map.

    Raises GroundworkError for an unknown model, an unreadable file or an output that cannot be
    written; a file that was not finished is not left behind.
    """
    connect(home)
    asked = settings.part(PredictionSettings)
    version, predictor = journal.step("load", lambda: load(asked.model))
    data = settings.part(DataSettings)
    spec = _resampled(predictor, asked)
    source = open_source(predictor.domain, data, spec, home, trusted=journal.trusted)
    # A scene is answered with a map where the version answers pixels, and chip by chip where not.
    suffix = source.map_suffix if predictor.pixel_target is not None else ""
    path = _output_path(asked.output, source, version, home, suffix, trusted=journal.trusted)
    _keep_input(data.dataset, path)
    polygons = _polygons_path(asked.polygons, path, predictor, home, trusted=journal.trusted)
    if path.suffix in TABLES:
        for remark in source.row_remarks:
            journal.say(remark)

    def answer() -> PredictedFile:
        if path.suffix in TABLES:
            return _write(path, source, predictor, version, journal)
        return _write_map(path, polygons, source, predictor, version, journal)

    written = journal.step("predict", answer)
    floor = f", beats_floor={version.tags['beats_floor']}" if "beats_floor" in version.tags else ""
    counted = f"{written.rows:,} rows, {written.rejected:,} rejected"
    if written.map is not None:
        counted = ", ".join(f"{name} {share:.1%}" for name, share in written.map.shares.items()) or "a map"
    journal.say(f"{written.path}: {counted}, by {version.reference} (MLflow run {version.run_id}{floor})")
    return written


def _resampled(predictor: Predictor, asked: PredictionSettings) -> EncodingSpec:
    """How the input is opened: as the model reads it, and brought to that where this is asked for."""
    domain = predictor.domain
    if asked.resample == "no":
        return predictor.spec
    if not isinstance(domain, Resamples):
        raise GroundworkError(f"{domain.noun}s have no pixels to resample: leave out --resample")
    return domain.resampling(predictor.spec, asked.resample)


def _write_map(
    path: Path,
    polygons: Path | None,
    source: Source,
    predictor: Predictor,
    version: Version,
    journal: Journal,
) -> PredictedFile:
    domain, target = predictor.domain, predictor.pixel_target
    if target is None or not isinstance(domain, MapWriter):
        raise GroundworkError(
            f"{version.reference} answers each {domain.noun} as a whole and draws no map: "
            "give an output that ends in .parquet or .csv"
        )
    lineage = predictor.contract.lineage
    tags = {
        "model": version.reference,
        "mlflow_run": version.run_id,
        "input": source.name,
        "input_digest": source.digest,
        "dataset_digest": lineage.dataset_digest,
    }
    if lineage.simulated:
        tags["SIMULATED"] = "yes"
    written = domain.write_map(
        source,
        target,
        predictor.predict_pixels,
        path,
        tags,
        lambda fraction: journal.progress(f"{fraction:.0%} of the scene", fraction),
        polygons,
    )
    path.with_suffix(".png").write_bytes(written.quick_look)
    journal.picture(f"map-{version.name}", f"{path.name}, by {version.reference}", written.quick_look)
    return PredictedFile(path, version, 1, 0, written, polygons)


def _output_path(
    output: str, source: Source, version: Version, home: Home, map_suffix: str, *, trusted: bool
) -> Path:
    default = f"{dataset_name(source.name)}-{version.name}-{version.version}{map_suffix or '.parquet'}"
    path = _confined(output or str(home.outputs / default), home, trusted=trusted)
    suffixes = (*TABLES, map_suffix) if map_suffix else TABLES
    if path.suffix not in suffixes:
        no_map = "" if map_suffix else f": {version.reference} draws no map of it"
        raise GroundworkError(f"output {path.name!r} must end in {' or '.join(suffixes)}{no_map}")
    _require_folder(path)
    return path


def _polygons_path(
    polygons: str, output: Path, predictor: Predictor, home: Home, *, trusted: bool
) -> Path | None:
    if not polygons:
        return None
    domain = predictor.domain
    if output.suffix in TABLES or not isinstance(domain, MapWriter):
        raise GroundworkError(
            f"polygons are patches of a map, and {output.name} is none: leave out --polygons"
        )
    path = _confined(polygons, home, trusted=trusted)
    if path.suffix != domain.polygons_suffix:
        raise GroundworkError(f"polygons {path.name!r} must end in {domain.polygons_suffix}")
    _require_folder(path)
    return path


def _confined(output: str, home: Home, *, trusted: bool) -> Path:
    path = Path(output).expanduser()
    if not trusted:
        path = (home.outputs / path).resolve()
        if not path.is_relative_to(home.outputs.resolve()):
            raise GroundworkError(f"output {output!r} lies outside of {home.outputs}: give a plain file name")
    return path


def _keep_input(dataset: str, output: Path) -> None:
    given = Path(dataset).expanduser()
    if output.exists() and given.exists() and output.samefile(given):
        raise GroundworkError(f"the output {output.name} is the input itself: give another name")


def _require_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise GroundworkError(f"the folder {path.parent} of the output does not exist: make it first")


def _write(
    path: Path, source: Source, predictor: Predictor, version: Version, journal: Journal
) -> PredictedFile:
    rows = rejected = 0
    total = sum(1 for _ in source.stream())  # reading costs a hundredth of answering
    partial = path.with_name(f".{path.name}.partial")
    writer: pq.ParquetWriter | pa_csv.CSVWriter | None = None
    try:
        for chunk in _chunks(source.stream(), CHUNK):
            table = _answer(chunk, source, predictor)
            if writer is None:
                lineage = {"groundwork.model": version.reference, "groundwork.mlflow_run": version.run_id}
                schema = table.schema.with_metadata(lineage)
                make = pq.ParquetWriter if path.suffix == ".parquet" else pa_csv.CSVWriter
                writer = make(str(partial), schema)
            writer.write_table(table.cast(writer.schema) if isinstance(writer, pq.ParquetWriter) else table)
            rows += len(chunk)
            rejected += table.column("status").to_pylist().count("rejected")
            journal.progress(f"{rows:,} rows", rows / total)
        if writer is None:
            raise GroundworkError(f"{source.origin} holds no rows")
        writer.close()
        partial.replace(path)
    except OSError as error:
        raise GroundworkError(
            f"{path} cannot be written ({error.strerror or error}): choose another output"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return PredictedFile(path, version, rows, rejected)


def _chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _answer(rows: list[Row], source: Source, predictor: Predictor) -> pa.Table:
    answers = predictor.answer_rows(rows)
    columns = {name: _column(rows, name, source) for name in source.columns}
    added = {
        name: pa.array(list(values), pa.string())
        if values.dtype == object
        else pa.array(values, from_pandas=True)
        for name, values in predictor.columns(answers.outputs).items()
    }
    added["status"] = pa.array(["ok" if reason is None else "rejected" for reason in answers.reasons])
    added["reason"] = pa.array([reason or "" for reason in answers.reasons])
    clash = columns.keys() & added.keys()
    if clash:
        raise GroundworkError(f"the input has a column {sorted(clash)[0]!r} already: rename it first")
    return pa.table({**columns, **added})


def _column(rows: list[Row], name: str, source: Source) -> pa.Array:
    cells = [row.fields.get(name, "") for row in rows]
    if name in source.whole_numbers:
        return pa.array([int(cell) if cell else None for cell in cells], pa.int64())
    return pa.array(cells, pa.string())
