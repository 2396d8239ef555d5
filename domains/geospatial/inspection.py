"""The first look at every file: header, bands, mask, and whether its numbers can be what it says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from domains.contract import ClassSpec, GroundworkError
from domains.geospatial.archives import VECTOR_SUFFIXES, File, digest_file
from domains.geospatial.bands import BandSpec, RasterEncoding, used_of
from domains.geospatial.chips import smaller_than_patch
from domains.geospatial.cube_files import CUBE_SUFFIXES
from domains.geospatial.cubes import CUBE, step_names
from domains.geospatial.declared import Declared, category_names
from domains.geospatial.geotiffs import GeoTiff
from domains.geospatial.identifying import identify, refuse_useless_scale
from domains.geospatial.layout import Entry, Layout
from domains.geospatial.opened import open_raster, warped
from domains.geospatial.plausible import looked_at
from domains.geospatial.polygons import PolygonClasses, PolygonLabels, polygon_classes, read_labels
from domains.geospatial.rasters import Channel, Grid, Header, explained, parsed_crs
from domains.geospatial.scenes import LabelRaster, Labels, Scene
from domains.geospatial.stacks import STACK
from domains.geospatial.times import time_of_name

LARGEST_SHIFT = 0.1
"""Pixels by which a mask may lie beside its image: what rounding makes of coordinates."""
MOST_ROUNDING = 0.01
"""Of a pixel: what the rounding of its size may add to a scene."""
SHOWN = 3


@dataclass(frozen=True)
class Inspected:
    """A scene that may be used, or why it may not."""

    name: str
    scene: Scene | None
    fault: str = ""
    """Why it may not; or, of a scene, what its numbers cannot be, which counts only if its bands fit."""
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What the files of a dataset are."""

    scenes: tuple[Inspected, ...]
    digests: tuple[tuple[str, ...], ...]
    """Name within the dataset, digests of the image and of what goes with it, where they can be read."""
    classes: tuple[ClassSpec, ...]
    """Of the masks, where they or the ``bands.yaml`` declare them."""
    is_simulated: bool
    remarks: tuple[str, ...]


