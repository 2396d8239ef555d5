"""Small images without a location, JPEG and PNG, decoded whole by Pillow; alone or in a zip archive."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from domains.contract import GroundworkError
from domains.geospatial.rasters import Channel, Header, as_floats

IMAGE_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
LARGEST_IMAGE = 1 << 20
"""Pixels; larger images are read in windows by GDAL."""

CHANNELS = {
    "1": ("",),
    "L": ("",),
    "P": ("",),
    "I": ("",),
    "I;16": ("",),
    "F": ("",),
    "LA": ("",),
    "RGB": ("red", "green", "blue"),
    "RGBA": ("red", "green", "blue"),
}
"""Bands by Pillow's mode, without alpha."""
DTYPES = {"1": "uint8", "I": "int32", "I;16": "uint16", "F": "float32"}


class TooLarge(GroundworkError):
    """An image that is not to be decoded whole."""


class SmallImage:
    """An image, whose header is read at once and whose pixels when they are first asked for."""

    data: bytes
    """The file."""

    def __init__(self, data: bytes, suffix: str) -> None:
        if not data:
            raise GroundworkError("it is empty, 0 bytes: copy it again")
        self.data = data
        kind = IMAGE_FORMATS[suffix]
        try:
            self._image = Image.open(io.BytesIO(data), formats=(kind,))
        except Image.DecompressionBombError as error:
            raise TooLarge(f"more than {LARGEST_IMAGE:,} pixels") from error
        except UnidentifiedImageError as error:
            raise GroundworkError(f"it is no {kind} image, or damaged") from error
        if self._image.height * self._image.width > LARGEST_IMAGE:
            raise TooLarge(f"more than {LARGEST_IMAGE:,} pixels")
        mode = self._image.mode
        if mode not in CHANNELS:
            raise GroundworkError(f"its colours are {mode}: save it as RGB or grey")
        channel_type = DTYPES.get(mode, "uint8")
        channels = tuple(
            Channel(description, channel_type, is_palette=mode == "P") for description in CHANNELS[mode]
        )
        self.header = Header(self._image.height, self._image.width, channels)
        self._pixels: np.ndarray | None = None

    def window(self, channels: Sequence[int], row: int, column: int, height: int, width: int) -> np.ndarray:
        if self._pixels is None:
            self._pixels = self._decoded()
        return self._pixels[list(channels), row : row + height, column : column + width]

    def close(self) -> None:
        self._image.close()

    def _decoded(self) -> np.ndarray:
        array = np.asarray(self._image)
        floats = as_floats(array if array.dtype != bool else array.astype(np.uint8))
        floats = np.moveaxis(np.atleast_3d(floats), -1, 0)
        if self._image.mode in ("LA", "RGBA"):
            floats, alpha = floats[:-1], floats[-1]
            floats[:, alpha == 0] = np.nan
        return np.ascontiguousarray(floats)
