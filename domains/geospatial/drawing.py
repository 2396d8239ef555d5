"""Chips as pictures: one with an answer below it, as SVG; several as a model fills them in, as PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from domains.abilities import Reconstruction
from domains.contract import EncodingSpec, Record, Sample
from domains.geospatial.bands import BandSpec, RasterEncoding
from domains.geospatial.chips import Chip

SIDE, CAPTION_HEIGHT = 260, 28
LONGEST_CAPTION = 60
WIDE = 38
"""Characters of a caption from which it is squeezed into the width."""
RED_GREEN_BLUE = (665.0, 560.0, 490.0)
GREY = 128


def draw_chip(record: Record, caption: str) -> bytes:
    """SVG of 260 × 288 pixels: the chip in natural colour as far as its bands allow, and the caption.

    Of two dates both, side by side, the earlier to the left.
    """
    chip: Chip = record.value
    stream = io.BytesIO()
    images = [natural_colour(pixels, chip.bands) for pixels in chip.dates]
    Image.fromarray(np.concatenate(images, axis=1)).save(stream, "PNG")
    image = base64.b64encode(stream.getvalue()).decode()
    printable = "".join(letter for letter in " ".join(caption.split()) if letter.isprintable())
    shown = printable[:LONGEST_CAPTION]
    squeeze = f' textLength="{SIDE - 10}" lengthAdjust="spacingAndGlyphs"' if len(shown) > WIDE else ""
    height = SIDE + CAPTION_HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIDE}" height="{height}" '
        f'viewBox="0 0 {SIDE} {height}">'
        f'<rect width="{SIDE}" height="{height}" fill="white"/>'
        f'<image width="{SIDE}" height="{SIDE}" style="image-rendering:pixelated" '
        f'href="data:image/png;base64,{image}"/>'
        f'<text x="{SIDE / 2:g}" y="{SIDE + 18}" font-family="sans-serif" font-size="12" '
        f'text-anchor="middle"{squeeze}>{escape(shown)}</text></svg>'
    ).encode()


COLUMNS = ("as seen", "masked", "filled in")
CELL, GAP, HEAD = 144, 6, 22
"""Pixels on a side of a chip in a picture of reconstructions, between two, and above them."""


def draw_reconstructions(shown: Sequence[tuple[EncodingSpec, Reconstruction]]) -> bytes:
    """PNG of chips in natural colour, of the latest date: a row for each, as ``COLUMNS`` say.

    The colours of a row are stretched alike, so that its three images can be compared.
    """
    width, height = len(COLUMNS) * (CELL + GAP) - GAP, HEAD + len(shown) * (CELL + GAP) - GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(COLUMNS):
        middle = column * (CELL + GAP) + CELL / 2
        pen.text((middle, HEAD / 2), title, fill="black", anchor="mm", font=ImageFont.load_default(13))
    for row, (spec, its) in enumerate(shown):
        bands = cast(RasterEncoding, spec).bands
        images = [_latest(sample) for sample in (its.seen, its.masked, its.filled)]
        for column, pixels in enumerate(images):
            image = Image.fromarray(natural_colour(pixels, bands, like=images[0]))
            image = image.resize((CELL, CELL), Image.Resampling.NEAREST)
            sheet.paste(image, (column * (CELL + GAP), HEAD + row * (CELL + GAP)))
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def _latest(sample: Sample) -> np.ndarray:
    pixels = np.asarray(sample["pixels"])
    return pixels if pixels.ndim == 3 else pixels[-1]


def natural_colour(
    pixels: np.ndarray, bands: Sequence[BandSpec], like: np.ndarray | None = None
) -> np.ndarray:
    """uint8 [h, w, 3] of pixels [bands, h, w]: the bands nearest to red, green and blue, NaN grey.

    Each is stretched between its 2nd and 98th percentile, or that of the same band of ``like``. Without
    optical bands the first one, in grey.
    """
    limits = pixels if like is None else like
    chosen = [_stretched(pixels[place], limits[place]) for place in composite_places(bands)]
    return np.stack(chosen, axis=-1)


def composite_places(bands: Sequence[BandSpec]) -> tuple[int, int, int]:
    """Positions of the bands nearest to 665, 560 and 490 nm; the first band thrice where none is optical."""
    optical = [(place, band.wavelength) for place, band in enumerate(bands) if band.wavelength is not None]
    if not optical:
        return 0, 0, 0
    red, green, blue = (min(optical, key=lambda each: abs(each[1] - wanted))[0] for wanted in RED_GREEN_BLUE)
    return red, green, blue


def _stretched(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    finite = like[np.isfinite(like)]
    grey = np.full(values.shape, GREY, np.uint8)
    if finite.size:
        low, high = np.percentile(finite, (2, 98))
        scaled = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5)
        known = np.isfinite(values)
        grey[known] = (scaled[known].clip(0, 1) * 255).astype(np.uint8)
    return grey
