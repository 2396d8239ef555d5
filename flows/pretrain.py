"""Pretrain a domain's encoder on unlabelled data and register it as a foundation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from domains.contract import (
    EncodingSpec,
    GroundworkError,
    Record,
    Row,
    Sample,
    Source,
    SplitSpec,
    load_domain,
)
from domains.mixture import Mixture
from domains.splits import Split, split
from domains.store import Store
from domains.workers import in_workers, usable_processors
from flows.ingest import ingest
from flows.jobs import Job, TrainingRun, learns_computed, training_run
from flows.promotion import decide_foundation
from flows.reconstructions import Reconstructions
from flows.registration import lineage, register_version
from flows.settings import DataSettings, LimitSettings
from flows.sources import open_source
from flows.yardstick import Neighbours, Yardstick, class_column
from models.encoder import Batch, create_encoder, parameter_count
from models.predictor import Predictor, VersionContract
from models.pretraining import PretrainingModel
from models.progress import Progress
from models.registry import FOLDER, Version
from models.settings import PretrainingSettings, SizeSettings, TrainingSettings
from models.training import TrainingResult, train

LEARNING_RATE = 1e-3
EPOCHS = 3
BATCH = 64
HELD_OUT = 0.02
MOST_HELD_OUT = 2048
FEWEST_RECORDS = 64
ROWS_AT_ONCE = 4096
MOST_WORKERS = 8


def pretrain(job: Job) -> Version:
    """Encode, train, register; returns the new version. Raises GroundworkError for unusable input."""
    domain, settings, journal = job.domain, job.settings, job.journal
    training = settings.part(TrainingSettings)
    chosen = {
        "learning_rate": training.learning_rate or LEARNING_RATE,
        "epochs": training.epochs or EPOCHS,
        "batch_size": training.batch_size or BATCH,
    }
    training = training.model_copy(update=chosen)
    limit = settings.part(LimitSettings)
    # Opened before anything is written, so that typos cost nothing.
    sources = [job.source, *(_opened(job, name) for name in limit.also)]
    with training_run(job) as run:
        store, *others = journal.step("encode", lambda: [_encoded(job, source) for source in sources])
        run.log_rows(store, list(store.rejects()))
        for source, other in zip(sources[1:], others, strict=True):
            run.tracked.log_dataset(source.name, source.origin, source.digest, asdict(other.counts), "also")
        drawn = _drawn(Mixture([store, *others]), limit, training.seed)
        if limit.exclude:
            drawn = journal.step("exclude", lambda: _strangers(job, sources, drawn, limit.exclude))
        sides = _sides(drawn, training.seed)
        model = _model(job, sources, drawn, sides)
        journal.say(
            f"training {parameter_count(model.encoder):,} parameters on {len(sides.train):,} "
            f"{domain.noun}s, {training.epochs} epochs"
        )
        pictures = Reconstructions.of(run, model, sources, drawn.subset(sides.val))
        result = journal.step("train", lambda: _train(run, model, drawn, sides, training, pictures))
        loss = _heldout_loss(model, drawn.subset(sides.val), training.batch_size, training.seed)
        run.tracked.log_metrics({"heldout_loss": loss, **_costs(asdict(result))}, result.steps)

        def register() -> Version:
            decision = decide_foundation(job.name, domain.name, sides.id, loss)
            tags = {"metric": "heldout_loss", "value": f"{loss:.6g}"}
            with TemporaryDirectory() as temporary:
                saved = Path(temporary) / FOLDER
                predictor = Predictor.save(saved, _contract(run, store, sides), model.encoder.cpu())
                return register_version(job.name, saved, predictor, run.tracked, decision, tags)

        version = journal.step("register", register)
    journal.table(
        f"result-{version.name}",
        f"{version.reference}: foundation of {domain.name}",
        [
            {
                "version": version.reference,
                "alias": ", ".join(version.aliases),
                "held-out loss": f"{loss:.4g}",
                f"{domain.noun}s": f"{len(sides.train):,}",
                "steps": f"{result.steps:,}",
                "seconds": f"{result.seconds:.0f}",
                "device": result.device,
                "decision": version.tags.get("promotion", ""),
            }
        ],
    )
    return version


def _opened(job: Job, name: str) -> Source:
    encoding = job.settings.part(job.domain.encoding)
    source = open_source(
        job.domain, DataSettings(dataset=name), encoding, job.home, trusted=job.journal.trusted
    )
    for remark in source.remarks:
        job.journal.say(remark)
    return source


def _encoded(job: Job, source: Source) -> Store:
    column = class_column(source)
    return ingest(
        job.domain,
        source,
        source.encoding,
        job.home,
        job.journal,
        describe=learns_computed(job),
        keep=(column,) if column else (),
    )


def _train(
    run: TrainingRun,
    model: PretrainingModel,
    store: Mixture,
    sides: Split,
    training: TrainingSettings,
    pictures: Reconstructions | None,
) -> TrainingResult:
    with run.job.journal.training_slot():
        return train(
            model,
            store.subset(sides.train),
            store.subset(sides.val),
            collate=_Collator(model),
            lengths=store.tokens[sides.train],
            settings=training,
            folder=run.folder.checkpoints,
            resume=run.resume,
            report=_watched(run, model, store, sides, pictures),
        )


def _watched(
    run: TrainingRun, model: PretrainingModel, store: Mixture, sides: Split, pictures: Reconstructions | None
) -> Callable[[Progress], None]:
    """Report progress, and after each epoch what the frozen encoder is worth, and what it fills in.

    By the domain's yardstick, and by the classes of the dataset where it tells some.
    """
    yardstick = Yardstick.of(run.job.domain, run.job.spec)
    known, asked = (store.subset(np.sort(side)).parts()[0] for side in (sides.train, sides.val))
    neighbours = Neighbours.of(run.job.source, known, asked)

    def report(progress: Progress) -> None:
        run.report(progress)
        if "eval_loss" not in progress.metrics:
            return
        worth = {}
        if yardstick is not None:
            worth[f"frozen_r2_{yardstick.name}"] = yardstick.measure(model.encoder)
        if neighbours is not None:
            worth[f"frozen_knn_{neighbours.name}"] = neighbours.measure(model.encoder)
        if worth:
            run.tracked.log_metrics(worth, progress.step)
        if pictures is not None:
            pictures.report(run, progress)

    return report


def _contract(run: TrainingRun, store: Store, sides: Split) -> VersionContract:
    job = run.job
    return VersionContract(
        kind="foundation",
        domain=job.domain.name,
        encoding=job.spec.model_dump(mode="json"),
        encoding_digest=job.spec.digest,
        split_id=sides.id,
        lineage=lineage(run, store, "none"),
    )


class _Collator:
    def __init__(self, model: PretrainingModel) -> None:
        self.encoder = model.encoder

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Batch]:
        return {"batch": self.encoder.collate(samples)}


def _drawn(store: Mixture, limit: LimitSettings, seed: int) -> Mixture:
    """As many records as are wanted, drawn by the seed."""
    count = len(store)
    if not limit.max_records or limit.max_records >= count:
        return store
    return store.subset(np.sort(np.random.default_rng(seed).permutation(count)[: limit.max_records]))


def _sides(store: Mixture, seed: int) -> Split:
    """Which records train, and which are held out to watch the loss."""
    if len(store) < FEWEST_RECORDS:
        raise GroundworkError(
            f"only {len(store)} records can be used; pretraining needs at least {FEWEST_RECORDS}"
        )
    held = min(HELD_OUT, MOST_HELD_OUT / len(store))
    spec = SplitSpec(method="random", seed=seed, fractions=(1 - held, held, 0.0))
    return split(np.arange(len(store)), spec, store.identities)


def _strangers(job: Job, sources: Sequence[Source], store: Mixture, excluded: Sequence[str]) -> Mixture:
    """The records that are not kin to any in the excluded datasets."""
    domain = job.domain
    kin: set[str] = set()
    for name in excluded:
        kin.update(key for key in _kinships(job, _opened(job, name)) if key)
    is_strange: list[bool] = []
    for source, part in zip(sources, store.parts(), strict=True):
        known = len(is_strange)
        for key in _kinships(job, source, part.rows):  # in order, as they were drawn
            is_strange.append(key not in kin)
            if len(is_strange) % ROWS_AT_ONCE == 0:
                job.journal.progress(f"{len(is_strange):,} compared", len(is_strange) / len(store))
        if len(is_strange) - known != len(part):
            raise GroundworkError(f"{source.origin} has changed while it was read: run again")
    strangers = np.flatnonzero(is_strange)
    job.journal.say(
        f"{len(store) - len(strangers):,} {domain.noun}s are left out: "
        f"they are kin to what is in {', '.join(excluded)}"
    )
    return store.subset(strangers)


def _holds(ordered: np.ndarray, value: int) -> bool:
    place = np.searchsorted(ordered, value)
    return bool(place < len(ordered) and ordered[place] == value)


def _kinships(job: Job, source: Source, wanted: np.ndarray | None = None) -> Iterator[str]:
    """The key of each row in turn, or of those ``wanted``, ascending; empty for a reject.

    On all processors, for it costs more than encoding.
    """
    rows = (row for row in source.stream() if wanted is None or _holds(wanted, row.index))
    first = list(islice(rows, ROWS_AT_ONCE))
    chunks = chain([first], iter(lambda: list(islice(rows, ROWS_AT_ONCE)), []))
    workers = min(MOST_WORKERS, usable_processors()) if len(first) == ROWS_AT_ONCE else 1
    for keys in in_workers(workers, _keys, ((job.domain.name, source.encoding, chunk) for chunk in chunks)):
        yield from keys


def _keys(domain_name: str, spec: EncodingSpec, rows: list[Row]) -> list[str]:
    domain = load_domain(domain_name)
    records = (domain.read(row, spec) for row in rows)
    return [domain.kinship(record) if isinstance(record, Record) else "" for record in records]


def _model(job: Job, sources: Sequence[Source], store: Mixture, sides: Split) -> PretrainingModel:
    settings = job.settings
    torch.manual_seed(settings.part(TrainingSettings).seed)
    encoder = create_encoder(job.domain.name, job.settings.part(SizeSettings).size, job.spec)
    parts = store.subset(np.sort(sides.train)).parts()
    encoder.fit_inputs([(source.encoding, part) for source, part in zip(sources, parts, strict=True)])
    targets = job.domain.pretraining_targets(job.spec)
    hiding = settings.part(PretrainingSettings)
    model = PretrainingModel(encoder, targets, hiding.mask_ratio, hiding.contrast)
    model.fit_scaling(store.subset(sides.train[:20_000]))
    return model


def _heldout_loss(model: PretrainingModel, samples: Sequence[Sample], batch: int, seed: int) -> float:
    """Loss on the held-out samples under masks that depend on the seed alone."""
    device = next(model.parameters()).device
    model.eval()
    losses, weights = [], []
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for start in range(0, len(samples), batch):
            chosen = [samples[index] for index in range(start, min(start + batch, len(samples)))]
            inputs = {name: tensor.to(device) for name, tensor in model.encoder.collate(chosen).items()}
            losses.append(float(model(inputs)["loss"]))
            weights.append(len(chosen))
    return float(np.average(losses, weights=weights))


def _costs(result: dict[str, float | str]) -> dict[str, float]:
    return {f"training_{key}": float(value) for key, value in result.items() if not isinstance(value, str)}
