"""Small images without a location, JPEG and PNG, decoded whole by Pillow; alone or in a zip archive."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from domains.contract import GroundworkError
from domains.geospatial.rasters import Channel, Header, Stored, short_type

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
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image comes to stand upright, by its orientation (Exif 3.0, tag 0x0112)."""
SIDEWAYS = tuple(TURNS[orientation] for orientation in (5, 6, 7, 8))
DTYPES = {"1": "uint8", "I": "int32", "I;16": "uint16", "F": "float32"}


class LeftToGdal(GroundworkError):
    """An image that Pillow is not to decode: of many pixels, or of what it does not keep."""


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
            raise LeftToGdal(f"more than {LARGEST_IMAGE:,} pixels") from error
        except UnidentifiedImageError as error:
            raise GroundworkError(f"it is no {kind} image, or damaged") from error
        if self._image.height * self._image.width > LARGEST_IMAGE:
            raise LeftToGdal(f"more than {LARGEST_IMAGE:,} pixels")
        # Cameras hide previews in a JPEG, which count as frames.
        if kind != "JPEG" and getattr(self._image, "n_frames", 1) > 1:
            raise GroundworkError("it is animated: save each image in a file of its own")
        mode = self._image.mode
        if kind == "PNG" and mode != "P" and ("transparency" in self._image.info or _has_wide_colours(data)):
            raise LeftToGdal("16 bits a colour, or one colour for no data: send it as a TIFF")
        if mode not in CHANNELS:
            raise GroundworkError(f"its colours are {mode}: save it as RGB or grey")
        channel_type = DTYPES.get(mode, "uint8")
        channels = tuple(
            Channel(description, channel_type, is_palette=mode == "P") for description in CHANNELS[mode]
        )
        self._turn = TURNS.get(self._image.getexif().get(ORIENTATION, 1))
        height, width = self._image.height, self._image.width
        if self._turn in SIDEWAYS:
            height, width = width, height
        integers = short_type(channel.dtype for channel in channels)
        self.header = Header(height, width, channels, integers=integers)
        self._pixels: np.ndarray | None = None
        self._is_hidden: np.ndarray | None = None

    def window(self, channels: Sequence[int], row: int, column: int, height: int, width: int) -> Stored:
        if self._pixels is None:
            self._pixels, self._is_hidden = self._decoded()
        inside = slice(row, row + height), slice(column, column + width)
        numbers = self._pixels[(list(channels), *inside)]
        if self._is_hidden is None:
            return Stored(numbers)
        return Stored(numbers, np.repeat(self._is_hidden[inside][None], len(numbers), axis=0))

    def close(self) -> None:
        self._image.close()

    def _decoded(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Numbers [channels, height, width], and where they are transparent, bool [height, width]."""
        image = self._image if self._turn is None else self._image.transpose(self._turn)
        array = np.asarray(image)
        numbers = np.moveaxis(np.atleast_3d(array if array.dtype != bool else array.astype(np.uint8)), -1, 0)
        is_hidden = None
        if self._image.mode in ("LA", "RGBA"):
            numbers, is_hidden = numbers[:-1], numbers[-1] == 0
        return np.ascontiguousarray(numbers), is_hidden


def _has_wide_colours(png: bytes) -> bool:
    """Whether a PNG has 16 bits in each of several channels, of which Pillow keeps 8 (PNG 3.0, IHDR)."""
    depth, colour_type = png[24], png[25]
    return depth == 16 and colour_type != 0
