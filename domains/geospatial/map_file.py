"""Writing a map: a cloud-optimised GeoTIFF that is whole or is not there."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from rasterio import Affine
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from domains.contract import GroundworkError
from domains.geospatial.map_layers import MapLayers
from domains.geospatial.rasters import one_line

BLOCK = 512
"""Pixels on a side of the tiles inside a map."""

SIDECARS = (".tif.aux.xml", ".qml")
"""Beside the map: names of the classes for GDAL, and the style in which QGIS opens it."""

EXTRA_SAMPLES = 338


@dataclass(frozen=True)
class Georeference:
    """Where the pixels of a raster lie."""

    height: int
    width: int
    crs: str
    """WKT; empty where there is none."""
    transform: Affine
    """Of pixel corners; identity where there is none."""
    control_points: tuple[GroundControlPoint, ...] = ()
    """Instead of a transform."""

    @property
    def transformed(self) -> bool:
        return self.transform != Affine.identity()


class MapFile:
    """A map in the making: rows in, then published under its name all at once.

    As a context manager it leaves nothing behind but a published map. What is unfinished lies in a hidden
    folder beside the map, and so on the same disk.
    """

    def __init__(self, path: Path, place: Georeference, layers: MapLayers, tags: Mapping[str, str]) -> None:
        """``tags`` are kept in the map. Raises GroundworkError where the disk has no room for it."""
        self._path = path
        self._layers = layers
        self._row = 0
        check_room(path.parent, place, layers)
        with _writing(path):
            self._folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        self._finished = self._folder / "map.tif"
        self._drafts = [self._folder / f"band{band}.tif" for band in range(1, len(layers.layers) + 1)]
        self._open = ExitStack()
        try:
            with _writing(path):
                self._bands = [
                    self._open.enter_context(_draft(draft, place, layers, band, tags))
                    for band, draft in enumerate(self._drafts)
                ]
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> MapFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A draft that cannot be closed is thrown away all the same.
        with ExitStack() as cleanup:
            cleanup.callback(shutil.rmtree, self._folder, ignore_errors=True)
            with suppress(OSError, RasterioError, CPLE_BaseError):
                self._open.close()

    def append(self, pixels: np.ndarray) -> None:
        """Add rows below those written before: [layers, rows, width] in the type of the map."""
        rows, width = pixels.shape[1:]
        window = rasterio.windows.Window(0, self._row, width, rows)
        with _writing(self._path):
            for band, values in zip(self._bands, pixels, strict=True):
                band.write(values, 1, window=window)
        self._row += rows

    def finish(self) -> None:
        """Give the map its overviews and its final form, still out of sight."""
        with _writing(self._path):
            self._open.close()
            for draft, layer in zip(self._drafts, self._layers.layers, strict=True):
                with rasterio.open(draft, "r+") as band:
                    band.build_overviews(_overview_factors(band.height, band.width), layer.resampling)
            rasterio.shutil.copy(
                _joined(self._drafts, self._layers),
                self._finished,
                driver="COG",
                blocksize=BLOCK,
                compress="DEFLATE",
                predictor="NO" if self._layers.classes else "YES",
                overviews="FORCE_USE_EXISTING",
                bigtiff="IF_SAFER",
                num_threads="ALL_CPUS",
            )
            if self._layers.classes:
                _declare_no_transparency(self._finished)
                (self._folder / "map.qml").write_text(_qgis_style(self._layers), encoding="utf-8")

    def decimated(self, shape: tuple[int, int]) -> np.ndarray:
        """The first band of the finished map in ``shape`` pixels, float with NaN for no data."""
        with _writing(self._path), rasterio.open(self._finished) as opened:
            values = opened.read(1, out_shape=shape).astype(np.float64)
        return np.where(values == self._layers.nodata, np.nan, values)

    def publish(self) -> None:
        """Put the finished map in its place."""
        with _writing(self._path):
            # What QGIS and GDAL read along with the map comes first: the map never stands without it.
            for suffix in (*SIDECARS, ".tif"):
                part = self._folder / f"map{suffix}"
                target = sidecar(self._path, suffix)
                if part.exists():
                    os.replace(part, target)
                else:
                    target.unlink(missing_ok=True)


def sidecar(path: Path, suffix: str) -> Path:
    """The file of a map with one of ``SIDECARS`` (or ``.tif``, the map itself)."""
    return path.with_name(path.name + suffix[4:]) if suffix.startswith(".tif") else path.with_suffix(suffix)


def check_room(folder: Path, place: Georeference, layers: MapLayers) -> None:
    """Raise GroundworkError where ``folder`` has no room for the map and what it is made from."""
    pixel = len(layers.layers) * np.dtype(layers.dtype).itemsize
    # Drafts and map, each with its overviews (a third); the map is not counted on to compress.
    needed = place.height * place.width * pixel * 2 * 4 // 3
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise GroundworkError(
            f"{folder} has {free / 1e9:.1f} GB free, and a map of {place.width} × {place.height} pixels "
            f"takes {needed / 1e9:.1f} GB while it is made: free some space, or write it elsewhere"
        )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say in one line why a map could not be written, and nothing of one that has no place by design."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield
    except GroundworkError:
        raise
    except (OSError, RasterioError, CPLE_BaseError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in f"{error} {error.__cause__}":
            raise GroundworkError(
                f"the disk of {path.parent} is full: free some space and predict again"
            ) from error
        raise GroundworkError(f"{path} cannot be written: {one_line(error)}") from error


def _draft(path: Path, place: Georeference, layers: MapLayers, band: int, tags: Mapping[str, str]) -> Any:
    """An open file of rows for one band, with everything that the map will say about it.

    Its rows lie one after the other, uncompressed: no block is written twice.
    """
    layer = layers.layers[band]
    where: dict[str, Any] = {"crs": place.crs or None}
    if place.control_points:
        where["gcps"] = list(place.control_points)
    elif place.transformed:
        where["transform"] = place.transform
    draft = rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=place.height,
        width=place.width,
        count=1,
        dtype=layers.dtype,
        nodata=layers.nodata,
        bigtiff="IF_SAFER",
        **where,
    )
    draft.update_tags(**tags)
    draft.descriptions = (layer.description,)
    if layer.unit:
        draft.units = (layer.unit,)
    if layer.scale != 1:
        draft.scales = (layer.scale,)
        draft.update_tags(1, STORED_AS="percent")
    elif layers.classes:
        draft.update_tags(1, **{f"CLASS_{item.value}": item.name for item in layers.classes})
        if layers.dtype == "uint8":
            draft.write_colormap(1, {item.value: (*item.rgb, 255) for item in layers.classes})
    return draft


def _joined(drafts: Sequence[Path], layers: MapLayers) -> Path:
    """A VRT of the drafts: each band keeps its own overviews, and the classes get their names."""
    roots: list[ElementTree.Element] = []
    for number, draft in enumerate(drafts, start=1):
        described = draft.with_suffix(".vrt")
        rasterio.shutil.copy(draft, described, driver="VRT")
        root = ElementTree.fromstring(described.read_bytes())  # noqa: S314 -- written a line ago
        band = next(root.iter("VRTRasterBand"))
        band.set("band", str(number))
        with rasterio.open(draft) as opened:
            levels = len(opened.overviews(1))
        for level in range(levels):
            overview = ElementTree.SubElement(band, "Overview")
            source = ElementTree.SubElement(overview, "SourceFilename", relativeToVRT="0")
            source.text = f"GTIFF_DIR:{level + 2}:{draft}"
            ElementTree.SubElement(overview, "SourceBand").text = "1"
        if number == 1 and layers.classes:
            band.insert(0, _category_names(layers))
        if number > 1:
            roots[0].append(band)
        roots.append(root)
    joined = drafts[0].with_name("joined.vrt")
    joined.write_bytes(ElementTree.tostring(roots[0], encoding="utf-8"))
    return joined


def _overview_factors(height: int, width: int) -> list[int]:
    """Halvings until the whole map fits one tile."""
    factors: list[int] = []
    while max(height, width) > BLOCK * 2 ** len(factors):
        factors.append(2 ** (len(factors) + 1))
    return factors


def _category_names(layers: MapLayers) -> ElementTree.Element:
    """GDAL numbers categories from 0: values that are no class have no name."""
    names = ElementTree.Element("CategoryNames")
    by_value = {item.value: item.name for item in layers.classes if 0 <= item.value <= 255}
    for value in range(max(by_value, default=-1) + 1):
        ElementTree.SubElement(names, "Category").text = by_value.get(value, "")
    return names


def _qgis_style(layers: MapLayers) -> str:
    """A QGIS layer style: the classes of band 1 in their colours and with their names.

    Without it QGIS shows the two bands of a map as red and green.
    """
    style = ElementTree.Element("qgis", version="3.4", styleCategories="Symbology")
    pipe = ElementTree.SubElement(style, "pipe")
    renderer = ElementTree.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", alphaBand="-1", opacity="1"
    )
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for item in layers.classes:
        ElementTree.SubElement(
            palette, "paletteEntry", value=str(item.value), color=item.colour, label=item.name, alpha="255"
        )
    ElementTree.SubElement(style, "blendMode").text = "0"
    ElementTree.indent(style)
    return ElementTree.tostring(style, encoding="unicode") + "\n"


def _declare_no_transparency(path: Path) -> None:
    """Say of the second band that it is no alpha channel.

    GDAL writes that of any band beside one with colours, and viewers would draw uncertain pixels as
    transparent. Its own way to change this moves what a cloud-optimised file keeps in order, so the tag
    (ExtraSamples, TIFF 6.0 page 31) is changed in its place, in the map and in each overview.
    """
    with path.open("r+b") as file:
        big = struct.unpack("<HH", file.read(4))[1] == 43
        pointer, count, entry, first = ("<Q", "<Q", 20, 8) if big else ("<I", "<H", 12, 4)
        file.seek(first)
        directory = struct.unpack(pointer, file.read(struct.calcsize(pointer)))[0]
        while directory:
            file.seek(directory)
            entries = struct.unpack(count, file.read(struct.calcsize(count)))[0]
            start = file.tell()
            for index in range(entries):
                file.seek(start + index * entry)
                if struct.unpack("<H", file.read(2))[0] == EXTRA_SAMPLES:
                    file.seek(start + (index + 1) * entry - struct.calcsize(pointer))
                    file.write(struct.pack("<H", 0))
            file.seek(start + entries * entry)
            directory = struct.unpack(pointer, file.read(struct.calcsize(pointer)))[0]
