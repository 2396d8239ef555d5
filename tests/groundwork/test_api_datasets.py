"""Datasets over HTTP: every way in, and nothing left behind by what was refused."""

from __future__ import annotations

import errno
import gzip
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_fakes import one_model, put, running, wait_for

from groundwork.api import uploads
from groundwork.api.announcing import split_name
from groundwork.api.app import Limits

CSV = b"name,smiles,logp\nethanol,CCO,-0.3\nphenol,c1ccccc1O,1.5\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "datasets"


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with running(one_model(), folder, limits=Limits(upload_bytes=100_000)) as address:
        yield address


def test_a_csv_comes_in_and_is_told_how_to_use(url: str, folder: Path) -> None:
    response = put(url, "esol", content=CSV, params={"format": "csv"})
    assert response.status_code == 201
    answer = response.json()
    assert (folder / "esol.csv").read_bytes() == CSV
    assert {key: answer[key] for key in ("name", "file", "bytes", "rows", "columns", "use")} == {
        "name": "esol",
        "file": "esol.csv",
        "bytes": len(CSV),
        "rows": 2,
        "columns": ["name", "smiles", "logp"],
        "use": 'dataset: "esol"',
    }
    assert len(answer["digest"]) == 16
    [listed] = httpx.get(f"{url}/v1/datasets").json()["datasets"]
    assert (listed["name"], listed["file"]) == ("esol", "esol.csv")
    assert [path.name for path in folder.iterdir()] == ["esol.csv"]


@pytest.mark.parametrize(
    ("name", "request_", "file"),
    [
        ("set", {"content": CSV, "headers": {"content-type": "text/csv; charset=utf-8"}}, "set.csv"),
        ("set.csv", {"content": CSV}, "set.csv"),
        ("set.v2.csv", {"content": CSV}, "set.v2.csv"),
        ("set", {"content": gzip.compress(CSV), "params": {"format": "csv.gz"}}, "set.csv.gz"),
        ("set.csv.gz", {"content": gzip.compress(CSV)}, "set.csv.gz"),
        ("set", {"content": CSV.replace(b",", b"\t"), "params": {"format": ".TSV"}}, "set.tsv"),
        ("set", {"content": b"CCO ethanol\nc1ccccc1O phenol\n", "params": {"format": "smi"}}, "set.smi"),
        ("set", {"files": {"file": ("My data.CSV", CSV)}}, "set.csv"),
        ("set.v2", {"files": {"file": ("a.csv", CSV)}}, "set.v2.csv"),
        ("set", {"data": {"note": "x"}, "files": {"file": ("../../etc/passwd.csv", CSV)}}, "set.csv"),
        ("set", {"files": {"file": ("data", CSV)}, "params": {"format": "csv"}}, "set.csv"),
    ],
)
def test_the_ways_to_say_what_kind_of_file_it_is(
    url: str, folder: Path, name: str, request_: dict, file: str
) -> None:
    response = put(url, name, **request_)
    assert response.status_code == 201, response.text
    assert response.json()["rows"] == 2
    assert [path.name for path in folder.iterdir()] == [file]


def test_a_new_file_of_the_same_name_replaces_the_old_whatever_its_suffix(url: str, folder: Path) -> None:
    put(url, "set", content=CSV, params={"format": "csv"})
    put(url, "set.v2", content=CSV, params={"format": "csv"})
    response = put(url, "set", content=CSV.replace(b",", b"\t"), params={"format": "tsv"})
    assert response.status_code == 200
    assert sorted(path.name for path in folder.iterdir()) == ["set.tsv", "set.v2.csv"]


