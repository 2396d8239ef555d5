"""Files beside a raster that change how it is read: masks, world files, and GDAL's auxiliary metadata."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from xml.etree import ElementTree

MASK, AUXILIARY = ".msk", ".aux.xml"
"""Added to the name of the raster."""
WORLD = {
    ".tif": (".tfw", ".wld", ".prj"),
    ".tiff": (".tfw", ".wld", ".prj"),
    ".jp2": (".j2w", ".wld"),
    ".jpg": (".jgw", ".wld"),
    ".jpeg": (".jgw", ".wld"),
    ".png": (".pgw", ".wld"),
    ".asc": (".prj",),
}
"""Suffixes in the place of the raster's own, by that."""
LARGEST = 1 << 20
"""Bytes of a text that is parsed."""

Read = Callable[[str], bytes | None]
"""A file of the folder or archive, by its path; None where there is none."""


def digest_beside(path: str, read: Read) -> bytes:
    """Digest of what lies beside the raster ``path`` and counts; empty where nothing does.

    Statistics, which QGIS leaves beside every raster that it shows, do not count.
    """
    stem, suffix = os.path.splitext(path)
    digest, is_empty = hashlib.sha256(), True
    for name in (path + MASK, *(stem + end for end in WORLD.get(suffix.lower(), ()))):
        if content := read(name):
            digest.update(content)
            is_empty = False
    if content := _without_statistics(read(path + AUXILIARY) or b""):
        digest.update(content)
        is_empty = False
    return b"" if is_empty else digest.digest()


def _without_statistics(text: bytes) -> bytes:
    if not text or len(text) > LARGEST or b"<!" in text:
        return text
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 -- no declarations, so no entities
    except ElementTree.ParseError:
        return text
    _prune(root)
    return ElementTree.tostring(root) if len(root) else b""


def _prune(element: ElementTree.Element) -> None:
    for child in list(element):
        _prune(child)
        is_statistic = child.tag == "Histograms" or child.get("key", "").startswith("STATISTICS_")
        is_hollow = not len(child) and not (child.text or "").strip()
        if is_statistic or is_hollow:
            element.remove(child)
