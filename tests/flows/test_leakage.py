"""How near test chips lie to training chips, what is said of it, and what a buffer leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import from_origin

from domains.contract import GroundworkError, load_domain
from flows import leakage
from flows.asked import choose_targets, chosen_split
from flows.home import Home
from flows.ingest import ingest
from flows.labelled import LabelledData, describe_task, label
from flows.settings import TaskSettings, settings_class

GEOSPATIAL = load_domain("geospatial")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 10 × 10 chips of 16 pixels of 10 m, with a mask."""
    folder, random = tmp_path_factory.mktemp("data") / "set", np.random.default_rng(0)
    for name, count, high in (("images", 3, 4000), ("masks", 1, 2)):
        (folder / name).mkdir(parents=True)
        with rasterio.open(
            folder / name / "a.tif", "w", driver="GTiff", count=count, height=160, width=160, dtype="uint16",
            crs="EPSG:32632", transform=from_origin(500_000, 5_000_000, 10, 10),
        ) as file:  # fmt: skip
            file.write(random.integers(high // 40, high, (count, 160, 160), dtype=np.uint16))
            if count == 3:
                file.descriptions = ("B2", "B3", "B8")
    return folder


def labelled(scene: Path, home: Home, journal: Any, buffer: float) -> LabelledData:
    made = settings_class("finetune", "geospatial")(chip=16, patch=8, split="random", buffer=buffer)
    settings = made.part(TaskSettings)
    source = GEOSPATIAL.open(scene, made.part(GEOSPATIAL.encoding))  # type: ignore[arg-type]
    names = choose_targets(source, settings)
    store = ingest(GEOSPATIAL, source, source.encoding, home, journal, keep=names, labels=names)
    split = chosen_split(GEOSPATIAL, source, settings, "random", 0, buffer)
    task = describe_task(GEOSPATIAL, source, store, settings, names, split)
    return label(GEOSPATIAL, source, store, source.encoding, task)


def test_chips_drawn_at_random_touch_what_is_learnt_from(
    scene: Path, module_home: Home, journal: Any
) -> None:
    data = labelled(scene, module_home, journal, 0)
    table = leakage.leakage_table(data.store.rows, data.places, data.split)
    assert table is not None
    assert table["row"].tolist() == data.store.rows[data.split.test].tolist()
    assert set(table["nearest_training_row"]) <= set(data.store.rows[data.split.train])
    assert (table["metres"] < 0.1).all()
    assert leakage.said(table, "chip").startswith(
        "nearest training chip: min 0 m, median 0 m (10 of 10 test chips touch one)"
    )
    assert leakage.leakage_figure(table, "chip", "t").axes


def test_a_buffer_leaves_out_what_lies_within(scene: Path, module_home: Home, journal: Any) -> None:
    whole, data = (labelled(scene, module_home, journal, buffer) for buffer in (0, 100))
    table = leakage.leakage_table(data.store.rows, data.places, data.split)
    assert table is not None
    assert table["metres"].min() == pytest.approx(160, rel=0.01)  # chips are 160 m wide
    assert "touch" not in leakage.said(table, "chip")
    left_out = [reject for reject in data.rejects if reject.reason == "within 100 m of a test chip"]
    assert len(left_out) == len(whole.split.train) - len(data.split.train) > 0
    assert f"{len(left_out)} chips within 100 m of a test chip, not learnt from" in data.remark
    # The same rows are held out, whatever their positions are now.
    for side in ("val", "test"):
        before, after = (it.store.rows[getattr(it.split, side)].tolist() for it in (whole, data))
        assert before == after
    assert data.split.id == whole.split.id
    assert len(data.identities) == len(data.places) == len(data.store) == len(data.split.groups)
    with pytest.raises(GroundworkError, match="a buffer of 5000 m around the test rows leaves nothing"):
        labelled(scene, module_home, journal, 5000)


def test_what_is_not_known_is_said() -> None:
    table = pd.DataFrame({"metres": [1280.0, np.nan, 40.0]})
    assert leakage.said(table, "chip") == (
        "nearest training chip: min 40 m, median 660 m (the place of 1 is not known)"
    )


def test_where_no_place_is_known_there_is_no_report() -> None:
    split: Any = type("Split", (), {"train": np.arange(2), "test": np.array([2])})
    for places in ([], [None] * 3):
        assert leakage.leakage_table(np.arange(3), places, split) is None
    assert "buffer" not in settings_class("finetune", "molecules").model_fields
