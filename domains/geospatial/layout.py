"""What a folder or archive of rasters is: scenes with masks, classes by folder, or scenes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from domains.contract import GroundworkError
from domains.geospatial.archives import File, without_top

IMAGES, MASKS = "images", "masks"
SHOWN = 5


@dataclass(frozen=True)
class Entry:
    """One image, and what is known of it."""

    image: File
    mask: File | None = None
    class_name: str = ""
    fault: str = ""
    """Why it cannot be used; empty where it may be."""


@dataclass(frozen=True)
class Layout:
    """The images in order of their names."""

    entries: tuple[Entry, ...]
    top: str
    """Folders that all files share, as a prefix of their names."""
    has_masks: bool = False
    has_classes: bool = False
    remarks: tuple[str, ...] = ()


def recognise(files: Sequence[File], name: str) -> Layout:
    """Say what ``files`` of the dataset ``name`` are to each other.

    ``images/`` beside ``masks/`` pairs files of the same name but for the suffix; otherwise one folder per
    class (two of them or more, nothing beside them) makes classes; otherwise they are scenes. Folders that
    all files share do not count. Raises GroundworkError where there is no file, or no pair.
    """
    if not files:
        raise GroundworkError(f"{name} holds no raster: put GeoTIFFs, JPEGs or PNGs in it")
    top, parts = without_top(files)
    folders = {part[0] for part in parts if len(part) > 1}
    if {IMAGES, MASKS} <= folders:
        return _with_masks(files, parts, top, name)
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


def _with_masks(files: Sequence[File], parts: Sequence[tuple[str, ...]], top: str, name: str) -> Layout:
    images: dict[str, list[File]] = {}
    masks: dict[str, list[File]] = {}
    others: set[str] = set()
    for file, part in zip(files, parts, strict=True):
        stem = str(PurePosixPath(*part[1:]).with_suffix("")) if len(part) > 1 else ""
        if part[0] == IMAGES and stem:
            images.setdefault(stem, []).append(file)
        elif part[0] == MASKS and stem:
            masks.setdefault(stem, []).append(file)
        else:
            others.add(f"{part[0]}/" if len(part) > 1 else part[0])
    if not images.keys() & masks.keys():
        raise GroundworkError(
            f"no file in images/ of {name} has one of the same name in masks/ "
            f"(such as {next(iter(images.values()))[0].name} and {next(iter(masks.values()))[0].name})"
        )
    entries = [
        _pair(file, same_name, masks.get(stem, []))
        for stem, same_name in images.items()
        for file in same_name
    ]
    remarks = []
    if others:
        remarks.append(f"Beside images/ and masks/, {name} holds {_shown(sorted(others))}: left alone.")
    if alone := sorted(mask.name for stem, same in masks.items() if stem not in images for mask in same):
        remarks.append(f"{len(alone)} masks of {name} have no image ({_shown(alone)}): left alone.")
    return Layout(
        tuple(sorted(entries, key=lambda entry: entry.image.name)),
        top,
        has_masks=True,
        remarks=tuple(remarks),
    )


def _pair(image: File, same_name: Sequence[File], masks: Sequence[File]) -> Entry:
    if len(same_name) > 1 or len(masks) > 1:
        several = same_name if len(same_name) > 1 else masks
        names = " and ".join(file.name for file in several[:2])
        return Entry(image, fault=f"{names} have the same name but for the suffix")
    if not masks:
        return Entry(image, fault="no mask of the same name in masks/")
    return Entry(image, masks[0])


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
