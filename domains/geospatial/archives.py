"""Folders and zip archives as lists of files, read in place: nothing is ever unpacked to disk."""

from __future__ import annotations

import os
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import xxhash

from domains.contract import GroundworkError
from domains.geospatial.cube_files import STORE, STORE_MARKS, is_store, store_files
from domains.geospatial.images import IMAGE_FORMATS, SmallImage
from domains.geospatial.opened import ARCHIVE, ARCHIVE_END, member_path, open_archive, open_raster
from domains.geospatial.rasters import explained
from domains.geospatial.remote import is_url, locate
from domains.geospatial.sidecars import digest_beside
from domains.geospatial.stacks import STACK, stack_of
from domains.geospatial.vrts import check_vrt

MOST_FILES = 1_000_000
LARGEST_UNPACKED = 1 << 38
"""Bytes of an archive once unpacked, 256 GiB: every byte is read once for its digest."""
BESIDE = frozenset(
    (
        *(
            ".csv",
            ".geojson",
            ".gpkg",
            ".html",
            ".json",
            ".md",
            ".pdf",
            ".rst",
            ".sha256",
            ".tsv",
            ".txt",
            ".xml",
        ),
        *(".hdr", ".jgw", ".msk", ".ovr", ".pgw", ".prj", ".tfw", ".wld", ".yaml", ".yml"),
    )
)
"""Suffixes of what lies beside rasters and is none."""
TEXTS = frozenset(("readme", "license", "licence", "citation", "desktop.ini"))
"""What people and programs leave in folders, in lower case; texts with a suffix are in ``BESIDE``."""
LABELS = "labels"
"""Name of a file that labels what lies beside it, without its suffix; or of a folder of vector files."""
VECTOR_SUFFIXES = (".geojson", ".gpkg")
LABEL_SUFFIXES = (".csv", *VECTOR_SUFFIXES)
FORMATS = {
    ".zip": "application/zip",
    ".tif": "image/tiff",
    ".tiff": "",
    ".nc": "application/x-netcdf",
    ".nc4": "",
    ".jp2": "image/jp2",
    ".j2k": "",
    ".asc": "",
    ".jpg": "image/jpeg",
    ".jpeg": "",
    ".png": "image/png",
    ".webp": "image/webp",
}
"""Suffixes of files that are whole by themselves, with their media types: a VRT or an .img names others."""
CHUNK = 1 << 18


@dataclass(frozen=True)
class File:
    """A file of a folder or an archive."""

    name: str
    """Path within it, with ``/``, as ``spelled``."""
    path: str
    """What ``opened.open_raster`` opens."""
    time: str = ""
    """When it was taken, in ISO 8601, where whoever lists it says so."""

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.name.split("/"))

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.name)[1].lower()


def list_files(path: Path) -> list[File]:
    """Files of a folder or zip archive that may be rasters, or labels of them, sorted by name.

    Hidden files and what else lies beside rasters are left out. Raises GroundworkError for an archive
    that is damaged, too large once unpacked, or names files outside itself.
    """
    with explained(path.name):
        files = _of_archive(path) if path.is_file() else _of_folder(path)
        found = [file for file in files if not _is_beside(file)]
    return sorted(found, key=lambda file: file.name)


def read_text(path: Path, name: str, largest: int) -> bytes | None:
    """A small text of a folder or archive; None where there is none of that name."""
    with explained(name):
        if path.is_dir():
            file = path / name
            if not file.is_file():
                return None
            size = file.stat().st_size
        else:
            archive = open_archive(str(path))
            if name not in archive.NameToInfo:
                return None
            size = archive.getinfo(name).file_size
        if size > largest:
            raise GroundworkError(f"{name} holds {size:,} bytes; at most {largest:,} are read")
        return file.read_bytes() if path.is_dir() else archive.read(name)


def read_path(path: str, largest: int) -> bytes:
    """The content of a file, or of a member of an archive, as ``File.path`` names it.

    Raises GroundworkError where it is larger than ``largest``, or is no file here.
    """
    archive, _, member = path.removeprefix(ARCHIVE).partition(ARCHIVE_END)
    is_member = path.startswith(ARCHIVE)
    size = open_archive(archive).getinfo(member).file_size if is_member else os.path.getsize(path)
    if size > largest:
        raise GroundworkError(f"it holds {size:,} bytes; at most {largest:,} are read")
    return open_archive(archive).read(member) if is_member else Path(path).read_bytes()


