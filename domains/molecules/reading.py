"""From files to rows, and from a row to a molecule: SMILES and mol blocks, with a reason for every reject."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from threading import Lock

from pydantic import Field
from rdkit import Chem, rdBase

from domains.compressed import PACKED
from domains.contract import EncodingSpec, GroundworkError, Record, Reject, Row, Source, digest_of
from domains.molecules.standardising import Standardisation, standardise
from domains.tables import Table, Unreadable, inspect_text, open_table, suffix_of, text_lines

SMILES_HEADERS = ("smiles", "canonical_smiles", "isomeric_smiles", "mol", "structure")
"""Headers that name the SMILES column, in order of preference; case does not matter."""
LONGEST_SMILES = 5_000
LONGEST_MOL_BLOCK = 500_000
MOST_RINGS = 300
"""Independent rings. Finding rings slows steeply in a mesh of bonds: 750 rings among 40 atoms take seconds.
Real molecules of the largest size stay below: 540 atoms of a fullerene have 271."""
SAFE_LENGTH = 400
"""Characters of SMILES that cannot describe a graph that is slow to read."""
STRUCTURE_FORMATS = {
    ".sdf": "chemical/x-mdl-sdfile",
    ".sd": "",
    ".mol": "chemical/x-mdl-molfile",
    **{f"{suffix}{packing}": "" for packing in PACKED for suffix in (".sdf", ".sd", ".mol")},
}
"""Suffixes of files of structures with their media types."""
FIRST = 1000
"""SDF records whose properties become the columns."""
_alone = Lock()


class MoleculeEncoding(Standardisation):
    """How a molecule becomes a sample."""

    max_atoms: int = Field(
        default=500,
        ge=1,
        le=2000,
        description="Structures with more atoms than this are rejected; ordinary hydrogens do not count.",
    )


# --------------------------------------------------------------------------------------------- sources


def open_source(path: Path, spec: EncodingSpec, input_column: str | None = None) -> Source:
    """Rows of a table or an SDF file (compressed or not); the values are SMILES or mol blocks.

    The SMILES column is ``input_column``; else the one headed as in ``SMILES_HEADERS``; else the only one
    in which at least 90% of the first 20 filled cells are SMILES. Raises GroundworkError with what to do.
    """
    path = Path(path)
    if suffix_of(path) in (".sdf", ".sd", ".mol"):
        if input_column is not None:
            raise GroundworkError(f"{path.name} holds structures, not columns: leave out --input-column")
        return _open_sdf(path, spec)
    table = open_table(path)
    column = _smiles_column(table, path.name, input_column)
    place = table.columns.index(column)

    def stream() -> Iterator[Row]:
        for index, (cells, fault) in enumerate(table.rows()):
            fields = dict(zip(table.columns, cells, strict=True))
            value = fields[column]
            yield Row(index, Unreadable(fault, value) if fault else value, fields)

    digest = digest_of([table.digest, table.columns, place])
    return Source(path.name, str(path.resolve()), digest, table.columns, stream, spec, column)


def _smiles_column(table: Table, name: str, wanted: str | None) -> str:
    listed = ", ".join(table.columns[:20]) + (", …" if len(table.columns) > 20 else "")
    if wanted is not None:
        if wanted not in table.columns:
            raise GroundworkError(f"{name} has no column {wanted!r}; its columns are: {listed}")
        return wanted
    lowered = [column.lower() for column in table.columns]
    for header in SMILES_HEADERS:
        if lowered.count(header) == 1:
            return table.columns[lowered.index(header)]
    found = [column for place, column in enumerate(table.columns) if _holds_smiles(table, place)]
    if len(found) != 1:
        what = "more than one column" if found else "no column"
        raise GroundworkError(
            f"{name}: {what} looks like SMILES; name it with --input-column (one of: {listed})"
        )
    if len(found[0]) > 2 and _parses(found[0]):
        raise GroundworkError(
            f"{name}: the first line is data ({found[0]!r}); add a header line such as 'smiles'"
        )
    return found[0]


def _holds_smiles(table: Table, place: int) -> bool:
    cells = (cells[place].strip() for cells, _ in islice(table.rows(), FIRST))
    filled = list(islice((cell for cell in cells if cell), 20))
    return bool(filled) and sum(map(_parses, filled)) >= 0.9 * len(filled)


def _parses(text: str) -> bool:
    return isinstance(read(Row(0, text), MoleculeEncoding()), Record)


# ------------------------------------------------------------------------------------------------- SDF


def _open_sdf(path: Path, spec: EncodingSpec) -> Source:
    digest, encoding = inspect_text(path)

    def entries() -> Iterator[tuple[str | Unreadable, dict[str, str]]]:
        return _sdf_entries(text_lines(path, encoding))

    first = [properties for _, properties in islice(entries(), FIRST)]
    if not first:
        raise GroundworkError(f"{path.name} holds no record: is it an SDF file?")
    columns = tuple(dict.fromkeys(chain.from_iterable(first)))

    def stream() -> Iterator[Row]:
        for index, (value, properties) in enumerate(entries()):
            yield Row(index, value, {column: properties.get(column, "") for column in columns})

    return Source(path.name, str(path.resolve()), digest_of([digest, "sdf"]), columns, stream, spec)


def _sdf_entries(lines: Iterator[str]) -> Iterator[tuple[str | Unreadable, dict[str, str]]]:
    """(mol block, properties) of every record. A broken block is passed on, for ``read`` to reject."""
    entry: list[str] = []
    size = 0
    for raw in lines:
        line = raw.rstrip("\r\n")
        if line.startswith("$$$$"):
            yield _sdf_entry(entry, size)
            entry, size = [], 0
            continue
        size += len(line)
        if size <= 2 * LONGEST_MOL_BLOCK:
            entry.append(line)
    if any(line.strip() for line in entry):
        yield _sdf_entry(entry, size)


def _sdf_entry(lines: list[str], size: int) -> tuple[str | Unreadable, dict[str, str]]:
    ends = (place for place, line in enumerate(lines) if line.startswith(("M  END", ">")))
    end = next(ends, len(lines))
    block = lines[: end + 1] if lines[end : end + 1] and lines[end].startswith("M") else lines[:end]
    properties: dict[str, str] = {}
    name = None
    for line in lines[end:]:
        header = re.match(r">.*<([^>]+)>", line)
        if header:
            name = header.group(1).strip()
            properties[name] = ""
        elif name is not None and line.strip():
            properties[name] += f"\n{line}" if properties[name] else line
        else:  # a blank line ends a value
            name = None
    if size > 2 * LONGEST_MOL_BLOCK:
        return Unreadable(f"a record of over {2 * LONGEST_MOL_BLOCK:,} characters", lines[0]), properties
    return "\n".join(block) + "\n", properties


# ------------------------------------------------------------------------------------------------ read


def read(row: Row, spec: MoleculeEncoding) -> Record | Reject:
    """The standard form of the molecule of one row, hydrogens implicit.

    Its identity is its canonical isomeric SMILES.
    """
    value = row.value
    if isinstance(value, Unreadable):
        return Reject(row.index, value.reason, value.original)
    if not isinstance(value, str):
        return Reject(row.index, f"not text but {type(value).__name__}", str(value))
    # RDKit writes its complaints to the standard error of the whole process, hence BlockLogs. Its error log
    # is one for the process too: a thread that listens to it for a reason must be the only one to fail.
    with _alone, rdBase.BlockLogs():
        try:
            found = structure(value, spec)
            if isinstance(found, str):
                return Reject(row.index, found, value)
            molecule, identity = standardise(found, Chem.MolToSmiles(found), spec)
            return Record(row.index, identity, molecule, row.fields)
        except (RuntimeError, ValueError) as error:  # an invariant of RDKit's own that the input broke
            return Reject(row.index, f"RDKit cannot read it: {' '.join(str(error).split())[:200]}", value)


def structure(text: str, spec: MoleculeEncoding) -> Chem.Mol | str:
    """The molecule as written, in SMILES or in a mol block, or why there is none.

    RDKit's logs and the ValueError or RuntimeError of a broken invariant are left to the caller.
    """
    if "\n" in text.strip("\r\n"):
        return _read_block(text, spec)
    return _read_smiles(text.strip(), spec)


def _read_smiles(text: str, spec: MoleculeEncoding) -> Chem.Mol | str:
    if not text:
        return "empty"
    if len(text) > LONGEST_SMILES:
        return f"{len(text):,} characters; at most {LONGEST_SMILES:,} are read"
    rest = text.partition(" ")[2]
    if rest and not rest.lstrip().startswith("|"):  # RDKit would take the rest as a name, and drop it
        return "holds a space: one SMILES in a cell"
    if len(text) > SAFE_LENGTH and (fault := _oversized(Chem.MolFromSmiles(text, sanitize=False), spec)):
        return fault
    molecule = Chem.MolFromSmiles(text)
    if molecule is None:
        return _why(lambda: Chem.MolFromSmiles(text, sanitize=False), "SMILES")
    return _unfit(molecule, spec) or molecule


def _read_block(text: str, spec: MoleculeEncoding) -> Chem.Mol | str:
    if len(text) > LONGEST_MOL_BLOCK:
        return f"{len(text):,} characters; at most {LONGEST_MOL_BLOCK:,} are read"
    if _rings_of_block(text) > MOST_RINGS:  # even to read it without sanitising looks for rings
        return f"more than {MOST_RINGS} rings"
    if fault := _oversized(Chem.MolFromMolBlock(text, sanitize=False), spec):
        return fault
    molecule = Chem.MolFromMolBlock(text)
    if molecule is None:
        return _why(lambda: Chem.MolFromMolBlock(text, sanitize=False), "mol block")
    return _unfit(molecule, spec) or molecule


def _rings_of_block(text: str) -> int:
    """Fewest independent rings that the counts of a V2000 or V3000 block allow; 0 where it has none."""
    counts = re.search(r"^M  V30 COUNTS +(\d+) +(\d+)", text, re.MULTILINE)
    counts = counts or re.match(r"(?:.*\n){3}([ \d]{3})([ \d]{3})", text)
    if counts is None:
        return 0
    atoms, bonds = (int(number.strip() or 0) for number in counts.groups())
    return bonds - atoms


def _oversized(unsanitised: Chem.Mol | None, spec: MoleculeEncoding) -> str:
    """Why a long text must not be sanitised: that takes time that grows steeply with size and rings."""
    if unsanitised is None:
        return ""
    atoms = unsanitised.GetNumAtoms()
    heavy = unsanitised.GetNumHeavyAtoms()
    if heavy > spec.max_atoms:
        return f"{heavy} atoms; at most {spec.max_atoms} are read"
    if unsanitised.GetNumBonds() - atoms + len(Chem.GetMolFrags(unsanitised)) > MOST_RINGS:
        return f"more than {MOST_RINGS} rings"
    return ""


def _unfit(molecule: Chem.Mol, spec: MoleculeEncoding) -> str:
    atoms = molecule.GetNumAtoms()
    if atoms > spec.max_atoms:
        return f"{atoms} atoms; at most {spec.max_atoms} are read"
    return "" if atoms else "no atoms"


# ----------------------------------------------------------------------------------------------- reasons


def _why(parse_unsanitised: Callable[[], Chem.Mol | None], kind: str) -> str:
    with rdBase.CaptureErrorLog() as log:
        unsanitised = parse_unsanitised()
        if unsanitised is None:
            return f"not a valid {kind}: {_syntax(log.messages)}"
    for problem in Chem.DetectChemistryProblems(unsanitised):
        return f"not a valid {kind}: {_chemistry(problem.Message())}"
    return f"not a valid {kind}"


def _syntax(log: str) -> str:
    """RDKit's first complaint, without its time, its repetition of the text and its drawing."""
    lines = [re.sub(r"^\[[\d:]+\] (SMILES Parse Error: )?", "", line) for line in log.splitlines()]
    reason = re.sub(r" (while parsing:|for input:) .*", "", lines[0]) if lines else "syntax error"
    place = re.search(r"around position (\d+)", log)
    return reason.strip(" \t.")[:200] + (f" at position {place.group(1)}" if place else "")


def _chemistry(message: str) -> str:
    message = " ".join(message.split())
    message = re.sub(
        r"Explicit valence for atom # (\d+) (\w+), (\d+), is", r"valence \3 of atom \1 (\2) is", message
    )
    return re.sub(
        r"Can't kekulize mol\. Unkekulized atoms: (.*)", r"aromatic atoms \1 cannot be kekulized", message
    )
