"""What cannot be mapped is refused in one line, in bounded memory, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from scenes_to_map import (
    BANDS,
    BURNT,
    CHIP,
    UNIT,
    burnt,
    nothing,
    of_pixels,
    source_of,
    write_scene,
)

from domains.contract import GroundworkError, Source, Target
from domains.geospatial import map_file
from domains.geospatial.bands import RasterEncoding
from domains.geospatial.maps import write_map

pytestmark = pytest.mark.filterwarnings("ignore", category=NotGeoreferencedWarning)


def refusal(source: Source, out: Path, target: Target = BURNT) -> str:
    before = sorted(out.parent.iterdir()) if out.parent.is_dir() else []
    with pytest.raises(GroundworkError) as refused:
        write_map(source, target, of_pixels(burnt), out, {}, nothing)
    assert "\n" not in str(refused.value)
    assert (sorted(out.parent.iterdir()) if out.parent.is_dir() else []) == before
    return str(refused.value)


def test_what_cannot_be_mapped_is_refused_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    scene = tmp_path / "scene.tif"
    write_scene(scene, 20, 20)
    good = source_of(scene)
    assert "ends in .tif" in refusal(good, tmp_path / "map.png")
    assert "no folder" in refusal(good, tmp_path / "nowhere" / "map.tif")
    assert "the scene itself" in refusal(good, scene)
    (tmp_path / "folder.tif").mkdir()
    assert "is a folder" in refusal(good, tmp_path / "folder.tif")
    fractions = BURNT.model_copy(update={"values": (0.5, 1.5)})
    assert "0.5, 1.5" in refusal(good, tmp_path / "map.tif", fractions)

    with rasterio.open(
        tmp_path / "empty.tif", "w", driver="GTiff", height=20, width=20, count=3, dtype="int16"
    ) as file:
        file.write(np.full((3, 20, 20), -1, np.int16))
    assert "no pixel with data" in refusal(source_of(tmp_path / "empty.tif"), tmp_path / "map.tif")

    rows = [*good.stream(), *source_of(tmp_path / "empty.tif").stream()]
    several = Source("set", "", "", ("image",), lambda: iter(rows), good.encoding)
    assert "several scenes" in refusal(several, tmp_path / "map.tif")
    other = tuple(band.model_copy(update={"unit": "display byte"}) for band in BANDS)
    bytes_model = Source(
        "s", "", "", ("image",), good.stream, RasterEncoding(chip=CHIP, patch=8, bands=other)
    )
    message = refusal(bytes_model, tmp_path / "map.tif")
    assert "display byte" in message
    assert UNIT in message

    whole = scene.read_bytes()
    scene.write_bytes(whole[: len(whole) // 2])
    assert "scene.tif" in refusal(good, tmp_path / "map.tif")


def test_a_full_disk_is_told_before_and_while_a_map_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scene(tmp_path / "scene.tif", 20, 20)
    good = source_of(tmp_path / "scene.tif")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(map_file.os, "replace", full)
        assert "is full: free some space" in refusal(good, tmp_path / "map.tif")
    usage = map_file.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(map_file.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert "takes" in refusal(good, tmp_path / "map.tif")


def test_a_run_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    class Cancelled(BaseException):
        pass

    def cancel(fraction: float) -> None:
        if fraction > 0.3:
            raise Cancelled

    write_scene(tmp_path / "scene.tif", 60, 20)
    with pytest.raises(Cancelled):
        write_map(
            source_of(tmp_path / "scene.tif"), BURNT, of_pixels(burnt), tmp_path / "map.tif", {}, cancel
        )
    assert [part.name for part in tmp_path.iterdir()] == ["scene.tif"]


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


@pytest.mark.slow
def test_a_disk_that_stops_taking_bytes_is_told_in_one_line(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the writes fail in the same places."""
    write_scene(tmp_path / "scene.tif", 600, 600)
    # 600 × 600 × 4 bytes: the rows do not fit, then they do, and the map with its overviews does not.
    script = """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from domains.contract import GroundworkError
        from scenes_to_map import BIOMASS, make
        folder = Path(sys.argv[1])
        for limit in (400_000, 1_450_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                make(folder / "scene.tif", BIOMASS, lambda it: np.sin(it[1])[:, None], folder / "map.tif")
            except GroundworkError as error:
                print(error)
    """
    printed = run(script, tmp_path)
    lines = printed.stdout.splitlines()
    assert len(lines) == 2, printed.stderr
    assert all("cannot be written" in line for line in lines)
    assert [part.name for part in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_memory_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    peaks = {}
    for side in (1000, 4000):
        random = np.random.default_rng(side)
        blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "zlevel": 1}
        size = {"height": side, "width": side, "count": 3, "dtype": "int16", "nodata": -1}
        with rasterio.open(tmp_path / f"{side}.tif", "w", driver="GTiff", **size, **blocks) as file:
            coarse = random.integers(0, 10_000, (3, side // 8, side // 8)).astype(np.int16)
            file.write(np.kron(coarse, np.ones((8, 8), np.int16)))
        script = """
            import sys
            from pathlib import Path
            from scenes_to_map import COVER, cover, make
            scene = Path(sys.argv[1])
            make(scene, COVER, cover, scene.with_name("map.tif"), chip=64)
            # Not what getrusage says: that is of the process that began this one, if it had more.
            print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
        """
        printed = run(script, tmp_path / f"{side}.tif")
        assert printed.returncode == 0, printed.stderr
        peaks[side] = int(printed.stdout)
    assert peaks[4000] <= 1.2 * peaks[1000], peaks
