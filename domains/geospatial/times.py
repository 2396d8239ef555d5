"""When a scene was taken, as its tags and its name tell: ISO 8601, or nothing where they do not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath

from domains.geospatial.products import product_of

YEARS = range(1972, 2100)
"""From the first Landsat on: other digits are no date."""
TAGS = ("ACQUISITIONDATETIME", "TIFFTAG_DATETIME")
"""Of acquisition in GDAL's words, and of the image in those of TIFF 6.0."""
DATE = re.compile(r"(?<!\d)(\d{4})([-_.]?)(\d\d)\2(\d\d)(?:T(\d\d):?(\d\d):?(\d\d))?(?!\d)")
TIME = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d:\d\d:\d\d)\S*")
"""TIFF writes ``2020:08:17 10:11:12``, and GDAL ``2020-08-17 10:11:12``."""
YEAR_AND_DAY = re.compile(r"(?<!\d)(\d{4})(\d{3})(?:T\d{6})?(?!\d)")


def time_of_name(name: str) -> str:
    """The one date that a path within a dataset names, in its last part that names any.

    Names of products hold the date of acquisition before that of processing; elsewhere two dates say nothing.
    A name that is a year is that year.
    """
    product = product_of(name)
    if product is not None:
        found = _dates(product.name) or [_of_day(*told) for told in YEAR_AND_DAY.findall(product.name)]
        return found[0] if found else ""
    for part in reversed(PurePosixPath(name).parts):
        found = sorted(set(_dates(part)))
        if found:
            return found[0] if len(found) == 1 else ""
    stem = PurePosixPath(name).stem
    return stem if stem.isdecimal() and int(stem) in YEARS else ""


def time_of_tags(tags: Mapping[str, str]) -> str:
    """The time in the tags of a file; empty where there is none."""
    for name in TAGS:
        if found := TIME.fullmatch(tags.get(name, "").strip()):
            year, month, day, time = found.groups()
            return _checked(f"{year}-{month}-{day}T{time}")
    return ""


def _dates(text: str) -> list[str]:
    found = []
    for year, _, month, day, *clock in DATE.findall(text):
        time = f"T{':'.join(clock)}" if clock[0] else ""
        found.append(_checked(f"{year}-{month}-{day}{time}"))
    return [date for date in found if date]


def _of_day(year: str, day: str) -> str:
    """The date of a day of the year, as HLS names it."""
    try:
        return datetime.strptime(f"{year} {day}", "%Y %j").date().isoformat()
    except ValueError:
        return ""


def _checked(text: str) -> str:
    """``text``, where it is a date that a satellite may have seen."""
    try:
        return text if datetime.fromisoformat(text).year in YEARS else ""
    except ValueError:
        return ""
