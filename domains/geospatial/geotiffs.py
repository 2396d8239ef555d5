"""Rasters that GDAL reads: GeoTIFF first of all."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from domains.contract import GroundworkError
from domains.geospatial.rasters import IDENTITY, Channel, Header, as_floats
from domains.geospatial.remote import GDAL_OPTIONS, is_url, suffix_of

DRIVERS = {
    ".tif": "GTiff",
    ".tiff": "GTiff",
    ".jp2": "JP2OpenJPEG",
    ".j2k": "JP2OpenJPEG",
    ".img": "HFA",
    ".asc": "AAIGrid",
    ".vrt": "VRT",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
}
"""Driver by suffix. GDAL itself goes by the content, and takes a text called ``.tif`` for a VRT."""
LARGEST_BLOCK = 1 << 30
"""Bytes that must be unpacked to read one pixel."""
LARGEST_VRT = 1 << 20
SHORT_INTEGERS = frozenset({"uint8", "int8", "uint16", "int16"})
"""Types whose every number is a float32."""


@dataclass(frozen=True)
class Grid:
    """Pixels that a raster is brought to as it is read."""

    crs: str
    transform: tuple[float, ...]
    height: int
    width: int
    method: str
    """Of resampling, in GDAL's words."""
    nodata: float | None = None
    """What stands for no data where the file does not say: it must not be mixed into its neighbours."""


