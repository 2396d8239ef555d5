"""The quick look of a map: the scene and its answer side by side, small enough for any page."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from rasterio import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as convert

from domains.geospatial.bands import BandSpec
from domains.geospatial.drawing import composite_places, natural_colour
from domains.geospatial.map_file import Georeference
from domains.geospatial.map_layers import MapClass

MOST_PIXELS = 600
"""Of the longer side of a scene in the picture."""

NO_DATA = (0.82, 0.82, 0.82)
EARTH_RADIUS = 6_371_008.8
INK = "0.25"
LINE = 120
"""Letters that fit the width of the picture."""
BAR = 1.2
"""Inches that a scale bar may have."""
RAMP = colormaps["viridis"]


class Composite:
    """A small picture of a scene, made of its rows as they pass by: the mean of squares of pixels."""

    def __init__(self, height: int, width: int, bands: Sequence[BandSpec]) -> None:
        self.factor = max(1, -(-max(height, width) // MOST_PIXELS))
        self._places = sorted(set(composite_places(bands)))
        self._bands = [bands[place] for place in self._places]
        shape = (len(self._bands), -(-height // self.factor), -(-width // self.factor))
        self._sums = np.zeros(shape)
        self._counts = np.zeros(shape)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the picture."""
        return self._sums.shape[1], self._sums.shape[2]

    def add(self, row: int, column: int, pixels: np.ndarray) -> None:
        """Add pixels from ``row`` and ``column`` on: float [bands, rows, columns], NaN = no data."""
        shown = pixels[self._places]
        lines, first_rows = self._squares(row, shown.shape[1])
        columns, first_columns = self._squares(column, shown.shape[2])
        known = np.isfinite(shown)
        for totals, values in ((self._sums, np.where(known, shown, 0)), (self._counts, known)):
            down = np.add.reduceat(values, first_rows, axis=1, dtype=np.float64)
            totals[:, lines, columns] += np.add.reduceat(down, first_columns, axis=2)

    def _squares(self, start: int, count: int) -> tuple[slice, np.ndarray]:
        """Squares that ``count`` pixels from ``start`` on lie in, and the first pixel of each in them."""
        first, last = start // self.factor, (start + count - 1) // self.factor
        return slice(first, last + 1), np.maximum(np.arange(first, last + 1) * self.factor - start, 0)

    def image(self) -> np.ndarray:
        """Natural colour as far as the bands allow, RGB in 0 to 1, float [rows, columns, 3]."""
        means = np.full(self._sums.shape, np.nan)
        np.divide(self._sums, self._counts, out=means, where=self._counts > 0)
        image = natural_colour(means, self._bands) / 255
        image[np.isnan(means).any(axis=0)] = NO_DATA
        return image


@dataclass(frozen=True)
class QuickLook:
    """What the picture shows beside the scene."""

    title: str
    answer: np.ndarray
    """Decimated map: values of classes or numbers, float [rows, columns], NaN = no data."""
    label: str
    """What the map shows, with its unit."""
    classes: tuple[MapClass, ...]
    """Empty for numbers."""
    shares: Sequence[float]
    """Of each class, 0 to 1."""


