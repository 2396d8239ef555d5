"""From files to rows: scenes are opened, compared with each other, and cut into chips."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from domains.contract import GroundworkError, Row, Source, digest_of
from domains.geospatial import declared as declaring
from domains.geospatial import stac
from domains.geospatial.archives import File, digest_file, list_files, read_text, spelled
from domains.geospatial.bands import BandSpec, RasterEncoding, disagreement, used_of
from domains.geospatial.chips import LABEL, ChipReference, count_chips, references
from domains.geospatial.cube_files import is_store
from domains.geospatial.declared import Declared
from domains.geospatial.deliveries import alone, gathered
from domains.geospatial.inspection import Inspected, Inspector
from domains.geospatial.labelling import Labelling, Points, labelled
from domains.geospatial.layout import Entry, Layout, recognise
from domains.geospatial.opened import SUFFIXES
from domains.geospatial.remote import is_url, locate, suffix_of, without_query
from domains.geospatial.scenes import LabelRaster, Scene
from domains.geospatial.splitting import MARKING, TIME, suited
from domains.tables import Unreadable

__all__ = ["LabelRaster", "Scene", "open_source", "scene_of"]

IMAGE, ROW, COLUMN, CLASS = "image", "row", "column", "class"
OTHER_ARCHIVES = frozenset((".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zst"))

OTHER_SIZE = re.compile(r"pixels of \S+ m in .* are expected$")
"""What ``bands.disagreement`` says of a scene that can be resampled."""


@dataclass(frozen=True)
class _Chips:
    """The rows of a source: the chips of each scene, or those around points; and what cannot be used."""

    scenes: tuple[Inspected, ...]
    chip: int
    labelling: Labelling

    def __call__(self) -> Iterator[Row]:
        for index, (value, fields) in enumerate(self._values()):
            place = {ROW: "", COLUMN: ""}
            if isinstance(value, ChipReference):
                place = {ROW: str(value.row), COLUMN: str(value.column)}
            yield Row(index, value, {**fields, **place})

    def _values(self) -> Iterator[tuple[ChipReference | Unreadable, Mapping[str, str]]]:
        for inspected in self.scenes:
            fields = _fields(inspected)
            if inspected.scene is None:
                yield Unreadable(inspected.fault, inspected.name), fields
            elif self.labelling.points is None:
                for place in references(inspected.scene, self.chip):
                    yield place, fields
        if self.labelling.points is not None:
            yield from self._around(self.labelling.points)
        for stray in self.labelling.strays:
            yield stray, {IMAGE: stray.original}

    def _around(self, points: Points) -> Iterator[tuple[ChipReference | Unreadable, Mapping[str, str]]]:
        """The chip around each point, on every scene that shows it."""
        seen: set[int] = set()
        half = self.chip // 2
        usable = [(inspected, inspected.scene) for inspected in self.scenes if inspected.scene is not None]
        for inspected, scene in usable:
            for number, row, column in points.on(scene):
                seen.add(number)
                fields = {**_fields(inspected), **points.fields[number]}
                yield ChipReference(scene, row - half, column - half), fields
        beside = sorted(set(range(len(points.places))) - seen)
        reasons = points.why_nowhere(beside, [scene for _, scene in usable])
        for number, reason in zip(beside, reasons, strict=True):
            where = ", ".join(f"{coordinate:.9g}" for coordinate in points.places[number])
            yield Unreadable(reason, where), {IMAGE: "", **points.fields[number]}


def _fields(inspected: Inspected) -> dict[str, str]:
    time = inspected.scene.time if inspected.scene is not None else ""
    return {IMAGE: inspected.name, **({TIME: time} if time else {}), **inspected.fields}


def open_source(path: Path, spec: RasterEncoding, input_column: str | None = None) -> Source:
    """Open a raster, a cube in NetCDF or Zarr, or a folder or zip archive of rasters.

    The bands of the encoding are those of most scenes unless ``spec`` has bands; a scene that does not fit
    them, and a file that cannot be read, is one row that becomes a reject. Raises GroundworkError where
    nothing is left.
    """
    _refuse_column(spelled(path.name), input_column)
    path = path.absolute()  # rows are read by other processes, which may stand elsewhere
    if not path.is_file() and not path.is_dir():  # a pipe would be waited for
        raise GroundworkError(f"no file at {spelled(str(path))}: check the path")
    is_many = path.suffix.lower() == ".zip" or (path.is_dir() and not is_store(path))
    remarks: tuple[str, ...] = ()
    if is_many:
        files, remarks = gathered(list_files(path), spec)
        layout = recognise(files, spelled(path.name), spec.dates)
        declared = _declared(path, layout.top)
    else:
        layout, declared = _single(path, spec)
    opened = _Opened(spelled(path.name), spelled(str(path.resolve())), labelled(layout), declared, remarks)
    return _assembled(opened, spec, is_many, path if is_many and path.is_file() else None)


def open_document(
    start: str, spec: RasterEncoding, hosts: Collection[str] | None, input_column: str | None = None
) -> Source:
    """Open a GeoTIFF at a web address, or what a STAC document lists, at an address or in a file.

    Addresses may lie on ``hosts`` only, and files below the folder of the document. Raises GroundworkError
    as ``open_source``.
    """
    name = without_query(start).rstrip("/").rpartition("/")[2]
    _refuse_column(name, input_column)
    _refuse_one_date(name, spec)
    if is_url(start) and suffix_of(start) in stac.RASTERS:
        file = File(name, locate(start, hosts).url)
        files = [alone(file, spec) or file]
    else:
        files = stac.scenes(start, hosts, spec)
    layout = Layout(tuple(Entry(file) for file in files), "")
    opened = _Opened(name, without_query(start), Labelling(layout), Declared())
    return _assembled(opened, spec, len(files) > 1, None)


@dataclass(frozen=True)
class _Opened:
    """What is known of a source before its rasters are looked at."""

    name: str
    origin: str
    labelling: Labelling
    declared: Declared
    remarks: tuple[str, ...] = ()


def _assembled(opened: _Opened, spec: RasterEncoding, is_many: bool, archive: Path | None) -> Source:
    labelling, declared, name = opened.labelling, opened.declared, opened.name
    layout = labelling.layout
    found = Inspector(declared, spec, archive).inspect(layout, is_single=not is_many)
    bands, inspected = _compared(found.scenes, spec, name)
    is_open = not spec.bands and not spec.names_used
    remarks = (*opened.remarks, *(_shared(found.scenes, bands) if is_open else ()))
    usable = [each for each in inspected if each.scene is not None]
    if not usable and not spec.bands:
        raise GroundworkError(_nothing_left(name, inspected))
    scenes = [each.scene for each in usable if each.scene is not None]
    _refuse_doubtful_points(labelling.points, scenes)
    digests = [*found.digests, *([digest_file(layout.labels, archive)] if layout.labels else [])]
    split = suited(labelling, inspected, spec.chip, name)
    own = LABEL if layout.has_masks else CLASS if layout.has_classes else ""
    columns = [own, *labelling.columns, *split.columns.values()]
    targets = (own,) if layout.has_masks or not labelling.targets else labelling.targets
    return Source(
        name=name,
        origin=opened.origin,
        digest=digest_of(["rasters", digests, declared.model_dump(mode="json")]),
        columns=(IMAGE, ROW, COLUMN, *dict.fromkeys(filter(None, columns))),
        stream=_Chips(tuple(inspected), spec.chip, labelling),
        encoding=spec.model_copy(update={"bands": bands}),
        input_column=IMAGE,
        targets=targets if any(targets) else (),
        pixel_targets=(LABEL,) if layout.has_masks else (),
        classes={LABEL: found.classes} if found.classes else {},
        split=split.method,
        split_columns=split.columns,
        marking=MARKING,
        remarks=(*remarks, *layout.remarks, *found.remarks, *split.remarks),
        simulated=found.is_simulated,
        whole_numbers=(ROW, COLUMN),
        row_remarks=() if labelling.points else tuple(_several(scenes, spec.chip)),
        map_suffix=".tif" if len(inspected) == 1 and (not is_many or spec.dates > 1) else "",
    )


def _several(scenes: Sequence[Scene], chip: int) -> Iterator[str]:
    """What to know of images that are larger than a chip."""
    larger = [scene for scene in scenes if count_chips(scene, chip) > 1]
    if larger:
        yield (
            f"{len(larger):,} of {len(scenes):,} images are larger than a chip of {chip} × {chip} pixels: "
            f"each becomes several rows, whose {ROW} and {COLUMN} say at which pixel of it they begin."
        )


def _refuse_column(name: str, input_column: str | None) -> None:
    if input_column not in (None, IMAGE):
        raise GroundworkError(f"{name} holds images, not columns: leave out --input-column")


def _refuse_one_date(name: str, spec: RasterEncoding) -> None:
    if spec.dates > 1:
        raise GroundworkError(
            f"{name} is one date, where two are compared: name a folder that holds before.tif and after.tif"
        )


def scene_of(source: Source) -> Scene:
    """The one scene whose chips are the rows. Raises GroundworkError where there is none, or are several."""
    scene: Scene | None = None
    for row in source.stream():
        if isinstance(row.value, Unreadable):
            reason = row.value.reason
            if OTHER_SIZE.match(reason):
                reason += ": --resample nearest, bilinear or cubic brings them there"
            raise GroundworkError(f"{row.value.original}: {reason}")
        if not isinstance(row.value, ChipReference):
            break
        if scene is not None and row.value.scene.path != scene.path:
            raise GroundworkError(f"{source.name} holds several scenes: name one of them")
        scene = row.value.scene
    if scene is None:
        raise GroundworkError(f"{source.name} is not a scene: name a GeoTIFF")
    return scene


# ------------------------------------------------------------------------------------------- one file


def _single(path: Path, spec: RasterEncoding) -> tuple[Layout, Declared]:
    _refuse_one_date(path.name, spec)
    suffix, name = path.suffix.lower(), spelled(path.name)
    if suffix in OTHER_ARCHIVES:
        raise GroundworkError(f"{name}: {suffix} is not read: unpack it, or pack it as .zip")
    if suffix not in SUFFIXES:
        what = suffix or "a file without suffix"
        raise GroundworkError(
            f"{name}: {what} is not read; save it as a GeoTIFF, which says its bands and its place"
        )
    # A scene out of a dataset's images/ is described by the dataset's file.
    folders = [path.parent, *([path.parent.parent] if path.parent.name == "images" else [])]
    texts = (read_text(folder, declaring.FILE_NAME, declaring.LARGEST) for folder in folders)
    text = next((text for text in texts if text is not None), b"")
    file = File(name, str(path))
    return Layout((Entry(alone(file, spec) or file),), ""), declaring.parse(text)


def _refuse_doubtful_points(points: Points | None, scenes: Sequence[Scene]) -> None:
    systems = {scene.crs for scene in scenes}
    if points is not None and not points.crs and len(systems) > 1:
        raise GroundworkError(
            f"the scenes lie in {len(systems)} systems of coordinates, where points with x and y do "
            "not say in which they are: give lon and lat"
        )


def _declared(path: Path, top: str) -> Declared:
    for folder in dict.fromkeys(("", top)):
        text = read_text(path, f"{folder}{declaring.FILE_NAME}", declaring.LARGEST)
        if text is not None:
            return declaring.parse(text)
    return Declared()


# ----------------------------------------------------------------------------------------- comparison


def _compared(
    scenes: Sequence[Inspected], spec: RasterEncoding, name: str
) -> tuple[tuple[BandSpec, ...], list[Inspected]]:
    """The bands that are expected, and the scenes with those that disagree turned into rejects."""
    found = [each.scene for each in scenes if each.scene is not None]
    bands = spec.bands or _of_most(_used(found, spec, name))
    faults: dict[tuple[BandSpec, ...], str] = {}
    compared = []
    for each in scenes:
        if each.scene is not None and (fault := _misfit(each.scene, bands, faults) or each.fault):
            each = replace(each, scene=None, fault=fault)
        compared.append(each)
    return bands, _kept_alike(compared)


def _used(scenes: Sequence[Scene], spec: RasterEncoding, name: str) -> list[tuple[BandSpec, ...]]:
    """Of each scene that has all bands that are named, those; all bands of all scenes where none is named.

    Raises GroundworkError where no scene has them all, on all of its dates.
    """
    names = spec.names_used
    every = [scene.bands for scene in scenes]
    used = [
        used_of(scene.bands, spec)
        for scene in scenes
        if all(set(names) <= {band.name for band in date.bands} for date in _dates(scene))
    ]
    if scenes and not used:
        known = dict.fromkeys(band.name for bands in every for band in bands)
        missing = [named for named in names if named not in known]
        lacking = " or ".join(missing) if missing else f"all of {', '.join(names)}"
        raise GroundworkError(
            f"no scene of {name} has {lacking}: --use-bands chooses from {', '.join(known)}"
        )
    return used


def _dates(scene: Scene) -> tuple[Scene, ...]:
    return (scene,) if scene.before is None else (scene.before, scene)


def _shared(scenes: Sequence[Inspected], bands: tuple[BandSpec, ...]) -> Iterator[str]:
    """What to know where some scenes do not have the ``bands`` of most, but share some of them with all."""
    usable = [_dates(each.scene) for each in scenes if each.scene is not None and not each.fault]
    kinds = Counter(frozenset(date.bands for date in dates) for dates in usable)
    others = [its for its in kinds if any(disagreement(bands, date) for date in its)]
    # A picture that strayed in shares no band, and would hide what all others share.
    akin = [its for its in others if all(any(_has(date, want) for want in bands) for date in its)]
    shared = [want.name for want in bands if all(_has(date, want) for its in akin for date in its)]
    if akin and shared and not any("," in name or " " in name for name in shared):
        left = sum(kinds[its] for its in others)
        yield (
            f"{left:,} of {len(usable):,} scenes lack bands that most have, and are left out: --use-bands "
            f"{','.join(shared)} uses {len(usable) - left + sum(kinds[its] for its in akin):,} of them."
        )


def _has(bands: Sequence[BandSpec], want: BandSpec) -> bool:
    return any(band.agrees(want) for band in bands)


def _kept_alike(scenes: list[Inspected]) -> list[Inspected]:
    """Scenes of several types of numbers are all kept as floats: an array of a store has one type."""
    if len({each.scene.kept_as for each in scenes if each.scene is not None}) <= 1:
        return scenes
    return [
        each if each.scene is None else replace(each, scene=replace(each.scene, kept_as=""))
        for each in scenes
    ]


def _misfit(scene: Scene, bands: tuple[BandSpec, ...], faults: dict[tuple[BandSpec, ...], str]) -> str:
    """Why the scene lacks some of ``bands`` on one of its dates; ``faults`` keeps what was found."""
    if scene.bands not in faults:
        faults[scene.bands] = disagreement(bands, scene.bands)
    if faults[scene.bands] or scene.before is None:
        return faults[scene.bands]
    fault = _misfit(scene.before, bands, faults)
    return f"{scene.before.name}: {fault}" if fault else ""


def _of_most(scenes: Sequence[tuple[BandSpec, ...]]) -> tuple[BandSpec, ...]:
    """Bands that most scenes have, as the first of them orders them, with the median of their pixel sizes."""
    if not scenes:
        return ()
    kinds: dict[tuple[BandSpec, ...], frozenset[BandSpec]] = {}  # thousands of scenes share their bands
    for bands in scenes:
        if bands not in kinds:
            kinds[bands] = frozenset(band.meaning.model_copy(update={"gsd": None}) for band in bands)
    most = Counter(kinds[bands] for bands in scenes).most_common(1)[0][0]
    alike = [bands for bands in scenes if kinds[bands] == most]
    sizes = [band.gsd for bands in alike for band in bands if band.gsd is not None]
    gsd = median(sizes) if sizes else None
    return tuple(band.meaning.model_copy(update={"gsd": gsd}) for band in alike[0])


def _nothing_left(name: str, scenes: Sequence[Inspected]) -> str:
    if len(scenes) == 1:
        only = scenes[0]
        return only.fault if only.fault.startswith(only.name) else f"{only.name}: {only.fault}"
    first = scenes[0]
    return f"none of the {len(scenes)} rasters of {name} can be used; {first.name}: {first.fault}"
