"""Chips that are read in turn share their reads, and are what they are when each is read alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasters_on_disk import BURN_BANDS, PLACE, opened, reflectances, write_tiff

from domains.contract import Record, Reject
from domains.geospatial import GEOSPATIAL, Scene
from domains.store import Store, build

ROOT = Path(__file__).parents[3]
TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}


def gappy(height: int, width: int, dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    pixels = reflectances(5, height, width, seed).astype(dtype)
    pixels[:, : height // 3, width // 2 :] = 0
    return pixels


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_chips_in_turn_are_those_read_alone(tmp_path: Path, dtype: str) -> None:
    pixels = gappy(150, 205, dtype)
    path = write_tiff(tmp_path / "a.tif", pixels, "abcde", units="m", nodata=0, **TILED)
    source = opened(path)
    rows = list(source.stream())
    in_turn = {row.index: GEOSPATIAL.read(row, source.encoding) for row in rows}
    order = np.random.default_rng(0).permutation(len(rows))[::-1]
    alone = {rows[place].index: GEOSPATIAL.read(rows[place], source.encoding) for place in order}
    assert any(isinstance(found, Reject) for found in alone.values())
    for index, found in alone.items():
        if isinstance(found, Reject):
            assert in_turn[index] == found
            continue
        np.testing.assert_array_equal(in_turn[index].value.pixels, found.value.pixels)
        assert in_turn[index].identity == found.identity
        row, column = found.value.row, found.value.column
        stored = pixels[:, row : row + 32, column : column + 32].astype(np.float32)
        expected = np.where(stored == 0, np.nan, stored)
        read = found.value.pixels[:, : stored.shape[1], : stored.shape[2]]
        np.testing.assert_array_equal(read, expected)


def test_a_row_of_chips_is_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(write_tiff(tmp_path / "a.tif", gappy(96, 320), BURN_BANDS, nodata=0, **TILED))
    rows, windows = list(source.stream()), []
    read = Scene.pixels
    monkeypatch.setattr(
        Scene, "pixels", lambda self, *window: (windows.append(window[:4]), read(self, *window))[1]
    )
    found = [GEOSPATIAL.read(row, source.encoding) for row in rows]
    assert windows == [(0, 0, 32, 32), (0, 32, 32, 288), (32, 0, 32, 320), (64, 0, 32, 320)]
    kept = [each.value.pixels for each in found if isinstance(each, Record)]
    kept[0][:] = -1  # whoever has a chip may write in it
    assert all((pixels != -1).all() for pixels in kept[1:])


def test_a_file_that_has_changed_is_read_anew(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.full((5, 64, 128), 500, np.uint16), BURN_BANDS)
    source = opened(path)
    rows = list(source.stream())
    for value in (500, 700):
        write_tiff(path, np.full((5, 64, 128), value, np.uint16), BURN_BANDS)
        for row in rows[:3]:
            found = GEOSPATIAL.read(row, source.encoding)
            assert isinstance(found, Record)
            assert (found.value.pixels == value).all()


def test_a_damaged_block_costs_its_own_chips_alone(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", reflectances(5, 384, 640), BURN_BANDS, **TILED)
    whole = path.read_bytes()
    with rasterio.open(path) as file:
        place = int(file.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    path.write_bytes(whole[:place] + b"\xff" * 200 + whole[place + 200 :])
    source = opened(path)
    found = [GEOSPATIAL.read(row, source.encoding) for row in source.stream()]
    faults = [
        row.fields["row"] + " " + row.fields["column"]
        for row, each in zip(source.stream(), found, strict=True)
        if isinstance(each, Reject)
    ]
    assert faults == ["64 64", "64 96", "96 64", "96 96"]


# ------------------------------------------------------------------------------------------- the store

SCRIPT = """
import sys, time
from pathlib import Path
from domains.geospatial import GEOSPATIAL, RasterEncoding
from domains.store import build

def say(done, total):
    print(done, total, flush=True)
    time.sleep(0.05)

if __name__ == "__main__":
    GEOSPATIAL.shard_rows = 16
    source = GEOSPATIAL.open(Path(sys.argv[1]), RasterEncoding(chip=32, patch=8))
    build("geospatial", source, source.encoding, Path(sys.argv[2]), workers=int(sys.argv[3]), progress=say)
"""


def many_scenes(folder: Path) -> Path:
    for number in range(12):
        pixels = gappy(100, 130, seed=number)
        write_tiff(folder / f"scene{number:02d}.tif", pixels, BURN_BANDS, nodata=0, transform=PLACE)
    return folder


def huge_scene(folder: Path) -> Path:
    return write_tiff(folder / "scene.tif", gappy(700, 500), BURN_BANDS, nodata=0, **TILED)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("make", [many_scenes, huge_scene])
def test_a_killed_build_goes_on_to_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], workers: int
) -> None:
    path, root = make(tmp_path / "data"), tmp_path / "stores"
    (tmp_path / "build.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "build.py"), str(path), str(root), str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            done, total = map(int, line.split())
            if done >= total // 3:
                process.send_signal(signal.SIGKILL)
                break
    assert 0 < done < total
    finished = len(list(root.glob("*.parts/0*")))
    assert 16 * finished >= done
    assert not list(root.glob("*/manifest.json"))

    monkeypatch.setattr(GEOSPATIAL, "shard_rows", 16)
    source = opened(path)
    heard: list[tuple[int, int | None]] = []

    def made(place: Path) -> Store:
        return build("geospatial", source, source.encoding, place, progress=lambda *it: heard.append(it))

    resumed, fresh = made(root), made(tmp_path / "fresh")
    assert resumed.digest == fresh.digest
    assert len(resumed) == len(fresh) > 0
    assert resumed.counts.rejects > 0
    for one, other in zip(resumed, fresh, strict=True):
        np.testing.assert_array_equal(one["pixels"], other["pixels"])
    assert heard[-1] == (total, total)
    assert len(heard) > 8  # it is heard of also within a scene
