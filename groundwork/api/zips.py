"""Zip archives that come in: what they claim is checked before anything in them is read.

An archive stays packed, so that what its claims could cost is memory for its table of contents and time to
read its members. Whether its names stay inside it is the business of the domain, which makes paths of them.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath

from domains.contract import GroundworkError

LARGEST_CONTENTS = 32 * 2**20
"""Bytes of the table of contents, held in memory some ten times over: about 300,000 files."""
ALWAYS_UNPACKED = 2**30
"""Bytes once unpacked that are never too many."""
LARGEST_RATIO = 20
"""Of unpacked to packed beyond that: images shrink to a half or a third, and only masks to a hundredth."""
ARCHIVES = frozenset([".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"])
IS_ENCRYPTED = 0x1


class _BoundedFile(io.FileIO):
    """``ZipFile`` reads the whole table of contents at once, as large as the archive says it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LARGEST_CONTENTS:
            raise GroundworkError(
                f"its table of contents takes {size >> 20} MiB, and at most {LARGEST_CONTENTS >> 20} are "
                "read: upload it in parts"
            )
        return super().read(size)


def check_zip(path: Path) -> None:
    """Look at the claims of a zip archive; anything else passes.

    Raises GroundworkError for a table of contents or an unpacked size out of proportion, and for archives
    within the archive or members with a password, none of which a domain would read.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with _BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, UnicodeDecodeError) as error:
        raise GroundworkError(f"its table of contents is damaged ({error}): pack it again") from error
    packed, unpacked = path.stat().st_size, sum(member.file_size for member in members)
    if unpacked > max(ALWAYS_UNPACKED, LARGEST_RATIO * packed):
        raise GroundworkError(
            f"it would unpack from {_size(packed)} to {_size(unpacked)}, and at most {LARGEST_RATIO} times "
            "its size is read: pack the files as they are"
        )
    for member in members:
        name = member.filename[:80]
        if PurePosixPath(member.filename).suffix.lower() in ARCHIVES:
            raise GroundworkError(f"it holds another archive, {name!r}: pack the files themselves")
        if member.flag_bits & IS_ENCRYPTED:
            raise GroundworkError(f"{name!r} in it wants a password: pack it without one")


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
