"""From the drafts of a map's bands to one cloud-optimised GeoTIFF."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import rasterio
import rasterio.shutil

from domains.geospatial.map_layers import MapLayers

BLOCK = 512
"""Pixels on a side of the tiles inside a map."""

EXTRA_SAMPLES = 338


def write_cog(drafts: Sequence[Path], layers: MapLayers, path: Path) -> None:
    """Join ``drafts``, one for each layer, in a file at ``path``; they get overviews first."""
    # In files of their own: a draft stays as it is, and if this is killed, it is done again.
    with rasterio.Env(TIFF_USE_OVR=True):
        for draft, layer in zip(drafts, layers.layers, strict=True):
            _overviews_of(draft).unlink(missing_ok=True)
            with rasterio.open(draft, "r+") as band:
                band.build_overviews(_overview_factors(band.height, band.width), layer.resampling)
    rasterio.shutil.copy(
        _joined(drafts, layers),
        path,
        driver="COG",
        blocksize=BLOCK,
        compress="DEFLATE",
        predictor="NO" if layers.classes else "YES",
        overviews="FORCE_USE_EXISTING",
        bigtiff="IF_SAFER",
        num_threads="ALL_CPUS",
    )
    if layers.classes:
        _declare_no_transparency(path)


def _joined(drafts: Sequence[Path], layers: MapLayers) -> Path:
    """A VRT of the drafts: each band keeps its own overviews, and the classes get their names."""
    roots: list[ElementTree.Element] = []
    for number, draft in enumerate(drafts, start=1):
        described = draft.with_suffix(".vrt")
        rasterio.shutil.copy(draft, described, driver="VRT")
        root = ElementTree.fromstring(described.read_bytes())  # noqa: S314 -- written a line ago
        band = next(root.iter("VRTRasterBand"))
        band.set("band", str(number))
        with rasterio.open(draft) as opened:
            levels = len(opened.overviews(1))
        for level in range(levels):
            overview = ElementTree.SubElement(band, "Overview")
            source = ElementTree.SubElement(overview, "SourceFilename", relativeToVRT="0")
            source.text = f"GTIFF_DIR:{level + 1}:{_overviews_of(draft)}"
            ElementTree.SubElement(overview, "SourceBand").text = "1"
        if number == 1 and layers.classes:
            band.insert(0, _category_names(layers))
        if number > 1:
            roots[0].append(band)
        roots.append(root)
    joined = drafts[0].with_name("joined.vrt")
    joined.write_bytes(ElementTree.tostring(roots[0], encoding="utf-8"))
    return joined


def _overviews_of(draft: Path) -> Path:
    return draft.with_name(f"{draft.name}.ovr")


def _overview_factors(height: int, width: int) -> list[int]:
    """Halvings until the whole map fits one tile."""
    factors: list[int] = []
    while max(height, width) > BLOCK * 2 ** len(factors):
        factors.append(2 ** (len(factors) + 1))
    return factors


def _category_names(layers: MapLayers) -> ElementTree.Element:
    """GDAL numbers categories from 0: values that are no class have no name."""
    names = ElementTree.Element("CategoryNames")
    by_value = {item.value: item.name for item in layers.classes if 0 <= item.value <= 255}
    for value in range(max(by_value, default=-1) + 1):
        ElementTree.SubElement(names, "Category").text = by_value.get(value, "")
    return names


def qgis_style(layers: MapLayers) -> str:
    """A QGIS layer style: the classes of band 1 in their colours and with their names.

    Without it QGIS shows the two bands of a map as red and green.
    """
    style = ElementTree.Element("qgis", version="3.4", styleCategories="Symbology")
    pipe = ElementTree.SubElement(style, "pipe")
    renderer = ElementTree.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", alphaBand="-1", opacity="1"
    )
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for item in layers.classes:
        ElementTree.SubElement(
            palette, "paletteEntry", value=str(item.value), color=item.colour, label=item.name, alpha="255"
        )
    ElementTree.SubElement(style, "blendMode").text = "0"
    ElementTree.indent(style)
    return ElementTree.tostring(style, encoding="unicode") + "\n"


def _declare_no_transparency(path: Path) -> None:
    """Say of the second band that it is no alpha channel.

    GDAL writes that of any band beside one with colours, and viewers would draw uncertain pixels as
    transparent. Its own way to change this moves what a cloud-optimised file keeps in order, so the tag
    (ExtraSamples, TIFF 6.0 page 31) is changed in its place, in the map and in each overview.
    """
    with path.open("r+b") as file:
        big = struct.unpack("<HH", file.read(4))[1] == 43
        pointer, count, entry, first = ("<Q", "<Q", 20, 8) if big else ("<I", "<H", 12, 4)
        file.seek(first)
        directory = struct.unpack(pointer, file.read(struct.calcsize(pointer)))[0]
        while directory:
            file.seek(directory)
            entries = struct.unpack(count, file.read(struct.calcsize(count)))[0]
            start = file.tell()
            for index in range(entries):
                file.seek(start + index * entry)
                if struct.unpack("<H", file.read(2))[0] == EXTRA_SAMPLES:
                    file.seek(start + (index + 1) * entry - struct.calcsize(pointer))
                    file.write(struct.pack("<H", 0))
            file.seek(start + entries * entry)
            directory = struct.unpack(pointer, file.read(struct.calcsize(pointer)))[0]
