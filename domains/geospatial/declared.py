"""What users say of their rasters in a ``bands.yaml`` beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from domains.contract import ClassSpec, GroundworkError
from domains.geospatial.bands import REFLECTANCE_10000
from domains.geospatial.rasters import Channel

FILE_NAME = "bands.yaml"
LARGEST = 1 << 16
"""Bytes of the file."""
LARGEST_PAM = 1 << 20
MOST_ENTRIES = 1000


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeclaredBand(_Strict):
    """A band in file order. What is left out, the file tells."""

    name: str = Field(min_length=1, max_length=80)
    unit: str = Field(min_length=1, max_length=80)
    wavelength: float | None = Field(default=None, gt=0)
    polarisation: str = Field(default="", max_length=10)
    scale: float | None = Field(default=None, allow_inf_nan=False)
    offset: float | None = Field(default=None, allow_inf_nan=False)
    nodata: float | None = Field(default=None, allow_inf_nan=False)


class DeclaredClass(_Strict):
    """A value of the masks."""

    value: float = Field(allow_inf_nan=False)
    name: str = Field(min_length=1, max_length=80)
    colour: str = Field(default="", pattern=r"^(#[0-9a-fA-F]{6})?$")


class Declared(_Strict):
    """The whole file: bands, and what the labels mean."""

    bands: tuple[DeclaredBand, ...] = Field(default=(), max_length=MOST_ENTRIES)
    classes: tuple[DeclaredClass, ...] = Field(default=(), max_length=MOST_ENTRIES)
    mask_nodata: float | None = None
    """What stands for no label in a mask."""
    attribute: str = Field(default="", max_length=200)
    """Property of polygons that names their class."""
    background: str = Field(default="", max_length=80)
    """Class of what no polygon covers; empty = nothing is known there."""

    @field_validator("bands", "classes")
    @classmethod
    def _named_once(cls, entries: Sequence[DeclaredBand | DeclaredClass]) -> Sequence[object]:
        names = [entry.name for entry in entries]
        values = [entry.value for entry in entries if isinstance(entry, DeclaredClass)]
        if len(set(names)) < len(names) or len(set(values)) < len(values):
            raise ValueError("the same name or value stands twice")
        return entries

    @property
    def class_specs(self) -> tuple[ClassSpec, ...]:
        return tuple(ClassSpec(entry.value, entry.name, entry.colour) for entry in self.classes)


def parse(text: bytes) -> Declared:
    """A ``bands.yaml``: a mapping as ``Declared``, or the list of bands alone."""
    if text.count(b"[") + text.count(b"{") > 3 * MOST_ENTRIES:  # deep nesting is slow to parse
        raise GroundworkError(f"{FILE_NAME} lists over {MOST_ENTRIES} entries; write it such as: {EXAMPLE}")
    try:
        content = yaml.safe_load(text)
        if isinstance(content, list):
            content = {"bands": content}
        return Declared.model_validate(content or {})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise GroundworkError(f"{FILE_NAME}, {place}: {first['msg']}; such as: {EXAMPLE}") from error
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise GroundworkError(f"{FILE_NAME} is not YAML: {detail}; such as: {EXAMPLE}") from error


def snippet(channels: Sequence[Channel]) -> str:
    """The one-line start of a ``bands.yaml`` for a file with ``channels``, to be filled in."""
    names = [
        channel.description if re.fullmatch(r"[\w-]+", channel.description) else f"band{place}"
        for place, channel in enumerate(channels[:3], start=1)
    ]
    shown = [f"{{name: {name}, wavelength: ?, unit: ?}}" for name in names]
    more = [f"… {len(channels) - 3} more"] if len(channels) > 3 else []
    return f"bands: [{', '.join(shown + more)}]"


EXAMPLE = f"bands: [{{name: B4, wavelength: 665, unit: {REFLECTANCE_10000}}}]"


# ------------------------------------------------------------------------------------------ categories


def category_names(mask: str) -> dict[int, str]:
    """Category names that GDAL keeps in ``MASK.aux.xml`` beside a mask: value -> name; or nothing."""
    file = Path(f"{mask}.aux.xml")
    if mask.startswith("/vsi") or not file.is_file() or file.stat().st_size > LARGEST_PAM:
        return {}
    text = file.read_bytes()
    if b"<!" in text:
        return {}
    try:
        names = ElementTree.fromstring(text).findall("./PAMRasterBand[@band='1']/CategoryNames/Category")  # noqa: S314 -- no declarations, so no entities
    except ElementTree.ParseError:
        return {}
    return {value: name.text.strip() for value, name in enumerate(names) if name.text and name.text.strip()}
