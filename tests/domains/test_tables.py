"""Tables as people save them, and as they break."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domains.contract import GroundworkError
from domains.tables import LONGEST_LINE, open_table

Rows = list[tuple[str, ...]]


def zstandard(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


def cells(path: Path) -> Rows:
    return [row for row, fault in open_table(path).rows() if not fault]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_cells_are_the_text_of_the_file(tmp_path: Path) -> None:
    table = open_table(written(tmp_path, "a.csv", "smiles,y,note\nCCO,1.50,\nC, 2 ,NA\n"))
    assert table.columns == ("smiles", "y", "note")
    assert [row for row, _ in table.rows()] == [("CCO", "1.50", ""), ("C", " 2 ", "NA")]
    assert list(table.rows()) == list(table.rows())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "a,b\n1,2\n"),
        ("a.csv", "a;b\r\n1;2\r\n"),
        ("a.csv", "a\tb\n1\t2"),
        ("a.tsv", "a\tb\n1\t2\n"),
        ("a.csv", "\ufeffa,b\n1,2\n"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16")),
        ("a.csv", "\n\na,b\n\n1,2\n\n\n"),
        ("a.csv", "a,b,,\n1,2,,\n"),
        ("a.CSV", " a , b \n1,2\n"),
        ("a.csv", 'a,"b"\n"1",2\n'),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)),
        ("a.csv.gz", gzip.compress(b"a,b\n", mtime=0) + gzip.compress(b"1,2\n", mtime=0)),
        ("a.CSV.BZ2", bz2.compress(b"a,b\n1,2\n")),
        ("a.csv.xz", lzma.compress(b"a,b\n1,2\n")),
        ("a.csv.xz", lzma.compress(b"a,b\n") + lzma.compress(b"1,2\n")),
        ("a.csv.zst", zstandard(b"a,b\n1,2\n")),
    ],
)
def test_dialects_of_the_same_table(tmp_path: Path, name: str, content: str | bytes) -> None:
    path = written(tmp_path, name, content)
    assert open_table(path).columns == ("a", "b")
    assert cells(path) == [("1", "2")]


def test_quoted_cells_hold_separators_and_newlines(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", 'name,y\n"1,2-diol\nsecond ""line""",3\n')
    assert cells(path) == [('1,2-diol\nsecond "line"', "3")]


def test_latin1_is_read_where_the_text_is_not_utf8(tmp_path: Path) -> None:
    # The broken byte lies beyond the first chunk that is looked at.
    filler = b"C,x\n" * 400_000
    path = written(tmp_path, "a.csv", b"smiles,name\n" + filler + "C,é\n".encode("latin-1"))
    assert cells(path)[-1] == ("C", "é")
    assert cells(written(tmp_path, "b.csv", "smiles,name\nC,é\n")) == [("C", "é")]


def test_short_rows_are_padded_and_long_rows_are_faults(tmp_path: Path) -> None:
    table = open_table(written(tmp_path, "a.csv", "a,b\n1\n1,2\n1,2,\n1,2,3\n"))
    rows = list(table.rows())
    assert [row for row, _ in rows] == [("1", ""), ("1", "2"), ("1", "2"), ("1", "2")]
    assert [bool(fault) for _, fault in rows] == [False, False, False, True]
    assert "3 cells" in rows[-1][1]


def test_blank_lines_are_empty_cells_only_in_a_single_column(tmp_path: Path) -> None:
    assert cells(written(tmp_path, "a.csv", "smiles\nC\n\nCC\n\n\n")) == [("C",), ("",), ("CC",)]
    assert cells(written(tmp_path, "b.csv", "smiles,y\nC,1\n\nCC,2\n")) == [("C", "1"), ("CC", "2")]
    assert cells(written(tmp_path, "c.csv", "smiles,y\nC,1\n,\nCC,2\n")) == [("C", "1"), ("CC", "2")]


def test_smi_has_no_header(tmp_path: Path) -> None:
    path = written(tmp_path, "a.smi", "CCO ethanol absolute\nC\n\nCC\tethane\n")
    assert open_table(path).columns == ("smiles", "name")
    assert cells(path) == [("CCO", "ethanol absolute"), ("C", ""), ("CC", "ethane")]


