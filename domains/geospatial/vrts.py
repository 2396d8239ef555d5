"""VRTs: texts that put rasters together. They may name any file, address or program of the machine."""

from __future__ import annotations

import warnings
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from domains.contract import GroundworkError

LARGEST = 1 << 20
"""Bytes of the text."""
DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG", ".jpg": "JPEG", ".png": "PNG"}
"""Of the rasters that a VRT may name, by suffix."""
PLAIN = frozenset(
    (
        *("VRTDataset", "SRS", "GeoTransform", "GCPList", "GCP", "Metadata", "MDI", "OverviewList"),
        *("BlockXSize", "BlockYSize", "VRTRasterBand", "Description", "NoDataValue", "HideNoDataValue"),
        *("ColorInterp", "UnitType", "Offset", "Scale", "CategoryNames", "Category", "ColorTable", "Entry"),
        *("MaskBand", "UseMaskBand", "SimpleSource", "ComplexSource", "AveragedSource", "SourceFilename"),
        *("SourceBand", "SourceProperties", "SrcRect", "DstRect", "NODATA", "ScaleOffset", "ScaleRatio"),
        *("ColorTableComponent", "Exponent", "SrcMin", "SrcMax", "DstMin", "DstMax", "Clamp", "LUT"),
        *("Histograms", "HistItem", "HistMin", "HistMax", "BucketCount", "IncludeOutOfRange"),
        *("Approximate", "HistCounts"),
    )
)
"""Elements that gdalbuildvrt and gdal_translate write. Others warp, compute, or open what is no raster."""
PLAIN_BAND = "VRTSourcedRasterBand"


def check_vrt(path: str) -> list[Path]:
    """The rasters that a VRT names. Refuses it where they are anything but files inside its own folder."""
    file = Path(path)
    if path.startswith("/vsi"):
        raise GroundworkError("a VRT in an archive is not read: give the rasters that it names")
    with file.open("rb") as stream:
        text = stream.read(LARGEST + 1)
    if len(text) > LARGEST or b"<!" in text:
        raise GroundworkError(f"a VRT of over {LARGEST >> 20} MiB, or with declarations, is not read")
    folder, named_files = file.resolve().parent, []
    for element in ElementTree.fromstring(text).iter():  # noqa: S314 -- no declarations, so no entities
        if element.tag not in PLAIN or element.get("subClass", PLAIN_BAND) != PLAIN_BAND:
            raise GroundworkError(
                f"a VRT that does more than to put rasters together ({element.get('subClass', element.tag)}) "
                "is not read: write it as a GeoTIFF with gdal_translate"
            )
        if element.tag == "SourceFilename":
            named = (element.text or "").strip()
            target = (folder / named).resolve()
            if folder not in target.parents or not _is_raster(target):
                raise GroundworkError(f"the VRT names {named[:100]!r}, which is no raster in its own folder")
            if element.get("relativeToVRT") != "1" and not Path(named).is_absolute():
                raise GroundworkError(
                    f"the VRT names {named[:100]!r} from the folder that a program runs in, not from its "
                    'own: write relativeToVRT="1" beside the name'
                )
            named_files.append(target)
    return named_files


def _is_raster(file: Path) -> bool:
    """Whether a file is what its suffix says: GDAL goes by the content, and takes a text for a VRT."""
    driver = DRIVERS.get(file.suffix.lower())
    if driver is None or not file.is_file():
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            rasterio.open(file, driver=driver).close()
    except RasterioError:
        return False
    return True
