"""One molecule with an answer below it, as SVG; its atoms coloured by what they add to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

from domains.contract import Record

WIDTH, HEIGHT = 320, 260
LONGEST_CAPTION = 120
RAISES, LOWERS = (0.90, 0.47, 0.12), (0.20, 0.52, 0.86)
"""Orange and blue, which readers who do not tell red from green tell apart."""
FAINTEST = 0.05
"""Of the largest weight of a molecule: below it an atom stays without colour."""


def draw_molecule(record: Record, caption: str, weights: Sequence[float] | None = None) -> bytes:
    """SVG of 320 × 260 pixels. The caption is drawn as shapes, so that it can carry no markup.

    ``weights`` say what each atom adds, in the order of the record's atoms: orange raises the answer, blue
    lowers it, and the depth of a colour is relative to the largest weight of the molecule. Raises ValueError
    for another number of weights than of atoms.
    """
    molecule = Chem.Mol(record.value)  # coordinates are added to a copy
    highlights = {} if weights is None else _highlights(molecule.GetNumAtoms(), weights)
    drawer = rdMolDraw2D.MolDraw2DSVG(WIDTH, HEIGHT)
    with rdBase.BlockLogs():
        try:
            prepared = rdMolDraw2D.PrepareMolForDrawing(molecule)
        except (RuntimeError, ValueError):
            prepared = rdMolDraw2D.PrepareMolForDrawing(molecule, kekulize=False)
        drawer.DrawMolecule(prepared, legend=" ".join(caption.split())[:LONGEST_CAPTION], **highlights)
    drawer.FinishDrawing()
    return drawer.GetDrawingText().encode()


def _highlights(atoms: int, weights: Sequence[float]) -> dict[str, Any]:
    """Colours of the atoms, as the drawer takes them."""
    if len(weights) != atoms:
        raise ValueError(f"{len(weights)} weights for {atoms} atoms")
    largest = max((abs(float(weight)) for weight in weights), default=0.0)
    colours = {
        atom: _colour(float(weight) / largest)
        for atom, weight in enumerate(weights)
        if abs(float(weight)) > FAINTEST * largest
    }
    return {"highlightAtoms": list(colours), "highlightAtomColors": colours, "highlightBonds": []}


def _colour(weight: float) -> tuple[float, float, float]:
    """From white at 0 to the full colour at ±1."""
    red, green, blue = RAISES if weight > 0 else LOWERS
    depth = abs(weight)
    return 1 - depth * (1 - red), 1 - depth * (1 - green), 1 - depth * (1 - blue)
