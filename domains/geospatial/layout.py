"""What the files of a dataset are to each other: scenes, labels, pairs of dates, class folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from domains.contract import GroundworkError
from domains.geospatial.archives import LABEL_SUFFIXES, LABELS, File, without_top
from domains.marks import SIDE_OF_WORD

IMAGES, MASKS, BEFORE = "images", "masks", "images_before"
PAIR = ("before", "after")
"""Names of two files, or of two folders with one scene each, that are a pair by themselves."""
SPLIT = "split"
"""What tells the side of an image in a given split."""
SHOWN = 5


@dataclass(frozen=True)
class Entry:
    """One image, and what is known of it."""

    image: File
    mask: File | None = None
    """Labels of its pixels, as a raster or as polygons."""
    before: File | None = None
    """The same ground on an earlier date; only where two dates are asked for."""
    class_name: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    """What a table says of it."""
    fault: str = ""
    """Why it cannot be used; empty where it may be."""

    @property
    def files(self) -> tuple[File, ...]:
        """The image, the one before it, and the mask: those that there are."""
        return tuple(file for file in (self.image, self.before, self.mask) if file is not None)


@dataclass(frozen=True)
class Layout:
    """The images in order of their names."""

    entries: tuple[Entry, ...]
    top: str
    """Folders that all files share, as a prefix of their names."""
    has_masks: bool = False
    has_classes: bool = False
    has_sides: bool = False
    """Whether folders say which images are held out."""
    remarks: tuple[str, ...] = ()
    labels: File | None = None
    """Labels of all images in one file."""


def recognise(files: Sequence[File], name: str, dates: int = 1) -> Layout:
    """Say what ``files`` of the dataset ``name`` are to each other.

    ``images/`` beside ``masks/`` (or ``labels/``) pairs files of the same name but for the suffix, and so
    does ``images_before/`` where two ``dates`` are asked for; without masks, one folder per class in
    ``images/`` makes classes. Otherwise one folder per class (two of them or more, nothing beside them) does;
    otherwise they are scenes. Two rasters ``before`` and ``after`` are a pair. A file ``labels.csv``,
    ``labels.geojson`` or ``labels.gpkg`` labels any of them. Folders ``train``, ``val`` and ``test`` around
    all of it say what is held out. Folders that all files share do not count. Raises
    GroundworkError where there is no raster, or no pair.
    """
    top, parts = without_top(files)
    rasters: list[tuple[File, tuple[str, ...]]] = []
    labels: list[File] = []
    deeper: list[File] = []
    for file, part in zip(files, parts, strict=True):
        if file.suffix not in LABEL_SUFFIXES or {MASKS, LABELS} & set(part[:-1]):
            rasters.append((file, part))
        else:
            (labels if len(part) == 1 else deeper).append(file)
    if not rasters:
        raise GroundworkError(f"{name} holds no raster: put GeoTIFFs, JPEGs or PNGs in it")
    if len(labels) > 1:
        raise GroundworkError(f"{name} holds {' and '.join(file.name for file in labels)}: keep one of them")
    paths = [part for _, part in rasters]
    sides = _sides(paths)
    if sides:
        paths = [_below_side(part) for part in paths]
    found = _recognised([file for file, _ in rasters], paths, top, name, dates)
    remarks = list(found.remarks)
    if sides:
        side_of = {file.name: side for (file, _), side in zip(rasters, sides, strict=True)}
        said = [replace(entry, fields={SPLIT: side_of[entry.image.name]}) for entry in found.entries]
        found = replace(found, entries=tuple(said), has_sides=True)
    if deeper:
        shown = _shown([file.name for file in deeper])
        remarks.append(f"{name} holds {shown} beside some of its images, not beside all: left alone.")
    return replace(found, labels=labels[0] if labels else None, remarks=tuple(remarks))


def _recognised(
    files: Sequence[File], parts: Sequence[tuple[str, ...]], top: str, name: str, dates: int
) -> Layout:
    folders = {part[0] for part in parts if len(part) > 1}
    if dates > 1 and (pair := _single_pair(files, parts)):
        return Layout((pair,), top)
    if IMAGES in folders and folders & {MASKS, LABELS, BEFORE}:
        return _around_images(files, parts, top, name, dates)
    if dates > 1:
        raise GroundworkError(
            f"{name} shows each place on one date, where two are compared: put the earlier scenes into "
            f"{BEFORE}/ beside {IMAGES}/, under equal names, or name one pair before.tif and after.tif"
        )
    if MASKS in PurePosixPath(top).parts[-1:] or (MASKS in folders and len(folders) == 1):
        raise GroundworkError(f"{name} holds a folder masks/ without images/: put the scenes into images/")
    if len(folders) > 1 and all(len(part) == 2 for part in parts):
        entries = [Entry(file, class_name=part[0]) for file, part in zip(files, parts, strict=True)]
        return Layout(tuple(entries), top, has_classes=True)
    remarks = []
    if len(folders) > 1:
        remarks.append(
            f"The folders of {name} ({_shown(sorted(folders))}) are neither images/ and masks/ nor one "
            "folder per class: its rasters are taken as scenes without labels."
        )
    return Layout(tuple(Entry(file) for file in files), top, remarks=tuple(remarks))


def _sides(parts: Sequence[tuple[str, ...]]) -> list[str]:
    """The side of the split that the folder of each file names, where all of them do; else nothing."""
    sides = [part[0] for part in parts if len(part) > 1 and part[0].lower() in SIDE_OF_WORD]
    return sides if len(sides) == len(parts) and len(set(sides)) > 1 else []


def _below_side(part: tuple[str, ...]) -> tuple[str, ...]:
    """A path as if it were not in the folder of its side: ``train/images/a`` is ``images/train/a``."""
    side, *rest = part
    return (rest[0], side, *rest[1:]) if rest[0] in (IMAGES, MASKS, LABELS, BEFORE) else tuple(rest)


def _single_pair(files: Sequence[File], parts: Sequence[tuple[str, ...]]) -> Entry | None:
    found = {PurePosixPath(part[0]).stem.lower(): file for part, file in zip(parts, files, strict=True)}
    if len(files) != 2 or set(found) != set(PAIR):
        return None
    before, after = (found[name] for name in PAIR)
    return Entry(after, before=before)


@dataclass(frozen=True)
class _Found:
    """Files around ``images/``, by folder and by name without suffix."""

    images: dict[str, list[File]] = field(default_factory=dict)
    masks: dict[str, list[File]] = field(default_factory=dict)
    before: dict[str, list[File]] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)


def _around_images(
    files: Sequence[File], parts: Sequence[tuple[str, ...]], top: str, name: str, dates: int
) -> Layout:
    found = _Found()
    masks = MASKS if any(part[0] == MASKS for part in parts) else LABELS
    kinds = {IMAGES: found.images, masks: found.masks, **({BEFORE: found.before} if dates > 1 else {})}
    for file, part in zip(files, parts, strict=True):
        if len(part) > 1 and part[0] in kinds:
            stem = str(PurePosixPath(*part[1:]).with_suffix(""))
            kinds[part[0]].setdefault(stem, []).append(file)
        else:
            found.others.add(f"{part[0]}/" if len(part) > 1 else part[0])
    for folder, partners in ((masks, found.masks), (BEFORE, found.before)):
        _refuse_strangers(found.images, folder, partners, name)
    if dates > 1 and not found.before:
        raise GroundworkError(f"{name} has no folder {BEFORE}/, where two dates are compared")
    classes = {} if found.masks else _class_folders(found.images)
    entries = [
        _entry(file, stem, found, dates, classes.get(stem, ""))
        for stem, same_name in found.images.items()
        for file in same_name
    ]
    remarks = []
    if found.others:
        used = " and ".join(f"{folder}/" for folder, there in kinds.items() if there)
        remarks.append(f"Beside {used}, {name} holds {_shown(sorted(found.others))}: left alone.")
    for what, partners in (("masks", found.masks), ("images before", found.before)):
        lonely = [file for stem, same in partners.items() if stem not in found.images for file in same]
        if alone := sorted(file.name for file in lonely):
            remarks.append(f"{len(alone)} {what} of {name} have no image ({_shown(alone)}): left alone.")
    return Layout(
        tuple(sorted(entries, key=lambda entry: entry.image.name)),
        top,
        has_masks=bool(found.masks),
        has_classes=bool(classes),
        remarks=tuple(remarks),
    )


def _refuse_strangers(
    images: dict[str, list[File]], folder: str, partners: dict[str, list[File]], name: str
) -> None:
    if partners and not images.keys() & partners.keys():
        raise GroundworkError(
            f"no file in {IMAGES}/ of {name} has one of the same name in {folder}/ "
            f"(such as {next(iter(images.values()))[0].name} and {next(iter(partners.values()))[0].name})"
        )


def _class_folders(images: dict[str, list[File]]) -> dict[str, str]:
    """Class of each name, where each lies in one of several folders; else nothing."""
    parts = {stem: PurePosixPath(stem).parts for stem in images}
    has_folders = all(len(part) == 2 for part in parts.values())
    classes = {stem: part[0] for stem, part in parts.items()} if has_folders else {}
    return classes if len(set(classes.values())) > 1 else {}


def _entry(image: File, stem: str, found: _Found, dates: int, class_name: str) -> Entry:
    same_name, masks, before = (kind.get(stem, []) for kind in (found.images, found.masks, found.before))
    several = next((files for files in (same_name, masks, before) if len(files) > 1), None)
    if several:
        names = " and ".join(file.name for file in several[:2])
        return Entry(image, fault=f"{names} have the same name but for the suffix")
    if found.masks and not masks:
        folder = next(iter(found.masks.values()))[0].parts[-2]
        return Entry(image, fault=f"no mask of the same name in {folder}/")
    if dates > 1 and not before:
        return Entry(image, fault=f"no image of the same name in {BEFORE}/, where two dates are compared")
    return Entry(image, masks[0] if masks else None, before[0] if before else None, class_name)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
