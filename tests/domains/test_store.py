"""The store: whole after a kill, the same whoever builds it, and small in memory."""

from __future__ import annotations

import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest

from domains import store as store_module
from domains.contract import GroundworkError, Row, Source, digest_of
from domains.molecules import MOLECULES, MoleculeEncoding
from domains.store import Store, build

SPEC = MoleculeEncoding()
ROOT = Path(__file__).parents[2]
SMILES = ["CCO", "nonsense", "C", "", "c1ccccc1O", "C[C@H](N)C(=O)O", "CCO", "[Na+].[Cl-]"]


def source(count: int = 1000, name: str = "some") -> Source:
    """Rows of a few molecules, a quarter of them unusable."""

    def stream() -> Iterator[Row]:
        for index in range(count):
            value = SMILES[index % len(SMILES)]
            yield Row(index, value, {"smiles": value, "y": str(index), "note": "é\n"})

    return Source(name, "here", digest_of([name, count]), ("smiles", "y", "note"), stream, SPEC, "smiles")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MOLECULES, "shard_rows", 100)


def test_samples_come_back_as_they_were_encoded(tmp_path: Path) -> None:
    store = build("molecules", source(), SPEC, tmp_path, keep=("y",), describe=True)
    assert (store.counts.rows, store.counts.records, store.counts.rejects) == (1000, 750, 250)
    assert len(store) == 750
    for place in (0, 1, 99, 400, 749, -1):
        row = int(store.rows[place])
        record = MOLECULES.read(Row(row, SMILES[row % 8]), SPEC)
        expected = {**MOLECULES.encode(record, SPEC), **MOLECULES.describe(record, SPEC)}  # type: ignore[arg-type]
        assert store[place].keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(store[place][name], array)
            assert store[place][name].dtype == array.dtype
        assert store.identities[place] == record.identity  # type: ignore[union-attr]
    assert store.column("y") == [str(row) for row in store.rows]
    assert store.tokens.tolist() == [len(sample["atoms"]) for sample in store]
    assert (store.source, store.origin) == ("some", "here")
    with pytest.raises(IndexError):
        store[750]


def test_rejects_keep_row_reason_and_original(tmp_path: Path) -> None:
    store = build("molecules", source(8), SPEC, tmp_path)
    (first, second) = store.rejects()
    assert (first.row, first.original) == (1, "nonsense")
    assert "syntax error" in first.reason
    assert (second.row, second.reason, second.original) == (3, "empty", "")


def test_samples_are_views_that_cannot_be_written(tmp_path: Path) -> None:
    sample = build("molecules", source(8), SPEC, tmp_path)[0]
    with pytest.raises(ValueError, match="read-only"):
        sample["atoms"][0, 0] = 1
    assert not sample["atoms"].flags.owndata


def test_subsets_of_subsets(tmp_path: Path) -> None:
    store = build("molecules", source(), SPEC, tmp_path, keep=("y",))
    part = store.subset(np.array([5, 3, 3, 700])).subset(np.array([3, 0]))
    assert len(part) == 2
    assert part.column("y") == [store.column("y")[700], store.column("y")[5]]
    assert part.rows.tolist() == store.rows[[700, 5]].tolist()
    assert part.tokens.tolist() == store.tokens[[700, 5]].tolist()
    np.testing.assert_array_equal(part[1]["atoms"], store[5]["atoms"])
    again = pickle.loads(pickle.dumps(part))  # noqa: S301
    assert again.identities == part.identities
    assert len(pickle.dumps(store)) < 2000


def test_nothing_is_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build("molecules", source(), SPEC, tmp_path)
    monkeypatch.setattr(store_module, "_build_shards", None)
    second = build("molecules", source(), SPEC, tmp_path)
    assert second.folder == first.folder
    assert {path.suffix for path in tmp_path.iterdir()} == {"", ".lock"}


def test_whatever_changes_the_content_changes_the_folder(tmp_path: Path) -> None:
    stores = [
        build("molecules", source(), SPEC, tmp_path),
        build("molecules", source(999), SPEC, tmp_path),
        build("molecules", source(), MoleculeEncoding(max_atoms=6), tmp_path),
        build("molecules", source(), SPEC, tmp_path, keep=("y",)),
        build("molecules", source(), SPEC, tmp_path, describe=True),
    ]
    assert len({store.folder for store in stores}) == 5
    assert len({store.digest for store in stores}) == 5
    assert stores[2].counts.records == 625


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"toy_{time.time_ns()}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_changed_featuriser_never_reads_an_old_store(tmp_path: Path) -> None:
    path = tmp_path / "toy.py"
    digests = []
    for code in (
        "import numpy\nclass Toy: x = 1\n",
        "import numpy\nclass Toy: x = 2\n",
        "class Toy: x = 2\n",
    ):
        path.write_text(code)
        digests.append(store_module._code_digest(_module(path).Toy()))
    assert len(set(digests)) == 3
    assert store_module._code_digest(MOLECULES) == store_module._code_digest(MOLECULES)


