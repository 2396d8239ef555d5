"""NetCDF files and Zarr stores, opened so that they reach no other file, run no code and fill no memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from domains.contract import GroundworkError
from domains.geospatial.rasters import one_line

NETCDF_SUFFIXES, STORE = (".nc", ".nc4"), ".zarr"
CUBE_SUFFIXES = (*NETCDF_SUFFIXES, STORE)
STORE_MARKS = frozenset(("zarr.json", ".zgroup", ".zarray", ".zmetadata"))
"""What tells the folder of a Zarr store."""
LARGEST_BLOCK = 1 << 30
"""Bytes of a chunk, which is unpacked whole."""
LARGEST_AXIS = 10_000_000
"""Numbers along an axis: xarray reads all coordinates as it opens a file."""
LARGEST_METADATA = 1 << 22
CODECS = frozenset(
    (
        *("blosc", "bytes", "bz2", "crc32", "crc32c", "delta", "fixedscaleoffset", "gzip", "lz4", "lzma"),
        *("sharding_indexed", "shuffle", "transpose", "vlen-utf8", "zlib", "zstd"),
    )
)
"""Codecs of Zarr that turn bytes into numbers and texts. Others are not needed, and one unpickles."""


def open_cube(path: str) -> xr.Dataset:
    """A cube whose numbers are read when they are asked for. Raises GroundworkError for what is not safe."""
    if os.path.isdir(path):
        if not os.listdir(path):
            raise GroundworkError("it is an empty folder: copy the store again")
        _check_store(Path(path))
        # Without what is consolidated: the metadata that were checked are those that count.
        dataset = _opened(path, engine="zarr", consolidated=False)
        return dataset[sorted(dataset.data_vars, key=str)]  # a folder has no order of its own
    with open(path, "rb") as file:
        magic = file.read(3)
    if not magic:
        raise GroundworkError("it is empty, 0 bytes: copy it again")
    if magic == b"CDF":  # NetCDF 3; NetCDF 4 is HDF5
        return _opened(path, engine="scipy")
    _check_hdf(path)
    return _opened(path, engine="h5netcdf")


def _opened(path: str, **how: Any) -> xr.Dataset:
    try:
        try:
            return xr.open_dataset(path, decode_coords="all", cache=False, **how)
        except ValueError as error:
            if "decode time" not in str(error):
                raise
            # A calendar without leap days, or none at all: the times stay numbers, and only name the scenes.
            return xr.open_dataset(path, decode_coords="all", decode_times=False, cache=False, **how)
    except (AttributeError, IndexError, TypeError) as error:  # of metadata that contradict each other
        raise GroundworkError(f"its metadata cannot be understood: {one_line(error)}") from error


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store, by its name."""
    return path.suffix.lower() == STORE and path.is_dir()


def store_files(path: Path) -> Iterator[Path]:
    """Files of a store in the order of their names."""
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


# ---------------------------------------------------------------------------------------------- HDF5


def _check_hdf(path: str) -> None:
    # An answer ends the visit; an error would be lost within HDF5.
    def fault_of(_: str, found: object) -> str | None:
        if isinstance(found, h5py.ExternalLink):
            return "it links to another file, which is not read: copy both into one"
        if not isinstance(found, h5py.Dataset):
            return None
        if found.external or found.is_virtual:
            return "its numbers lie in other files, which is not read: copy them into one"
        return _fault_of_size(found.shape or (), found.chunks or (), found.dtype.itemsize) or None

    with h5py.File(path, "r") as file:
        fault = file.visititems_links(fault_of) or file.visititems(fault_of)
    if fault:
        raise GroundworkError(fault)


# ---------------------------------------------------------------------------------------------- Zarr


def _check_store(path: Path) -> None:
    for file in store_files(path):
        if file.name not in ("zarr.json", ".zarray"):
            continue
        if file.stat().st_size > LARGEST_METADATA:
            raise GroundworkError(f"metadata of over {LARGEST_METADATA >> 20} MiB are not read")
        try:
            _check_array(json.loads(file.read_bytes()))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise GroundworkError(f"its {file.name} is damaged: copy the store again") from error


def _check_array(array: dict[str, Any]) -> None:
    if "shape" not in dict(array):  # a group
        return
    if odd := sorted(set(_codecs(array)) - CODECS):
        raise GroundworkError(f"Zarr's codec {odd[0]} is not read: write it anew with blosc or zstd")
    is_old = "chunks" in array  # version 2
    chunks = array["chunks"] if is_old else array["chunk_grid"]["configuration"]["chunk_shape"]
    if fault := _fault_of_size(array["shape"], chunks, _bytes_of(array.get("dtype", array.get("data_type")))):
        raise GroundworkError(fault)


def _codecs(array: dict[str, Any]) -> Iterator[str]:
    """Names of all that turns bytes into numbers, in version 2 and 3, inside of shards as well."""
    lists = ("filters", "codecs", "index_codecs", "storage_transformers")
    entries = [array.get("compressor"), *(entry for name in lists for entry in array.get(name) or ())]
    for entry in filter(None, entries):
        if isinstance(entry, str):
            yield entry
            continue
        yield str(entry.get("id") or entry.get("name"))
        yield from _codecs(entry.get("configuration") or {})


def _bytes_of(kind: object) -> int:
    try:
        return np.dtype(kind).itemsize  # type: ignore[call-overload]
    except TypeError:  # texts and the like
        return 8


def _fault_of_size(shape: Sequence[int], chunks: Sequence[int], itemsize: int) -> str:
    """Why an array would fill the memory; empty where it would not."""
    if len(shape) == 1 and shape[0] > LARGEST_AXIS:
        return f"{shape[0]:,} numbers along an axis; at most {LARGEST_AXIS:,} are read"
    if math.prod(chunks) * itemsize > LARGEST_BLOCK:
        shown = " × ".join(map(str, chunks))
        return f"its chunks of {shown} are too large to read in parts: make them smaller"
    return ""
