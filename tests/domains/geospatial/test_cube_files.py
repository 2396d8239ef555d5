"""NetCDF files and Zarr stores that are damaged, or that would reach what is not theirs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from rasters_on_disk import SPEC, error_of, opened, read_all, zipped

from domains.contract import GroundworkError
from domains.geospatial import GEOSPATIAL


def hdf(path: Path, fill: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((40, 36), "u1")
    layout[:] = h5py.VirtualSource("/etc/other.nc", "B8A", (40, 36))
    file.create_virtual_dataset("B8A", layout)


def linked(file: h5py.File) -> None:
    file["deep/B8A"] = h5py.ExternalLink("/etc/other.nc", "/B8A")


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (
            lambda file: file.create_dataset("B8A", (40, 36), "u1", external=[("/etc/passwd", 0, 1440)]),
            "its numbers lie in other files",
        ),
        (virtual, "its numbers lie in other files"),
        (linked, "it links to another file"),
        (
            lambda file: file.create_dataset("x", (10**12,), "f8", chunks=(1000,)),
            "1,000,000,000,000 numbers along an axis",
        ),
        (
            lambda file: file.create_dataset("a", (10**5,) * 2, "u1", chunks=(60_000,) * 2, compression=1),
            "its chunks of 60000 × 60000 are too large",
        ),
    ],
    ids=["external", "virtual", "linked", "an endless axis", "one huge chunk"],
)
def test_a_netcdf_reaches_no_other_file_and_fills_no_memory(
    tmp_path: Path, fill: Callable[[h5py.File], object], words: str
) -> None:
    assert words in error_of(hdf(tmp_path / "a.nc", fill))


def store(path: Path) -> Path:
    """A Zarr store of version 2 with one band and no location."""
    values = np.random.default_rng(0).integers(100, 4000, (40, 36), np.int16)
    xr.Dataset({"B8A": (("y", "x"), values)}).to_zarr(path, zarr_format=2, consolidated=False)
    return path


def with_metadata(path: Path, **changes: object) -> None:
    file = path / "B8A/.zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def unpickled(path: Path) -> None:
    with_metadata(path, compressor={"id": "pickle", "protocol": 5})
    (path / "B8A/0.0").write_bytes(pickle.dumps(_Trap(path.parent / "sprung")))


class _Trap:
    """Makes a file as soon as it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a codec that unpickles": (unpickled, "Zarr's codec pickle is not read"),
    "no JSON": (lambda path: (path / "B8A/.zarray").write_text("{"), "its .zarray is damaged"),
    "another JSON": (lambda path: (path / "B8A/.zarray").write_text("[1]"), "its .zarray is damaged"),
    "metadata with holes": (
        lambda path: (path / "B8A/.zarray").write_text('{"shape": 3}'),
        "its .zarray is damaged",
    ),
    "a huge chunk": (
        lambda path: with_metadata(path, shape=[10**5] * 2, chunks=[60_000] * 2),
        "its chunks of 60000 × 60000 are too large",
    ),
    "an endless axis": (
        lambda path: with_metadata(path, shape=[10**12], chunks=[9]),
        "numbers along an axis",
    ),
    "cut chunks": (lambda path: (path / "B8A/0.0").write_bytes(b"xx"), "a.zarr"),
    "nothing": (lambda path: [file.unlink() for file in path.rglob("*") if file.is_file()], "a.zarr"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_store_is_refused_in_one_line_and_runs_nothing(tmp_path: Path, kind: str) -> None:
    spoil, words = SPOILT[kind]
    assert len(read_all(opened(store(tmp_path / "a.zarr"), sensor="sentinel-2"))[0]) == 4
    spoil(tmp_path / "a.zarr")
    assert words in error_of(tmp_path / "a.zarr", sensor="sentinel-2")
    assert not (tmp_path / "sprung").exists()


def test_stores_are_told_by_their_name_and_not_read_in_archives(tmp_path: Path) -> None:
    store(tmp_path / "set/a.zarr")
    assert "holds a Zarr store, which is not read in archives: unpack it" in error_of(
        zipped(tmp_path / "set", tmp_path / "set.zip")
    )
    (tmp_path / "set/a.zarr").rename(tmp_path / "cube")
    assert "cube is a Zarr store: give it a name that ends in .zarr" in error_of(tmp_path / "cube")
    (tmp_path / "file.zarr").write_text("x")
    with pytest.raises(GroundworkError, match=r"file\.zarr is damaged"):
        GEOSPATIAL.open(tmp_path / "file.zarr", SPEC)
