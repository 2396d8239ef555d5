"""STAC: items, collections of items, catalogues and searches of an API, as scenes of one band per asset.

An asset is read where its metadata say what its numbers are; what is missing is asked for, never guessed.
Sources: STAC specification 1.1 with the extensions eo, raster, sar and processing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pystac

from domains.contract import GroundworkError
from domains.geospatial.archives import File
from domains.geospatial.bands import REFLECTANCE_10000, BandSpec, RasterEncoding, in_ten_thousandths
from domains.geospatial.products import OFFSET_SINCE, QUALITY
from domains.geospatial.remote import fetch, is_url, locate, suffix_of, without_query
from domains.geospatial.sensors import SENSORS
from domains.geospatial.stacks import Member, stacked

LARGEST_DOCUMENT = 1 << 26
MOST_ITEMS = 1000
PICTURES = frozenset(("visual", "overview", "thumbnail", "metadata"))
"""Roles of assets that only show a scene."""
RASTERS = (".tif", ".tiff")
MALFORMED = (
    *(pystac.STACError, pystac.STACTypeError),
    *(ValueError, LookupError, TypeError, AttributeError),
)
"""What the library raises of a document that is something else."""


class Reader(pystac.StacIO):
    """Reads documents and finds assets, within one folder of this machine or on hosts that may be asked."""

    def __init__(self, start: str, hosts: Collection[str] | None) -> None:
        super().__init__()
        self._hosts = hosts
        self._folder = None if is_url(start) else Path(start).resolve().parent

    def read_text(self, source: pystac.HREF, *args: Any, **kwargs: Any) -> str:
        """A document. Raises GroundworkError where it may not be read."""
        href = str(source)
        if is_url(href):
            return fetch(href, self._hosts, LARGEST_DOCUMENT).decode()
        file = self._inside(href)
        if file.stat().st_size > LARGEST_DOCUMENT:
            raise GroundworkError(f"{file.name} is larger than {LARGEST_DOCUMENT >> 20} MiB")
        return file.read_text("utf-8")

    def write_text(self, dest: pystac.HREF, txt: str, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("catalogues are only read")

    def raster(self, href: str) -> str:
        """What ``opened.open_raster`` opens."""
        return locate(href, self._hosts).url if is_url(href) else str(self._inside(href))

    def _inside(self, href: str) -> Path:
        file = Path(unquote(urlsplit(href).path) if href.startswith("file:") else href).resolve()
        if self._folder is None or not file.is_relative_to(self._folder):
            raise GroundworkError(f"it names {Path(href).name!r}, which lies outside of its own folder")
        if not file.is_file():
            raise GroundworkError(f"it names {file.name!r}, which is not there")
        return file


def scenes(start: str, hosts: Collection[str] | None, spec: RasterEncoding) -> list[File]:
    """The scenes of a STAC document at ``start``, a file or an address.

    Raises GroundworkError for a document that is none, lies elsewhere than it may, or has no scene.
    """
    reader = Reader(start, hosts)
    try:
        found = [_scene(item, reader, spec) for item in _items(start, reader)]
    except MALFORMED as error:
        raise GroundworkError(f"{_name(start)} is no STAC document: {error}") from error
    if not found:
        raise GroundworkError(f"{_name(start)} lists no items: widen the search")
    return found


def _items(start: str, reader: Reader) -> Iterator[pystac.Item]:
    for count, item in enumerate(_every_item(start, reader)):
        if count == MOST_ITEMS:
            raise GroundworkError(f"{_name(start)} lists over {MOST_ITEMS:,} items: narrow the search")
        yield item


def _every_item(start: str, reader: Reader) -> Iterator[pystac.Item]:
    href: str | None = start
    while href:
        told: dict[str, Any] = json.loads(reader.read_text(href))
        if told.get("type") != "FeatureCollection":
            found = pystac.read_dict(told, href=href, stac_io=reader)
            if isinstance(found, pystac.Item):
                yield found
            elif isinstance(found, pystac.Catalog):
                found.set_self_href(href)
                yield from found.get_items(recursive=True)
            return
        if not all("assets" in feature for feature in told["features"]):
            raise GroundworkError(
                f"{_name(start)} lists features without assets, which are labels and no scenes: put it "
                "beside the scenes as labels.geojson, and name their folder"
            )
        for feature in told["features"]:
            yield pystac.Item.from_dict(feature, href=_self_of(feature) or href, preserve_dict=False)
        href = _next(told, href)


def _self_of(feature: Mapping[str, Any]) -> str:
    return next((link["href"] for link in feature.get("links", ()) if link.get("rel") == "self"), "")


def _next(page: Mapping[str, Any], href: str) -> str | None:
    """The address of the next page of a search, where it can be asked for as this one was."""
    for link in page.get("links", ()):
        if link.get("rel") == "next" and link.get("method", "GET") == "GET":
            return urljoin(href, str(link["href"]))
    return None


# ----------------------------------------------------------------------------------------------- items


@dataclass(frozen=True)
class _Band:
    """What an item says of one band of an asset."""

    name: str
    common_name: str
    wavelength: float | None
    unit: str
    scale: float
    offset: float
    nodata: float | None
    is_scaled: bool


def _scene(item: pystac.Item, reader: Reader, spec: RasterEncoding) -> File:
    members: dict[str, Member] = {}
    quality: tuple[str, str] | None = None
    sensor = _sensor(item)
    for key, asset in sorted(item.assets.items()):
        href = asset.get_absolute_href() or asset.href
        if suffix_of(href) not in RASTERS or PICTURES & set(asset.roles or ()) or key in PICTURES:
            continue
        layer = next((name for name in QUALITY if name.lower() == key.lower()), "")
        if layer:
            quality = (reader.raster(href), layer)
            continue
        for place, band in enumerate(_bands(asset)):
            meaning = _meaning(key, band, sensor)
            if meaning is not None and meaning.name not in members:
                members[meaning.name] = _member(reader.raster(href), place, meaning, band, item)
    if not members:
        raise GroundworkError(f"item {item.id} has no asset that says which bands it holds")
    time = item.datetime.isoformat() if item.datetime else ""
    return File(item.id, stacked(list(members.values()), quality, spec).path, time)


def _sensor(item: pystac.Item) -> str:
    """The sensor that an item states, as this project calls it; empty where it is none of ours."""
    told = item.properties
    if (item.collection_id or "").lower().startswith("hls"):
        return "hls"
    for said in (told.get("constellation"), told.get("platform")):
        plain = str(said or "").lower().replace("_", "-").replace(" ", "-")
        found = next((name for name in SENSORS if plain.startswith(name)), "")
        if found:
            return found
    return ""


def _bands(asset: pystac.Asset) -> list[_Band]:
    """Bands as version 1.1 and the extensions before it write them."""
    extra = asset.extra_fields
    lists = [extra.get(name) or [] for name in ("bands", "eo:bands", "raster:bands")]
    count = max(map(len, lists), default=0)
    found = []
    for place in range(count):
        told = {**extra, **{k: v for part in lists if place < len(part) for k, v in part[place].items()}}
        micrometres = told.get("eo:center_wavelength", told.get("center_wavelength"))
        scale = told.get("raster:scale", told.get("scale"))
        offset = told.get("raster:offset", told.get("offset"))
        nodata = told.get("nodata")
        found.append(
            _Band(
                str(told.get("name", "")),
                str(told.get("eo:common_name", told.get("common_name", ""))),
                float(micrometres) * 1000 if micrometres else None,
                str(told.get("unit") or ""),
                1.0 if scale is None else float(scale),
                0.0 if offset is None else float(offset),
                float(nodata) if isinstance(nodata, int | float) else None,
                scale is not None or offset is not None,
            )
        )
    return found


def _meaning(key: str, band: _Band, sensor: str) -> BandSpec | None:
    """The band of the sensor that an asset holds, or the band as it describes itself; None where neither."""
    if sensor:
        known = SENSORS[sensor]
        for name in (band.name, key):
            if (named := known.named(name)) is not None and _agrees(named, band):
                return named
        return next((it for it in known.bands.values() if band.wavelength and _agrees(it, band)), None)
    if band.wavelength is None or not (band.unit or band.is_scaled):
        return None
    return BandSpec(
        name=band.name or band.common_name or key,
        wavelength=round(band.wavelength, 1),
        unit=band.unit or REFLECTANCE_10000,
    )


def _agrees(known: BandSpec, band: _Band) -> bool:
    if known.wavelength is None or band.wavelength is None:
        return True
    return abs(known.wavelength - band.wavelength) <= 0.03 * known.wavelength


def _member(path: str, place: int, meaning: BandSpec, band: _Band, item: pystac.Item) -> Member:
    scale, offset = band.scale, band.offset
    if meaning.unit == REFLECTANCE_10000:
        scale, offset = in_ten_thousandths(scale, offset)
        if not band.is_scaled and _stores_1000_more(item):
            offset = -1000.0
    return Member(
        path, meaning.name, meaning.wavelength, meaning.unit, scale, offset, band.nodata, channel=place
    )


def _stores_1000_more(item: pystac.Item) -> bool:
    """Whether Sentinel-2's numbers hold the 1000 that is added since processing baseline 04.00."""
    told = item.properties
    baseline = str(told.get("s2:processing_baseline") or told.get("processing:version") or "0")
    is_taken_off = bool(told.get("earthsearch:boa_offset_applied", False))
    digits = baseline.replace(".", "")
    return (
        _sensor(item) == "sentinel-2"
        and not is_taken_off
        and digits.isdigit()
        and int(digits) >= OFFSET_SINCE
    )


def _name(start: str) -> str:
    return without_query(start).rstrip("/").rpartition("/")[2][:100]
