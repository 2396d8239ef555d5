"""What a map holds: its bands, and the numbers, names and colours of its classes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from rasterio.enums import Resampling

from domains.contract import GroundworkError, Target

PALETTE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#f0e442",
    "#332288",
    "#999933",
    "#882255",
    "#44aa99",
    "#7f7f7f",
)
"""Colours that stay apart for colour-blind eyes: those of Okabe and Ito (2008), then of Tol's muted set."""

CLASS_TYPES = ("uint8", "uint16", "int16", "int32")
"""Types of a map of classes; the first that holds every value is taken."""

HIGHEST_PERCENT = 100


@dataclass(frozen=True)
class MapClass:
    """A class as the map shows it."""

    value: int
    name: str
    colour: str
    """``#rrggbb``."""

    @property
    def rgb(self) -> tuple[int, int, int]:
        return int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16)


@dataclass(frozen=True)
class Layer:
    """A band of a map."""

    description: str
    resampling: Resampling
    """How its overviews are made."""
    unit: str = ""
    scale: float = 1.0
    """What a stored value is multiplied by to give the value in ``unit``."""


@dataclass(frozen=True)
class MapLayers:
    """The bands of the map of a target, and how answers are written in them."""

    layers: tuple[Layer, ...]
    dtype: str
    nodata: float
    classes: tuple[MapClass, ...] = ()
    """In code order; empty for a regression."""
    _values: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)

    def encode(self, answers: np.ndarray) -> np.ndarray:
        """Blended answers, float32 [rows, width, outputs] with NaN, as pixels [layers, rows, width].

        One output with classes is the probability of the second one.
        """
        answered = np.isfinite(answers).all(axis=2)
        if not self.classes:
            return np.where(answered, answers[..., 0], np.nan)[None].astype(self.dtype)
        if answers.shape[2] == 1:
            second = answers[..., 0] >= 0.5
            codes = second.astype(np.int64)
            probability = np.where(second, answers[..., 0], 1 - answers[..., 0])
        else:
            codes = np.where(answered[..., None], answers, 0).argmax(axis=2)
            probability = np.take_along_axis(answers, codes[..., None], axis=2)[..., 0]
        percent = np.rint(np.where(answered, probability, 0) * HIGHEST_PERCENT)
        pixels = np.full((2, *answered.shape), self.nodata, self.dtype)
        np.copyto(pixels[0], self._values[codes], where=answered)
        np.copyto(pixels[1], percent.astype(self.dtype), where=answered)
        return pixels

    def count(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels of each class in encoded rows [layers, rows, width], int64 [classes]."""
        if self.classes and self.dtype == "uint8":
            return np.bincount(pixels[0].ravel(), minlength=256)[self._values]
        return np.array([np.count_nonzero(pixels[0] == item.value) for item in self.classes], dtype=np.int64)

    def answered(self, pixels: np.ndarray) -> int:
        """How many of encoded rows [layers, rows, width] hold an answer."""
        return int(np.count_nonzero(pixels[0] != self.nodata if self.classes else ~np.isnan(pixels[0])))


def layers_of(target: Target) -> MapLayers:
    """The bands of a map that answers ``target``.

    A regression has one, float32, with NaN for no data. Classes have two, because the bands of a GeoTIFF
    share their type and their nodata: the class, as the masks write it, and the probability of that class
    in percent. Raises GroundworkError for classes that no map can write.
    """
    if target.kind == "regression":
        return MapLayers((Layer(target.name, Resampling.average, target.unit),), "float32", float("nan"))
    values = target.values or tuple(float(code) for code in range(len(target.classes)))
    if any(value != int(value) for value in values):
        raise GroundworkError(
            f"the classes of {target.name} are written {_short(values)} in its masks, and a map holds whole "
            "numbers: number the classes of the masks 0, 1, 2, …"
        )
    numbers = [int(value) for value in values]
    dtype = _class_type(target.name, numbers)
    colours = target.colours if all(target.colours) else ()
    classes = tuple(
        MapClass(value, name, colours[code] if colours else PALETTE[code % len(PALETTE)])
        for code, (value, name) in enumerate(zip(numbers, target.classes, strict=True))
    )
    return MapLayers(
        layers=(
            Layer(f"{target.name}: class", Resampling.mode),
            Layer(f"{target.name}: probability of the class", Resampling.average, scale=1 / HIGHEST_PERCENT),
        ),
        dtype=dtype,
        nodata=_free_value(dtype, set(numbers)),
        classes=classes,
        _values=np.array(numbers, dtype),
    )


def _class_type(name: str, values: list[int]) -> str:
    for dtype in CLASS_TYPES:
        limits = np.iinfo(dtype)
        if limits.min <= min(values) and max(values) <= limits.max:
            return dtype
    raise GroundworkError(f"the classes of {name} are written {_short(values)}: no map holds such numbers")


def _free_value(dtype: str, taken: set[int]) -> int:
    """The highest value that is no class; above every percentage, since both bands share it."""
    return next(value for value in range(np.iinfo(dtype).max, HIGHEST_PERCENT, -1) if value not in taken)


def _short(values: tuple[float, ...] | list[int]) -> str:
    return ", ".join(f"{value:g}" for value in values[:5]) + (", …" if len(values) > 5 else "")
