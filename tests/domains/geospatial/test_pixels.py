"""Stores keep short integers as files do, and give the floats of any other reading, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasters_on_disk import BURN_BANDS, opened, reflectances, write_tiff

from domains.contract import Record
from domains.geospatial import GEOSPATIAL
from domains.geospatial.pixels import Pixels, unpacked
from domains.store import Store, build

SHORT = ("uint8", "int8", "uint16", "int16")


@st.composite
def windows(draw: st.DrawFn) -> Pixels:
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, max_side=7))
    dtype = np.dtype(draw(st.sampled_from(SHORT)))
    numbers = draw(hnp.arrays(dtype, shape))
    limits = np.iinfo(dtype)
    filler = draw(st.none() | st.integers(limits.min, limits.max))
    scales = st.sampled_from([1.0, 0.0001, 2.75e-05, -3.0])
    coding = [
        [draw(scales), draw(st.sampled_from([0.0, -0.1, 100.0])), np.nan if filler is None else filler]
        for _ in range(shape[0])
    ]
    gaps = draw(st.none() | hnp.arrays(bool, shape))
    return Pixels(numbers, np.array(coding, np.float32), gaps)


@given(windows())
def test_what_is_packed_is_unpacked(pixels: Pixels) -> None:
    values = pixels.values()
    packed = {name: array.copy() for name, array in pixels.packed().items()}
    assert packed["pixels"].dtype == pixels.numbers.dtype
    [(name, again)] = unpacked(packed).items()
    assert name == "pixels"
    assert again.tobytes() == values.tobytes()
    expected = pixels.numbers.astype(np.float64) * pixels.coding[:, :1, None] + pixels.coding[:, 1:2, None]
    is_gap = pixels.numbers == pixels.coding[0, 2]
    is_gap = is_gap if pixels.gaps is None else is_gap | pixels.gaps
    np.testing.assert_array_equal(np.isnan(values), is_gap)
    np.testing.assert_allclose(values[~is_gap], expected[~is_gap], rtol=1e-6, atol=1e-4)


@given(hnp.arrays(np.float32, (2, 3, 4)))
def test_floats_stay_as_they_are(numbers: np.ndarray) -> None:
    [again] = unpacked(Pixels(numbers).packed()).values()
    assert again.tobytes() == numbers.tobytes()


def store_of(path: Path, home: Path) -> Store:
    """A store of all chips, each of which is what reading its row alone gives."""
    source = opened(path)
    store = build("geospatial", source, source.encoding, home)
    read = {row.index: GEOSPATIAL.read(row, source.encoding) for row in source.stream()}
    kept = [record for record in read.values() if isinstance(record, Record)]
    assert len(store) == len(kept) > 0
    for sample, record in zip(store, kept, strict=True):
        expected = GEOSPATIAL.encode(record, source.encoding)
        assert sample.keys() == expected.keys()
        assert sample["pixels"].dtype == np.float32
        assert np.array(sample["pixels"]).tobytes() == np.array(expected["pixels"]).tobytes()
    return store


def stored_type(store: Store) -> str:
    """Type of the numbers that lie on the disk."""
    [*files] = store.folder.rglob("pixels*.npy")
    return max((np.load(file, mmap_mode="r") for file in files), key=lambda array: array.nbytes).dtype.name


@pytest.mark.parametrize("dtype", [*SHORT, "int32", "float32", "float64"])
@pytest.mark.parametrize("nodata", [None, 0, 7])
def test_a_store_holds_the_type_of_its_files(tmp_path: Path, dtype: str, nodata: float | None) -> None:
    pixels = (reflectances(5, 70, 100) % 100).astype(dtype)
    pixels[:, 10:20, 10:30] = 0
    path = write_tiff(tmp_path / "a.tif", pixels, "abcde", units="m", scale=(0.5, 1.0), nodata=nodata)
    assert stored_type(store_of(path, tmp_path / "home")) == (dtype if dtype in SHORT else "float32")


def test_a_mask_beside_the_pixels_is_kept(tmp_path: Path) -> None:
    import rasterio

    path = write_tiff(tmp_path / "a.tif", reflectances(5, 64, 64), BURN_BANDS)
    seen = np.ones((64, 64), np.uint8) * 255
    seen[5:50, 40:] = 0
    with rasterio.open(path, "r+") as file:
        file.write_mask(seen)
    store = store_of(path, tmp_path / "home")
    assert stored_type(store) == "uint16"
    assert sum(int(np.isnan(sample["pixels"]).sum()) for sample in store) == 5 * 45 * 24


def test_files_of_several_types_become_floats(tmp_path: Path) -> None:
    write_tiff(tmp_path / "in" / "a.tif", reflectances(5, 64, 64), BURN_BANDS, nodata=0)
    write_tiff(tmp_path / "in" / "b.tif", reflectances(5, 64, 64, 1).astype(np.int16), BURN_BANDS, nodata=-1)
    assert stored_type(store_of(tmp_path / "in", tmp_path / "home")) == "float32"


def test_files_filled_with_several_numbers_keep_their_type(tmp_path: Path) -> None:
    for name, nodata in (("a", 0), ("b", 65535), ("c", None)):
        pixels = reflectances(5, 64, 64)
        pixels[:, :9] = 0 if nodata is None else nodata
        write_tiff(tmp_path / "in" / f"{name}.tif", pixels, BURN_BANDS, nodata=nodata)
    assert stored_type(store_of(tmp_path / "in", tmp_path / "home")) == "uint16"
