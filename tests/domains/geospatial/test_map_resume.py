"""A map that was killed goes on where it was, and what nobody goes on with does not pile up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from filelock import FileLock
from scenes_to_map import BIOMASS, COVER, cover, nothing, of_pixels, source_of, write_scene

from domains.contract import GroundworkError, Sample, Target
from domains.geospatial import maps, unfinished
from domains.geospatial.maps import write_map

TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16}

CHILD = """
    import sys
    from pathlib import Path
    import numpy as np
    from domains.geospatial import maps, unfinished
    from scenes_to_map import COVER, cover, nothing, of_pixels, source_of

    scene, out, told = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    unfinished.RECORD_SECONDS = 0.0
    maps.SECTION_BYTES = int(sys.argv[4])
    maps.BATCH_BYTES = 1  # one tile at a time

    def predict(samples):
        with told.open("a") as file:
            file.write(f"{np.nansum(samples[0]['pixels'])}\\n")
        if sum(1 for _ in told.open()) == int(sys.argv[5]):
            Path(str(told) + ".reached").touch()
            import time
            time.sleep(60)
        return of_pixels(cover)(samples)

    maps.write_map(source_of(scene), COVER, predict, out, {"model": "one"}, nothing)
"""


def begin(scene: Path, out: Path, told: Path, section_bytes: int, stop_at: int) -> None:
    """Make a map in a child process, and kill it once it was asked for so many tiles."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), *map(str, (scene, out, told, section_bytes, stop_at))],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    deadline = time.monotonic() + 60
    while not Path(f"{told}.reached").exists():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def mapped(
    scene: Path, out: Path, target: Target = COVER, tags: dict[str, str] | None = None
) -> tuple[np.ndarray, list[float], Mapping[str, float]]:
    """The pixels of a map, the sum of each tile that was answered for it, and the shares of the classes."""
    asked = []

    def predict(samples: Sequence[Sample]) -> np.ndarray:
        asked.extend(float(np.nansum(sample["pixels"])) for sample in samples)
        return of_pixels(cover)(samples)[..., : target.outputs]

    written = write_map(source_of(scene), target, predict, out, tags or {"model": "one"}, nothing)
    with rasterio.open(out) as made:
        return made.read(), asked, written.shares


@pytest.mark.parametrize("section_bytes", [10**9, 40_000])
def test_a_killed_map_goes_on_and_equals_an_undisturbed_one(
    section_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = tmp_path / "scene.tif"
    write_scene(scene, 96, 101, **TILED)
    (tmp_path / "whole").mkdir()
    whole, all_tiles, shares = mapped(scene, tmp_path / "whole/map.tif")

    monkeypatch.setattr(maps, "SECTION_BYTES", section_bytes)
    begin(scene, tmp_path / "map.tif", tmp_path / "told", section_bytes, len(all_tiles) * 2 // 3)
    assert not (tmp_path / "map.tif").exists()
    heard = [float(line) for line in (tmp_path / "told").read_text().split()]
    made, rest, shares_then = mapped(scene, tmp_path / "map.tif")
    np.testing.assert_array_equal(made, whole)
    assert shares_then == shares
    # All that is asked twice is the row of tiles that was under way.
    assert {round(tile) for tile in heard + rest} == {round(tile) for tile in all_tiles}
    assert len(heard) + len(rest) <= len(all_tiles) + 9
    assert hidden(tmp_path) == []


def test_sections_change_no_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = tmp_path / "scene.tif"
    for height, width in ((50, 200), (16, 33), (7, 45), (40, 28)):
        write_scene(scene, height, width, **TILED)
        made = []
        for section_bytes in (10**9, 1):
            monkeypatch.setattr(maps, "SECTION_BYTES", section_bytes)
            made.append(mapped(scene, tmp_path / "map.tif")[0])
        np.testing.assert_array_equal(*made)


def stopped(scene: Path, out: Path, tags: dict[str, str], target: Target = COVER) -> None:
    def stop(fraction: float) -> None:
        if fraction > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_map(
            source_of(scene),
            target,
            lambda samples: of_pixels(cover)(samples)[..., : target.outputs],
            out,
            tags,
            stop,
        )


def test_another_model_or_scene_begins_anew_and_leaves_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "RECORD_SECONDS", 0.0)
    scene, out = tmp_path / "scene.tif", tmp_path / "map.tif"
    write_scene(scene, 96, 40)
    stopped(scene, out, {"model": "one"})
    assert len(mapped(scene, out)[1]) < 24
    for changed in ({"tags": {"model": "two"}}, {"target": BIOMASS}):
        stopped(scene, out, {"model": "one"})
        assert len(hidden(tmp_path)) == 1
        assert len(mapped(scene, out, **changed)[1]) == 24
        assert hidden(tmp_path) == []

    stopped(scene, out, {"model": "one"})
    stopped(scene, out, {"model": "two"})
    assert len(hidden(tmp_path)) == 1
    stopped(scene, tmp_path / "other.tif", {"model": "one"})
    assert len(hidden(tmp_path)) == 2
    old = time.time() - unfinished.KEPT_SECONDS - 1
    os.utime(hidden(tmp_path)[0], (old, old))
    mapped(scene, tmp_path / "other.tif")
    assert hidden(tmp_path) == []


def hidden(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith("."))


def test_two_runs_do_not_make_one_map_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "RECORD_SECONDS", 0.0)
    scene, out = tmp_path / "scene.tif", tmp_path / "map.tif"
    write_scene(scene, 60, 40)
    stopped(scene, out, {"model": "one"})
    with (
        FileLock(hidden(tmp_path)[0] / "lock"),
        pytest.raises(GroundworkError, match="being made by another"),
    ):
        mapped(scene, out)
    mapped(scene, out)
