"""Tabular files as streams of text cells: CSV, TSV, SMI, XLSX and Parquet, whatever the domain.

Every cell is text exactly as the file writes it, because the meaning of a cell (a number, a label,
a gap) is decided by the task and not by the reader. Memory does not grow with the file.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from domains.compressed import PACKED, open_unpacked, without_packing
from domains.contract import GroundworkError

LONGEST_LINE = 10_000_000
"""Characters: a longer line is not a table, and would be held in memory whole."""
LARGEST_WORKBOOK = 1 << 30
"""Bytes of a workbook once unpacked: openpyxl holds all of its strings in memory."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Unreadable:
    """A row that does not fit its file. The domain's ``read`` turns it into a reject."""

    reason: str
    original: str


Cells = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A header, and rows that can be streamed any number of times."""

    columns: Cells
    rows: Callable[[], Iterator[tuple[Cells, str]]]
    """Pairs (cells, fault). The cells are as many as ``columns``: short rows are padded with empty
    cells. ``fault`` is empty, or says why the row cannot be trusted: it has more cells than the header,
    because an unquoted separator has shifted them."""
    digest: str
    """SHA-256 (16 hex digits) of the content, unpacked where the file is compressed."""


def open_table(path: Path) -> Table:
    """Open the table at ``path`` by its suffix; the text formats may be compressed (``.csv.gz``).

    CSV may be separated by ``,`` ``;`` or tabs; SMI has the columns ``smiles`` and ``name``, and mostly no
    header; of a workbook, the first sheet is read. A blank line is a row with an empty cell where
    the table has one column, and no row otherwise. Raises GroundworkError for anything else.
    """
    kind = suffix_of(path)
    if kind not in READERS:
        raise GroundworkError(
            f"{path.name}: {kind or 'no suffix'} is not a table that can be read; "
            f"save it as one of {', '.join(READERS)}"
        )
    if kind in BINARY:
        digest, read = digest_of_file(path), lambda: READERS[kind](path, "")
    else:
        digest, encoding = inspect_text(path)
        read = lambda: READERS[kind](path, encoding)  # noqa: E731
    cells = _without_blank(read())
    columns = _columns(path, next(cells, ()))
    if next(_fitted(cells, len(columns)), None) is None:
        raise GroundworkError(f"{path.name} has a header but no rows: add data below the header")

    def rows() -> Iterator[tuple[Cells, str]]:
        cells = _without_blank(read())
        next(cells, None)
        return _fitted(cells, len(columns))

    return Table(columns, rows, digest)


def suffix_of(path: Path) -> str:
    """Suffix that names the format: lower case, without that of a compression. Raises if there is no file."""
    if path.is_dir():
        raise GroundworkError(f"{path} is a folder: give the path of a file in it")
    if not path.is_file():
        raise GroundworkError(f"no file at {path}: check the path")
    return Path(without_packing(path.name)).suffix.lower()


def _columns(path: Path, header: Cells) -> Cells:
    names = [name.strip() for name in header]
    while names and not names[-1]:  # spreadsheets remember columns that were emptied
        names.pop()
    if not names:
        raise GroundworkError(f"{path.name} has no header: name its columns in the first line")
    named = tuple(name or f"column_{position}" for position, name in enumerate(names, start=1))
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise GroundworkError(f"{path.name} has more than one column called {twice[0]!r}: rename one of them")
    return named


def _without_blank(cells: Iterator[Cells]) -> Iterator[Cells]:
    """The header and the rows. Blank rows before the header and after the last row never count."""
    header: Cells = ()
    waiting = 0
    for row in cells:
        if any(cell.strip() for cell in row):
            yield from ((("",),) * waiting)
            waiting = 0
            header = header or row
            yield row
        elif len(header) == 1:
            waiting += 1


def _fitted(rows: Iterator[Cells], width: int) -> Iterator[tuple[Cells, str]]:
    for row in rows:
        if len(row) <= width:
            yield row + ("",) * (width - len(row)), ""
        elif any(row[width:]):
            yield row[:width], f"{len(row)} cells where the header names {width}: quote cells with separators"
        else:
            yield row[:width], ""


# ------------------------------------------------------------------------------------------------ text


def digest_of_file(path: Path) -> str:
    """SHA-256 (16 hex digits) of a file's bytes. Raises GroundworkError where it is empty."""
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()[:16]


def inspect_text(path: Path) -> tuple[str, str]:
    """(digest, encoding) of a text file, compressed or not, in one pass.

    UTF-16 is known by its byte-order mark and UTF-8 by decoding to the last byte; the rest is taken
    as Latin-1. Raises GroundworkError where the file is empty or binary.
    """
    digest, utf8, encoding = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")(), ""
    for chunk in _chunks(path):
        digest.update(chunk)
        if not encoding:
            marked = chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            encoding = "utf-16" if marked else "utf-8-sig"
        if encoding != "utf-16" and b"\0" in chunk:
            raise GroundworkError(f"{path.name} is binary, not text: give it the suffix of its format")
        if encoding == "utf-8-sig":
            encoding = _still(utf8, chunk, encoding)
    if encoding == "utf-8-sig":
        encoding = _still(utf8, b"", encoding)
    return digest.hexdigest()[:16], encoding