class Inspector:
    """Looks at the files of one dataset in turn."""

    def __init__(self, declared: Declared, spec: RasterEncoding, archive: Path | None) -> None:
        self._declared, self._spec, self._archive = declared, spec, archive
        self._classes: tuple[ClassSpec, ...] | None = declared.class_specs or None
        self._bands: dict[tuple[tuple[Channel, ...], float | None], tuple[BandSpec, ...] | str] = {}
        self._pointed: list[str] = []
        self._elsewhere: list[str] = []
        self._zeros: list[str] = []
        self._is_simulated = False
        self._digested: dict[str, str] = {}
        self._polygons: PolygonClasses | None = None

    def inspect(self, layout: Layout, is_single: bool) -> Found:
        """All of ``layout``. Of a single file, the name is no part of the digest."""
        self._look_at_polygons(layout)
        scenes: list[Inspected] = []
        digests: list[tuple[str, ...]] = []
        for entry in layout.entries:
            fields = {**({"class": entry.class_name} if entry.class_name else {}), **entry.fields}
            if entry.mask is not None:
                fields["mask"] = entry.mask.name
            name = "" if is_single else entry.image.name.removeprefix(layout.top)
            digest: tuple[str, ...] = ()
            try:
                digest = tuple(self._digests(entry))
                steps = list(self._steps(entry))
            except GroundworkError as error:
                scenes.append(Inspected(entry.image.name, None, _without_name(error, entry), fields))
                continue
            finally:
                digests.append((name, *digest))
            for step in steps:
                try:
                    scenes.append(Inspected(step.image.name, *self._scene(step), fields))
                except GroundworkError as error:
                    scenes.append(Inspected(step.image.name, None, _without_name(error, step), fields))
        classes = (self._classes or ()) if layout.has_masks else ()
        return Found(tuple(scenes), tuple(digests), classes, self._is_simulated, tuple(self._remarks()))

    def _digests(self, entry: Entry) -> Iterator[str]:
        for file in entry.files:
            if file.path not in self._digested:  # one file may label every scene
                with explained(file.name):
                    self._digested[file.path] = digest_file(file, self._archive)
            yield self._digested[file.path]

    def _look_at_polygons(self, layout: Layout) -> None:
        """Find the classes of polygons: those of all files together, since each may lack some."""
        masks = {entry.mask.path: entry.mask for entry in layout.entries if entry.mask is not None}
        files = [mask for mask in masks.values() if mask.suffix in VECTOR_SUFFIXES]
        if not files:
            return
        features = [read_labels(file) for file in files]
        for file, read in zip(files, features, strict=True):
            with explained(file.name):
                if read.are_points:
                    raise GroundworkError(
                        "points label chips: put them into one labels.geojson or labels.gpkg"
                    )
        declared = self._declared
        self._polygons = polygon_classes(
            features, declared.attribute, declared.class_specs, declared.background
        )
        self._classes = self._polygons.classes

    def _steps(self, entry: Entry) -> Iterator[Entry]:
        """The entry, or one for each time step of a cube."""
        if entry.fault:
            raise GroundworkError(entry.fault)
        if entry.image.suffix not in CUBE_SUFFIXES:
            yield entry
            return
        if self._archive is not None or len(entry.files) > 1:
            raise GroundworkError("a cube is read from a folder of its own, without masks: unpack it")
        with explained(entry.image.name):
            names = step_names(entry.image.path)
            if not names:
                raise GroundworkError("its axis of time is empty: write it with at least one step")
        for step, name in enumerate(names):
            label = f"{entry.image.name} {name}".strip()
            # A file is often named by its dates, too: the step is the one that counts.
            image = File(label, f"{CUBE}{step}:{entry.image.path}", time_of_name(name))
            yield Entry(image, class_name=entry.class_name)

    def _scene(self, entry: Entry) -> tuple[Scene, str]:
        """The scene, and what its numbers cannot be."""
        scene, header, fault = self._image(entry.image)
        label = self._label(entry.mask, header) if entry.mask else None
        if entry.before is None:
            return replace(scene, label=label), fault
        before, its_header, its_fault = self._image(entry.before)
        with explained(entry.before.name):
            _check_pair(its_header, header)
        fault = fault or (f"{before.name}: {its_fault}" if its_fault else "")
        return replace(scene, label=label, before=before, kept_as=""), fault

    def _image(self, image: File) -> tuple[Scene, Header, str]:
        """An image by itself, and what its numbers cannot be."""
        with explained(image.name):
            header = open_raster(image.path).header
            if fault := smaller_than_patch(header.height, header.width, self._spec):
                raise GroundworkError(fault)
            bands = self._identified(header)
            path = image.path
            if self._spec.resample_scenes and (grid := _grid_of_model(header, bands, self._spec)):
                if not path.startswith(STACK):  # whose files have one band each
                    _refuse_several_fillers(bands)
                path = warped(path, grid)
                header = open_raster(path).header
                bands = self._identified(header)
        scene = Scene(
            path=path,
            name=image.name,
            height=header.height,
            width=header.width,
            crs=header.crs,
            transform=header.transform,
            bands=bands,
            # Many programs write the time of the file into its tags: the name goes first.
            time=image.time or time_of_name(image.name) or header.time,
            kept_as=header.integers,
        )
        fault, has_zeros = looked_at(scene, header, used_of(bands, self._spec))
        self._is_simulated |= header.is_simulated
        if header.has_control_points:
            self._pointed.append(image.name)
        if not header.is_of_earth:
            self._elsewhere.append(image.name)
        if has_zeros:
            self._zeros.append(image.name)
        return scene, header, fault

    def _identified(self, header: Header) -> tuple[BandSpec, ...]:
        """Bands of a file; files that describe themselves alike share them."""
        key = (header.channels, header.gsd)
        if key not in self._bands:
            try:
                self._bands[key] = identify(header, self._declared.bands, self._spec.sensor)
            except GroundworkError as error:
                self._bands[key] = str(error)
        found = self._bands[key]
        if isinstance(found, str):
            raise GroundworkError(found)
        return found

    def _label(self, mask: File, image: Header) -> Labels:
        if mask.suffix in VECTOR_SUFFIXES:
            return self._polygons_on(mask, image)
        with explained(mask.name):
            if mask.suffix in (".jpg", ".jpeg"):
                raise GroundworkError("JPEG changes the values of a mask: save it as PNG or GeoTIFF")
            raster = open_raster(mask.path)
            _check_mask(raster.header, image)
            channel = raster.header.channels[0]
            refuse_useless_scale(channel.scale, channel.offset)
        if self._classes is None:
            colours = raster.colours() if isinstance(raster, GeoTiff) else {}
            self._classes = tuple(
                ClassSpec(float(value), name, colours.get(value, ""))
                for value, name in category_names(mask.path).items()
            )
        values = tuple(entry.value for entry in self._classes)
        nodata = self._declared.mask_nodata
        return LabelRaster(mask.path, mask.name, nodata, values, channel.scale, channel.offset)

    def _polygons_on(self, mask: File, image: Header) -> Labels:
        assert self._polygons is not None  # noqa: S101 - narrows the type: they were looked at first
        if not image.crs:
            raise GroundworkError(f"no location, where {mask.name} says where its polygons lie")
        said = self._polygons
        return PolygonLabels(
            mask.path,
            mask.name,
            image.crs,
            image.transform,
            image.height,
            image.width,
            said.attribute,
            said.codes,
            said.background,
        )

    def _remarks(self) -> Iterator[str]:
        if self._pointed:
            yield (
                f"{_scenes(self._pointed, 'lie')} by ground control points only: the chips have no location; "
                "gdalwarp gives them one."
            )
        if self._elsewhere:
            elsewhere = _scenes(self._elsewhere, "lie")
            yield f"{elsewhere} in a system of coordinates of another body than the Earth."
        if self._zeros:
            yield (
                f"{_scenes(self._zeros, 'hold')} pixels that are zero in all bands, and no value is declared "
                "for no data: they count as measured unless a bands.yaml says nodata: 0."
            )


