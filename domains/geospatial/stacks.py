"""Scenes whose bands lie in files of their own, as agencies deliver them, read as one raster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from domains.contract import GroundworkError
from domains.geospatial.bands import REFLECTANCE_10000, RasterEncoding, in_ten_thousandths
from domains.geospatial.geotiffs import GeoTiff
from domains.geospatial.products import QUALITY
from domains.geospatial.rasters import Channel, Grid, Header, Stored, explained, parsed_crs, short_type

STACK = "stack:"
"""How a stack is named as a path: ``stack:`` and its plan as JSON."""
LARGEST_SHIFT = 0.9
"""Pixels of a coarser member by which its corners may lie beside those of the finest: less than one."""


@dataclass(frozen=True)
class Member:
    """A band in a file. A value in ``unit`` = stored × scale + offset."""

    path: str
    band: str
    wavelength: float | None
    unit: str
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    channel: int = 0
    """Which of the file's."""


@dataclass(frozen=True)
class Stack:
    """Which files make a scene."""

    members: tuple[Member, ...]
    quality: tuple[str, str] | None = None
    """The file of a quality layer, and its name in ``products.QUALITY``."""
    resample: str = "no"
    grid: Grid | None = None
    """What all members are brought to; None = that of the finest."""

    @property
    def path(self) -> str:
        """What ``opened.open_raster`` opens."""
        return STACK + json.dumps(asdict(self), separators=(",", ":"))

    @property
    def files(self) -> tuple[str, ...]:
        return (*(member.path for member in self.members), *([self.quality[0]] if self.quality else []))


def stacked(members: Sequence[Member], quality: tuple[str, str] | None, spec: RasterEncoding) -> Stack:
    """The stack of the members that ``spec`` asks for; of all where it asks for none of them, or nothing."""
    wanted = {band.name for band in spec.bands}
    if not wanted and set(spec.names_used) <= {member.band for member in members}:
        wanted = set(spec.names_used)
    chosen = tuple(member for member in members if member.band in wanted) or tuple(members)
    return Stack(chosen, quality, spec.resample)


@lru_cache(maxsize=256)
def stack_of(path: str) -> Stack:
    """The stack that ``Stack.path`` names; asked for with every window that is read."""
    told: dict[str, Any] = json.loads(path.removeprefix(STACK))
    quality = told["quality"]
    return Stack(
        tuple(Member(**member) for member in told["members"]),
        tuple(quality) if quality else None,
        told["resample"],
        Grid(**told["grid"]) if told["grid"] else None,
    )


