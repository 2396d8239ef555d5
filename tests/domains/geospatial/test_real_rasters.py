"""Real rasters where they are at hand, odd ones too: each is read as rasterio reads it, or refused."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image
from rasters_on_disk import read_all

from domains.contract import GroundworkError, Record, Source
from domains.geospatial import GEOSPATIAL, RasterEncoding
from domains.geospatial.bands import DECIBEL, DISPLAY_BYTE, REFLECTANCE_10000
from domains.geospatial.reading import scene_of

DATA = Path(__file__).parents[4] / "shared/data/geospatial"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the shared rasters are not at hand")
SPEC = RasterEncoding()

BURN = ("B2", "B3", "B4", "B8", "B12")
TRUE_COLOUR = ("TCI_R", "TCI_G", "TCI_B", "B8", "B12")
TRUE_COLOUR_FIRES = ("CAMPBELL_*", "CREEK_*", "HERNANDEZ_*", "RANCH_*", "ROBLAR_*", "SKY_*", "VALLEY_*")
RGB = ("R", "G", "B")
NAIP = (*RGB, "NIR")
SENTINEL_2 = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
UNTOLD = "neither the file nor a bands.yaml says which bands these are"


@dataclass(frozen=True)
class Read:
    """What a file is read as."""

    bands: tuple[str, ...]
    unit: str
    gsd: float | None
    low: float
    high: float
    """Between which every value must lie."""
    missing: float = 0.0
    """Share of pixels without data."""
    remark: str = ""


@dataclass(frozen=True)
class Outcome:
    """What becomes of a file by itself, and of one that is told what it does not say."""

    alone: Read | str
    """As it is; or words of the refusal."""
    sensor: str = ""
    declared: Sequence[dict[str, object]] = ()
    """Entries of a ``bands.yaml``."""
    told: Read | str = ""
    """With ``sensor`` or ``declared``."""
    also: dict[str, str] = field(default_factory=dict)
    """Words of the refusal with other sensors."""


def own(*names: str, **more: object) -> list[dict[str, object]]:
    """Bands in a unit of their own."""
    return [{"name": name, "unit": "own", **more} for name in names]


def numbered(count: int) -> tuple[str, ...]:
    return tuple(f"band{place}" for place in range(1, count + 1))


def untold(declared: Sequence[dict[str, object]], told: Read, **also: str) -> Outcome:
    """A file that says nothing of its bands."""
    others = {sensor.replace("_", "-"): words for sensor, words in also.items()}
    return Outcome(UNTOLD, declared=declared, told=told, also=others)


FIRE = Read(BURN, REFLECTANCE_10000, 20.0, 0, 16_000)
LANDSAT_BYTES = untold(
    own(*numbered(4)),
    Read(numbered(4), "own", 90.0, 1, 255),
    landsat_5="4 bands without names, where files of landsat-5 hold 6",
    rgb="4 bands without names, where files of rgb hold 3",
)
DIGITAL = [{"name": name, "unit": "digital number"} for name in ("B1", "B2", "B3", "B4", "B5", "B7")]
DEEP_COLOUR = untold(
    own(*numbered(3)),
    Read(numbered(3), "own", 300.0, 1, 65_535, missing=0.32),
    rgb="a byte lies between 0 and 255",
)

# The first pattern that fits a file says what becomes of it.
OUTCOMES: dict[str, Outcome] = {
    **{
        f"burn_scars/images/{name}": Outcome(Read(TRUE_COLOUR, DISPLAY_BYTE, 20.0, 0, 16_000))
        for name in TRUE_COLOUR_FIRES
    },
    "burn_scars/images/*": Outcome(FIRE),
    "burn_scars/images_before/*": Outcome(FIRE),
    "burn_scars/masks/*": Outcome(UNTOLD),  # a mask is no scene
    "hls/biomass_input.tif": untold(
        own(*numbered(10)),
        Read(numbered(10), "own", 30.0, -2000, 12_000),
        hls="10 bands without names, where files of hls hold 6",
    ),
    "hls/biomass_label.tif": Outcome(UNTOLD),
    "landsat/L7_ETMs.tif": Outcome(
        UNTOLD,
        declared=DIGITAL,
        told=Read(("B1", "B2", "B3", "B4", "B5", "B7"), "digital number", 28.5, 1, 255),
        also={
            "landsat-7": "which cannot be reflectance × 10000: the file holds bytes",
            "sentinel-2": "6 bands without names, where files of sentinel-2 hold 13 or 12",
        },
    ),
    "landsat/national_park_2019.tif": Outcome(
        "bands B1, B2, B3, B4, B5, B6, B7 may be those of sentinel-2 or landsat-8: say which with --sensor",
        sensor="landsat-8",
        told=Read(SENTINEL_2[:7], REFLECTANCE_10000, 30.0, 0, 16_000, missing=0.39),
        also={"landsat-7": "bands of landsat-7 are B1, B2, B3, B4, B5, B7"},
    ),
    "landsat/*.tif": LANDSAT_BYTES,
    "naip/*.tif": Outcome(
        UNTOLD,
        sensor="naip",
        told=Read(NAIP, DISPLAY_BYTE, 5.0, 1, 255),
        also={"rgb": "4 bands without names, where files of rgb hold 3"},
    ),
    "odd_rasters/RGB.byte.tif": Outcome(Read(RGB, DISPLAY_BYTE, 300.0, 1, 255, missing=0.33)),
    "odd_rasters/cog_cmap.tif": Outcome(
        "entries of a colour table", declared=own("cover"), told="entries of a colour table"
    ),
    "odd_rasters/cog_dateline.tif": untold(own("value"), Read(("value",), "own", 100.0, 0, 60_000)),
    "odd_rasters/cog_fullearth.tif": untold(
        own("value"), Read(("value",), "own", 92_800.0, -1e20, 1e20, missing=0.54)
    ),
    "odd_rasters/cog_gcps.tif": untold(
        own("value"), Read(("value",), "own", None, 0, 60_000, remark="by ground control points only")
    ),
    "odd_rasters/cog_hirise_mars.tif": Outcome(
        Read(RGB, DISPLAY_BYTE, 5.0, 0, 255, remark="another body than the Earth")
    ),
    "odd_rasters/cog_int16.tif": untold(own("value"), Read(("value",), "own", 100.0, -32_767, 32_767)),
    "odd_rasters/cog_nodata.tif": untold(own("value"), Read(("value",), "own", 100.0, 2, 65_535)),
    "odd_rasters/nocog.tif": untold(own("value"), Read(("value",), "own", 100.0, 1, 65_535)),
    # Its filler is 0 as it declares, and NaN as its name says.
    "odd_rasters/cog_nodata_nan.tif": untold(
        own("Gamma0_VV"),
        Read(("Gamma0_VV",), "own", 200.0, 0, 100, missing=0.51),
        sentinel_1="the file calls its bands Gamma0_VV; bands of sentinel-1 are VV, VH, HH, HV",
    ),
    "odd_rasters/cog_nonearth.tif": untold(
        own("IR-9680"), Read(("IR-9680",), "own", 282.0, 0, 1, 0.90, "another body than the Earth")
    ),
    "odd_rasters/cog_scale.tif": untold(own(*numbered(2)), Read(numbered(2), "own", 429.0, 999, 2_014)),
    "odd_rasters/float_raster_with_nodata.tif": untold(
        own("value"), Read(("value",), "own", 500.0, 0, 1, missing=0.37)
    ),
    "odd_rasters/mosaic_cog?.tif": DEEP_COLOUR,
    "odd_rasters/rgb.tif": untold(
        own(*numbered(3)),
        Read(numbered(3), "own", 900.0, 1, 65_535, missing=0.30),
        rgb="a byte lies between 0 and 255",
    ),
    "sen1floods11/*_LabelHand.tif": Outcome(UNTOLD),
    "sen1floods11/*_S1Hand.tif": Outcome(Read(("VV", "VH"), DECIBEL, 10.0, -80, 40)),
    "sen1floods11/*_S2Hand.tif": Outcome(Read(SENTINEL_2, REFLECTANCE_10000, 10.0, 1, 30_000)),
    "sentinel2_13band/REFERENCE_SCENES.npy": Outcome(
        ".npy is not read; save it as a GeoTIFF, which says its bands and its place"
    ),
}
LARGEST_COMPARED = 1024
"""Pixels on a side of what is compared with rasterio's own reading."""

