"""One array of many samples in one ``.npy``: written part by part as they come, mapped where it is read.

``NAME.npy`` holds the parts one after the other along the first axis, ``NAME.offsets.npy`` (int64 [n + 1])
where each begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import xxhash

AT_ONCE = 1 << 20
"""Bytes that parts are gathered to before they are written."""
MOST_BEHIND = 1 << 24
"""Bytes that wait to be written: about what becomes of a row of tiles that was unpacked at once. Parts that
are larger wait one at a time."""


class ArrayWriter:
    """Appends the parts of one array; ``close`` completes its files.

    Not np.save: that wants all parts in memory, and reports a full disk without saying so.

    What the system takes to put bytes into its memory and onto the disk passes beside the making of the next
    parts, which wait where it is the slower one.
    """

    def __init__(self, folder: Path, name: str, first: np.ndarray, beside: Executor) -> None:
        """``first`` is any part: all have its dtype and its other axes. ``beside`` is one thread."""
        self._folder, self._name, self._beside = folder, name, beside
        self._dtype, self._others = first.dtype, first.shape[1:]
        self._file: BinaryIO = (folder / f"{name}.npy").open("wb")
        _write_header(self._file, self._dtype, (0, *self._others))
        self._lengths: list[int] = []
        self._waiting: list[np.ndarray] = []
        self._bytes = 0
        self._writing: deque[tuple[int, Future[None]]] = deque()
        """Bytes of each piece that is not known to be written."""
        # XXH3 reads at ten times the speed of SHA-256, which would take longer than unpacking a raster. It
        # tells whether two builds are alike; nobody is kept from forging one by it.
        self._content = xxhash.xxh3_128()

    def append(self, part: np.ndarray) -> None:
        """Raises ValueError for a part of another dtype or of other axes but the first, and the OSError of
        parts before it that could not be written. A part may not be changed afterwards."""
        if part.dtype != self._dtype or part.shape[1:] != self._others:
            raise ValueError(
                f"array {self._name!r} differs in dtype or in its other axes from sample to sample"
            )
        self._lengths.append(len(part))
        self._waiting.append(part)
        self._bytes += part.nbytes
        if self._bytes >= AT_ONCE:
            self._write()

    def close(self) -> str:
        """Complete both files; a digest of all parts and of where they begin."""
        self._write()
        self._settle(0)
        offsets = np.zeros(len(self._lengths) + 1, np.int64)
        np.cumsum(self._lengths, out=offsets[1:])
        shape = (int(offsets[-1]), *self._others)
        self._file.seek(0)
        _write_header(self._file, self._dtype, shape)  # of the same length: numpy leaves room to grow
        self._file.close()
        write_offsets(self._folder, self._name, [offsets], len(offsets))
        self._content.update(offsets.data)
        return f"{self._dtype.str} {shape} {self._content.hexdigest()}"

    def abandon(self) -> None:
        self._file.close()

    def _write(self) -> None:
        self._settle(MOST_BEHIND - self._bytes)
        if self._bytes:
            self._writing.append((self._bytes, self._beside.submit(self._put, self._waiting)))
            self._waiting, self._bytes = [], 0

    def _settle(self, behind: int) -> None:
        """Wait until at most so many bytes are to be written; raises what writing others has raised."""
        while self._writing and (
            self._writing[0][1].done() or sum(size for size, _ in self._writing) > behind
        ):
            self._writing.popleft()[1].result()

    def _put(self, parts: Sequence[np.ndarray]) -> None:
        together = parts[0] if len(parts) == 1 else np.concatenate(parts)
        content = np.ascontiguousarray(together).data.cast("B")
        self._content.update(content)
        self._file.write(content)


class SampleWriter:
    """The arrays of samples that come one by one. Names and kinds of the first are those of all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, ArrayWriter] | None = None
        self._beside = ThreadPoolExecutor(1, "writes-arrays")

    def append(self, sample: Mapping[str, np.ndarray]) -> None:
        """Raises ValueError for a sample whose arrays are of other names or kinds than the first's."""
        if self._writers is None:
            self._writers = {
                name: ArrayWriter(self._folder, name, part, self._beside) for name, part in sample.items()
            }
        if self._writers.keys() != sample.keys():
            names = ", ".join(sorted(self._writers.keys() ^ sample.keys()))
            raise ValueError(f"some samples have arrays that others lack: {names}")
        for name, writer in self._writers.items():
            writer.append(sample[name])

    def close(self) -> dict[str, str]:
        """Complete every file; the digest of each array by its name."""
        return {name: writer.close() for name, writer in (self._writers or {}).items()}

    def __enter__(self) -> SampleWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._beside.shutdown(cancel_futures=True)  # nothing waits any more where all has gone well
        for writer in (self._writers or {}).values():
            writer.abandon()


def write_offsets(folder: Path, name: str, parts: Iterable[np.ndarray], length: int) -> None:
    """``NAME.offsets.npy`` of ``length`` int64, that come in parts."""
    with (folder / f"{name}.offsets.npy").open("wb") as file:
        _write_header(file, np.dtype(np.int64), (length,))
        for part in parts:
            file.write(part.data.cast("B"))


def load_array(path: Path) -> np.ndarray:
    """A plain, read-only array over the mapped file (``np.memmap`` itself is slow to slice)."""
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped.view(np.ndarray)


def _write_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