def digest_file(file: File, archive: Path | None) -> str:
    """XXH3 (hex) of a file or of a member of ``archive``; of a VRT and a stack with what they name.

    It tells files apart, at a tenth of the time of SHA-256, which takes a quarter of that of unpacking them;
    nobody is kept from forging a file by it.
    """
    digest = xxhash.xxh3_128()
    if is_url(file.path):
        return locate(file.path, None).version  # whoever opened it has seen to its host
    if file.path.startswith(STACK):
        for path in stack_of(file.path).files:
            member = File(path.partition(ARCHIVE_END)[2] if archive is not None else path, path)
            digest.update(digest_file(member, archive).encode())
        return digest.hexdigest()
    if file.suffix in IMAGE_FORMATS:
        with suppress(GroundworkError, OSError, SyntaxError, ValueError):  # told when its scene is opened
            image = open_raster(file.path)
            if isinstance(image, SmallImage):  # which is in memory anyway, for its header
                digest.update(image.data)
                return digest.hexdigest()
    if archive is not None:
        members = open_archive(str(archive))
        name = file.path.partition(ARCHIVE_END)[2]
        with members.open(name) as stream:
            _update(digest, stream)
        digest.update(digest_beside(name, lambda name: _member(members, name)))
        return digest.hexdigest()
    if is_store(Path(file.path)):
        for part in store_files(Path(file.path)):
            digest.update(f"{part.relative_to(file.path).as_posix()}\0{part.stat().st_size}\0".encode())
            with part.open("rb") as stream:
                _update(digest, stream)
        return digest.hexdigest()
    for path in (Path(file.path), *(check_vrt(file.path) if file.suffix == ".vrt" else ())):
        with path.open("rb") as opened:
            _update(digest, opened)
        digest.update(digest_beside(str(path), _content))
    return digest.hexdigest()


def without_top(files: Sequence[File]) -> tuple[str, list[tuple[str, ...]]]:
    """The folders that all files share, as a prefix, and the parts of each name below them."""
    parts = [file.parts for file in files]
    depth = 0
    while parts and all(len(each) > depth + 1 and each[depth] == parts[0][depth] for each in parts):
        depth += 1
    prefix = "".join(f"{part}/" for part in parts[0][:depth]) if parts else ""
    return prefix, [each[depth:] for each in parts]


def _of_folder(path: Path) -> Iterator[File]:
    count = 0
    if any((path / mark).is_file() for mark in STORE_MARKS):
        raise GroundworkError(f"{path.name} is a Zarr store: give it a name that ends in {STORE}")
    for folder, folders, names in os.walk(path):
        names += [name for name in folders if is_store(Path(folder, name))]
        folders[:] = sorted(name for name in folders if not _is_hidden(name) and name not in names)
        for name in names:
            count += 1
            if count > MOST_FILES:
                raise GroundworkError(f"{path.name} holds more than {MOST_FILES:,} files: open a part of it")
            file = Path(folder, name)
            if file.is_file() or is_store(file):
                yield File(spelled(file.relative_to(path).as_posix()), str(file))


def _of_archive(path: Path) -> Iterator[File]:
    if not zipfile.is_zipfile(path):
        raise GroundworkError(f"{path.name} is no zip archive, or damaged: pack it again")
    members = open_archive(str(path)).infolist()
    unpacked = sum(member.file_size for member in members)
    if len(members) > MOST_FILES or unpacked > LARGEST_UNPACKED:
        raise GroundworkError(
            f"{path.name} holds {len(members):,} files, {unpacked >> 30:,} GiB: at most {MOST_FILES:,} files "
            f"and {LARGEST_UNPACKED >> 30} GiB are read"
        )
    seen: set[str] = set()
    for member in members:
        name = member.filename
        if member.is_dir():
            continue
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in name.replace("\\", "/").split("/") or "\0" in name:
            raise GroundworkError(f"{path.name} names a file outside itself, {name[:80]!r}: pack it again")
        if "\\" in name or name != str(pure):
            raise GroundworkError(
                f"{path.name} spells {name[:80]!r} in a way that not all programs take for the same file: "
                "pack it again, with / between its folders and no ./ before them"
            )
        if STORE_MARKS & {pure.name}:
            raise GroundworkError(
                f"{path.name} holds a Zarr store, which is not read in archives: unpack it, and name its "
                f"{STORE} folder; a service reads it below its inbox or a folder of GROUNDWORK_ROOTS"
            )
        if name in seen:
            raise GroundworkError(f"{path.name} holds {name[:80]!r} twice: pack it again")
        seen.add(name)
        yield File(spelled(name), member_path(path, name))


def spelled(name: str) -> str:
    """A name that can be shown in one line and written anywhere: what cannot is spelled as in Python."""
    return "".join(
        ascii(char)[1:-1] if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in name
    )


def _content(path: str) -> bytes | None:
    return Path(path).read_bytes() if os.path.isfile(path) else None


def _member(archive: zipfile.ZipFile, name: str) -> bytes | None:
    return archive.read(name) if name in archive.NameToInfo else None


def _is_beside(file: File) -> bool:
    if any(_is_hidden(part) for part in file.parts) or file.parts[-1].lower() in TEXTS:
        return True
    is_label = file.suffix in LABEL_SUFFIXES and PurePosixPath(file.name).stem == LABELS
    is_labels = file.suffix in VECTOR_SUFFIXES and bool({LABELS, "masks"} & set(file.parts[:-1]))
    return file.suffix in BESIDE and not is_label and not is_labels


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX" or name == "Thumbs.db"


def _update(digest: xxhash.xxh3_128, stream: IO[bytes]) -> None:
    chunk = memoryview(bytearray(CHUNK))  # the same memory each time: new pages cost as much as the digest
    while size := stream.readinto(chunk):  # type: ignore[attr-defined]
        digest.update(chunk[:size])
