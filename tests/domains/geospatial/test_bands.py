"""Bands: identity, units, and the words for a disagreement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domains.contract import GroundworkError
from domains.geospatial.bands import BandSpec, RasterEncoding, disagreement, places_of, unit_fault
from domains.geospatial.identifying import UnknownBands, identify
from domains.geospatial.rasters import Channel, Header
from domains.geospatial.sensors import SENSORS

numbers = st.floats(-1e6, 1e6, allow_nan=False)
bands = st.builds(
    BandSpec,
    name=st.text("BVH0123456789", min_size=1, max_size=4),
    wavelength=st.none() | st.floats(400, 2500),
    polarisation=st.sampled_from(["", "VV", "VH"]),
    unit=st.sampled_from(["reflectance", "reflectance × 10000", "dB"]),
    scale=numbers,
    offset=numbers,
    gsd=st.none() | st.floats(0.1, 1000),
    nodata=st.none() | numbers,
)


@given(bands)
def test_a_band_survives_json_and_agrees_with_itself(band: BandSpec) -> None:
    again = BandSpec.model_validate_json(band.model_dump_json())
    assert again == band
    assert again.agrees(band)
    assert band.meaning.agrees(band)


@given(st.lists(bands, min_size=1, max_size=5, unique_by=lambda band: band.name), st.randoms())
def test_bands_are_found_in_whatever_order_a_file_has_them(found: list[BandSpec], random: object) -> None:
    wanted = found[:]
    random.shuffle(wanted)  # type: ignore[attr-defined]
    places = places_of(tuple(wanted), tuple(found))
    assert [found[place] for place in places] == wanted


@given(bands, bands)
def test_agreement_is_mutual_and_a_disagreement_always_has_words(one: BandSpec, other: BandSpec) -> None:
    assert one.agrees(other) == other.agrees(one)
    assert bool(disagreement([one], [other])) != one.agrees(other)


def test_a_disagreement_names_both_sides() -> None:
    sentinel = SENSORS["sentinel-2"].bands
    wanted = [sentinel[name] for name in ("B2", "B3", "B4", "B8", "B12")]
    found = [sentinel[name] for name in ("TCI_R", "TCI_G", "TCI_B", "B8", "B12")]
    assert disagreement(wanted, found) == (
        "bands TCI_R, TCI_G, TCI_B in display bytes where B4, B3, B2 in reflectance × 10000 are expected"
    )
    assert disagreement(wanted, wanted[:4]) == (
        "no band B12 in reflectance × 10000, which is expected, but bands B2, B3, B4, B8 in "
        "reflectance × 10000"
    )
    coarse = [band.model_copy(update={"gsd": 30.0}) for band in wanted]
    fine = [band.model_copy(update={"gsd": 10.0}) for band in wanted]
    assert disagreement(fine, coarse) == "pixels of 30 m in B2 where 10 m are expected"
    physical = [band.model_copy(update={"unit": "reflectance"}) for band in wanted[:1]]
    assert disagreement(wanted[:1], physical) == (
        "band B2 in reflectance where B2 in reflectance × 10000 is expected"
    )


@pytest.mark.parametrize(("ratio", "agrees"), [(1.0, True), (1.5, True), (1.51, False), (1 / 1.6, False)])
def test_pixel_sizes_agree_up_to_half_as_much_again(ratio: float, agrees: bool) -> None:
    band = BandSpec(name="B4", wavelength=665, unit="reflectance", gsd=10.0)
    assert band.agrees(band.model_copy(update={"gsd": 10.0 * ratio})) == agrees


def test_a_patch_divides_its_chip() -> None:
    with pytest.raises(ValidationError, match="cannot be cut"):
        RasterEncoding(chip=60, patch=8)


@pytest.mark.parametrize(
    ("unit", "low", "high", "dtype", "fault"),
    [
        ("reflectance × 10000", 0.01, 0.6, "float32", "cannot be reflectance × 10000: it looks like"),
        ("reflectance × 10000", 3, 250, "uint8", "cannot be reflectance × 10000: the file holds bytes"),
        ("reflectance × 10000", 3, 9000, "uint16", ""),
        ("reflectance × 10000", 0, 0, "uint16", ""),
        ("reflectance", 100, 4000, "float32", "it looks like reflectance × 10000"),
        ("reflectance", 0, 255, "float32", "it looks like display byte"),
        ("reflectance", -0.1, 1.4, "float32", ""),
        ("display byte", 0, 4000, "uint16", "a byte lies between 0 and 255"),
        ("dB", 0.001, 0.9, "float32", "linear power"),
        ("dB", 0, 0.9, "float32", "linear power"),
        ("reflectance × 10000", 0, 43_000, "uint16", "still want their scale"),
        ("reflectance × 10000", -1900, 12_000, "int16", ""),
        ("dB", -30, 5, "float32", ""),
        ("kelvin", 1e9, 2e9, "float64", ""),
    ],
)  # fmt: skip
def test_units_are_checked_on_the_numbers(unit: str, low: float, high: float, dtype: str, fault: str) -> None:
    pixels = np.linspace(low, high, 400, dtype=np.float32).reshape(1, 20, 20)
    said = unit_fault(pixels, [BandSpec(name="B4", wavelength=665, unit=unit)], [dtype])
    assert fault in said
    assert bool(said) == bool(fault)


def test_a_dead_pixel_and_missing_data_say_nothing_of_a_unit() -> None:
    pixels = np.full((1, 40, 40), 0.3, np.float32)
    pixels[0, :20] = np.nan
    pixels[0, 30, 30] = 60_000
    assert not unit_fault(pixels, [BandSpec(name="B4", unit="reflectance")])
    assert not unit_fault(np.full((1, 8, 8), np.nan), [BandSpec(name="B4", unit="dB")])


@pytest.mark.parametrize(
    ("unit", "filler", "words"),
    [
        ("reflectance × 10000", -9999, "holds -9999, which stands for no data"),
        ("reflectance × 10000", 65535, "holds 65535, which stands for no data"),
        ("reflectance", -999, "holds -999, which stands for no data"),
        ("reflectance", -3.4e38, "holds -3.4e+38, which stands for no data"),
        ("dB", -9999, "holds -9999, which stands for no data"),
        ("m", -9999, ""),
    ],
)
def test_a_filler_that_nobody_declared_is_told_by_what_no_surface_shows(
    unit: str, filler: float, words: str
) -> None:
    low, high = {"dB": (-25, -3), "reflectance": (0.1, 0.5)}.get(unit, (100, 5000))
    pixels = np.linspace(low, high, 2000, dtype=np.float32).reshape(1, 40, 50)
    assert not unit_fault(pixels, [BandSpec(name="B4", unit=unit)])
    pixels[0, 0, :4] = filler
    said = unit_fault(pixels, [BandSpec(name="B4", unit=unit)])
    assert words in said
    assert bool(said) == bool(words)


def test_a_filler_is_told_as_it_is_stored() -> None:
    band = BandSpec(name="B4", unit="reflectance", scale=0.0001, offset=-0.1)
    pixels = np.full((1, 8, 8), 0.2, np.float32)
    pixels[0, 0, 0] = -9999 * 0.0001 - 0.1
    assert "say nodata: -9999 in a bands.yaml" in unit_fault(pixels, [band])


def test_bytes_beside_reflectances_are_seen_through_a_wide_type() -> None:
    sentinel = SENSORS["sentinel-2"].bands
    chosen = [sentinel[name] for name in ("B4", "B3", "B8")]
    pixels = np.stack([np.linspace(0, top, 400) for top in (255, 254, 5000)]).astype(np.float32)
    assert "bands B4, B3 end at 255 like display bytes" in unit_fault(pixels, chosen)


# ------------------------------------------------------------------------------------------ what a file says


def header(*channels: Channel) -> Header:
    return Header(64, 64, channels)


def channels(names: str, dtype: str = "uint16", unit: str = "", **others: float) -> list[Channel]:
    return [Channel("" if name == "-" else name, dtype, unit=unit, **others) for name in names.split()]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "sensor", "names"),
    [
        (channels("B2 B3 B4 B8 B12"), "auto", "B2 B3 B4 B8 B12"),
        (channels("b02 B8a"), "auto", "B2 B8A"),
        (channels("B1 B2 B3 B4 B8A B10"), "auto", "B1 B2 B3 B4 B8A B10"),
        (channels("B1 B10"), "sentinel-2", "B1 B10"),
        (channels("TCI_R B8"), "auto", "TCI_R B8"),
        (channels("VV VH", "float32"), "auto", "VV VH"),
        (channels("- - -", "uint8"), "auto", "R G B"),
        (channels("red green blue", "uint8"), "auto", "R G B"),
        (channels("Blue Red Green", "uint8"), "auto", "B R G"),
        (channels("- - - -", "uint8"), "naip", "R G B NIR"),
        (channels("B1 B2 B3"), "landsat-8", "B1 B2 B3"),
        (channels("Band_1 band-02 BAND3 layer4", "uint8"), "naip", "R G B NIR"),
        (channels("- " * 12), "sentinel-2", "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B11 B12"),
        (channels("soil_moisture", "float32", unit="m3/m3"), "auto", "soil_moisture"),
    ],
)
def test_bands_are_identified(found: list[Channel], sensor: str, names: str) -> None:
    assert [band.name for band in identify(header(*found), (), sensor)] == names.split()


@pytest.mark.parametrize(
    ("found", "sensor", "words"),
    [
        (
            channels("B2 B3 B4"),
            "auto",
            "may be those of sentinel-2, landsat-5, landsat-7 or landsat-8: say which with --sensor",
        ),
        (channels("- - - -"), "auto", "4 bands, no names, uint16; say --sensor"),
        (channels("Band_1 Band_2"), "auto", "2 bands, no names, uint16; say --sensor"),
        (channels("Band_4 Band_3 Band_2"), "landsat-8", "the file calls its bands Band_4, Band_3, Band_2"),
        (channels("B4 B3 b4"), "landsat-8", "it calls several bands B4, such as those of several dates"),
        (channels("B1 B2 B3 B4 B5 B6 B7 B10 B11"), "auto", "may be those of sentinel-2 or landsat-8"),
        (channels("B4 B04 B8"), "auto", "its bands B4 and B04 are both B4: leave one of them out"),
        (channels("RED R BLUE", "uint8"), "rgb", "its bands RED and R are both R: leave one of them out"),
        (channels("- - -"), "auto", "such as: bands: [{name: band1, wavelength: ?, unit: ?}"),
        (channels("Gamma0_VV", "float32"), "auto", "1 band, Gamma0_VV, float32"),
        (channels("- - - -"), "sentinel-2", "4 bands without names, where files of sentinel-2 hold 13 or 12"),
        (channels("B2 chlorophyll"), "sentinel-2", "the file calls its bands B2, chlorophyll"),
        ([Channel("", "uint8", is_palette=True)], "auto", "entries of a colour table"),
    ],
)
def test_bands_that_nobody_tells_are_asked_for(found: list[Channel], sensor: str, words: str) -> None:
    with pytest.raises(GroundworkError) as error:
        identify(header(*found), (), sensor)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_stated_wavelengths_tell_whose_a_name_is() -> None:
    """Many sensors have a B4."""

    def at(**centres: float) -> Header:
        return header(*(Channel(name, "uint16", wavelength=centre) for name, centre in centres.items()))

    landsat = identify(at(B2=482, B3=561, B4=655, B5=865), (), "auto")
    assert [band.wavelength for band in landsat] == [482.0, 561.4, 654.6, 864.7]
    assert identify(at(B2=490, B8=842), (), "auto")[1].wavelength == 832.8
    with pytest.raises(UnknownBands, match=r"neither the file nor a bands\.yaml says which bands these are"):
        identify(at(B2=490, B4=565, B6=665, B8=865), (), "auto")  # of another camera


def test_tags_of_scale_lead_to_the_sensors_unit() -> None:
    """Sentinel-2 since 2022 stores reflectance × 10000 + 1000, and says so in scale and offset."""
    (band,) = identify(header(Channel("B8A", "uint16", scale=0.0001, offset=-0.1)), (), "auto")
    assert (band.unit, band.scale, band.offset) == ("reflectance × 10000", 1.0, -1000.0)
    (stated,) = identify(header(Channel("B8A", "uint16", 0.0001, -0.1, "reflectance")), (), "auto")
    assert (stated.unit, stated.scale, stated.offset) == ("reflectance", 0.0001, -0.1)


def test_a_file_may_describe_itself() -> None:
    own = Channel("B4", "float32", unit="reflectance", wavelength=654.6)
    (band,) = identify(header(own), (), "auto")
    assert (band.name, band.wavelength, band.unit) == ("B4", 654.6, "reflectance")
