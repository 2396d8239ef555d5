"""Which bands a file holds: what it says itself, what its ``bands.yaml`` says, what its sensor is known for.

Nothing is guessed from the numbers. They are only asked whether they can be what was said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from domains.contract import GroundworkError
from domains.geospatial.bands import (
    DECIBEL,
    REFLECTANCE,
    REFLECTANCE_10000,
    BandSpec,
    in_ten_thousandths,
)
from domains.geospatial.declared import FILE_NAME, DeclaredBand, snippet
from domains.geospatial.rasters import Channel, Header
from domains.geospatial.sensors import SENSORS, by_layout, by_names, may_be_thermal, told_by

COLOURS = ("red", "green", "blue")
POLARISATIONS = ("VV", "VH", "HH", "HV")
UNITS = {
    "db": DECIBEL,
    "decibel": DECIBEL,
    "reflectance": REFLECTANCE,
    "reflectance*10000": REFLECTANCE_10000,
    "reflectance×10000": REFLECTANCE_10000,
    "reflectancex10000": REFLECTANCE_10000,
}
"""Other ways to write a unit, without spaces and in lower case."""
LARGEST_DRIFT = 0.05
"""Relative difference between two wavelengths of one band as different sources state it."""
COUNTED = re.compile(r"(?:band|layer)[ _-]?0*([1-9]\d*)", re.IGNORECASE)
"""Names that only count bands."""
SILENT_UNITS = ("", "1", "none", "unknown", "dn")
"""What files write where nobody thought of a unit."""
LENGTHS = ("m", "metre", "meter", "ft", "foot", "ussurveyfoot")
"""What GDAL takes for the unit of every band where the CRS of a file has heights."""


class UnknownBands(GroundworkError):
    """Neither the file nor the user says which bands these are."""


def identify(header: Header, declared: Sequence[DeclaredBand], sensor: str) -> tuple[BandSpec, ...]:
    """Bands of a file in file order, with its scale, offset, nodata and pixel size.

    ``declared`` of a ``bands.yaml`` goes first, then ``sensor`` unless it is ``auto``, then what the file
    says in its band descriptions, units and wavelengths. Raises GroundworkError where these contradict each
    other, UnknownBands where none of them tells.
    """
    channels = _without_numbers(header.channels)
    if any(channel.is_palette for channel in channels):
        raise GroundworkError(
            "its numbers are entries of a colour table, not measurements: convert it to RGB with rio or "
            "gdal_translate -expand rgb"
        )
    if declared:
        chosen = _match_declared(channels, declared)
        for band, channel in zip(chosen, channels, strict=True):
            refuse_useless_scale(
                channel.scale if band.scale is None else band.scale,
                channel.offset if band.offset is None else band.offset,
            )
        return tuple(
            _declared_band(band, channel, header.gsd) for band, channel in zip(chosen, channels, strict=True)
        )
    for channel in channels:
        refuse_useless_scale(channel.scale, channel.offset)
    if twice := _named_twice(channels):
        raise GroundworkError(
            f"it calls several bands {twice}, such as those of several dates: write each date into a file of "
            "its own with gdal_translate -b"
        )
    meanings = _of_sensor(channels, sensor) if sensor != "auto" else _as_described(channels)
    _refuse_one_meaning(channels, meanings)
    return tuple(
        _completed(band, channel, header.gsd) for band, channel in zip(meanings, channels, strict=True)
    )


def _refuse_one_meaning(channels: Sequence[Channel], bands: Sequence[BandSpec]) -> None:
    """Two names of one band, such as B4 and B04: only one of them would ever be read."""
    first: dict[str, str] = {}
    for channel, band in zip(channels, bands, strict=True):
        if band.name in first:
            raise GroundworkError(
                f"its bands {first[band.name]} and {channel.description} are both {band.name}: leave one of "
                "them out with gdal_translate -b"
            )
        first[band.name] = channel.description


def refuse_useless_scale(scale: float, offset: float) -> None:
    """Raise GroundworkError where stored numbers × ``scale`` + ``offset`` would all be one, or none."""
    if scale == 0 or not (math.isfinite(scale) and math.isfinite(offset)):
        raise GroundworkError(
            f"a scale of {scale:g} and an offset of {offset:g} leave nothing of its numbers: say them in a "
            f"{FILE_NAME}, or write them into the file with gdal_edit -scale 1 -offset 0"
        )


# -------------------------------------------------------------------------------------------- declared


def _match_declared(channels: Sequence[Channel], declared: Sequence[DeclaredBand]) -> list[DeclaredBand]:
    names = [channel.description for channel in channels]
    is_described = all(names) and not set(names) <= set(COLOURS) and not _named_twice(channels)
    if is_described:
        by_name = {band.name.lower(): band for band in declared}
        odd = [name for name in names if name.lower() not in by_name]
        if odd:
            raise GroundworkError(
                f"the file calls its bands {_shown(names)}, and {FILE_NAME} names "
                f"{_shown([band.name for band in declared])}: the names must be the same"
            )
        return [by_name[name.lower()] for name in names]
    if len(channels) != len(declared):
        raise GroundworkError(f"{_count(len(channels))} where {FILE_NAME} names {len(declared)}")
    return list(declared)


def _declared_band(band: DeclaredBand, channel: Channel, gsd: float | None) -> BandSpec:
    return BandSpec(
        name=band.name,
        wavelength=band.wavelength,
        polarisation=band.polarisation,
        unit=_unit(band.unit) or band.unit,
        scale=channel.scale if band.scale is None else band.scale,
        offset=channel.offset if band.offset is None else band.offset,
        gsd=gsd,
        nodata=channel.nodata if band.nodata is None else band.nodata,
    )


# ------------------------------------------------------------------------------------------- described


def _of_sensor(channels: Sequence[Channel], sensor: str) -> tuple[BandSpec, ...]:
    names = [channel.description for channel in channels]
    known = SENSORS[sensor]
    if all(names):
        bands = by_names(sensor, names)
        odd = [name for name, band in zip(names, bands, strict=True) if band is None]
        if not odd:
            found = tuple(band for band in bands if band is not None)
            _refuse_other_wavelengths(channels, found, sensor)
            return found
        if set(names) - set(COLOURS):
            raise GroundworkError(
                f"the file calls its bands {_shown(names)}; bands of {sensor} are {', '.join(known.bands)}"
            )
    bands = by_layout(sensor, len(channels))
    if not bands:
        counts = " or ".join(str(len(layout)) for layout in known.layouts)
        raise GroundworkError(
            f"{_count(len(channels))} without names, where files of {sensor} hold {counts}: name them in a "
            f"{FILE_NAME} beside it, such as: {snippet(channels)}"
        )
    return bands


def _refuse_other_wavelengths(channels: Sequence[Channel], bands: Sequence[BandSpec], sensor: str) -> None:
    """Many sensors have a B5: a file that states its wavelengths tells whose it is."""
    for channel, band in zip(channels, bands, strict=True):
        if _lies_elsewhere(channel, band):
            raise GroundworkError(
                f"the file says that {channel.description} lies at {channel.wavelength:g} nm, and that of "
                f"{sensor} lies at {band.wavelength:g} nm: leave out --sensor, or give the right one"
            )


def _lies_elsewhere(channel: Channel, band: BandSpec) -> bool:
    stated, usual = channel.wavelength, band.wavelength
    return bool(stated and usual and abs(stated - usual) > LARGEST_DRIFT * usual)


def _as_described(channels: Sequence[Channel]) -> tuple[BandSpec, ...]:
    names = [channel.description for channel in channels]
    is_named = all(names)
    if is_named and all(channel.wavelength and _unit(channel.unit) for channel in channels):
        return tuple(_self_described(channel) for channel in channels)
    if len(channels) == 3 and all(channel.dtype == "uint8" for channel in channels):
        if not any(names):
            return by_layout("rgb", 3)
        colours = tuple(band for band in by_names("rgb", names) if band is not None)
        if len(colours) == 3:
            return colours
    told = {
        sensor: bands
        for sensor, bands in (told_by(names) if is_named else {}).items()
        if not any(map(_lies_elsewhere, channels, bands))
    }
    sensors = list(told)
    if told and may_be_thermal(names) and not any(channel.wavelength for channel in channels):
        sensors.append("landsat-8")  # whose other bands have the names of Sentinel-2's
    if len(sensors) == 1:
        return next(iter(told.values()))
    if len(sensors) > 1:
        *first, last = sensors
        raise UnknownBands(
            f"bands {_shown(names)} may be those of {', '.join(first)} or {last}: say which with --sensor"
        )
    if is_named and all(_unit(channel.unit) for channel in channels):
        return tuple(_self_described(channel) for channel in channels)
    found = _shown(names) if any(names) else "no names"
    raise UnknownBands(
        f"neither the file nor a {FILE_NAME} says which bands these are: {_count(len(channels))}, {found}, "
        f"{channels[0].dtype}; say --sensor {'|'.join(SENSORS)}, or put a {FILE_NAME} beside it, such as: "
        f"{snippet(channels)}"
    )


def _self_described(channel: Channel) -> BandSpec:
    polarisation = channel.description.upper() if channel.description.upper() in POLARISATIONS else ""
    return BandSpec(
        name=channel.description,
        wavelength=channel.wavelength,
        polarisation=polarisation,
        unit=_unit(channel.unit),
    )


def _completed(band: BandSpec, channel: Channel, gsd: float | None) -> BandSpec:
    """``band`` as this file stores it: its own unit, scale and offset go before the usual ones."""
    stated = _unit(channel.unit)
    if stated.lower().replace(" ", "") in LENGTHS:  # no sensor's band is a length
        stated = ""
    unit, scale, offset = stated or band.unit, channel.scale, channel.offset
    if unit == band.unit == REFLECTANCE_10000 and not stated:
        scale, offset = in_ten_thousandths(scale, offset)
    return band.model_copy(
        update={"unit": unit, "scale": scale, "offset": offset, "gsd": gsd, "nodata": channel.nodata}
    )


def _without_numbers(channels: Sequence[Channel]) -> tuple[Channel, ...]:
    """Channels without names, where these only count them: ``Band 1``, ``Band 2`` as programs write them."""
    numbers = [COUNTED.fullmatch(channel.description) for channel in channels]
    if all(found and int(found.group(1)) == place for place, found in enumerate(numbers, start=1)):
        return tuple(replace(channel, description="") for channel in channels)
    return tuple(channels)


def _named_twice(channels: Sequence[Channel]) -> str:
    names = [channel.description for channel in channels if channel.description]
    plain = [name.lower() for name in names]
    return next((name for name in names if plain.count(name.lower()) > 1), "")


def _unit(text: str) -> str:
    """The unit that a file states, in our spelling; empty where it states none."""
    plain = text.strip().lower().replace(" ", "")
    return "" if plain in SILENT_UNITS else UNITS.get(plain, text.strip())


def _shown(names: Sequence[str]) -> str:
    shown = [name or "(no name)" for name in names[:13]]
    return ", ".join(shown) + (", …" if len(names) > 13 else "")


def _count(number: int) -> str:
    return "1 band" if number == 1 else f"{number} bands"