NAMES = sorted(
    file.relative_to(DATA).as_posix() for file in DATA.rglob("*") if file.is_file() and file.suffix != ".zip"
)


def outcome_of(name: str) -> Outcome:
    unknown = Outcome("a line in OUTCOMES that says what becomes of it")
    return next((outcome for pattern, outcome in OUTCOMES.items() if fnmatch(name, pattern)), unknown)


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_read_rightly_or_refused_in_one_line(name: str) -> None:
    check(DATA / name, outcome_of(name).alone, SPEC)


@pytest.mark.parametrize("name", [name for name in NAMES if outcome_of(name).told])
def test_told_what_it_does_not_say_it_is_read_rightly(tmp_path: Path, name: str) -> None:
    outcome = outcome_of(name)
    if outcome.declared:
        (tmp_path / "bands.yaml").write_text(yaml.safe_dump(list(outcome.declared)))
    path = tmp_path / Path(name).name
    path.symlink_to(DATA / name)
    check(path, outcome.told, SPEC.model_copy(update={"sensor": outcome.sensor or "auto"}))


@pytest.mark.parametrize(
    ("name", "sensor"), [(name, sensor) for name in NAMES for sensor in outcome_of(name).also]
)
def test_told_wrongly_it_is_refused(name: str, sensor: str) -> None:
    words = outcome_of(name).also[sensor]
    check(DATA / name, words, SPEC.model_copy(update={"sensor": sensor}))


