"""Datasets that come in over HTTP: streamed, checked, then put in place in one step."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from domains.contract import GroundworkError, Source, load_domain
from groundwork.api.schemas import DatasetOut, UploadOut

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SUFFIX = re.compile(r"\.[a-z0-9]{1,10}(\.gz)?")
CONTENT_SUFFIXES = {
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "chemical/x-daylight-smiles": ".smi",
    "chemical/x-mdl-sdfile": ".sdf",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.apache.parquet": ".parquet",
}
SPARE_BYTES = 64 * 2**20
"""Left free on the disk, for the databases that live on it."""
COUNT_SECONDS = 1.0


class DiskFull(GroundworkError):
    """There is no room for the upload."""


class UnnamedFormat(GroundworkError):
    """Nothing says which kind of file is coming."""


@dataclass(frozen=True)
class Incoming:
    """An upload as announced: where it goes and how its body is wrapped."""

    name: str
    domain: str
    suffix: str | None
    """Known before the body only when the request says so; a multipart file names its own."""
    boundary: bytes | None
    """Of a multipart body; None for a raw one."""
    size: int
    """Declared bytes, 0 when not declared."""


def announce(name: str, domain: str, format: str | None, content_type: str, size: int) -> Incoming:
    """Understand the head of an upload. Raises GroundworkError for a name or format that cannot be used.

    The format is, in this order: ``format``, a multipart file's own name, a telling content type, the
    end of ``name`` (which is then cut off, so that ``curl -T esol.csv …/datasets/esol.csv`` does what
    one expects).
    """
    kind, options = parse_options_header(content_type)
    suffix = CONTENT_SUFFIXES.get(kind.decode("latin-1"))
    if format is not None:
        suffix = "." + format.lower().lstrip(".")
        if not SUFFIX.fullmatch(suffix):
            raise UnnamedFormat(
                f"format {format!r} is not the end of a file name; use one like csv or sdf.gz"
            )
    boundary = options.get(b"boundary") if kind == b"multipart/form-data" else None
    if suffix is None and boundary is None:
        name, suffix = _split(name)
        if not suffix:
            raise UnnamedFormat("which kind of file is this? add ?format=csv, tsv, smi, sdf, xlsx or parquet")
    if not NAME.fullmatch(name):
        raise GroundworkError(
            f"{name!r} cannot name a dataset: use at most 64 of a-z, 0-9 and ._-, a letter or digit first"
        )
    if name in load_domain(domain).embedded():
        raise GroundworkError(f"{name!r} is a dataset that comes with {domain}; choose another name")
    return Incoming(name, domain, suffix, boundary, size)


async def receive(incoming: Incoming, body: AsyncIterator[bytes], folder: Path) -> tuple[UploadOut, bool]:
    """Stream ``body`` into ``folder`` and check it by opening it as its domain does.

    Returns what came in, and whether it replaced a dataset of that name. Raises GroundworkError when
    the domain cannot read it, DiskFull when there is no room; nothing is left behind then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(folder, incoming.size)
    part = folder / f".{secrets.token_hex(8)}.part"
    checked: Path | None = None
    try:
        suffix = await _write(incoming, body, part)
        # The domain goes by the suffix, so the file gets it before it is opened, and still no dataset's name.
        checked = part.with_name(part.name + suffix)
        part.rename(checked)
        source, rows = await asyncio.to_thread(_inspect, incoming.domain, checked)
        return _commit(incoming.name, suffix, checked, source, rows)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left in {folder}; free some and upload again") from error
        raise
    finally:
        for leftover in (part, checked):
            if leftover is not None:
                leftover.unlink(missing_ok=True)


def listing(folder: Path) -> list[DatasetOut]:
    """Every dataset in ``folder``, by name."""
    found = [path for path in folder.glob("*") if path.is_file() and not path.name.startswith(".")]
    return sorted((_entry(path) for path in found), key=lambda entry: entry.name)


def remove_leftovers(folder: Path) -> None:
    """Remove what uploads left behind that a killed process was receiving."""
    for path in folder.glob(".*.part*"):
        path.unlink(missing_ok=True)


