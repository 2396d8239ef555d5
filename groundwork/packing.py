"""A folder as one file, to be sent."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from domains.contract import GroundworkError
from groundwork.archive import progress_bar

PACKED = ".zip"
CHUNK = 1 << 20
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip archive can hold."""


def pack(folder: Path, to: Path, console: Console) -> None:
    """Write the files of ``folder`` to a zip archive, as they are: rasters are compressed already.

    Equal names and contents make equal archives, byte for byte. Hidden files and folders stay out, and links
    to folders are not followed. Raises GroundworkError where nothing is left.
    """
    files = sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix())
    if not files:
        raise GroundworkError(f"{folder} holds no file: check the path")
    total = sum(path.stat().st_size for path in files)
    with (
        progress_bar(console, f"packing {folder.name}", total) as done,
        zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive,
    ):
        for path in files:
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix(), EPOCH)
            member.external_attr = 0o644 << 16
            member.file_size = path.stat().st_size  # so that large files get large headers
            with path.open("rb") as source, archive.open(member, "w") as packed:
                while chunk := source.read(CHUNK):
                    packed.write(chunk)
                    done(len(chunk))


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path