def test_sources_without_one_usable_row(tmp_path: Path) -> None:
    none = Source("none", "here", "0", ("smiles",), lambda: iter([Row(0, "x!"), Row(1, "")]), SPEC)
    store = build("molecules", none, SPEC, tmp_path)
    assert (len(store), store.counts.rejects) == (0, 2)
    assert store.tokens.tolist() == store.rows.tolist() == store.identities == []
    empty = build("molecules", Source("empty", "here", "1", (), lambda: iter([]), SPEC), SPEC, tmp_path)
    assert (len(empty), list(empty.rejects())) == (0, [])
    single = Source("single", "here", "2", (), lambda: iter([Row(0, "C")]), SPEC)
    assert build("molecules", single, SPEC, tmp_path)[0]["bonds"].shape == (0, 2)


def test_unknown_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(GroundworkError, match="'z'; its columns are: smiles, y, note"):
        build("molecules", source(), SPEC, tmp_path, keep=("z",))
    with pytest.raises(GroundworkError, match="kept: y"):
        build("molecules", source(), SPEC, tmp_path, keep=("y",)).column("note")
    with pytest.raises(GroundworkError, match="no domain"):
        build("minerals", source(), SPEC, tmp_path)


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    heard: list[tuple[int, int | None]] = []
    build("molecules", source(250), SPEC, tmp_path, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(100, 250), (200, 250), (250, 250)]


def test_an_interrupted_build_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancelled(BaseException):
        pass

    def cancel(done: int, _: int | None) -> None:
        if done >= 400:
            raise Cancelled

    with pytest.raises(Cancelled):
        build("molecules", source(), SPEC, tmp_path / "a", progress=cancel)
    encoded = []
    write = store_module.write_shard
    monkeypatch.setattr(
        store_module, "write_shard", lambda *arguments: (encoded.append(arguments[3].name), write(*arguments))
    )
    resumed = build("molecules", source(), SPEC, tmp_path / "a")
    assert encoded == [f"{number:06d}" for number in range(4, 10)]
    assert resumed.digest == build("molecules", source(), SPEC, tmp_path / "b").digest


# ----------------------------------------------------------------------------------------- processes

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import domains.store as store_module
from test_store import MOLECULES, SPEC, source

def say(done, total):
    print(done, flush=True)

if __name__ == "__main__":
    MOLECULES.shard_rows = 100
    store = store_module.build(
        "molecules", source({count}), SPEC, Path({root!r}),
        keep=("y",), describe=True, workers={workers}, progress=say,
    )
    print("digest", store.digest, flush=True)
"""


def start(folder: Path, root: Path, workers: int, count: int = 1500) -> subprocess.Popen[str]:
    script = folder / f"build{time.time_ns()}.py"
    tests = str(Path(__file__).parent)
    script.write_text(SCRIPT.format(root=str(root), workers=workers, count=count, tests=tests))
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_two_workers_are_silent_and_make_the_same_store(tmp_path: Path) -> None:
    one = build("molecules", source(1500), SPEC, tmp_path / "a", keep=("y",), describe=True)
    process = start(tmp_path, tmp_path / "b", workers=2)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert errors == ""
    assert out.splitlines()[-1] == f"digest {one.digest}"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_build_leaves_no_orphans_and_goes_on(tmp_path: Path, workers: int) -> None:
    root = tmp_path / "a"
    process = start(tmp_path, root, workers)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 300:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert bool(children) == (workers > 1)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []
    done = len(list(root.glob("*.parts/0*")))
    assert done >= 3
    assert not list(root.glob("*/manifest.json"))

    resumed = build("molecules", source(1500), SPEC, root, keep=("y",), describe=True)
    fresh = build("molecules", source(1500), SPEC, tmp_path / "b", keep=("y",), describe=True)
    assert resumed.digest == fresh.digest
    assert resumed.folder.name == fresh.folder.name
    np.testing.assert_array_equal(resumed.rows, fresh.rows)
    assert {path.name for path in root.iterdir()} == {resumed.folder.name, f"{resumed.folder.name}.lock"}


@pytest.mark.slow
def test_two_processes_that_build_the_same_at_once(tmp_path: Path) -> None:
    processes = [start(tmp_path, tmp_path / "a", workers=1) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    first, second = (out.splitlines()[-1] for out, _ in outputs)
    assert first == second
    assert first.startswith("digest ")


@pytest.mark.slow
def test_a_full_disk_is_one_line_that_names_the_folder(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with pytest.raises(GroundworkError, match="full disk") as caught:
            build("molecules", source(20_000), SPEC, small, describe=True)
        assert str(small) in str(caught.value)
        assert "\n" not in str(caught.value)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GroundworkError, match="folder"):
        build("molecules", source(), SPEC, tmp_path / "file" / "stores")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_memory_grows_by_no_more_than_16_bytes_a_row(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        code = (
            "import sys; from pathlib import Path\n"
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import test_store as t\n"
            "t.MOLECULES.shard_rows = 2000\n"
            "t.SMILES[:] = ['C', '', 'O', 'CN']\n"  # what is kept of a row is the same for all
            f"root = Path({str(tmp_path / str(count))!r})\n"
            f"t.build('molecules', t.source({count}), t.SPEC, root, keep=('y',))\n"
            # Not what getrusage says: that is of the process that began this one, if it had more.
            "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        )
        return int(done.stdout) * 1024

    few, many = 5_000, 55_000
    assert peak(many) - peak(few) < 16 * (many - few) + 3_000_000


def test_opening_an_unfinished_store_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Store(tmp_path)