def draw_quick_look(image: np.ndarray, look: QuickLook, place: Georeference) -> bytes:
    """The scene (RGB [rows, columns, 3]) beside its map as PNG, at most 1000 pixels wide, north up."""
    limits = _limits(look.answer)
    coloured = _coloured(look, limits)
    grid = _coarser(place.transform, place.width / image.shape[1], place.height / image.shape[0])
    if place.transformed and not (grid.a > 0 and grid.e < 0 and grid.b == grid.d == 0):
        (image, coloured), grid = north_up([image, coloured], grid)
    metres = pixel_metres(place.crs, grid, image.shape[0], image.shape[1]) if place.transformed else None
    shape = image.shape[0] / image.shape[1] * (metres[1] / metres[0] if metres else 1.0)

    panel = min(max(4.7 * shape, 1.6), 7.0)
    handles = [
        Patch(facecolor=item.colour, label=f"{item.name[:60]}  {share:.1%}")
        for item, share in zip(look.classes, look.shares, strict=True)
    ]
    if np.isnan(look.answer).any():
        handles.append(Patch(facecolor=NO_DATA, label="no data"))
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    columns = max(1, min(len(handles), 4, LINE // (longest + 6)))
    legend = 0.5 + 0.24 * math.ceil(len(handles) / columns) if look.classes else 0.75
    height = panel + legend + 0.85
    figure = Figure(figsize=(10, height), dpi=100, facecolor="white")
    figure.text(0.02, 1 - 0.3 / height, look.title[:90], fontsize=13, weight="bold", va="center")
    for index, (picture, caption) in enumerate(((image, "scene"), (coloured, look.label))):
        axes = figure.add_axes((0.02 + 0.49 * index, legend / height, 0.47, panel / height))
        axes.imshow(picture, interpolation="nearest", aspect=metres[1] / metres[0] if metres else 1.0)
        axes.set_axis_off()
        axes.set_title(caption, fontsize=10, color=INK, pad=5)
    if metres:
        drawn = min(4.7, panel / shape)
        _scale_bar(figure, 0.2, legend - 0.25, image.shape[1] * metres[0] / drawn)
    if look.classes:
        figure.legend(
            handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=10, borderaxespad=0.4
        )
    else:
        bar = figure.add_axes((0.56, 0.45 / height, 0.37, 0.13 / height))
        figure.colorbar(ScalarMappable(Normalize(*limits), RAMP), cax=bar, orientation="horizontal")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def north_up(pictures: Sequence[np.ndarray], grid: Affine) -> tuple[list[np.ndarray], Affine]:
    """Turn pictures [rows, columns, 3] on ``grid`` so that north is up; what is empty is as no data."""
    rows, columns = pictures[0].shape[:2]
    corners = [_apply(grid, *corner) for corner in ((0, 0), (columns, 0), (0, rows), (columns, rows))]
    xs, ys = zip(*corners, strict=True)
    size = math.sqrt(abs(grid.determinant))
    turned = Affine(size, 0, min(xs), 0, -size, max(ys))
    wide = max(1, round((max(xs) - min(xs)) / size))
    high = max(1, round((max(ys) - min(ys)) / size))
    ground = _apply(turned, np.arange(wide) + 0.5, (np.arange(high) + 0.5)[:, None])
    column, row = (
        np.floor(np.broadcast_to(axis, (high, wide))).astype(int) for axis in _apply(~grid, *ground)
    )
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    answers = []
    for picture in pictures:
        answer = np.full((high, wide, 3), NO_DATA)
        answer[inside] = picture[row[inside], column[inside]]
        answers.append(answer)
    return answers, turned


def pixel_metres(crs: str, grid: Affine, rows: int, columns: int) -> tuple[float, float] | None:
    """Width and height in metres of a pixel in the middle of a grid; None where the CRS does not tell.

    On the Earth they are measured on the ground: a pixel of Web Mercator is smaller than it says.
    """
    if not crs:
        return None
    known = CRS.from_wkt(crs)
    middle = (columns / 2, rows / 2)
    points = [_apply(grid, middle[0] + right, middle[1] + down) for right, down in ((0, 0), (1, 0), (0, 1))]
    xs, ys = zip(*points, strict=True)
    try:
        longitudes, latitudes = convert(known, CRS.from_epsg(4326), xs, ys)
        across, down = (_distance(longitudes, latitudes, end) for end in (1, 2))
    except (RasterioError, CPLE_BaseError):  # another body than the Earth
        if not known.is_projected:
            return None
        unit = known.linear_units_factor[1]
        across, down = (math.dist(points[0], points[end]) * unit for end in (1, 2))
    return (across, down) if across > 0 and down > 0 and math.isfinite(across * down) else None


def _apply(grid: Affine, column: Any, row: Any) -> tuple[Any, Any]:
    """Coordinates of pixels, numbers or arrays. (The operator for it is ``*`` in affine 2 and ``@`` in 3.)"""
    return grid.a * column + grid.b * row + grid.c, grid.d * column + grid.e * row + grid.f


def _coarser(grid: Affine, across: float, down: float) -> Affine:
    """The grid whose pixels are ``across`` × ``down`` pixels of ``grid``."""
    return Affine(grid.a * across, grid.b * down, grid.c, grid.d * across, grid.e * down, grid.f)


def _distance(longitudes: Sequence[float], latitudes: Sequence[float], end: int) -> float:
    """Great-circle distance in metres from the first point (haversine)."""
    east, north, east_end, north_end = np.radians(
        (longitudes[0], latitudes[0], longitudes[end], latitudes[end])
    )
    half = np.sin((north_end - north) / 2) ** 2
    half += np.cos(north) * np.cos(north_end) * np.sin((east_end - east) / 2) ** 2
    return float(2 * EARTH_RADIUS * np.arcsin(np.sqrt(half)))


def _limits(answer: np.ndarray) -> tuple[float, float]:
    known = answer[np.isfinite(answer)]
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, (2, 98))
    return float(low), float(max(high, low + 1e-9))


def _coloured(look: QuickLook, limits: tuple[float, float]) -> np.ndarray:
    picture = np.full((*look.answer.shape, 3), NO_DATA)
    if not look.classes:
        known = np.isfinite(look.answer)
        picture[known] = RAMP(Normalize(*limits)(look.answer[known]))[:, :3]
    for item in look.classes:
        picture[look.answer == item.value] = np.array(item.rgb) / 255
    return picture


def _scale_bar(figure: Figure, left: float, bottom: float, metres_per_inch: float) -> None:
    """An arrow to the north, and a bar of 1, 2 or 5 times a power of ten metres, about an inch long.

    ``left`` and ``bottom`` are inches.
    """
    wide, high = figure.get_size_inches()
    power = 10 ** math.floor(math.log10(BAR * metres_per_inch))
    length = max(step * power for step in (1, 2, 5) if step * power <= BAR * metres_per_inch)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    start, end, height = (left + 0.35) / wide, length / metres_per_inch / wide, 0.06 / high
    figure.text(left / wide, bottom / high, "▲ N", fontsize=9, color=INK)
    figure.add_artist(Rectangle((start, (bottom + 0.02) / high), end, height, color=INK, linewidth=0))
    figure.text(start + end + 0.06 / wide, bottom / high, text, fontsize=9, color=INK)