async def _write(incoming: Incoming, body: AsyncIterator[bytes], path: Path) -> str:
    """Write the file that ``body`` carries; returns its suffix."""
    with path.open("wb") as file:
        if incoming.boundary is None:
            async for chunk in body:
                await asyncio.to_thread(file.write, chunk)
            return incoming.suffix or ""
        form = _FileField(incoming.boundary, file)
        try:
            async for chunk in body:
                await asyncio.to_thread(form.parser.write, chunk)
        except MultipartParseError as error:
            raise GroundworkError(f"the multipart body cannot be parsed: {error}") from error
    if form.state != "done":
        raise GroundworkError("the multipart body holds no complete file; send the file as the field 'file'")
    suffix = incoming.suffix or _split(form.filename)[1]
    if not suffix:
        raise UnnamedFormat(
            f"which kind of file is {form.filename!r}? add ?format=csv, tsv, smi, sdf, xlsx or parquet"
        )
    return suffix


class _FileField:
    """Writes the first file of a multipart body as it streams by; other fields are passed over.

    The form parsers of web frameworks collect a file in the system's temporary folder first, which
    may be small, or memory.
    """

    def __init__(self, boundary: bytes, file: BinaryIO) -> None:
        self.filename = ""
        self.state = "waiting"  # -> writing -> done
        self._file = file
        self._header = b""
        self._value = b""
        self.parser = MultipartParser(
            boundary,
            {
                "on_header_begin": self._begin_header,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._end_header,
                "on_part_data": self._data,
                "on_part_end": self._end_part,
            },
        )

    def _begin_header(self) -> None:
        self._header = self._value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self.state == "waiting" and self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            if b"filename" in options:
                self.filename = options[b"filename"].decode("utf-8", "replace")
                self.state = "writing"

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self.state == "writing":
            self._file.write(data[start:end])

    def _end_part(self) -> None:
        if self.state == "writing":
            self.state = "done"


def _inspect(domain: str, path: Path) -> tuple[Source, int | None]:
    """Open the file as its domain does, and count its rows as far as a second goes."""
    try:
        opened = load_domain(domain)
        source = opened.open(path, opened.encoding())
    except GroundworkError as error:
        # The file's name of the moment means nothing to the user.
        raise GroundworkError(
            str(error).replace(str(path), "the upload").replace(path.name, "the upload")
        ) from error
    deadline = time.monotonic() + COUNT_SECONDS
    rows = 0
    for _ in source.stream():
        rows += 1
        if rows % 1000 == 0 and time.monotonic() > deadline:
            return source, None
    return source, rows


def _commit(
    name: str, suffix: str, checked: Path, source: Source, rows: int | None
) -> tuple[UploadOut, bool]:
    """Put the file in place, and only then drop an older one of that name with another suffix.

    Without an await, so two uploads of one name cannot each drop the other's file.
    """
    target = checked.with_name(name + suffix)
    older = [path for path in checked.parent.glob("*") if path.is_file() and _split(path.name)[0] == name]
    os.replace(checked, target)
    for path in older:
        if path != target:
            path.unlink(missing_ok=True)
    entry = _entry(target)
    return (
        UploadOut(
            **entry.model_dump(),
            rows=rows,
            columns=list(source.columns),
            digest=source.digest,
            use=f'dataset: "{name}"',
        ),
        bool(older),
    )


def _entry(path: Path) -> DatasetOut:
    stat = path.stat()
    return DatasetOut(
        name=_split(path.name)[0],
        file=path.name,
        bytes=stat.st_size,
        modified=datetime.fromtimestamp(stat.st_mtime, UTC),
    )


def _split(filename: str) -> tuple[str, str]:
    """``esol.v2.csv.gz`` -> ``esol.v2``, ``.csv.gz``; the suffix is "" when there is none."""
    match = re.fullmatch(rf"(.+?)({SUFFIX.pattern})", filename.lower())
    # The shortest stem would cut "esol.v2.csv" only at ".csv" because a suffix holds one word and maybe .gz.
    return (filename[: match.end(1)], match.group(2)) if match else (filename, "")


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + SPARE_BYTES:
        needed = (size + SPARE_BYTES) / 2**20
        raise DiskFull(
            f"{folder} has {free / 2**20:.0f} MiB free and {needed:.0f} MiB are needed; free some, try again"
        )
