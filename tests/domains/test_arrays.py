"""Arrays of many samples: written beside the making of more, in order, and never silently less than all."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from time import monotonic, sleep

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


@given(PARTS, st.sampled_from([1, 40, 1 << 20]), st.sampled_from([0, 100, 1 << 24]))
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
    folder, part, given = full_disk(tmp_path / "full"), np.zeros((1 << 18, 3), np.int16), []

    def write() -> None:
        with SampleWriter(folder) as samples:
            for number in range(count):
                samples.append({"part": part})
                given.append(number)
            samples.close()

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write()
    # Not only when all others have been made for nothing.
    assert len(given) <= arrays.MOST_BEHIND / part.nbytes
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("writes-arrays")]


@pytest.mark.parametrize(("behind", "held"), [(800, 100), (23, 2), (7, 1)])
def test_no_more_is_held_than_may_wait(
    behind: int, held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    put = arrays.ArrayWriter._put

    def slowly(writer: arrays.ArrayWriter, parts: list[np.ndarray]) -> None:
        assert may_go_on.wait(60)
        put(writer, parts)

    monkeypatch.setattr(arrays.ArrayWriter, "_put", slowly)
    monkeypatch.setattr(arrays, "AT_ONCE", 1)
    monkeypatch.setattr(arrays, "MOST_BEHIND", behind)
    appended: list[int] = []

    def make() -> None:
        with SampleWriter(tmp_path) as samples:
            for number in range(300):
                samples.append({"part": np.full(1, number)})  # eight bytes
                appended.append(number)
            samples.close()

    making = threading.Thread(target=make)
    making.start()
    try:
        deadline = monotonic() + 30
        while len(appended) < held and monotonic() < deadline:
            sleep(0.01)
        making.join(0.2)
        assert len(appended) == held
    finally:
        may_go_on.set()
        making.join(60)
    np.testing.assert_array_equal(load_array(tmp_path / "part.npy"), np.arange(300))