def check(path: Path, expected: Read | str, spec: RasterEncoding) -> None:
    if isinstance(expected, str):
        with pytest.raises(GroundworkError) as error:
            GEOSPATIAL.open(path, spec)
        assert expected in str(error.value)
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)
        return
    source = GEOSPATIAL.open(path, spec)
    bands = source.encoding.bands  # type: ignore[attr-defined]
    assert tuple(band.name for band in bands) == expected.bands
    assert bands[0].unit == expected.unit
    assert {band.gsd for band in bands} == {expected.gsd}
    assert expected.remark in " ".join(source.remarks)
    found = compared(path, source)
    assert expected.low <= np.nanmin(found)
    assert np.nanmax(found) <= expected.high
    assert np.isnan(found).all(axis=0).mean() == pytest.approx(expected.missing, abs=0.012)
    has_records = any(isinstance(each, Record) for each in _first_chips(source))
    assert has_records


def compared(path: Path, source: Source) -> np.ndarray:
    """The middle of a scene, whose place and numbers are those that rasterio gives."""
    scene = scene_of(source)
    side = LARGEST_COMPARED
    row, column = max(scene.height - side, 0) // 2, max(scene.width - side, 0) // 2
    found = scene.read(row, column, min(side, scene.height), min(side, scene.width), source.encoding.bands)  # type: ignore[attr-defined]
    with rasterio.open(path) as file:
        assert (scene.height, scene.width) == file.shape
        if file.crs:
            assert rasterio.crs.CRS.from_wkt(scene.crs) == file.crs
            assert scene.transform == tuple(file.transform)[:6]
        else:
            assert scene.crs == ""
        window = rasterio.windows.Window(column, row, found.shape[2], found.shape[1])
        masked = file.read(window=window, masked=True).astype(np.float64)
        scales, offsets = (np.array(each).reshape(-1, 1, 1) for each in (file.scales, file.offsets))
    own_reading = (masked * scales + offsets).filled(np.nan)
    assert np.allclose(found, own_reading, rtol=1e-6, equal_nan=True)
    return found


def _first_chips(source: Source) -> list[object]:
    return [GEOSPATIAL.read(row, source.encoding) for row in islice(source.stream(), 200)]


# -------------------------------------------------------------------------------------------- whole datasets


def test_burn_scars_are_fifteen_scenes_and_seven_rejects() -> None:
    source = GEOSPATIAL.open(DATA / "burn_scars", SPEC)
    records, rejects = read_all(source)
    assert len({record.value.scene for record in records}) == 15
    assert len(rejects) == 7
    assert {reject.reason for reject in rejects} == {
        "bands TCI_R, TCI_G, TCI_B in display bytes where B4, B3, B2 in reflectance × 10000 are expected"
    }
    assert any("images_before/" in remark for remark in source.remarks)
    assert any("--use-bands B8,B12 uses 22 of them" in remark for remark in source.remarks)
    burnt = [GEOSPATIAL.labels(record, ["mask"])["mask"] for record in records]
    assert 0.05 < np.nanmean(np.concatenate(burnt)) < 0.6
    assert len(set(GEOSPATIAL.groups(iter(records), "blocks").tolist())) >= 10


def test_all_fires_have_two_bands_in_common() -> None:
    source = GEOSPATIAL.open(DATA / "burn_scars", RasterEncoding(chip=64, use_bands="B8,B12"))
    records, rejects = read_all(source)
    assert not rejects
    assert len({record.value.scene for record in records}) == 22


@pytest.mark.parametrize(
    ("image", "mask", "nodata", "values"),
    [
        ("sen1floods11/Spain_7370579_S2Hand.tif", "sen1floods11/Spain_7370579_LabelHand.tif", -1, {0, 1}),
        ("hls/biomass_input.tif", "hls/biomass_label.tif", -1, None),
    ],
)
def test_a_label_that_stands_for_none_is_none(
    tmp_path: Path, image: str, mask: str, nodata: float, values: set[float] | None
) -> None:
    for folder, name in (("images", image), ("masks", mask)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "scene.tif").symlink_to(DATA / name)
    with rasterio.open(DATA / image) as file:
        names = [name or f"band{place}" for place, name in enumerate(file.descriptions, start=1)]
    content = {"bands": own(*names), "mask_nodata": nodata}
    (tmp_path / "bands.yaml").write_text(yaml.safe_dump(content))
    records, rejects = read_all(GEOSPATIAL.open(tmp_path, SPEC))
    assert not rejects
    found = np.concatenate([GEOSPATIAL.labels(record, ["mask"])["mask"] for record in records])
    with rasterio.open(DATA / mask) as file:
        stored = file.read(1)
    known = stored[~np.isin(stored, (nodata, -9999))]
    assert sorted(found[np.isfinite(found)]) == pytest.approx(sorted(known))
    assert values is None or set(found[np.isfinite(found)]) == values


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
    with zipfile.ZipFile(DATA / "eurosat_rgb.zip") as archive:
        for each in found[::10]:
            assert isinstance(each, Record)
            picture = np.asarray(Image.open(io.BytesIO(archive.read(each.fields["image"]))))
            assert np.array_equal(each.value.pixels, picture.transpose(2, 0, 1))
    assert all(isinstance(each, Record) for each in found)
