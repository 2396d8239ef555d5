"""One molecule with an answer below it, as SVG."""

from __future__ import annotations

from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

from domains.contract import Record

WIDTH, HEIGHT = 320, 260
LONGEST_CAPTION = 120


def draw_molecule(record: Record, caption: str) -> bytes:
    """SVG of 320 × 260 pixels. The caption is drawn as shapes, so that it can carry no markup."""
    drawer = rdMolDraw2D.MolDraw2DSVG(WIDTH, HEIGHT)
    molecule = Chem.Mol(record.value)  # coordinates are added to a copy
    with rdBase.BlockLogs():
        try:
            prepared = rdMolDraw2D.PrepareMolForDrawing(molecule)
        except (RuntimeError, ValueError):
            prepared = rdMolDraw2D.PrepareMolForDrawing(molecule, kekulize=False)
        drawer.DrawMolecule(prepared, legend=" ".join(caption.split())[:LONGEST_CAPTION])
    drawer.FinishDrawing()
    return drawer.GetDrawingText().encode()