class StackRaster:
    """An open stack on the grid of its finest members; not for two threads at once."""

    def __init__(self, stack: Stack) -> None:
        """Raises GroundworkError for members that lie elsewhere, or are coarser where that is refused."""
        self._members: list[GeoTiff] = []
        self._quality: GeoTiff | None = None
        self._hides = QUALITY[stack.quality[1]] if stack.quality else None
        try:
            headers = []
            for member in stack.members:
                with explained(_file_name(member.path)):
                    self._members.append(GeoTiff(member.path))
                    headers.append(_with_channel(self._members[-1].header, member))
            finest = max(headers, key=lambda header: header.height * header.width)
            common = _on_grid(finest, stack.grid) if stack.grid else finest
            self._channels = [member.channel for member in stack.members]
            self._bring_to(common, finest, headers, stack)
            if stack.quality:
                self._quality = self._opened_quality(stack.quality[0], common, finest)
            rasters = [*self._members, *([self._quality] if self._quality else [])]
            self.header = replace(
                common,
                block_row_bytes=sum(raster.header.block_row_bytes for raster in rasters),
                has_tiles=all(raster.header.has_tiles for raster in rasters),
                integers=short_type(raster.header.integers for raster in self._members),
                channels=tuple(
                    _described(member, raster.header.channels[member.channel])
                    for member, raster in zip(stack.members, self._members, strict=True)
                ),
            )
        except Exception:
            self.close()
            raise

    def window(self, channels: Sequence[int], row: int, column: int, height: int, width: int) -> Stored:
        parts = [
            self._members[place].window([self._channels[place]], row, column, height, width)
            for place in channels
        ]
        are_integers = bool(self.header.integers)
        numbers = np.concatenate([part.numbers if are_integers else part.floats() for part in parts])
        gaps = np.zeros(numbers.shape, bool)
        for is_gap, part in zip(gaps, parts, strict=True):
            if part.filler is not None:
                np.equal(part.numbers[0], part.filler, out=is_gap)
            if part.gaps is not None:
                is_gap |= part.gaps[0]
        if self._quality is not None and self._hides is not None:
            layer = self._quality.window([0], row, column, height, width).floats()[0]
            gaps |= self._hides(np.nan_to_num(layer)) | np.isnan(layer)
        return Stored(numbers, gaps)

    def close(self) -> None:
        for raster in (*self._members, *([self._quality] if self._quality else [])):
            raster.close()

    def _bring_to(self, common: Header, finest: Header, headers: Sequence[Header], stack: Stack) -> None:
        """Open anew, on the grid of ``common``, the members that have another."""
        coarse = [place for place, header in enumerate(headers) if not _same_size(header, common)]
        for header, member in zip(headers, stack.members, strict=True):
            if fault := _elsewhere(header, finest):
                raise GroundworkError(f"{member.band} {fault}")
        if coarse and stack.resample == "no":
            names = ", ".join(stack.members[place].band for place in coarse)
            sizes = sorted({f"{headers[place].gsd:g}" for place in coarse if headers[place].gsd})
            raise GroundworkError(
                f"pixels of {' and '.join(sizes)} m in {names} beside others of {finest.gsd:g} m: say how "
                "they are brought to these with --resample nearest, bilinear or cubic"
            )
        for place in coarse:
            member = stack.members[place]
            self._members[place].close()
            self._members[place] = GeoTiff(member.path, _grid_of(common, stack.resample, member.nodata))

    def _opened_quality(self, path: str, common: Header, finest: Header) -> GeoTiff:
        with explained(_file_name(path)):
            opened = GeoTiff(path)
            if _same_size(opened.header, common):
                return opened
            fault = _elsewhere(opened.header, finest)
            opened.close()
            if fault:
                raise GroundworkError(fault)
            # Its numbers are names of things, which have no mean.
            return GeoTiff(path, _grid_of(common, "nearest", None))


def _on_grid(header: Header, grid: Grid) -> Header:
    return replace(header, height=grid.height, width=grid.width, transform=grid.transform)


def _grid_of(finest: Header, method: str, nodata: float | None) -> Grid:
    return Grid(finest.crs, finest.transform, finest.height, finest.width, method, nodata)


def _described(member: Member, channel: Channel) -> Channel:
    """The channel as the product says; what the file says itself goes first."""
    scale, offset = member.scale, member.offset
    if (channel.scale, channel.offset) != (1.0, 0.0):
        scale, offset = channel.scale, channel.offset
        if member.unit == REFLECTANCE_10000:
            scale, offset = in_ten_thousandths(scale, offset)
    return replace(
        channel,
        description=member.band,
        unit=member.unit,
        scale=scale,
        offset=offset,
        nodata=channel.nodata if channel.nodata is not None else member.nodata,
        wavelength=member.wavelength,
    )


def _with_channel(header: Header, member: Member) -> Header:
    if member.channel >= len(header.channels):
        raise GroundworkError(
            f"{len(header.channels)} bands, where {member.band} is number {member.channel + 1}"
        )
    return header


def _same_size(one: Header, other: Header) -> bool:
    return (one.height, one.width) == (other.height, other.width)


def _elsewhere(header: Header, finest: Header) -> str:
    """Why a member does not cover the ground that the finest one covers; empty where it does."""
    if header.crs != finest.crs and parsed_crs(header.crs) != parsed_crs(finest.crs):
        return "lies in another system of coordinates than the finest band"
    mine, theirs = _corners(header), _corners(finest)
    a, b, _, d, e, _ = header.transform
    shift = np.abs(np.linalg.solve(np.array([[a, b], [d, e]]), (mine - theirs).T)).max()
    # Agencies cut tiles of 20 and 60 m from one grid, whose last pixels may reach beyond.
    return "" if shift <= LARGEST_SHIFT else f"lies {shift:.3g} of its pixels beside the finest band"


def _corners(header: Header) -> np.ndarray:
    a, b, c, d, e, f = header.transform
    ends = [(0, 0), (header.width, 0), (0, header.height), (header.width, header.height)]
    return np.array([[a * x + b * y + c, d * x + e * y + f] for x, y in ends])


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]
