"""Writing a map: a cloud-optimised GeoTIFF that is whole or is not there."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from rasterio import Affine
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from domains.contract import GroundworkError
from domains.geospatial.cog import qgis_style, write_cog
from domains.geospatial.map_layers import MapLayers
from domains.geospatial.rasters import one_line
from domains.geospatial.unfinished import Progress, Unfinished

SIDECARS = (".tif.aux.xml", ".qml")
"""Beside the map: names of the classes for GDAL, and the style in which QGIS opens it."""


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
    """A map in the making: answered pixels in, then published under its name all at once.

    As a context manager it leaves nothing behind but a published map, or, where it was interrupted, what
    the next run of the same ``key`` goes on from: a hidden folder beside the map, and so on the same disk.
    """

    def __init__(
        self, path: Path, place: Georeference, layers: MapLayers, tags: Mapping[str, str], key: str
    ) -> None:
        """``tags`` are kept in the map. Raises GroundworkError where the disk has no room for it."""
        self._path = path
        self._layers = layers
        with _writing(path):
            self.unfinished = Unfinished(path, key)
        folder = self.unfinished.folder
        self.finished = folder / "map.tif"
        self._drafts = [folder / f"band{band}.tif" for band in range(1, len(layers.layers) + 1)]
        if self.unfinished.progress is not None:
            return
        try:
            check_room(path.parent, place, layers)
            with _writing(path):
                for band, draft in enumerate(self._drafts):
                    _make_draft(draft, place, layers, band, tags)
        except BaseException:
            self.unfinished.remove()
            raise

    def __enter__(self) -> MapFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A run that was told to stop is gone on with; one that failed would fail again.
        if error is None or isinstance(error, Exception):
            self.unfinished.remove()
        else:
            self.unfinished.leave()

    def write(self, row: int, column: int, pixels: np.ndarray) -> None:
        """Put pixels [layers, rows, columns] in their place, safe from a kill of the process."""
        rows, columns = pixels.shape[1:]
        window = Window(column, row, columns, rows)
        with _writing(self._path):
            for draft, values in zip(self._drafts, pixels, strict=True):
                with rasterio.open(draft, "r+") as band:
                    band.write(values, 1, window=window)

    def read(self, row: int, column: int, rows: int, columns: int) -> np.ndarray:
        """Pixels that were written, [layers, rows, columns]."""
        window = Window(column, row, columns, rows)
        parts = []
        with _writing(self._path):
            for draft in self._drafts:
                with rasterio.open(draft) as band:
                    parts.append(band.read(1, window=window))
        return np.stack(parts)

    def record(self, progress: Progress) -> None:
        """Note how far the map is: after a kill, it goes on from there."""
        with _writing(self._path):
            self.unfinished.record(progress)

    def finish(self) -> None:
        """Give the map its overviews and its final form, still out of sight."""
        with _writing(self._path):
            write_cog(self._drafts, self._layers, self.finished)
            if self._layers.classes:
                (self.unfinished.folder / "map.qml").write_text(qgis_style(self._layers), encoding="utf-8")

    def decimated(self, shape: tuple[int, int]) -> np.ndarray:
        """The first band of the finished map in ``shape`` pixels, float with NaN for no data."""
        with _writing(self._path), rasterio.open(self.finished) as opened:
            values = opened.read(1, out_shape=shape).astype(np.float64)
        return np.where(values == self._layers.nodata, np.nan, values)

    def publish(self) -> None:
        """Put the finished map in its place."""
        with _writing(self._path):
            # What QGIS and GDAL read along with the map comes first: the map never stands without it.
            for suffix in (*SIDECARS, ".tif"):
                part = self.unfinished.folder / f"map{suffix}"
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


def _make_draft(
    path: Path, place: Georeference, layers: MapLayers, band: int, tags: Mapping[str, str]
) -> None:
    """A file of no data for one band, with everything that the map will say about it.

    Its rows lie one after the other, uncompressed, each in its place from the start: what is written later
    changes nothing but pixels, so that a kill at any moment leaves a whole file.
    """
    layer = layers.layers[band]
    where: dict[str, Any] = {"crs": place.crs or None}
    if place.control_points:
        where["gcps"] = list(place.control_points)
    elif place.transformed:
        where["transform"] = place.transform
    with rasterio.open(
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
    ) as draft:
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
