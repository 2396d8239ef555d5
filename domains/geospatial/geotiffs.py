"""Rasters that GDAL reads: GeoTIFF first of all."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, MaskFlags, PhotometricInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from domains.contract import GroundworkError
from domains.geospatial.rasters import (
    IDENTITY,
    Channel,
    Grid,
    Header,
    Stored,
    as_floats,
    in_short,
    integer_of,
    short_type,
)
from domains.geospatial.remote import GDAL_OPTIONS, is_url, suffix_of
from domains.geospatial.times import time_of_tags
from domains.geospatial.vrts import check_vrt

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
LOOK = 64
"""Pixels on a side of the window in which transparency is looked at."""
MOST_HALVES = 0.5
"""Share of half-transparent pixels beyond which a band marked as transparency is a measurement."""


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
                self._refuse_other_pixels()
                self._refuse_large_blocks()
                transparency = [
                    index
                    for index, colour in zip(self._dataset.indexes, self._dataset.colorinterp, strict=True)
                    if colour == ColorInterp.alpha
                ]
                for index in transparency:
                    self._refuse_measured_transparency(index)
                self._indexes = [index for index in self._dataset.indexes if index not in transparency]
                if not self._indexes:
                    raise GroundworkError(
                        "all of its bands are marked as transparency (alpha), which nothing lies beneath: "
                        "gdal_edit -colorinterp_1 undefined makes a band of the first"
                    )
                self._is_of_one_type = len(set(self._dataset.dtypes)) == 1
                self.header = self._read_header()
                self._filler, self._masked = self._find_masks()
                # GDAL tells of one mask only, of alpha after nodata, and of no alpha band of a grid.
                is_told = grid is None and all(
                    MaskFlags.alpha in self._dataset.mask_flag_enums[index - 1] for index in self._indexes
                )
                self._alpha = transparency[-1] if transparency and not is_told else 0
            except Exception:
                self.close()
                raise

    def window(self, channels: Sequence[int], row: int, column: int, height: int, width: int) -> Stored:
        if self._options:
            with rasterio.Env(**self._options):
                return self._window(channels, Window(column, row, width, height))
        return self._window(channels, Window(column, row, width, height))

    def _window(self, channels: Sequence[int], window: Window) -> Stored:
        indexes = [self._indexes[channel] for channel in channels]
        if self._is_of_one_type:
            numbers = self._dataset.read(indexes, window=window)
        else:
            numbers = np.stack([as_floats(self._dataset.read(index, window=window)) for index in indexes])
        masked = [place for place, index in enumerate(indexes) if index in self._masked]
        if not masked and not self._alpha:
            return Stored(numbers, None, self._filler)
        gaps = np.zeros(numbers.shape, bool)
        if masked:
            gaps[masked] = self._dataset.read_masks([indexes[place] for place in masked], window=window) == 0
        if self._alpha:
            gaps |= self._dataset.read(self._alpha, window=window) == 0
        return Stored(numbers, gaps, self._filler)

    def _find_masks(self) -> tuple[int | None, set[int]]:
        """What short integers are filled with in every band, or the bands whose masks GDAL is asked for."""
        flags = dict(zip(self._dataset.indexes, self._dataset.mask_flag_enums, strict=True))
        masked = {index for index in self._indexes if MaskFlags.all_valid not in flags[index]}
        fillers = {self._dataset.nodatavals[index - 1] for index in self._indexes}
        are_filled = all(flags[index] == [MaskFlags.nodata] for index in self._indexes)
        if self.header.integers and are_filled and len(fillers) == 1:
            # Told from the pixels alone, without a second reading.
            return integer_of(fillers.pop(), self.header.integers), set()
        return None, masked

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
            time=time_of_tags({**dataset.tags(), **dataset.tags(ns="IMAGERY")}),
            block_row_bytes=_block_row_bytes(self._file),
            has_tiles=all(width < self._file.width for _, width in self._file.block_shapes),
            integers=short_type(dataset.dtypes),
        )

    def _channel(self, index: int) -> Channel:
        dataset, place = self._dataset, index - 1
        colour = dataset.colorinterp[place]
        description = dataset.descriptions[place] or ""
        if not description and colour in (ColorInterp.red, ColorInterp.green, ColorInterp.blue):
            description = colour.name
        is_bit = dataset.tags(index, ns="IMAGE_STRUCTURE").get("NBITS") == "1"  # to GDAL, black and white
        # The way of GDAL 3.10 and later to say it, in its IMAGERY domain.
        micrometres = dataset.tags(index, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM", "")
        nodata = dataset.nodatavals[place]
        return Channel(
            in_short(description),
            dataset.dtypes[place],
            float(dataset.scales[place]),
            float(dataset.offsets[place]),
            in_short(dataset.units[place] or ""),
            None if nodata is None or not np.isfinite(nodata) else float(nodata),
            _nanometres(micrometres),
            colour == ColorInterp.palette and not is_bit,
        )

    def _refuse_other_pixels(self) -> None:
        dataset = self._dataset
        if any(dtype.startswith("complex") for dtype in dataset.dtypes):
            raise GroundworkError("complex numbers are not read: save amplitude, power or dB")
        if pages := len(dataset.subdatasets):
            raise GroundworkError(f"it holds {pages} images: save each in a file of its own")
        colours = dataset.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE", "")
        if colours in ("CMYK", "YCCK") or dataset.photometric == PhotometricInterp.cmyk:
            raise GroundworkError("its colours are CMYK: save it as RGB or grey")
        turned = dataset.tags().get("EXIF_Orientation", "1")
        if turned != "1":
            raise GroundworkError(f"it is to be turned (EXIF orientation {turned}): save it upright")

    def _refuse_measured_transparency(self, index: int) -> None:
        """Programs mark the fourth band of any file as alpha, near infrared too."""
        dataset, name = self._dataset, self._dataset.descriptions[index - 1] or ""
        height, width = min(LOOK, dataset.height), min(LOOK, dataset.width)
        middle = Window((dataset.width - width) // 2, (dataset.height - height) // 2, width, height)
        values = dataset.read(index, window=middle)
        is_half = (values != 0) & (values != values.max())
        if is_half.mean() > MOST_HALVES or name.strip().lower() not in ("", "alpha"):
            raise GroundworkError(
                f"its band {index}{f' ({name})' if name else ''} is marked as transparency (alpha), and "
                f"looks like a measurement: gdal_edit -colorinterp_{index} undefined makes it one"
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
    if nodata is None and all(np.dtype(dtype).kind == "f" for dtype in file.dtypes):
        nodata = float("nan")
    return WarpedVRT(
        file,
        crs=grid.crs,
        transform=Affine(*grid.transform),
        height=grid.height,
        width=grid.width,
        resampling=Resampling[grid.method],
        src_nodata=nodata,
        nodata=nodata,
        # Says where there are no data, where no number can.
        add_alpha=nodata is None and ColorInterp.alpha not in file.colorinterp,
    )


def _nanometres(micrometres: str) -> float | None:
    try:
        wavelength = float(micrometres) * 1000
    except ValueError:
        return None
    return round(wavelength, 1) if 0 < wavelength < 1e9 else None
