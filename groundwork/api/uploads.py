"""Datasets that come in over HTTP: streamed, checked, then put in place in one step."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from domains.contract import GroundworkError, Source
from domains.tables import Unreadable
from groundwork.api.announcing import Incoming, check_format, split_name
from groundwork.api.schemas import DatasetOut, UploadOut
from groundwork.api.zips import check_zip

SPARE_BYTES = 64 * 2**20
"""Left free on the disk, for the databases that live on it."""
CHECKED_BYTES = 64 * 2**20
"""After as many, the disk is looked at again: not every upload says its size, nor is it the only one."""
COUNT_SECONDS = 1.0


class DiskFull(GroundworkError):
    """There is no room for the upload."""


async def receive(incoming: Incoming, body: AsyncIterator[bytes], folder: Path) -> tuple[UploadOut, bool]:
    """Stream ``body`` into ``folder`` and check it by opening it as its domain does.

    Returns what came in, and whether it replaced a dataset of that name. Raises GroundworkError when
    the domain cannot read it, DiskFull when there is no room; nothing is left behind then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(folder, incoming.size)
    # What a domain keeps open for its thread, such as archives, goes with the thread.
    inspector = ThreadPoolExecutor(1, thread_name_prefix="inspector")
    part = folder / f".{secrets.token_hex(8)}.part"
    checked: Path | None = None
    try:
        suffix = await _write(incoming, _while_there_is_room(body, folder), part)
        # The domain goes by the suffix, so the file gets it before it is opened, and still no dataset's name.
        checked = part.with_name(part.name + suffix)
        part.rename(checked)
        inspect = asyncio.get_running_loop().run_in_executor(inspector, _inspect, incoming, suffix, checked)
        return _commit(incoming, suffix, checked, await inspect)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left in {folder}; free some and upload again") from error
        raise
    finally:
        inspector.shutdown(wait=False)
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
    suffix = incoming.suffix or split_name(form.filename)[1]
    check_format(suffix, incoming.domain)
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


@dataclass(frozen=True)
class _Inspected:
    """What the domain finds in an upload."""

    source: Source
    rows: int | None
    remarks: list[str]


def _inspect(incoming: Incoming, suffix: str, path: Path) -> _Inspected:
    """Open the file as its domain does, and count its rows as far as a second goes."""

    def named(text: str, name: str) -> str:
        # The file's name of the moment means nothing to the user.
        return text.replace(str(path), name).replace(path.name, name)

    try:
        check_zip(path)
        source = incoming.domain.open(path, incoming.encoding)
    except GroundworkError as error:
        raise GroundworkError(named(str(error), "the upload")) from error
    remarks = [named(remark, f"{incoming.name}{suffix}") for remark in source.remarks]
    deadline = time.monotonic() + COUNT_SECONDS
    count, is_whole = 0, True
    unreadable: list[Unreadable] = []
    for row in source.stream():
        count += 1
        if isinstance(row.value, Unreadable):
            unreadable.append(row.value)
        if count % 1000 == 0 and time.monotonic() > deadline:
            is_whole = False
            break
    if unreadable:
        first = unreadable[0]
        remarks.append(
            f"{len(unreadable)} of {'' if is_whole else 'the first '}{count} rows cannot be used, the first "
            f"{first.original[:80]!r}: {named(first.reason, 'the upload')}."
        )
    return _Inspected(source, count if is_whole else None, remarks)


def _commit(incoming: Incoming, suffix: str, checked: Path, found: _Inspected) -> tuple[UploadOut, bool]:
    """Put the file in place, and only then drop an older one of that name with another suffix.

    Without an await, so two uploads of one name cannot each drop the other's file.
    """
    name = incoming.name
    target = checked.with_name(name + suffix)
    older = [path for path in checked.parent.glob("*") if path.is_file() and split_name(path.name)[0] == name]
    os.replace(checked, target)
    for path in older:
        if path != target:
            path.unlink(missing_ok=True)
    entry = _entry(target)
    # A form asks for the settings again, which belong to a run and not to its data.
    use = [f'dataset: "{name}"', *(f"{setting}: {value}" for setting, value in incoming.settings.items())]
    return (
        UploadOut(
            **entry.model_dump(),
            rows=found.rows,
            columns=list(found.source.columns),
            digest=found.source.digest,
            remarks=found.remarks,
            use=", ".join(use),
        ),
        bool(older),
    )


def _entry(path: Path) -> DatasetOut:
    stat = path.stat()
    return DatasetOut(
        name=split_name(path.name)[0],
        file=path.name,
        bytes=stat.st_size,
        modified=datetime.fromtimestamp(stat.st_mtime, UTC),
    )


async def _while_there_is_room(body: AsyncIterator[bytes], folder: Path) -> AsyncIterator[bytes]:
    """``body``, broken off with DiskFull before it takes the last of the disk."""
    unchecked = 0
    async for chunk in body:
        unchecked += len(chunk)
        if unchecked >= CHECKED_BYTES:
            _check_room(folder, 0)
            unchecked = 0
        yield chunk


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + SPARE_BYTES:
        needed = (size + SPARE_BYTES) / 2**20
        raise DiskFull(
            f"{folder} has {free / 2**20:.0f} MiB free and {needed:.0f} MiB are needed; free some, try again"
        )
