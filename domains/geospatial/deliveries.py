"""Files of one band each that are one scene together, told by the names that agencies give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from domains.geospatial.archives import File
from domains.geospatial.bands import DIGITAL_NUMBER, RasterEncoding
from domains.geospatial.products import BandFile, Product, band_file, product_of
from domains.geospatial.sensors import SENSORS
from domains.geospatial.stacks import Member, stacked

SHOWN = 3


def gathered(files: Sequence[File], spec: RasterEncoding) -> tuple[list[File], tuple[str, ...]]:
    """``files`` with those of a product in the place of its bands, and remarks on what is left out.

    What lies beside the bands of a product (pictures of it, aerosols, masks of the optics) is left out; of a
    band in several sizes of pixels the finest is taken; a quality layer hides clouds. Files whose names say
    nothing stay as they are.
    """
    products: dict[tuple[str, str], list[tuple[File, BandFile]]] = {}
    known: dict[tuple[str, str], Product] = {}
    others: list[File] = []
    for file in files:
        product = product_of(file.path)
        if product is None:
            others.append(file)
            continue
        key = (_folder_of(file, product), product.name)
        known[key] = product
        products.setdefault(key, []).append((file, band_file(PurePosixPath(file.name).name, product)))
    scenes, aside = [], []
    for (folder, name), found in products.items():
        bands = _finest((file, said.band) for file, said in found if said.band)
        if not bands:
            others += [file for file, _ in found]
            continue
        product = known[folder, name]
        quality = [(file.path, said.quality) for file, said in found if said.quality]
        members = [_member(file, band, product) for band, file in bands]
        stack = stacked(members, min(quality) if quality else None, spec)
        scenes.append(File(f"{folder}{name}", stack.path))
        aside += [file.name for file, said in found if not said.band and not said.quality]
    remarks = []
    if aside:
        shown = ", ".join(PurePosixPath(name).name for name in aside[:SHOWN])
        remarks.append(
            f"{len(aside)} files of products are neither bands nor quality layers ({shown}"
            f"{', …' if len(aside) > SHOWN else ''}): left alone."
        )
    return sorted([*others, *scenes], key=lambda file: file.name), tuple(remarks)


def alone(file: File, spec: RasterEncoding) -> File | None:
    """A file that holds one band of a product, as the scene of that band; None where it is none."""
    product = product_of(file.path)
    said = band_file(PurePosixPath(file.name).name, product) if product else BandFile()
    if product is None or not said.band:
        return None
    return File(file.name, stacked([_member(file, said.band, product)], None, spec).path)


def _folder_of(file: File, product: Product) -> str:
    """Folders of the dataset above the product, with ``/`` at the end where there are any."""
    before, found, _ = f"/{file.name}".partition(f"/{product.name}")
    return f"{before}/".lstrip("/") if found else ""


def _finest(found: Iterable[tuple[File, str]]) -> list[tuple[str, File]]:
    """One file of each band, in the order of the bands' numbers."""
    best: dict[str, File] = {}
    for file, band in sorted(found, key=lambda entry: (_metres(entry[0]), entry[0].name)):
        best.setdefault(band, file)
    return sorted(best.items(), key=lambda entry: _place(entry[0]))


def _metres(file: File) -> int:
    """Size of the pixels that a name states, as Sentinel-2's do (``_B04_10m.jp2``)."""
    stated = re.search(r"_(\d\d)m\.\w+$", file.name)
    return int(stated.group(1)) if stated else 0


def _place(band: str) -> tuple[float, str]:
    number = re.fullmatch(r"B(\d+)(A?)", band)
    return (int(number.group(1)) + 0.5 * bool(number.group(2)), "") if number else (0.0, band)


def _member(file: File, band: str, product: Product) -> Member:
    known = SENSORS[product.sensor].bands[band]
    return Member(
        path=file.path,
        band=band,
        wavelength=known.wavelength,
        unit=known.unit if product.is_calibrated else DIGITAL_NUMBER,
        scale=product.scale,
        offset=product.offset,
        nodata=product.nodata,
    )
