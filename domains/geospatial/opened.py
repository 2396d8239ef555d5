"""Open rasters: one small cache per thread, because GDAL's datasets belong to a single thread."""

from __future__ import annotations

import json
import os
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol, TypeVar

from domains.contract import GroundworkError
from domains.geospatial.cube_files import CUBE_SUFFIXES
from domains.geospatial.cubes import CUBE, CubeStep
from domains.geospatial.geotiffs import DRIVERS, GeoTiff
from domains.geospatial.images import IMAGE_FORMATS, LeftToGdal, SmallImage
from domains.geospatial.rasters import Grid, Raster
from domains.geospatial.remote import is_url, suffix_of
from domains.geospatial.sidecars import AUXILIARY
from domains.geospatial.stacks import STACK, StackRaster, stack_of

KEPT_OPEN = 16
LARGEST_IMAGE_FILE = 1 << 26
"""Bytes of an image that is read whole; GDAL reads the larger ones."""
DEFLATED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, 9)
"""Ways in which members of an archive are packed that GDAL unpacks; 9 is Deflate64 (APPNOTE 4.4.5)."""
ARCHIVE, ARCHIVE_END = "/vsizip/{", "}/"
WARPED = "warped:"
"""How a raster on another grid is named as a path: ``warped:`` and both as JSON."""
SUFFIXES = frozenset([*DRIVERS, *IMAGE_FORMATS, *CUBE_SUFFIXES])
"""Of the files that are read."""


class _Closable(Protocol):
    def close(self) -> None: ...


Opened = TypeVar("Opened", bound=_Closable)


class _Cache(threading.local):
    """The last few things opened by this thread. A file that has changed is opened anew."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.kept: OrderedDict[tuple[object, ...], _Closable] = OrderedDict()

    def get(self, path: str, file: str | None, make: Callable[[], Opened]) -> Opened:
        """What ``path`` names, which ``file`` on this machine holds; None where another machine does."""
        if self.process != os.getpid():  # after a fork, the parent's files are not ours to seek in
            self.__init__()  # type: ignore[misc]
        key: tuple[object, ...] = (path,)
        if file is not None:
            stat = os.stat(file)
            key += (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        found = self.kept.get(key)
        if found is None:
            found = make()
            self.kept[key] = found
            while len(self.kept) > KEPT_OPEN:
                self.kept.popitem(last=False)[1].close()
        self.kept.move_to_end(key)
        return found  # type: ignore[return-value]


_rasters = _Cache()
_archives = _Cache()


def member_path(archive: Path, member: str) -> str:
    """How a member of a zip archive is called: GDAL's own way."""
    if ARCHIVE_END in str(archive):
        raise GroundworkError(f"{archive.name}: rename the folder whose name ends in '}}'")
    return f"{ARCHIVE}{archive}{ARCHIVE_END}{member}"


def warped(path: str, grid: Grid) -> str:
    """What ``open_raster`` opens as the raster at ``path`` brought to ``grid``.

    Raises GroundworkError for a cube, which GDAL does not read.
    """
    if path.startswith(CUBE):
        raise GroundworkError("a NetCDF cube is not resampled: convert it to a GeoTIFF")
    if path.startswith(STACK):
        return replace(stack_of(path), grid=grid, resample=grid.method).path
    return WARPED + json.dumps({"path": path, "grid": asdict(grid)}, separators=(",", ":"))


def open_raster(path: str) -> Raster:
    """The raster at ``path``, kept open for the next call of this thread; do not close it.

    ``path`` is a file, a web address, a member of an archive as ``member_path`` names it,
    ``cube:STEP:FILE``, the ``stacks.Stack.path`` of several, or what ``warped`` gives. Raises what the
    libraries raise: wrap it in ``rasters.explained``.
    """
    if path.startswith(STACK):
        stack = stack_of(path)
        first = stack.files[0]
        holder = None if is_url(first) else file_of(first)
        return _rasters.get(path, holder, lambda: StackRaster(stack))
    if path.startswith(CUBE):
        step, _, file = path.removeprefix(CUBE).partition(":")
        return _rasters.get(path, file, lambda: CubeStep(file, int(step)))
    if path.startswith(WARPED):
        told = json.loads(path.removeprefix(WARPED))
        inner = told["path"]
        holder = None if is_url(inner) else file_of(inner)
        return _rasters.get(path, holder, lambda: GeoTiff(inner, Grid(**told["grid"])))
    suffix = suffix_of(path)
    if is_url(path):
        return _rasters.get(path, None, lambda: GeoTiff(path))
    if suffix not in SUFFIXES:
        raise GroundworkError(f"{suffix or 'a file without suffix'} is not read: save it as a GeoTIFF")
    archive, _, member = path.removeprefix(ARCHIVE).partition(ARCHIVE_END)
    is_member = path.startswith(ARCHIVE)
    file = archive if is_member else path

    def make() -> Raster:
        opened = open_archive(archive) if is_member else None
        size = opened.getinfo(member).file_size if opened else os.path.getsize(path)
        auxiliary = member + AUXILIARY
        has_metadata = auxiliary in opened.NameToInfo if opened else os.path.exists(path + AUXILIARY)
        if suffix in IMAGE_FORMATS and size <= LARGEST_IMAGE_FILE and not has_metadata:
            data = opened.read(member) if opened else Path(path).read_bytes()
            with suppress(LeftToGdal):  # which GDAL reads in windows
                return SmallImage(data, suffix)
        if not size:
            raise GroundworkError("it is empty, 0 bytes: copy it again")
        if opened and opened.getinfo(member).compress_type not in DEFLATED:
            raise GroundworkError("it is packed in a way that GDAL does not unpack: pack it with deflate")
        return GeoTiff(path)

    return _rasters.get(path, file, make)


def file_of(path: str) -> str:
    """The file on disk that holds what ``path`` names: itself, or the archive that it is a member of."""
    if path.startswith(WARPED):
        path = json.loads(path.removeprefix(WARPED))["path"]
    return path.removeprefix(ARCHIVE).partition(ARCHIVE_END)[0] if path.startswith(ARCHIVE) else path


def open_archive(path: str) -> zipfile.ZipFile:
    """The zip archive at ``path``, kept open for the next call of this thread."""
    return _archives.get(path, path, lambda: zipfile.ZipFile(path))
