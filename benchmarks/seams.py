"""Whether a map shows where its tiles met: the same scene on a grid of tiles shifted by half a tile.

``python -m benchmarks.seams MODEL SCENE`` takes the name of a registered version (or the folder of a saved
one) and a scene, and prints ``seam_ratio``: the share of pixels whose class changes with the shift, within 8
pixels of an edge of a tile, over that share elsewhere.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import rasterio

from domains.contract import GroundworkError, Row, Source, Target
from domains.geospatial import BandSpec, ChipReference, RasterEncoding, Scene
from domains.geospatial.blending import tile_starts
from domains.geospatial.maps import Predict, write_map
from domains.geospatial.reading import scene_of
from models.predictor import Predictor

NEAR = 8
"""Pixels from the edge of a tile."""
FEWEST = 0.05
"""Share of the pixels that a class must have for the ratio to say anything."""


@dataclass(frozen=True)
class ShiftedScene(Scene):
    """A scene without its first rows and columns."""

    shift: int = 0

    def read(self, row: int, column: int, height: int, width: int, bands: Sequence[BandSpec]) -> np.ndarray:
        return super().read(row + self.shift, column + self.shift, height, width, bands)


def seam_figures(source: Source, target: Target, predict: Predict) -> dict[str, Any]:
    """``seam_ratio`` of the map of one scene, with both shares, and ``shares`` of the classes.

    ``predict`` is as in ``domains.abilities.MapWriter``. Pixels that the border of the scene can reach are
    left out: there the shifted scene has less around it. Raises GroundworkError where no pixel is left.
    """
    scene, chip = scene_of(source), cast(RasterEncoding, source.encoding).chip
    shift = chip // 2
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "map.tif"
        shares = write_map(source, target, predict, path, {}, lambda _: None).shares
        still = _classes(path)[shift:, shift:]
        write_map(_shifted(source, scene, shift), target, predict, path, {}, lambda _: None)
        moved = _classes(path)
    near = _near_edges(moved.shape[0], chip, shift)[:, None] | _near_edges(moved.shape[1], chip, shift)
    inner = np.zeros(moved.shape, bool)
    inner[chip:-chip, chip:-chip] = True
    if not (inner & near).any() or not (inner & ~near).any():
        raise GroundworkError(
            f"no pixel of {scene.name} tells seams from what lies between them: with tiles of {chip} pixels "
            f"all are within {NEAR} of an edge, or so near to the border that it reaches them. Take a larger "
            "scene, and a model of chips of 128 pixels or more"
        )
    differs = still != moved
    at_seams, elsewhere = differs[inner & near].mean(), differs[inner & ~near].mean()
    ratio = at_seams / elsewhere if elsewhere else (0.0 if not at_seams else np.inf)
    return {
        "seam_ratio": round(float(ratio), 3),
        "changed_at_seams": float(at_seams),
        "changed_elsewhere": float(elsewhere),
        "shares": {name: round(share, 4) for name, share in shares.items()},
        "says_something": min(shares.values()) >= FEWEST,
    }


def seams_of(predictor: Predictor, scene: Path) -> dict[str, Any]:
    """``seam_figures`` of a version on a file."""
    if predictor.pixel_target is None:
        raise TypeError("only a version that answers pixels makes maps")
    source = predictor.domain.open(scene, predictor.spec)
    return seam_figures(source, predictor.pixel_target, predictor.predict_pixels)


def _shifted(source: Source, scene: Scene, shift: int) -> Source:
    told = {item.name: getattr(scene, item.name) for item in fields(scene)}
    told.update(height=scene.height - shift, width=scene.width - shift)
    moved = ShiftedScene(**told, shift=shift)
    return replace(source, stream=lambda: iter([Row(0, ChipReference(moved, 0, 0))]))


def _classes(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def _near_edges(length: int, chip: int, shift: int) -> np.ndarray:
    """Which pixels along one side of the shifted scene lie near an edge of a tile of either grid."""
    near = np.zeros(length, bool)
    for before in (shift, 0):
        for first in tile_starts(length + before, chip):
            for edge in (first - before, first + chip - before):
                near[max(edge - NEAR, 0) : max(edge + NEAR, 0)] = True
    return near


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="NAME, NAME@alias, NAME/version, or the folder of a saved version")
    parser.add_argument("scene", type=Path)
    options = parser.parse_args()
    if Path(options.model).is_dir():
        predictor = Predictor.load(Path(options.model))
    else:
        from flows.home import Home
        from flows.tracking import connect
        from models.registry import load

        connect(Home.current())
        _, predictor = load(options.model)
    print(json.dumps(seams_of(predictor, options.scene)))


if __name__ == "__main__":
    main()
