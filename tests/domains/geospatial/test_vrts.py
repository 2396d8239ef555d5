"""VRTs, which may name any file, address or program of the machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasterio.errors import NotGeoreferencedWarning
from rasters_on_disk import error_of, opened, pixels_of, reflectances, write_tiff

pytestmark = pytest.mark.filterwarnings("ignore", category=NotGeoreferencedWarning)
STORED = reflectances()


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ('<VRTRasterBand subClass="VRTRawRasterBand"/>', "(VRTRawRasterBand) is not read"),
        ('<VRTRasterBand subClass="VRTDerivedRasterBand"/>', "(VRTDerivedRasterBand) is not read"),
        ("<GDALWarpOptions><SourceDataset>own.tif</SourceDataset></GDALWarpOptions>", "(GDALWarpOptions)"),
        ('<Step name="LUT"><Argument name="dataset_filename">/etc/passwd</Argument></Step>', "(Step)"),
        ("<SourceFilename>text.tif</SourceFilename>", "names 'text.tif', which is no raster"),
        ("<SourceFilename>linked.tif</SourceFilename>", "names 'linked.tif', which is no raster"),
    ],
)
def test_a_vrt_only_puts_rasters_of_its_folder_together(tmp_path: Path, inside: str, words: str) -> None:
    write_tiff(tmp_path / "secret.tif", STORED[:1])
    write_tiff(tmp_path / "set/own.tif", STORED[:1])
    (tmp_path / "set/linked.tif").symlink_to(tmp_path / "secret.tif")
    # GDAL goes by the content: as a source, this text would be a VRT that leads outside.
    (tmp_path / "set/text.tif").write_text(
        '<VRTDataset rasterXSize="40" rasterYSize="48"><VRTRasterBand dataType="UInt16" band="1">'
        f"<SimpleSource><SourceFilename>{tmp_path}/secret.tif</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    path = tmp_path / "set/a.vrt"
    path.write_text(f'<VRTDataset rasterXSize="40" rasterYSize="48">{inside}</VRTDataset>')
    assert words in error_of(path)


def test_a_vrt_does_not_reach_the_folder_that_a_program_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiff(tmp_path / "set/own.tif", STORED[:1], ["B8"])
    write_tiff(tmp_path / "elsewhere/own.tif", STORED[1:2], ["B8"])
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = tmp_path / "set/a.vrt"

    def naming(name: str) -> str:
        return (
            '<VRTDataset rasterXSize="40" rasterYSize="48"><VRTRasterBand dataType="UInt16" band="1">'
            f"<Description>B8</Description><SimpleSource>{name}</SimpleSource></VRTRasterBand></VRTDataset>"
        )

    path.write_text(naming("<SourceFilename>own.tif</SourceFilename>"))
    assert "names 'own.tif' from the folder that a program runs in" in error_of(path)
    path.write_text(naming('<SourceFilename relativeToVRT="1">own.tif</SourceFilename>'))
    assert np.array_equal(pixels_of(opened(path)), STORED[:1])
