"""Which split suits a dataset: what it says itself, where its scenes lie, when they were taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domains.geospatial.chips import count_chips
from domains.geospatial.inspection import Inspected
from domains.geospatial.labelling import Labelling
from domains.geospatial.layout import SPLIT
from domains.marks import SIDE_OF_WORD
from domains.splits import SIDES

TIME = "time"
"""Column that tells when the scene of a chip was taken, in ISO 8601."""
MARKING = {
    "given": "folders train, val and test around all files, or a column split in labels.csv",
    "time": "a date in the name of a scene, in its tags or its STAC item, or a column time in labels.csv",
}
"""Where a dataset says what is held out."""
FEWEST_SCENES = 10
"""Scenes from which whole ones can be held out where blocks cannot."""


@dataclass(frozen=True)
class Suited:
    """How test chips are held out where nothing else is asked for."""

    method: str
    """Empty = the domain's first."""
    columns: Mapping[str, str]
    """Column that decides in a split by time or a given one, of those that the dataset has."""
    remarks: tuple[str, ...] = ()


def suited(labelling: Labelling, inspected: Sequence[Inspected], chip: int, name: str) -> Suited:
    """The split of the dataset ``name``, of which ``inspected`` are the scenes.

    A dataset that marks rows for training, validation and test is split as it says; otherwise by blocks on
    the ground where these can be told.
    """
    scenes = [each.scene for each in inspected if each.scene is not None]
    columns = {
        **({"given": SPLIT} if labelling.layout.has_sides else {}),
        **({"time": TIME} if any(scene.time for scene in scenes) else {}),
        **labelling.split_columns,
    }
    if "given" in columns and _marks_every_side(columns["given"], labelling, inspected):
        said = f"Test chips of {name} are those that its {columns['given']!r} marks (--split given)."
        return Suited("given", columns, (said,))
    if not scenes or any(scene.crs for scene in scenes):
        return Suited("", columns)
    nowhere = f"No scene of {name} has a location"
    has_several_chips = any(count_chips(scene, chip) > 1 for scene in scenes)
    if has_several_chips and len(scenes) >= FEWEST_SCENES:
        return Suited("scene", columns, (f"{nowhere}: whole scenes are held out for the test.",))
    remark = f"{nowhere}: test chips are drawn at random, and may lie beside training chips."
    return Suited("random", columns, (remark,))


def _marks_every_side(column: str, labelling: Labelling, inspected: Sequence[Inspected]) -> bool:
    of_scenes = [each.fields for each in inspected if each.scene is not None]
    fields = of_scenes if labelling.points is None else labelling.points.fields
    words = {each.get(column, "").strip().lower() for each in fields}
    return {SIDE_OF_WORD[word] for word in words & SIDE_OF_WORD.keys()} == set(range(len(SIDES)))
