"""Files as bytes, unpacked on the fly where they are compressed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

LARGEST_DICTIONARY = 256 << 20
"""Bytes that unpacking an .xz may take: its header may ask for 4 GiB; ``xz -9`` makes do with 65 MiB."""
CHUNK = 1 << 16


def open_unpacked(path: Path) -> IO[bytes]:
    """Open the content of a file, whatever it is packed with, in constant memory.

    A damaged file raises OSError, EOFError, ``zlib.error`` or ``lzma.LZMAError`` when it is read.
    """
    return PACKED.get(path.suffix.lower(), _plain)(path)


def without_packing(name: str) -> str:
    """A file's name without the suffix of its compression: ``a.csv.gz`` is ``a.csv``."""
    stem, dot, suffix = name.rpartition(".")
    return stem if f".{suffix.lower()}" in PACKED and dot else name


def _plain(path: Path) -> IO[bytes]:
    return path.open("rb")


def _gzip(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path))


def _bzip2(path: Path) -> IO[bytes]:
    return cast(IO[bytes], bz2.open(path))


def _xz(path: Path) -> IO[bytes]:
    return io.BufferedReader(_Xz(path))


def _zstandard(path: Path) -> IO[bytes]:
    import pyarrow as pa

    return cast(IO[bytes], pa.CompressedInputStream(str(path), "zstd"))


class _Xz(io.RawIOBase):
    """What ``lzma.open`` does, with a bound on the memory that a file can make it take."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._stream = lzma.LZMADecompressor(memlimit=LARGEST_DICTIONARY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            packed = b""
            if self._stream.eof:  # parallel packers write several streams, one after the other
                packed = self._stream.unused_data or self._file.read(CHUNK)
                if not packed:
                    return 0
                self._stream = lzma.LZMADecompressor(memlimit=LARGEST_DICTIONARY)
            elif self._stream.needs_input:
                packed = self._file.read(CHUNK)
                if not packed:
                    raise EOFError("the compressed file ends too early")
            data = self._stream.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


PACKED: dict[str, Callable[[Path], IO[bytes]]] = {
    ".gz": _gzip,
    ".bz2": _bzip2,
    ".xz": _xz,
    ".zst": _zstandard,
}
"""Suffixes of compressed files, and how each is opened."""
