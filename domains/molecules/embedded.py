"""Real molecules that come with the installation: the identifiers and measured properties of ``chemicals``.

The tables are read as the files they are, and not through ``chemicals``' own database class, which holds
all 76,000 entries with every synonym in memory for the life of the process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable

from domains.contract import EncodingSpec, GroundworkError, Row, Source, digest_of

IDENTIFIERS = (
    "chemical identifiers pubchem large.tsv",
    "chemical identifiers pubchem small.tsv",
    "chemical identifiers example user db.tsv",
    "Cation db.tsv",
    "Anion db.tsv",
    "Inorganic db.tsv",
)
"""In the order in which ``chemicals`` loads them: a later entry of a CAS number replaces an earlier one."""
HEAVY_ATOMS = range(2, 61)
ORGANIC_ELEMENTS = frozenset(["H", "D", "T", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Se", "Br", "I"])
CARBIDE_ELEMENTS = frozenset(["B", "C", "Si"])
KELVIN = "K"


def embedded_sources() -> Mapping[str, Callable[[EncodingSpec], Source]]:
    """Datasets by name. Organic here means: one component (no salts), 2 to 60 heavy atoms, with
    carbon, of ``ORGANIC_ELEMENTS`` only, and no carbide.

    ``chemicals`` is the corpus; ``melting-points`` (Open Notebook) and ``boiling-points`` (Yaws) are measured
    values in kelvin.
    """
    return {
        "chemicals": _corpus,
        "melting-points": partial(
            _property, "melting-points", "melting_point", "OpenNotebook Melting Points.tsv"
        ),
        "boiling-points": partial(_property, "boiling-points", "boiling_point", "Yaws Boiling Points.tsv"),
    }


def _corpus(spec: EncodingSpec) -> Source:
    def stream() -> Iterator[Row]:
        seen: set[str] = set()
        for cas, (smiles, name) in _organic().items():
            if smiles not in seen:
                seen.add(smiles)
                yield Row(len(seen) - 1, smiles, {"smiles": smiles, "cas": cas, "name": name})

    return _source("chemicals", ("smiles", "cas", "name"), "Identifiers", stream, spec)


def _property(name: str, column: str, table: str, spec: EncodingSpec) -> Source:
    def stream() -> Iterator[Row]:
        organic, index = _organic(), 0
        for line in _lines("Phase Change", table)[1:]:
            cas, value = line.split("\t")
            if cas in organic and value:
                smiles, common = organic[cas]
                yield Row(index, smiles, {"smiles": smiles, "cas": cas, "name": common, column: value})
                index += 1

    return _source(
        name,
        ("smiles", "cas", "name", column),
        f"Phase Change/{table}",
        stream,
        spec,
        (column,),
        {column: KELVIN},
    )


def _source(
    name: str,
    columns: tuple[str, ...],
    table: str,
    stream: Callable[[], Iterator[Row]],
    spec: EncodingSpec,
    targets: tuple[str, ...] = (),
    units: Mapping[str, str] | None = None,
) -> Source:
    origin = f"chemicals {version('chemicals')}: {table}"
    # An installed version's tables never change, so its number stands for their content.
    digest = digest_of([name, origin, columns, IDENTIFIERS, len(HEAVY_ATOMS), sorted(ORGANIC_ELEMENTS)])
    return Source(name, origin, digest, columns, stream, spec, "smiles", targets, units or {})


@cache
def _organic() -> dict[str, tuple[str, str]]:
    """CAS number -> (SMILES, common name) of every organic molecule, in the order of the files."""
    found: dict[str, tuple[str, str]] = {}
    for table in IDENTIFIERS:
        for line in _lines("Identifiers", table):
            _, cas, formula, _, smiles, _, _, _, name, *_ = line.split("\t", 9)
            if _is_organic(formula, smiles):
                found[cas] = (smiles, name)
            else:
                found.pop(cas, None)
    return found


def _is_organic(formula: str, smiles: str) -> bool:
    atoms = re.findall(r"([A-Z][a-z]?)(\d*)", formula)
    elements = {element for element, _ in atoms}
    heavy = sum(int(count or 1) for element, count in atoms if element not in ("H", "D", "T"))
    is_carbon_compound = "C" in elements and not elements <= CARBIDE_ELEMENTS
    return "." not in smiles and heavy in HEAVY_ATOMS and is_carbon_compound and elements <= ORGANIC_ELEMENTS


def _lines(folder: str, table: str) -> list[str]:
    path: Traversable = files("chemicals").joinpath(folder, table)
    if not path.is_file():
        raise GroundworkError(
            f"chemicals {version('chemicals')} has no table {table!r}: install chemicals>=1.3,<2"
        )
    return path.read_text("utf-8").split("\n")[:-1]