def _still(utf8: codecs.IncrementalDecoder, chunk: bytes, encoding: str) -> str:
    try:
        utf8.decode(chunk, final=not chunk)
    except UnicodeDecodeError:
        return "latin-1"
    return encoding


def text_lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines with their ends, in constant memory. Raises GroundworkError for a line without end."""
    with _faults(path), open_unpacked(path) as file:
        # newline="" leaves the line ends inside quoted cells to the csv module.
        text = io.TextIOWrapper(file, encoding=encoding, newline="")
        while line := text.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE:
                raise GroundworkError(
                    f"{path.name} has a line of over {LONGEST_LINE:,} characters: not a table"
                )
            yield line


def _chunks(path: Path) -> Iterator[bytes]:
    with _faults(path), open_unpacked(path) as file:
        chunk = file.read(CHUNK)
        if not chunk:
            raise GroundworkError(f"{path.name} is empty: nothing to read")
        while chunk:
            yield chunk
            chunk = file.read(CHUNK)


BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError, csv.Error, zipfile.BadZipFile)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """What the standard library says of a broken file, in one line."""
    try:
        yield
    except PermissionError as error:
        raise GroundworkError(f"{path} may not be read: change its permissions") from error
    except BROKEN as error:
        detail = " ".join(str(error).split())
        raise GroundworkError(f"{path.name} is damaged or not what its suffix says: {detail}") from error


# --------------------------------------------------------------------------------------------- formats


def _csv(path: Path, encoding: str) -> Iterator[Cells]:
    header = next((line for line in text_lines(path, encoding) if line.strip()), "")
    # Spreadsheets of many countries write ';' because ',' is their decimal point.
    delimiter = "," if "," in header else next((mark for mark in ";\t" if mark in header), ",")
    return _delimited(path, encoding, delimiter)


def _tsv(path: Path, encoding: str) -> Iterator[Cells]:
    return _delimited(path, encoding, "\t")


def _delimited(path: Path, encoding: str, delimiter: str) -> Iterator[Cells]:
    reader = csv.reader(text_lines(path, encoding), delimiter=delimiter)
    try:
        for row in reader:
            yield tuple(row)
    except csv.Error as error:  # the usual cause: a quote that is never closed swallows the rest
        raise GroundworkError(
            f"{path.name}, line {reader.line_num}: {error}; look for a quote that is not closed"
        ) from error


def _smi(path: Path, encoding: str) -> Iterator[Cells]:
    yield ("smiles", "name")
    for number, line in enumerate(text_lines(path, encoding)):
        smiles, _, name = line.strip().partition("\t" if "\t" in line.strip() else " ")
        if number or smiles.lower() != "smiles":  # some programs write a header that the format has not
            yield (smiles, name.strip())


def _xlsx(path: Path, _: str) -> Iterator[Cells]:
    import openpyxl

    with _faults(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > LARGEST_WORKBOOK:
            raise GroundworkError(
                f"{path.name} unpacks to {unpacked >> 20:,} MiB: save it as .csv or .parquet"
            )
        try:
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        except (KeyError, ValueError, TypeError) as error:
            raise GroundworkError(
                f"{path.name} is not a workbook that can be read: save it again as .xlsx"
            ) from error
        try:
            if not book.worksheets:
                raise GroundworkError(f"{path.name} has no sheet: add one, or save it as .csv")
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # some programs write a wrong size, which would cut the table
            for row in sheet.iter_rows(values_only=True):
                yield tuple(map(_excel_text, row))
        finally:
            book.close()


def _excel_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):  # a workbook knows no integers: 1 and 1.0 are the same cell
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _parquet(path: Path, _: str) -> Iterator[Cells]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield tuple(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=4096):
                yield from zip(*map(_arrow_text, batch.columns), strict=True)
    except (pa.ArrowException, OSError) as error:
        detail = " ".join(str(error).split())[:200]
        raise GroundworkError(f"{path.name} is damaged or not a Parquet file: {detail}") from error


def _arrow_text(column: Any) -> list[str]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_floating(kind):  # Arrow would write 2.0 as 2, and NaN is how pandas writes a gap
        return [
            "" if value is None or value != value else _float_text(value, kind)
            for value in column.to_pylist()
        ]
    try:
        texts = column.cast(pa.string()).to_pylist()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        texts = [None if value is None else str(value) for value in column.to_pylist()]
    return ["" if text is None else text for text in texts]


def _float_text(value: float, kind: Any) -> str:
    if kind.bit_width == 64:
        return repr(value)
    return str(np.float32(value)) if kind.bit_width == 32 else str(np.float16(value))


READERS: dict[str, Callable[[Path, str], Iterator[Cells]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".smi": _smi,
    ".smiles": _smi,
    ".xlsx": _xlsx,
    ".parquet": _parquet,
}
BINARY = {".xlsx", ".parquet"}
FORMATS = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".smi": "chemical/x-daylight-smiles",
    ".smiles": "",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".parquet": "application/vnd.apache.parquet",
    **{f"{suffix}{packing}": "" for packing in PACKED for suffix in READERS if suffix not in BINARY},
}
"""Suffixes of tables with their media types, as ``Domain.formats`` has them."""
