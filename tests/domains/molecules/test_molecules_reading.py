"""Molecules as chemists send them: every row comes back, as a molecule or with a reason."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from domains.contract import GroundworkError, Record, Reject, Row
from domains.molecules import MOLECULES, MoleculeEncoding

SPEC = MoleculeEncoding()
DRUGS = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "C[C@H](N)C(=O)O",
    "F/C=C/F",
    "[Na+].[Cl-]",
    "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O",
]


def read(value: object, spec: MoleculeEncoding = SPEC) -> Record | Reject:
    return MOLECULES.read(Row(3, value), spec)


def opened(path: Path, column: str | None = None) -> list[Record | Reject]:
    return [MOLECULES.read(row, SPEC) for row in MOLECULES.open(path, SPEC, column).stream()]


# ------------------------------------------------------------------------------------------- one value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("hello", "not a valid SMILES: syntax error at position"),
        ("CC(", "not a valid SMILES: syntax error at position 3"),
        ("CC)", "extra close parentheses at position 3"),
        ("c1ccccc", "unclosed ring"),
        ("C(C)(C)(C)(C)C", "valence 5 of atom 0 (C) is greater than permitted"),
        ("c1cccc1", "aromatic atoms 0 1 2 3 4 cannot be kekulized"),
        ("CCO CCN", "one SMILES in a cell"),
        ("CCO.>>CC", "not a valid SMILES"),
        ("InChI=1S/CH4/h1H4", "not a valid SMILES"),
        ("C" * 501, "501 atoms; at most 500"),
        ("*" * 501, "501 atoms; at most 500"),
        ("C" * 6000, "6,000 characters; at most 5,000"),
        ("\0", "not a valid SMILES"),
        ("Ĉ", "not a valid SMILES"),
        (None, "not text but NoneType"),
        (float("nan"), "not text but float"),
        (7, "not text but int"),
        (b"C", "not text but bytes"),
        ("\n\n\n  0  0  0  0  0  0            999 V2000\nM  END\n", "no atoms"),
        ("name\n\n\n  1  0  0  0  0  0\n", "not a valid mol block"),
        ("C\nC", "not a valid mol block"),
    ],
)
def test_a_reject_has_its_row_its_value_and_a_reason_in_words(value: object, reason: str) -> None:
    found = read(value)
    assert isinstance(found, Reject)
    assert found.row == 3
    assert reason in found.reason
    assert found.original == (value if isinstance(value, str) else str(value))
    assert "\n" not in found.reason


@pytest.mark.parametrize(
    "value",
    [
        "*",
        "[U]",
        "[CH3]",
        "[H][H]",
        "[2H]C",
        "[Fe+2]",
        "[Na+].[Cl-]",
        "CN->[Pt]",
        " CCO ",
        "CCO |$a;b;c$|",
        "C" * 500,
    ],
)
def test_unusual_molecules_are_molecules(value: str) -> None:
    assert isinstance(read(value), Record)


def test_identity_is_one_for_one_molecule() -> None:
    same = {read(value).identity for value in ("OCC", "C(O)C", "[CH3][CH2][OH]", "[H]OCC")}  # type: ignore[union-attr]
    assert same == {"CCO"}
    assert read("C[C@H](N)C(=O)O") != read("C[C@@H](N)C(=O)O")


def test_largest_size_is_the_setting() -> None:
    assert isinstance(read("CCCC", MoleculeEncoding(max_atoms=4)), Record)
    assert isinstance(read("CCCCC", MoleculeEncoding(max_atoms=4)), Reject)
    assert MoleculeEncoding(max_atoms=4).digest != SPEC.digest
    for wrong in (0, 2001):
        with pytest.raises(ValueError, match="max_atoms"):
            MoleculeEncoding(max_atoms=wrong)


def _complete_graph(size: int) -> str:
    """A SMILES in which each of ``size`` attachment points is bonded to every other."""
    free, open_rings, text = list(range(1, 100)), {}, ""
    for atom in range(size):
        text += "[*]"
        for other in range(atom - 1):
            closed = open_rings.pop((other, atom))
            text += f"%{closed:02d}"
            free.insert(0, closed)
        for other in range(atom + 2, size):
            open_rings[atom, other] = free.pop(0)
            text += f"%{open_rings[atom, other]:02d}"
    return text


def _complete_block(size: int) -> str:
    molecule = Chem.RWMol()
    for atom in range(size):
        molecule.AddAtom(Chem.Atom(0))
        for other in range(atom):
            molecule.AddBond(other, atom, Chem.BondType.SINGLE)
    return Chem.MolToMolBlock(molecule, kekulize=False, forceV3000=size % 2 == 1)


BIG_MESH = [
    *("", "", "", " 44946  0  0  0  0            999 V2000"),
    *["    0.0000    0.0000    0.0000 *   0  0"] * 44,
    *(f"{begin:3d}{end:3d}  1  0" for end in range(2, 45) for begin in range(1, end)),
    *("M  END", ""),
]


def test_a_mesh_of_rings_is_refused_before_ring_search() -> None:
    for block in (_complete_block(28), _complete_block(29), "\n".join(BIG_MESH)):
        found = read(block)
        assert isinstance(found, Reject)
        assert found.reason == "more than 300 rings"
    assert isinstance(read("c1ccccc1CC" * 60), Record)


@pytest.mark.parametrize(
    "value",
    [
        _complete_block(25),
        "\n".join(BIG_MESH),
        _complete_graph(11),
        _complete_graph(19),
        "C" * 5000,
        "C1" * 2500,
        "(" * 5000,
        "[" * 5000,
        "C(" * 2400 + ")" * 200,
        "c1ccccc1" * 600,
        "C1CC1" * 160,
        "*1~*" * 1200,
        "N[C@@H](C)C(=O)" * 90,
        "C/C=C/" * 80 + "C",
        "[H]" * 1600,
        ".".join(["[H]"] * 1200),
        "C%99" * 1000,
        "[C@]12" * 700,
    ],
    ids=range(18),
)
def test_no_text_takes_longer_than_a_second(value: str) -> None:
    start = time.process_time()
    found = read(value)
    if isinstance(found, Record):
        MOLECULES.encode(found, SPEC)
        MOLECULES.describe(found, SPEC)
    assert time.process_time() - start < 1


def test_rdkit_stays_silent_and_is_left_as_it_was() -> None:
    code = (
        "from domains.molecules import MOLECULES as M\n"
        "from domains.contract import Row\n"
        "for value in ('CC(', 'c1cccc1', 'C(C)(C)(C)(C)C', '[Fe+99]', 'a\\nb'):\n"
        "    M.read(Row(0, value), M.encoding())\n"
        "from rdkit import Chem\n"
        "Chem.MolFromSmiles('CC(')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    # Only the last line's own complaint.
    assert {line.split("] ")[1].split(":")[0] for line in done.stderr.splitlines() if "] " in line} <= {
        "SMILES Parse Error",
        "CC(",
        "~~^",
    }
    assert "kekulize" not in done.stderr
    assert "Parse Error" in done.stderr


def test_threads_get_their_own_reasons() -> None:
    values = ["CC(", "c1ccccc", "c1cccc1", "CCO", "C(C)(C)(C)(C)C", "CC)"] * 100
    expected = [read(value) for value in values[:6]]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, values))
    for place, one in enumerate(found):
        known = expected[place % 6]
        if isinstance(known, Reject):
            assert one == known
        else:
            assert isinstance(one, Record)


@pytest.mark.slow
def test_ten_thousand_mutated_smiles_give_ten_thousand_answers() -> None:
    rng = random.Random(5)  # noqa: S311
    letters = "CNOPSFIBrcnops()[]=#@/\\+-123456789%.*HKl~$:>< \t\0é"
    counts = {Record: 0, Reject: 0}
    for _ in range(10_000):
        text = list(rng.choice(DRUGS))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(text) + 1)
            text[place : place + rng.randint(0, 2)] = rng.choices(letters, k=rng.randint(0, 3))
        found = read("".join(text))
        counts[type(found)] += 1
        if isinstance(found, Reject):
            assert found.reason
            assert "\n" not in found.reason
        else:
            sample = MOLECULES.encode(found, SPEC)
            assert len(sample["atoms"]) == found.value.GetNumAtoms()
            assert len(sample["bonds"]) == found.value.GetNumBonds()
    assert min(counts.values()) > 500


# ----------------------------------------------------------------------------------------------- files


def test_every_row_of_a_messy_csv_comes_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,smiles,y\n1,CCO,1\n2,nonsense,2\n3,,3\n4,OCC,4\n5,C,4,5\n6,"C\nC",6\n7,CC\n')
    found = opened(path)
    assert [one.row for one in found] == list(range(7))
    assert [isinstance(one, Record) for one in found] == [True, False, False, True, False, False, True]
    assert found[0].identity == found[3].identity == "CCO"  # type: ignore[union-attr]
    assert found[0].fields == {"id": "1", "smiles": "CCO", "y": "1"}  # type: ignore[union-attr]
    assert found[2].reason == "empty"  # type: ignore[union-attr]
    assert "4 cells" in found[4].reason  # type: ignore[union-attr]


@pytest.mark.parametrize("header", ["smiles", "SMILES", "Canonical_SMILES", "mol", "Structure"])
def test_the_smiles_column_is_found_by_its_header(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"y,{header}\n1,broken!\n2,CCO\n")
    source = MOLECULES.open(path, SPEC)
    assert source.input_column == header
    assert source.columns == ("y", header)
    assert [row.value for row in source.stream()] == ["broken!", "CCO"]


def test_the_smiles_column_is_found_by_its_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,compound,y\n" + "".join(f"X{n},{drug},{n}.5\n" for n, drug in enumerate(DRUGS * 4)))
    assert MOLECULES.open(path, SPEC).input_column == "compound"
    assert MOLECULES.open(path, SPEC, "id").input_column == "id"


@pytest.mark.parametrize(
    ("content", "column", "words"),
    [
        ("id,y\nX1,2\n", None, "no column looks like SMILES"),
        ("a,b\nCC,CO\n", None, "more than one column looks like SMILES"),
        ("smiles,y\nCC,1\n", "smile", "no column 'smile'; its columns are: smiles, y"),
        ("CCO,1.5\nCCN,2.5\n", None, "first line is data"),
    ],
)
def test_a_table_without_a_clear_column_says_what_to_do(
    tmp_path: Path, content: str, column: str | None, words: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(GroundworkError, match=words) as caught:
        MOLECULES.open(path, SPEC, column)
    assert "\n" not in str(caught.value)


def test_the_same_molecules_from_every_format(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("smiles\n" + "\n".join(DRUGS))
    (tmp_path / "a.tsv").write_text("smiles\ty\n" + "\n".join(f"{drug}\t1" for drug in DRUGS))
    (tmp_path / "a.smi").write_text("\n".join(f"{drug} name {n}" for n, drug in enumerate(DRUGS)))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    pq.write_table(pa.table({"smiles": DRUGS, "y": [1] * 6}), tmp_path / "a.parquet")
    book = openpyxl.Workbook()
    for row in [["smiles"], *([drug] for drug in DRUGS)]:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    _write_sdf(tmp_path / "a.sdf", DRUGS)
    (tmp_path / "a.sdf.gz").write_bytes(gzip.compress((tmp_path / "a.sdf").read_bytes()))
    expected = [Chem.CanonSmiles(drug) for drug in DRUGS]
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 8
    for path in paths:
        assert [one.identity for one in opened(path)] == expected, path.name  # type: ignore[union-attr]


def _write_sdf(path: Path, smiles: list[str]) -> None:
    writer = Chem.SDWriter(str(path))
    for number, text in enumerate(smiles):
        molecule = Chem.MolFromSmiles(text)
        AllChem.Compute2DCoords(molecule)
        molecule.SetProp("number", str(number))
        if number % 2:
            molecule.SetProp("odd", "first line\nsecond line")
        writer.write(molecule)
    writer.close()


def test_properties_of_an_sdf_are_columns(tmp_path: Path) -> None:
    _write_sdf(tmp_path / "a.sdf", DRUGS)
    source = MOLECULES.open(tmp_path / "a.sdf", SPEC)
    assert source.columns == ("number", "odd")
    fields = [row.fields for row in source.stream()]
    assert fields[0] == {"number": "0", "odd": ""}
    assert fields[1] == {"number": "1", "odd": "first line\nsecond line"}
    with pytest.raises(GroundworkError, match="input-column"):
        MOLECULES.open(tmp_path / "a.sdf", SPEC, "number")


def test_a_broken_block_is_one_reject_and_the_next_record_is_read(tmp_path: Path) -> None:
    _write_sdf(tmp_path / "a.sdf", ["CCO", "CCN", "CCC", "CCS"])
    blocks = (tmp_path / "a.sdf").read_text().split("$$$$\n")
    blocks[1] = blocks[1].replace("V2000", "V2000 but not so")[: len(blocks[1]) // 2] + "\n"
    blocks[2] = "\n".join(line for line in blocks[2].splitlines() if "M  END" not in line) + "\n"
    # Windows line ends, and a last record that nothing ends.
    (tmp_path / "b.sdf").write_text("$$$$\n".join(blocks[:4]).replace("\n", "\r\n"), newline="")
    found = opened(tmp_path / "b.sdf")
    assert [one.row for one in found] == [0, 1, 2, 3]
    assert isinstance(found[1], Reject)
    assert [one.identity for one in (found[0], found[3])] == ["CCO", "CCS"]  # type: ignore[union-attr]


def test_a_record_without_end_is_cut_off_and_rejected(tmp_path: Path) -> None:
    _write_sdf(tmp_path / "a.sdf", ["CCO"])
    endless = "\n".join(["x" * 100] * 30_000)
    (tmp_path / "b.sdf").write_text(endless + "\n$$$$\n" + (tmp_path / "a.sdf").read_text())
    found = opened(tmp_path / "b.sdf")
    assert isinstance(found[0], Reject)
    assert "1,000,000 characters" in found[0].reason
    assert isinstance(found[1], Record)


def test_an_sdf_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.sdf").write_text("\n\n")
    with pytest.raises(GroundworkError, match="no record"):
        MOLECULES.open(tmp_path / "a.sdf", SPEC)
    (tmp_path / "a.mol").write_bytes(os.urandom(2000) + b"\0")
    with pytest.raises(GroundworkError, match="binary"):
        MOLECULES.open(tmp_path / "a.mol", SPEC)


def test_hydrogens_of_a_block_become_implicit() -> None:
    block = Chem.MolToMolBlock(Chem.AddHs(Chem.MolFromSmiles("CCO")))
    found = read(block)
    assert isinstance(found, Record)
    assert found.value.GetNumAtoms() == 3
    assert found.identity == "CCO"


def test_digest_follows_content_and_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("smiles,mol\nC,CC\n")
    (tmp_path / "b.csv").write_text("smiles,mol\nC,CC\n")
    digests = [MOLECULES.open(tmp_path / name, SPEC, column).digest for name, column in
               (("a.csv", None), ("b.csv", "smiles"), ("b.csv", "mol"))]  # fmt: skip
    assert digests[0] == digests[1] != digests[2]
