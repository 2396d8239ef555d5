"""Chips: square windows of scenes, the records of this domain; and single images that arrive as text."""

from __future__ import annotations

import base64
import binascii
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import xxhash
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from domains.contract import GroundworkError, Record, Reject, Row, Sample
from domains.geospatial.ahead import read_chip
from domains.geospatial.bands import BandSpec, RasterEncoding, places_of, unit_fault
from domains.geospatial.geotiffs import GeoTiff
from domains.geospatial.identifying import identify
from domains.geospatial.images import SmallImage
from domains.geospatial.pixels import Pixels
from domains.geospatial.rasters import IDENTITY, Raster, explained
from domains.geospatial.scenes import Labels, Scene, both_dates
from domains.geospatial.sensors import by_layout
from domains.tables import Unreadable

LARGEST_TEXT = 1 << 25
"""Characters of an image sent as text, 24 MiB of file: checked before it is decoded."""
SHOWN = 60
"""Characters of such a text that a reject repeats."""
DATA_URI = re.compile(r"data:image/(tiff|png|jpeg);base64,")
LABEL = "mask"
"""Name of the target that label rasters hold."""


@dataclass(frozen=True)
class ChipReference:
    """Where a chip lies: its upper left pixel."""

    scene: Scene
    row: int
    column: int


@dataclass(frozen=True, eq=False)
class Chip:
    """A chip as read."""

    pixels: np.ndarray
    """float32 [bands, chip, chip] in the units of the encoding's bands; NaN = no data or beyond the scene.
    Of two dates [2, bands, chip, chip], the earlier first."""
    scene: str
    row: int
    column: int
    crs: str
    transform: tuple[float, ...]
    """Affine of the chip's own pixels; the identity where there is no location."""
    label: Labels | None = None
    bands: tuple[BandSpec, ...] = ()
    """What the axis of bands of ``pixels`` holds."""
    times: tuple[str, ...] = ()
    """When each date was taken, in ISO 8601, empty where nothing says so; none where no file was asked."""
    packed: Pixels | None = None
    """``pixels`` in the integers of their file, where a store is to keep these."""

    @property
    def dates(self) -> np.ndarray:
        """``pixels`` as float32 [dates, bands, chip, chip], however many dates there are."""
        return self.pixels if self.pixels.ndim == 4 else self.pixels[None]


def references(scene: Scene, chip: int) -> Iterator[ChipReference]:
    """Chips side by side, row by row; those at the right and lower edge reach beyond the scene."""
    for row in range(0, scene.height, chip):
        for column in range(0, scene.width, chip):
            yield ChipReference(scene, row, column)


