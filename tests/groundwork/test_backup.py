"""A state folder is saved while it is in use, and comes back whole, elsewhere, or not at all."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console

from domains.contract import GroundworkError
from flows.home import Home
from groundwork import backup as backup_module
from groundwork.archive import DIGESTS, MANIFEST, STATE
from groundwork.backup import backup
from groundwork.restore import restore
from groundwork.state_folder import exclusive

QUIET = Console(file=io.StringIO())
CHECKPOINT = "runs/finetune-molecules-1/checkpoints"

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def lived_in(tmp_path: Path, mlflow_template: Path) -> Home:
    """A state folder with a run, a version and files of every kind; its name needs escaping in a URI."""
    home = Home(tmp_path / "Gruppe Müller").create()
    shutil.copy(mlflow_template, home.mlflow / "mlflow.db")
    client = MlflowClient(home.mlflow_database)
    experiment = client.create_experiment("e", artifact_location=(home.mlflow_artifacts / "e").as_uri())
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "weights", "model/weights.txt")
    upload = write(home, "uploaded-datasets/set.csv", "smiles\nCCO\n")
    dataset = mlflow.entities.Dataset("set", "d", "file", json.dumps({"uri": str(upload)}))
    client.log_inputs(run.info.run_id, [mlflow.entities.DatasetInput(dataset)])
    client.create_registered_model("m")
    client.create_model_version("m", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("m", "champion", "1")
    with closing(sqlite3.connect(home.prefect / "prefect.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    for name in (
        f"{CHECKPOINT}/checkpoint-5/trainer_state.json",
        "inbox/a b.csv",
        "api.key",
        "outputs/o.csv",
    ):
        write(home, name, name)
    (home.root / "api.key").chmod(0o600)
    write(home, f"{CHECKPOINT}/checkpoint-9/model.safetensors", "half of it")
    for name in ("stores/1/atoms.npy", "logs/api.log", "groundwork.lock", "runs/finetune-molecules-1/lock"):
        write(home, name, "made again")
    return home


def write(home: Home, name: str, text: str) -> Path:
    path = home.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def everything(database: Path) -> Iterator[str]:
    """Every text in a database."""
    with closing(sqlite3.connect(database)) as connection:
        for [table] in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608
                yield from (value for value in row if isinstance(value, str))


def test_a_restored_folder_is_complete_and_knows_where_it_is(
    lived_in: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = backup(lived_in, tmp_path / "saved.tar.gz", QUIET)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lived_in.root.rename(tmp_path / "gone")
    home = Home(tmp_path / "new" / "größer")
    restore(home, file, QUIET)

    assert {path.name for path in tmp_path.iterdir()} >= {"gone", "new", "saved.tar.gz"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["größer"]
    found = {str(path.relative_to(home.root)) for path in home.root.rglob("*") if path.is_file()}
    artifacts = {name for name in found if name.startswith("mlflow/artifacts")}
    assert found - artifacts == {
        "mlflow/mlflow.db",
        "uploaded-datasets/set.csv",
        f"{CHECKPOINT}/checkpoint-5/trainer_state.json",
        "inbox/a b.csv",
        "api.key",
        "outputs/o.csv",
    }
    assert stat.S_IMODE((home.root / "api.key").stat().st_mode) == 0o600
    assert (home.root / "inbox/a b.csv").read_text() == "inbox/a b.csv"

    # A process that has written to a run remembers where; those of a restored folder are new ones.
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_artifact_repos_cache", OrderedDict())
    client = MlflowClient(home.mlflow_database)
    version = client.get_model_version_by_alias("m", "champion")
    uri = client.get_model_version_download_uri("m", version.version)
    assert Path(mlflow.artifacts.download_artifacts(uri), "weights.txt").read_text() == "weights"
    client.log_text(str(version.run_id), "later", "later.txt")
    assert [it.read_text() for it in home.mlflow_artifacts.rglob("later.txt")] == ["later"]
    [dataset] = client.get_run(str(version.run_id)).inputs.dataset_inputs
    assert json.loads(dataset.dataset.source)["uri"] == str(home.datasets / "set.csv")
    former = {str(lived_in.root), lived_in.root.as_uri(), json.dumps(str(lived_in.root))[1:-1]}
    assert not [text for text in everything(home.mlflow / "mlflow.db") if any(it in text for it in former)]


def test_a_name_that_only_begins_alike_is_left_as_it_is(lived_in: Home, tmp_path: Path) -> None:
    other = f"{lived_in.root.as_uri()}-2/artifacts"
    MlflowClient(lived_in.mlflow_database).create_experiment("other", artifact_location=other)
    home = Home(tmp_path / "new")
    restore(home, backup(lived_in, tmp_path / "saved.tar.gz", QUIET), QUIET)
    found = MlflowClient(home.mlflow_database).get_experiment_by_name("other")
    assert found is not None
    assert found.artifact_location == other


def test_every_row_has_its_file_though_both_are_written_meanwhile(lived_in: Home, tmp_path: Path) -> None:
    for number in range(200):
        write(lived_in, f"mlflow/artifacts/a/{number}", "x" * 10_000)
    stop, written = threading.Event(), threading.Semaphore(0)

    def keep_writing() -> None:
        with closing(sqlite3.connect(lived_in.mlflow / "mlflow.db", timeout=30)) as connection:
            connection.execute("CREATE TABLE named (file TEXT)")
            number = 0
            while not stop.is_set():
                name = f"mlflow/artifacts/b/{number}"
                write(lived_in, name, name)
                with connection:
                    connection.execute("INSERT INTO named VALUES (?)", [name])
                number += 1
                written.release()

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for _ in range(10):
            written.acquire(timeout=30)
        file = backup(lived_in, tmp_path / "saved.tar.gz", QUIET)
    finally:
        stop.set()
        writer.join()
    home = Home(tmp_path / "new")
    restore(home, file, QUIET)
    with closing(sqlite3.connect(home.mlflow / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        named = [name for [name] in connection.execute("SELECT file FROM named")]
    assert len(named) >= 10
    assert [name for name in named if (home.root / name).read_text() != name] == []


def test_a_checkpoint_replaced_while_it_is_read_gives_way_to_the_newer_one(
    lived_in: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lived_in, f"{CHECKPOINT}/checkpoint-5/optimizer.pt", "5")
    add = backup_module._Writer.add

    def rotate_then_add(writer: Any, name: str, path: Path) -> bool:
        if name.startswith(CHECKPOINT) and (lived_in.root / CHECKPOINT / "checkpoint-5").exists():
            shutil.rmtree(lived_in.root / CHECKPOINT / "checkpoint-5")
            write(lived_in, f"{CHECKPOINT}/checkpoint-9/trainer_state.json", "9")
        return add(writer, name, path)

    monkeypatch.setattr(backup_module._Writer, "add", rotate_then_add)
    home = Home(tmp_path / "new")
    restore(home, backup(lived_in, tmp_path / "saved.tar.gz", QUIET), QUIET)
    [checkpoint] = (home.root / CHECKPOINT).iterdir()
    assert {path.name for path in checkpoint.iterdir()} == {"trainer_state.json", "model.safetensors"}


def test_what_changed_while_it_was_read_is_named(
    lived_in: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = write(lived_in, "inbox/big.csv", "x" * 10**6)
    read = backup_module.Digested.read

    def shorten_then_read(content: Any, count: int = -1) -> bytes:
        if content._left == 10**6:
            big.write_text("y" * 10)
        return read(content, count)

    monkeypatch.setattr(backup_module.Digested, "read", shorten_then_read)
    console = Console(file=io.StringIO(), width=200)
    file = backup(lived_in, tmp_path / "saved.tar.gz", console)
    assert "perhaps incomplete there: inbox/big.csv.\n" in console.file.getvalue()  # type: ignore[attr-defined]
    restore(Home(tmp_path / "new"), file, QUIET)


def test_folders_linked_to_a_larger_disk_are_saved_and_loops_end(lived_in: Home, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "corpus.smi").write_text("CCO")
    (lived_in.inbox / "large").symlink_to(tmp_path / "large")
    (lived_in.inbox / "loop").symlink_to(lived_in.inbox)
    (lived_in.inbox / "broken").symlink_to(tmp_path / "nothing")
    home = Home(tmp_path / "new")
    restore(home, backup(lived_in, tmp_path / "saved.tar.gz", QUIET), QUIET)
    assert (home.inbox / "large" / "corpus.smi").read_text() == "CCO"
    assert {path.name for path in home.inbox.iterdir()} == {"a b.csv", "large"}


def test_backups_are_refused_where_they_would_be_lost_or_overwrite(lived_in: Home, tmp_path: Path) -> None:
    (tmp_path / "there.tar.gz").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for file, reason in [
        (lived_in.root / "inbox" / "b.tar.gz", "would be lost with it"),
        (tmp_path / "there.tar.gz", "is there already"),
        (tmp_path / "missing" / "b.tar.gz", "There is no folder"),
    ]:
        with pytest.raises(GroundworkError, match=reason):
            backup(lived_in, file, QUIET)
    with pytest.raises(GroundworkError, match="nothing to back up"):
        backup(Home(tmp_path / "nowhere"), tmp_path / "b.tar.gz", QUIET)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.tar.gz").read_text() == "mine"


def test_a_full_disk_is_one_line_and_leaves_nothing(lived_in: Home, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    in_namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=256k tmpfs {small}"
    if not shutil.which("unshare") or subprocess.run([*in_namespace, mount], capture_output=True).returncode:
        pytest.skip("a small tmpfs can be mounted only on a Linux with user namespaces")
    command = (sys.executable, "-P", "-m", "groundwork", "backup", str(small / "b.tar.gz"))
    done = subprocess.run(
        [*in_namespace, f'{mount} && "$@"; code=$?; ls -A {small}; exit $code', "sh", *command],
        env={"GROUNDWORK_HOME": str(lived_in.root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"The disk that holds {small} is full" in done.stderr
    assert done.stdout == ""


# -------------------------------------------------------------------------------------- what is refused


def altered(file: Path, change: Callable[[Members], Members]) -> None:
    """Write an archive anew, with other members."""
    with tarfile.open(file) as tar:
        members = [(it, content.read() if (content := tar.extractfile(it)) else b"") for it in tar]
    with tarfile.open(file, "w:gz") as tar:
        for member, content in change(members):
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def with_member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Callable[[Path], None]:
    """Add a member that the digests know, before the digests."""

    def change(members: Members) -> Members:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        return [*members[:-1], (member, b""), members[-1]]

    return lambda file: altered(file, change)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def flip(file: Path) -> None:
    """Turn the bits of a byte in the middle, or of the next one that says anything: within the zeros of a
    database, a repetition from further back gives the same zeros."""
    whole = file.read_bytes()
    for place in range(len(whole) // 2, len(whole)):
        turned = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        if unpacked(turned) != unpacked(whole):
            file.write_bytes(turned)
            return


def unpacked(archive: bytes) -> bytes | None:
    try:
        return gzip.decompress(archive)
    except (OSError, EOFError, zlib.error):
        return None


def edited(members: Members) -> Members:
    return [(it, content.replace(b"CCO", b"CCN")) for it, content in members]


DAMAGED = {
    "cut": (cut, "is damaged"),
    "a bit turned": (flip, "is damaged"),
    "empty": (lambda file: file.write_bytes(b""), "was not written by"),
    "no archive": (lambda file: file.write_text("smiles,y\n"), "was not written by"),
    "another archive": (lambda file: altered(file, lambda members: members[1:]), "was not written by"),
    "no digests": (lambda file: altered(file, lambda members: members[:-1]), "ends too early"),
    "a file edited": (lambda file: altered(file, edited), "set.csv is not as it was saved"),
    "a file missing": (lambda file: altered(file, lambda it: [*it[:3], *it[4:]]), "is not as it was saved"),
    "a file added": (with_member(f"{STATE}inbox/new"), "inbox/new is not as it was saved"),
    "a file twice": (with_member(f"{STATE}api.key"), "twice"),
    "a way out": (with_member(f"{STATE}../out"), "does not belong"),
    "an absolute path": (with_member("/tmp/groundwork-out"), "does not belong"),  # noqa: S108
    "a link": (with_member(f"{STATE}inbox/link", tarfile.SYMTYPE, "/etc/passwd"), "does not belong"),
    "a device": (with_member(f"{STATE}inbox/null", tarfile.CHRTYPE), "does not belong"),
}


@pytest.fixture
def saved(lived_in: Home, tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return backup(lived_in, tmp_path / "backups" / "saved.tar.gz", QUIET)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_or_foreign_archive_leaves_nothing(saved: Path, tmp_path: Path, damage: str) -> None:
    do, reason = DAMAGED[damage]
    do(saved)
    home = Home(tmp_path / "parent" / "new")
    home.root.mkdir(parents=True)
    with pytest.raises(GroundworkError, match=reason):
        restore(home, saved, QUIET)
    assert list((tmp_path / "parent").rglob("*")) == [home.root]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("versions", {"groundwork": "0.0.1", "mlflow": "99.1"}, "made with mlflow 99.1, newer than"),
        ("revisions", {"mlflow": "feedfacecafe"}, "made with mlflow of schema feedfacecafe, newer than"),
        ("format", 99, "made with a newer groundwork, newer than"),
        ("bytes", 2**60, "The backup needs 1099511628032 MB"),
    ],
)
def test_an_archive_that_cannot_be_used_here_says_why(
    saved: Path, tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    def change(members: Members) -> Members:
        assert [members[0][0].name, members[-1][0].name] == [MANIFEST, DIGESTS]
        return [(members[0][0], json.dumps(json.loads(members[0][1]) | {key: value}).encode()), *members[1:]]

    altered(saved, change)
    with pytest.raises(GroundworkError, match=reason):
        restore(Home(tmp_path / "new"), saved, QUIET)
    assert not (tmp_path / "new").exists()


def test_nothing_is_restored_over_something(saved: Path, lived_in: Home, tmp_path: Path) -> None:
    before = (lived_in.mlflow / "mlflow.db").read_bytes()
    with exclusive(lived_in), pytest.raises(GroundworkError, match="already runs"):
        restore(lived_in, saved, QUIET)
    with pytest.raises(GroundworkError, match="is not empty"):
        restore(lived_in, saved, QUIET)
    assert (lived_in.mlflow / "mlflow.db").read_bytes() == before
    with pytest.raises(GroundworkError, match="There is no file"):
        restore(Home(tmp_path / "new"), tmp_path / "missing.tar.gz", QUIET)


def test_empty_folders_count_as_nothing(saved: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "new").create()
    restore(home, saved, QUIET)
    assert (home.mlflow / "mlflow.db").is_file()
