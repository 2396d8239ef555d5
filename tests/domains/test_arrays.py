"""Arrays of many samples: written beside the making of more, in order, and never silently less than all."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from domains import arrays
from domains.arrays import SampleWriter, load_array

PARTS = st.lists(some.arrays(np.int16, st.tuples(st.integers(0, 9), st.just(3))), min_size=1, max_size=30)


def written(folder: Path, parts: list[np.ndarray]) -> str:
    folder.mkdir()
    with SampleWriter(folder) as samples:
        for part in parts:
            samples.append({"part": part})
        return samples.close()["part"]


@given(PARTS, st.sampled_from([1, 40, 1 << 20]), st.sampled_from([0, 1, 16]))
def test_parts_lie_in_order_however_they_are_gathered(
    tmp_path_factory: pytest.TempPathFactory, parts: list[np.ndarray], at_once: int, behind: int
) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    usual = written(folder / "usual", parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "AT_ONCE", at_once)
        patch.setattr(arrays, "MOST_BEHIND", behind)
        assert written(folder / "other", parts) == usual
    for name in ("usual", "other"):
        flat, starts = (load_array(folder / name / f"part{end}.npy") for end in ("", ".offsets"))
        assert len(starts) == len(parts) + 1
        for place, part in enumerate(parts):
            np.testing.assert_array_equal(flat[starts[place] : starts[place + 1]], part)


def full_disk(folder: Path) -> Path:
    if not Path("/dev/full").exists():
        pytest.skip("no device stands for a full disk here")
    folder.mkdir()
    (folder / "part.npy").symlink_to("/dev/full")
    return folder


@pytest.mark.parametrize("count", [1, 200])
def test_what_cannot_be_written_is_said(tmp_path: Path, count: int) -> None:
    folder, before, given = full_disk(tmp_path / "full"), threading.active_count(), []

    def write() -> None:
        with SampleWriter(folder) as samples:
            for number in range(count):
                samples.append({"part": np.zeros((1 << 18, 3), np.int16)})
                given.append(number)
            samples.close()

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write()
    assert len(given) <= arrays.MOST_BEHIND + 1  # not only when all others have been made for nothing
    assert threading.active_count() == before


def test_no_more_is_held_than_may_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()
    put = arrays.ArrayWriter._put

    def slowly(writer: arrays.ArrayWriter, parts: list[np.ndarray]) -> None:
        assert may_go_on.wait(60)
        put(writer, parts)

    monkeypatch.setattr(arrays.ArrayWriter, "_put", slowly)
    monkeypatch.setattr(arrays, "AT_ONCE", 1)
    appended: list[int] = []

    def make() -> None:
        with SampleWriter(tmp_path) as samples:
            for number in range(100):
                samples.append({"part": np.full(1, number)})
                appended.append(number)
            samples.close()

    making = threading.Thread(target=make)
    making.start()
    making.join(0.5)
    assert making.is_alive()
    assert len(appended) == arrays.MOST_BEHIND + 1
    may_go_on.set()
    making.join(60)
    np.testing.assert_array_equal(load_array(tmp_path / "part.npy"), np.arange(100))