@pytest.mark.parametrize(
    ("name", "request_", "status", "words"),
    [
        ("set", {"content": CSV}, 422, "?format="),
        ("set", {"content": b"", "params": {"format": "csv"}}, 422, "empty"),
        ("set", {"content": b"smiles,logp\n", "params": {"format": "csv"}}, 422, "no rows"),
        ("set", {"content": CSV, "params": {"format": "docx"}}, 422, ".docx"),
        ("set", {"content": CSV, "params": {"format": "../csv"}}, 422, "format"),
        ("set", {"content": CSV, "params": {"format": "xlsx"}}, 422, "upload"),
        ("set", {"content": CSV, "params": {"format": "parquet"}}, 422, "upload"),
        ("set", {"content": b"a,b\n1,2\n", "params": {"format": "csv"}}, 422, ""),
        ("Set", {"content": CSV, "params": {"format": "csv"}}, 422, "cannot name a dataset"),
        (".set", {"content": CSV, "params": {"format": "csv"}}, 422, "cannot name a dataset"),
        ("a" * 65, {"content": CSV, "params": {"format": "csv"}}, 422, "cannot name a dataset"),
        ("..%2Fset", {"content": CSV, "params": {"format": "csv"}}, 404, ""),
        ("set%00", {"content": CSV, "params": {"format": "csv"}}, 422, "cannot name a dataset"),
        ("set%0A", {"content": CSV, "params": {"format": "csv"}}, 422, "cannot name a dataset"),
        ("set", {"content": CSV, "params": {"format": "csv", "domain": "plants"}}, 422, "plants"),
        ("melting-points", {"content": CSV, "params": {"format": "csv"}}, 422, "comes with molecules"),
        ("set", {"content": b"x" * 100_001, "params": {"format": "csv"}}, 413, "MiB"),
        ("set", {"content": (b"x" * 1000 for _ in range(200)), "params": {"format": "csv"}}, 413, "MiB"),
        ("set", {"files": {"file": ("data", CSV)}}, 422, "?format="),
        ("set", {"content": b"junk", "headers": {"content-type": "multipart/form-data; boundary=x"}},
         422, "multipart"),
        ("set", {"content": b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.csv"\r\n\r\na,b',
                 "headers": {"content-type": "multipart/form-data; boundary=x"}}, 422, "no complete file"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_and_leaves_nothing(
    url: str, folder: Path, name: str, request_: dict, status: int, words: str
) -> None:
    response = put(url, name, **request_)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert words in error
    assert ".part" not in error
    assert "\n" not in error
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_refused_upload_leaves_the_older_file_in_place(url: str, folder: Path) -> None:
    put(url, "set", content=CSV, params={"format": "csv"})
    assert put(url, "set", content=b"", params={"format": "csv"}).status_code == 422
    assert (folder / "set.csv").read_bytes() == CSV


def test_a_full_disk_is_told_before_and_while_writing(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1000))
    response = put(url, "set", content=CSV, params={"format": "csv"})
    assert response.status_code == 507
    assert str(folder) in response.json()["error"]
    monkeypatch.undo()

    async def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uploads, "_write", full)
    response = put(url, "set", content=CSV, params={"format": "csv"})
    assert response.status_code == 507
    assert str(folder) in response.json()["error"]
    assert list(folder.iterdir()) == []


def test_what_a_killed_service_was_receiving_is_removed_at_start(folder: Path) -> None:
    folder.mkdir()
    (folder / ".0123456789abcdef.part").write_bytes(b"half")
    (folder / ".0123456789abcdef.part.csv").write_bytes(b"half")
    (folder / "set.csv").write_bytes(CSV)
    with running(one_model(), folder) as url:
        assert [entry["name"] for entry in httpx.get(f"{url}/v1/datasets").json()["datasets"]] == ["set"]
        assert [path.name for path in folder.iterdir()] == ["set.csv"]


def test_a_broken_off_upload_leaves_nothing(url: str, folder: Path) -> None:
    def half() -> Iterator[bytes]:
        yield CSV
        wait_for(lambda: folder.is_dir() and list(folder.iterdir()))
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        put(url, "set", content=half(), params={"format": "csv"})
    wait_for(lambda: list(folder.iterdir()) == [])


@pytest.mark.parametrize(
    ("filename", "parts"),
    [
        ("esol.csv", ("esol", ".csv")),
        ("esol.v2.csv.gz", ("esol.v2", ".csv.gz")),
        ("esol", ("esol", "")),
        ("My Data.XLSX", ("My Data", ".xlsx")),
        (".hidden", (".hidden", "")),
    ],
)
def test_a_file_name_has_one_stem(filename: str, parts: tuple[str, str]) -> None:
    assert split_name(filename) == parts