def _grid_of_model(header: Header, bands: Sequence[BandSpec], spec: RasterEncoding) -> Grid | None:
    """The grid of a scene with pixels of the size that ``spec`` expects; None where they have it.

    Its CRS and upper left corner are those of the scene, and its last pixels may reach beyond.
    """
    expected = [(want, band) for want in spec.bands for band in bands if band.measures(want)]
    sizes = {want.gsd for want, band in expected if want.gsd and not band.is_as_fine(want)}
    if not sizes or header.gsd is None:
        return None
    if len(sizes) > 1:
        raise GroundworkError("the model expects bands of several sizes: give the bands as a product")
    factor = sizes.pop() / header.gsd
    a, b, c, d, e, f = header.transform
    return Grid(
        header.crs,
        (a * factor, b * factor, c, d * factor, e * factor, f),
        math.ceil(header.height / factor - MOST_ROUNDING),
        math.ceil(header.width / factor - MOST_ROUNDING),
        spec.resample,
        bands[0].nodata,
    )


def _refuse_several_fillers(bands: Sequence[BandSpec]) -> None:
    """GDAL would take that of one band for all of a file."""
    fillers = list(dict.fromkeys(band.nodata for band in bands))
    if len(fillers) > 1:
        shown = ", ".join("none" if filler is None else f"{filler:g}" for filler in fillers)
        raise GroundworkError(
            f"its bands have several values for no data ({shown}), where one is needed to resample them: "
            "gdalwarp -dstnodata writes it with one"
        )


def _check_mask(mask: Header, image: Header) -> None:
    if len(mask.channels) != 1:
        raise GroundworkError(f"{len(mask.channels)} bands; a mask has one")
    _check_grid(mask, image, "a mask")


def _check_pair(before: Header, after: Header) -> None:
    if bool(before.crs) != bool(after.crs):
        with_, without = ("earlier", "later") if before.crs else ("later", "earlier")
        raise GroundworkError(f"the {with_} image of the pair has a location, and the {without} one has none")
    _check_grid(before, after, "an image before")


def _check_grid(other: Header, image: Header, what: str) -> None:
    """Refuse what does not lie on its image pixel upon pixel, as far as both have a location."""
    if (other.height, other.width) != (image.height, image.width):
        raise GroundworkError(
            f"{what} of {other.width} × {other.height} pixels on an image of {image.width} × {image.height}"
        )
    if not other.crs or not image.crs:
        return
    if other.crs != image.crs and parsed_crs(other.crs) != parsed_crs(image.crs):
        raise GroundworkError(
            f"{what} in {_crs_name(other.crs)} on an image in {_crs_name(image.crs)}: warp it to the image"
        )
    w, h = image.width, image.height
    corners = np.array([[0, w, 0, w], [0, 0, h, h], [1, 1, 1, 1]])
    moved = np.linalg.solve(_matrix(image), _matrix(other) @ corners)
    shift = np.abs(moved - corners).max()
    if shift > LARGEST_SHIFT:
        raise GroundworkError(f"{what} that lies {shift:.3g} pixels beside its image: warp it to the image")


def _matrix(header: Header) -> np.ndarray:
    return np.array([*header.transform, 0, 0, 1]).reshape(3, 3)


def _crs_name(wkt: str) -> str:
    return parsed_crs(wkt).to_string()[:60]


def _scenes(names: Sequence[str], verb: str) -> str:
    """Subject and verb of a remark."""
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return (
        f"{len(names)} scene ({shown}) {verb}s"
        if len(names) == 1
        else f"{len(names)} scenes ({shown}) {verb}"
    )


def _without_name(error: GroundworkError, entry: Entry) -> str:
    """The reason of a reject, which says the name of its image by itself."""
    return str(error).removeprefix(f"{entry.image.name}: ")
