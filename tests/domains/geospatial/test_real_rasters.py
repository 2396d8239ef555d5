"""Real rasters where they are at hand, odd ones among them: read right, or refused with a clear error."""

from __future__ import annotations

import shutil
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import yaml
from rasters_on_disk import read_all

from domains.contract import GroundworkError, Record
from domains.geospatial import GEOSPATIAL, RasterEncoding

DATA = Path(__file__).parents[4] / "shared/data/geospatial"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the shared rasters are not at hand")
SPEC = RasterEncoding()
UNTOLD = "neither the file nor a bands.yaml says which bands"

OUTCOMES = {
    "odd_rasters/RGB.byte.tif": ("auto", ""),
    "odd_rasters/cog_cmap.tif": ("auto", "entries of a colour table"),
    "odd_rasters/cog_dateline.tif": ("auto", UNTOLD),
    "odd_rasters/cog_fullearth.tif": ("auto", UNTOLD),
    "odd_rasters/cog_gcps.tif": ("auto", UNTOLD),
    "odd_rasters/cog_hirise_mars.tif": ("auto", ""),
    "odd_rasters/cog_int16.tif": ("auto", UNTOLD),
    "odd_rasters/cog_nodata_nan.tif": ("auto", UNTOLD),
    "odd_rasters/cog_nonearth.tif": ("auto", UNTOLD),
    "odd_rasters/cog_scale.tif": ("auto", UNTOLD),
    "odd_rasters/mosaic_cog1.tif": ("auto", UNTOLD),
    "odd_rasters/rgb.tif": ("rgb", "a byte lies between 0 and 255"),
    "landsat/national_park_2019.tif": ("auto", "may be those of sentinel-2 or landsat-8: say which"),
    "landsat/L7_ETMs.tif": ("sentinel-2", "6 bands without names, where files of sentinel-2 hold 13 or 12"),
    "naip/naip_20200831.tif": ("naip", ""),
    "sen1floods11/Spain_7370579_S1Hand.tif": ("auto", ""),
    "sen1floods11/Spain_7370579_S2Hand.tif": ("auto", ""),
    "hls/biomass_input.tif": ("hls", "10 bands without names, where files of hls hold 6"),
    "sentinel2_13band/REFERENCE_SCENES.npy": ("auto", ".npy is not read"),
}


@pytest.mark.parametrize("name", sorted(OUTCOMES))
def test_each_is_read_or_refused_in_one_line(name: str) -> None:
    sensor, words = OUTCOMES[name]
    spec = SPEC.model_copy(update={"sensor": sensor})
    if words:
        with pytest.raises(GroundworkError) as error:
            GEOSPATIAL.open(DATA / name, spec)
        assert words in str(error.value)
        assert "\n" not in str(error.value)
        return
    source = GEOSPATIAL.open(DATA / name, spec)
    found = [GEOSPATIAL.read(row, source.encoding) for row in islice(source.stream(), 60)]
    assert any(isinstance(each, Record) for each in found)


ODD = {
    "cog_dateline.tif": (0, 60_000, 100.0),
    "cog_fullearth.tif": (-1e20, 1e20, 92_800.0),
    "cog_int16.tif": (-32_767, 32_767, 100.0),
    "cog_nodata_nan.tif": (0, 100, 200.0),
    "cog_nonearth.tif": (0, 1, 282.0),
    "float_raster_with_nodata.tif": (0, 1, 500.0),
}


@pytest.mark.parametrize("name", sorted(ODD))
def test_odd_fillers_never_become_values(tmp_path: Path, name: str) -> None:
    low, high, gsd = ODD[name]
    shutil.copy(DATA / "odd_rasters" / name, tmp_path / name)
    names = {"cog_nonearth.tif": "IR-9680", "cog_nodata_nan.tif": "Gamma0_VV"}
    (tmp_path / "bands.yaml").write_text(yaml.safe_dump([{"name": names.get(name, "value"), "unit": "own"}]))
    source = GEOSPATIAL.open(tmp_path / name, SPEC)
    values = [
        found.value.pixels
        for row in islice(source.stream(), 200)
        if isinstance(found := GEOSPATIAL.read(row, source.encoding), Record)
    ]
    assert values
    assert low <= min(np.nanmin(pixels) for pixels in values)
    assert max(np.nanmax(pixels) for pixels in values) <= high
    assert source.encoding.bands[0].gsd == gsd  # type: ignore[attr-defined]


def test_burn_scars_are_fifteen_scenes_and_seven_rejects() -> None:
    source = GEOSPATIAL.open(DATA / "burn_scars", SPEC)
    records, rejects = read_all(source)
    assert len({record.value.scene for record in records}) == 15
    assert len(rejects) == 7
    assert {reject.reason for reject in rejects} == {
        "bands TCI_R, TCI_G, TCI_B in display bytes where B4, B3, B2 in reflectance × 10000 are expected"
    }
    assert any("images_before/" in remark for remark in source.remarks)
    burnt = [GEOSPATIAL.labels(record, ["mask"])["mask"] for record in records]
    assert 0.05 < np.nanmean(np.concatenate(burnt)) < 0.6
    assert len(set(GEOSPATIAL.groups(iter(records), "blocks").tolist())) >= 10


@pytest.mark.slow
def test_the_archive_of_21600_chips_opens_in_seconds() -> None:
    start = time.process_time()
    source = GEOSPATIAL.open(DATA / "eurosat_rgb.zip", SPEC)
    assert time.process_time() - start < 20
    rows = list(source.stream())
    assert len(rows) == 21_600
    assert len({row.fields["class"] for row in rows}) == 10
    chosen = rows[::200]
    start = time.process_time()
    found = [GEOSPATIAL.read(row, source.encoding) for row in chosen]
    assert (time.process_time() - start) / len(chosen) < 0.005
    assert all(isinstance(each, Record) for each in found)