class GeoTiff:
    """A raster behind GDAL, closed with ``close``; not for two threads at once."""

    def __init__(self, path: str, grid: Grid | None = None) -> None:
        """Open a file, an address, or a member of an archive as ``/vsizip/{archive}/member``.

        Its pixels are brought to ``grid`` unless that is None.
        """
        suffix = suffix_of(path)
        if suffix == ".vrt":
            check_vrt(path)
        self._options = GDAL_OPTIONS if is_url(path) else {}
        # Within an Env, GDAL's warnings go to the log.
        with rasterio.Env(**self._options), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self._file = self._dataset = rasterio.open(path, driver=DRIVERS[suffix])
            if grid is not None:
                self._dataset = _on_grid(self._file, grid)
            try:
                self._indexes = [
                    index
                    for index, colour in zip(self._dataset.indexes, self._dataset.colorinterp, strict=True)
                    if colour != ColorInterp.alpha
                ]
                self.header = self._read_header()
                self._fillers, self._masked = self._find_masks()
                self._refuse_large_blocks()
            except Exception:
                self.close()
                raise

    def window(self, channels: Sequence[int], row: int, column: int, height: int, width: int) -> np.ndarray:
        if self._options:
            with rasterio.Env(**self._options):
                return self._window(channels, Window(column, row, width, height))
        return self._window(channels, Window(column, row, width, height))

    def _window(self, channels: Sequence[int], window: Window) -> np.ndarray:
        indexes = [self._indexes[channel] for channel in channels]
        if all(self._dataset.dtypes[index - 1] in SHORT_INTEGERS for index in indexes):
            floats = self._dataset.read(indexes, window=window, out_dtype=np.float32)
        else:
            floats = as_floats(self._dataset.read(indexes, window=window))
            floats[~np.isfinite(floats)] = np.nan
        for values, index in zip(floats, indexes, strict=True):
            if index in self._fillers:
                np.copyto(values, np.nan, where=values == self._fillers[index])
        masked = [place for place, index in enumerate(indexes) if index in self._masked]
        if masked:
            masks = self._dataset.read_masks([indexes[place] for place in masked], window=window)
            for place, mask in zip(masked, masks, strict=True):
                floats[place][mask == 0] = np.nan
        return floats

    def _find_masks(self) -> tuple[dict[int, float], set[int]]:
        """Bands of short integers and what they are filled with, and bands whose masks GDAL is asked for."""
        dataset = self._dataset
        fillers: dict[int, float] = {}
        masked = set()
        for index, flags, dtype, nodata in zip(
            dataset.indexes, dataset.mask_flag_enums, dataset.dtypes, dataset.nodatavals, strict=True
        ):
            if flags == [MaskFlags.nodata] and dtype in SHORT_INTEGERS and nodata is not None:
                fillers[index] = nodata  # which is told from the pixels alone, without a second reading
            elif MaskFlags.all_valid not in flags:
                masked.add(index)
        return fillers, masked

    def colours(self) -> dict[int, str]:
        """Colour table of the first band: value -> ``#rrggbb``."""
        try:
            table = self._dataset.colormap(1)
        except ValueError:
            return {}
        return {value: "#{:02x}{:02x}{:02x}".format(*colour[:3]) for value, colour in table.items()}

    def place(self) -> tuple[str, tuple[float, ...], tuple[GroundControlPoint, ...]]:
        """CRS (WKT, or empty), transform and control points as the file has them, whether used or not."""
        points, crs_of_points = self._dataset.gcps
        crs = crs_of_points if points else self._dataset.crs
        return crs.to_wkt() if crs else "", tuple(self._dataset.transform)[:6], tuple(points)

    def close(self) -> None:
        self._dataset.close()
        self._file.close()

    def _read_header(self) -> Header:
        dataset = self._dataset
        transform = tuple(float(number) for number in dataset.transform)[:6]
        is_placed = bool(dataset.crs) and transform != IDENTITY
        return Header(
            dataset.height,
            dataset.width,
            tuple(self._channel(index) for index in self._indexes),
            dataset.crs.to_wkt() if is_placed else "",
            transform if is_placed else IDENTITY,
            is_simulated=dataset.tags().get("SIMULATED", "").lower() == "yes",
            has_control_points=not is_placed and bool(dataset.gcps[0] or dataset.rpcs),
            block_row_bytes=_block_row_bytes(self._file),
        )

    def _channel(self, index: int) -> Channel:
        dataset, place = self._dataset, index - 1
        colour = dataset.colorinterp[place]
        description = dataset.descriptions[place] or ""
        if not description and colour in (ColorInterp.red, ColorInterp.green, ColorInterp.blue):
            description = colour.name
        # The way of GDAL 3.10 and later to say it, in its IMAGERY domain.
        micrometres = dataset.tags(index, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM", "")
        nodata = dataset.nodatavals[place]
        return Channel(
            description.strip(),
            dataset.dtypes[place],
            float(dataset.scales[place]),
            float(dataset.offsets[place]),
            (dataset.units[place] or "").strip(),
            None if nodata is None or not np.isfinite(nodata) else float(nodata),
            _nanometres(micrometres),
            colour == ColorInterp.palette,
        )

    def _refuse_large_blocks(self) -> None:
        dataset = self._dataset
        together = dataset.count if dataset.profile.get("interleave") == "pixel" else 1
        for (rows, columns), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
            if rows * columns * np.dtype(dtype).itemsize * together > LARGEST_BLOCK:
                raise GroundworkError(
                    f"its blocks of {columns} × {rows} pixels are too large to read in parts: "
                    "write it in tiles with gdal_translate -co TILED=YES"
                )


def _block_row_bytes(file: DatasetReader) -> int:
    lines = max((height for height, _ in file.block_shapes), default=1)
    return lines * file.width * sum(np.dtype(dtype).itemsize for dtype in file.dtypes)


def _on_grid(file: DatasetReader, grid: Grid) -> WarpedVRT:
    nodata = grid.nodata if file.nodata is None else file.nodata
    return WarpedVRT(
        file,
        crs=grid.crs,
        transform=Affine(*grid.transform),
        height=grid.height,
        width=grid.width,
        resampling=Resampling[grid.method],
        src_nodata=nodata,
        nodata=nodata,
    )


def _nanometres(micrometres: str) -> float | None:
    try:
        wavelength = float(micrometres) * 1000
    except ValueError:
        return None
    return round(wavelength, 1) if 0 < wavelength < 1e9 else None


def check_vrt(path: str) -> list[Path]:
    """The rasters that a VRT names. Refuses it where they are anything but files inside its own folder.

    It can name any file, address or program of the machine, which whoever sent it should not reach.
    """
    file = Path(path)
    if path.startswith("/vsi"):
        raise GroundworkError("a VRT in an archive is not read: give the rasters that it names")
    with file.open("rb") as stream:
        text = stream.read(LARGEST_VRT + 1)
    if len(text) > LARGEST_VRT or b"<!" in text:
        raise GroundworkError(f"a VRT of over {LARGEST_VRT >> 20} MiB, or with declarations, is not read")
    folder, named_files = file.resolve().parent, []
    for element in ElementTree.fromstring(text).iter():  # noqa: S314 -- no declarations, so no entities
        if element.tag.startswith("PixelFunction") or element.tag in ("SrcSQL", "SourceSQL"):
            raise GroundworkError("a VRT with code of its own is not read")
        if element.tag in ("SourceFilename", "SourceDataset", "SrcDataSource"):
            named = (element.text or "").strip()
            target = (folder / named).resolve()
            is_plain = target.suffix.lower() in set(DRIVERS) - {".vrt"} and target.is_file()
            if not is_plain or folder not in target.parents:
                raise GroundworkError(f"the VRT names {named[:100]!r}, which is no raster in its own folder")
            named_files.append(target)
    return named_files