def count_chips(scene: Scene, chip: int) -> int:
    """How many chips of ``chip`` pixels on a side ``references`` gives."""
    return -(-scene.height // chip) * -(-scene.width // chip)


# ------------------------------------------------------------------------------------------------ read


def read(row: Row, spec: RasterEncoding) -> Record | Reject:
    """The pixels of one row: a ``ChipReference``, or an image of at most a chip as a data URI.

    Of two dates, two such URIs with a space between them, the earlier first.

    The identity is a digest of the pixels, so that equal chips are one thing wherever they lie.
    """
    value = row.value
    if isinstance(value, Unreadable):
        return Reject(row.index, value.reason, value.original)
    try:
        if isinstance(value, ChipReference):
            chip, original = _chip_at(value, spec), f"{value.scene.name} at {value.row}, {value.column}"
        elif isinstance(value, str):
            chip, original = _chip_of_text(value, spec), value[:SHOWN]
        else:
            return Reject(row.index, f"not an image but {type(value).__name__}", str(value)[:SHOWN])
    except GroundworkError as error:
        shown = value.scene.name if isinstance(value, ChipReference) else value[:SHOWN]
        return Reject(row.index, str(error), shown)
    if np.isnan(chip.pixels.flat[0]) and np.isnan(chip.pixels).all():
        return Reject(row.index, "no data in any pixel", original)
    return Record(row.index, identity_of(chip.pixels), chip, row.fields)


def identity_of(pixels: np.ndarray) -> str:
    """Digest of pixels float32, 16 hex digits; every NaN counts as the same."""
    missing = np.isnan(pixels)
    canonical = np.where(missing, np.float32("nan"), pixels) if np.count_nonzero(missing) else pixels
    digest = xxhash.xxh3_64(str(pixels.shape).encode())  # as fast as memory: it tells chips apart, no more
    digest.update(np.ascontiguousarray(canonical, np.float32).data)
    return digest.hexdigest()


def labels(record: Record, targets: Sequence[str]) -> Sample:
    """Values of the label raster on the chip, float32 [chip²] by target, NaN where there is none.

    Raises RejectedLabel for labels that cannot be read or that no declared class has, and ValueError for a
    target that label rasters do not hold.
    """
    chip: Chip = record.value
    if set(targets) - {LABEL}:
        raise ValueError(f"label rasters hold {LABEL!r}, not {', '.join(targets)}")
    side = chip.pixels.shape[-1]
    if chip.label is None:
        return {name: np.full(side * side, np.nan, np.float32) for name in targets}
    return {name: chip.label.read(chip.row, chip.column, side, side).ravel() for name in targets}


def _chip_at(place: ChipReference, spec: RasterEncoding) -> Chip:
    scene = place.scene
    bands = spec.bands or tuple(band.meaning for band in scene.bands)
    read = read_chip(scene, place.row, place.column, spec.chip, bands)
    packed = read if scene.kept_as else None
    return chip_of(scene, place.row, place.column, read.values(), bands, packed)


def chip_of(
    scene: Scene,
    row: int,
    column: int,
    pixels: np.ndarray,
    bands: tuple[BandSpec, ...],
    packed: Pixels | None = None,
) -> Chip:
    """The chip whose upper left pixel is that at ``row`` and ``column`` of the scene."""
    a, b, c, d, e, f = scene.transform
    moved = (a, b, c + a * column + b * row, d, e, f + d * column + e * row)
    transform = moved if scene.crs else IDENTITY
    times = (scene.time,) if scene.before is None else (scene.before.time, scene.time)
    return Chip(pixels, scene.name, row, column, scene.crs, transform, scene.label, bands, times, packed)


def _chip_of_text(text: str, spec: RasterEncoding) -> Chip:
    if len(text) > LARGEST_TEXT:
        raise GroundworkError(f"{len(text):,} characters; at most {LARGEST_TEXT:,} are read")
    if spec.dates == 1:
        return _chip_of_uri(text, spec)
    images = text.split()
    if len(images) != spec.dates:
        raise GroundworkError(
            f"{len(images)} images where {spec.dates} dates are compared: send them with a space between, "
            "the earlier first"
        )
    before, after = (_chip_of_uri(image, spec) for image in images)
    pixels = both_dates(before.pixels, after.pixels)
    return replace(after, pixels=pixels, times=before.times + after.times)


def _chip_of_uri(text: str, spec: RasterEncoding) -> Chip:
    head = DATA_URI.match(text)
    if head is None:
        raise GroundworkError(
            "not an image: send data:image/tiff;base64,… (or png, jpeg); paths are not opened here"
        )
    try:
        data = base64.b64decode(text[head.end() :], validate=True)
    except binascii.Error as error:
        raise GroundworkError(f"not base64: {error}") from error
    with explained("the image"):
        if head.group(1) == "tiff":
            with MemoryFile(data, ext=".tif") as memory:
                raster = GeoTiff(memory.name)
                try:
                    return _whole(raster, spec)
                finally:
                    raster.close()
        return _whole(SmallImage(data, f".{head.group(1)}"), spec)


def _whole(raster: Raster, spec: RasterEncoding) -> Chip:
    header, side = raster.header, spec.chip
    if max(header.height, header.width) > side:
        raise GroundworkError(
            f"{header.width} × {header.height} pixels; one image holds at most {side} × {side}, "
            "larger scenes are read from files"
        )
    if fault := smaller_than_patch(header.height, header.width, spec):
        raise GroundworkError(fault)
    found = identify(header, (), spec.sensor)
    wanted = spec.bands or found
    places = places_of(wanted, found)
    pixels = np.full((len(wanted), side, side), np.nan, np.float32)
    inside = pixels[:, : header.height, : header.width]
    inside[:] = raster.window(places, 0, 0, header.height, header.width).floats()
    scaled = np.array([[found[place].scale, found[place].offset] for place in places], np.float32)
    inside *= scaled[:, :1, None]
    inside += scaled[:, 1:, None]
    dtypes = [header.channels[place].dtype for place in places]
    if fault := unit_fault(pixels, [found[place] for place in places], dtypes):
        raise GroundworkError(fault)
    bands = tuple(band.meaning for band in wanted)
    return Chip(pixels, "", 0, 0, header.crs, header.transform, None, bands, (header.time,))


def smaller_than_patch(height: int, width: int, spec: RasterEncoding) -> str:
    """Why a raster is too small to be a token; empty where it is not."""
    if min(height, width) >= spec.patch:
        return ""
    return f"{width} × {height} pixels, smaller than a patch of {spec.patch} × {spec.patch}"


# --------------------------------------------------------------------------------------------- example


def example(spec: RasterEncoding) -> tuple[str, ...]:
    """Two small GeoTIFFs as data URIs, valid for models of ``spec``: a ramp and a chessboard, or both ways
    that one can follow the other."""
    bands = spec.bands or by_layout("rgb", 3)
    rows, columns = np.mgrid[: spec.chip, : spec.chip]
    ramp = (rows + columns) / (2 * spec.chip)
    chessboard = ((rows // spec.patch + columns // spec.patch) % 2) * 0.5 + 0.25
    images = [_data_uri(share, bands) for share in (ramp, chessboard)]
    if spec.dates == 1:
        return tuple(images)
    return " ".join(images), " ".join(reversed(images))


def _data_uri(share: np.ndarray, bands: Sequence[BandSpec]) -> str:
    side = len(share)
    profile = {"driver": "GTiff", "count": len(bands), "height": side, "width": side, "compress": "deflate"}
    with MemoryFile() as memory:
        with explained("the example"), _without_place(), memory.open(**profile, dtype="float32") as file:
            for index, band in enumerate(bands, start=1):
                low, high = USUAL_RANGE.get(band.unit, (0.0, 1.0))
                file.write((low + (high - low) * share).round(4).astype(np.float32), index)
                file.set_band_description(index, band.name)
                file.set_band_unit(index, band.unit)
                if band.wavelength:
                    micrometres = f"{band.wavelength / 1000:.7g}"
                    file.update_tags(index, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=micrometres)
        return "data:image/tiff;base64," + base64.b64encode(memory.read()).decode()


@contextmanager
def _without_place() -> Iterator[None]:
    """An example lies nowhere, which rasterio warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


USUAL_RANGE = {
    "reflectance": (0.02, 0.5),
    "reflectance × 10000": (200.0, 5000.0),
    "display byte": (10.0, 250.0),
    "dB": (-25.0, -2.0),
}
"""Values as they occur, by unit."""