def test_smi_with_a_header_all_the_same(tmp_path: Path) -> None:
    assert cells(written(tmp_path, "a.smi", "SMILES\tID\nCC\tethane\n")) == [("CC", "ethane")]


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstandard)],
)
def test_compressed_files_of_many_chunks_are_whole_and_broken_ones_are_told(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    plain = "a,b\n" + "".join(f"{number},{number * 7919 % 100_003}\n" for number in range(100_000))
    packed = pack(plain.encode())
    known = open_table(written(tmp_path, "a.csv", plain))
    table = open_table(written(tmp_path, f"a.csv.{suffix}", packed))
    assert table.digest == known.digest
    assert list(table.rows()) == list(known.rows())
    for broken in (packed[:-40], packed[: len(packed) // 2], b"a,b\n1,2\n", packed[:1000] + packed[2000:]):
        with pytest.raises(GroundworkError, match="is damaged or not what its suffix says"):
            open_table(written(tmp_path, f"b.csv.{suffix}", broken))
    with pytest.raises(GroundworkError, match="is empty"):
        open_table(written(tmp_path, f"c.csv.{suffix}", pack(b"")))


def test_an_xz_file_that_asks_for_much_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "a.csv.xz", lzma.compress(b"a,b\n1,2\n", preset=6))  # asks for 9 MiB
    monkeypatch.setattr("domains.compressed.LARGEST_DICTIONARY", 8 << 20)
    with pytest.raises(GroundworkError, match="Memory usage limit"):
        open_table(path)


def test_workbook_numbers_stay_integers_and_floats_round_trip(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (
        ["smiles", "n", "x", "b"],
        ["C", 3, 0.1234567890123, True],
        [None] * 4,
        ["CC", None, 2.0, "n/a"],
    ):
        book.active.append(row)
    book.create_sheet("other").append(["not", "read"])
    book.save(tmp_path / "a.xlsx")
    assert cells(tmp_path / "a.xlsx") == [("C", "3", "0.1234567890123", "true"), ("CC", "", "2", "n/a")]


def test_parquet_gaps_are_empty_and_numbers_round_trip(tmp_path: Path) -> None:
    table = pa.table(
        {
            "smiles": ["C", None, "nan"],
            "i": pa.array([1, None, 3], pa.int64()),
            "x": [0.1, float("nan"), 2.0],
            "f": pa.array([0.1, None, 1e10], pa.float32()),
            "flag": [True, False, None],
            "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
            "list": [[1, 2], None, []],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert cells(tmp_path / "a.parquet") == [
        ("C", "1", "0.1", "0.1", "true", "a", "[1, 2]"),
        ("", "", "", "", "false", "b", ""),
        ("nan", "3", "2.0", "1e+10", "", "a", "[]"),
    ]


def test_digest_is_of_the_content(tmp_path: Path) -> None:
    plain = open_table(written(tmp_path, "a.csv", "a,b\n1,2\n"))
    packed = open_table(written(tmp_path, "b.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)))
    other = open_table(written(tmp_path, "c.csv", "a,b\n1,3\n"))
    assert plain.digest == packed.digest != other.digest
    assert len(plain.digest) == 16


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "empty"),
        ("a.csv", b"\n\n", "header"),
        ("a.csv", b"a,b\n", "no rows"),
        ("a.csv", b"a,b\n\n\n", "no rows"),
        ("a.csv", b"a,a\n1,2\n", "'a'"),
        ("a.csv", b"a,b\n1,\0\0\n", "binary"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
        ("a.csv", b'a,b\n"1,2\n' + b"3,4\n" * 60_000, "quote"),
        ("a.csv.gz", b"a,b\n1,2\n", "damaged"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 5000, mtime=0)[:-20], "damaged"),
        ("a.xlsx", b"a,b\n1,2\n", "damaged"),
        ("a.parquet", b"a,b\n1,2\n", "damaged"),
        ("a.parquet", b"PAR1" + b"\0" * 50 + b"PAR1", "damaged"),
        ("a.xls", b"a,b\n1,2\n", ".xlsx"),
        ("table", b"a,b\n1,2\n", "no suffix"),
        ("a.smi", b"", "empty"),
    ],
)
def test_unusable_files_say_what_to_do_in_one_line(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(GroundworkError) as caught:
        list(open_table(path).rows())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(GroundworkError, match="no file at"):
        open_table(tmp_path / "nothing.csv")
    with pytest.raises(GroundworkError, match="is a folder"):
        open_table(tmp_path)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    packed = gzip.compress(b"a,b\n" + b"x" * (3 * LONGEST_LINE))
    path = written(tmp_path, "a.csv.gz", packed)
    with pytest.raises(GroundworkError, match="a line of over"):
        open_table(path)


def test_a_workbook_that_unpacks_to_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = openpyxl.Workbook()
    book.active.append(["a"])
    book.active.append(["b" * 5000])
    book.save(tmp_path / "a.xlsx")
    monkeypatch.setattr("domains.tables.LARGEST_WORKBOOK", 5000)
    with pytest.raises(GroundworkError, match="save it as"):
        open_table(tmp_path / "a.xlsx")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".csv":
        path.write_text("smiles,y\n" + "CCCCCCCCCCCCCCCCCCCC,1.0\n" * 200_000)
    else:
        pq.write_table(pa.table({"smiles": ["C" * 20] * 200_000, "y": [1.0] * 200_000}), path)
    tracemalloc.start()
    count = sum(1 for _ in open_table(path).rows())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 200_000
    assert peak < 12_000_000
