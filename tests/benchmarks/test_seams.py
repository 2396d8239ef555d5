"""The figure of seams is that of what tiles do to a map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from benchmarks.seams import seam_figures
from domains.contract import GroundworkError, Row, Sample, Source, Target
from domains.geospatial import BandSpec, ChipReference, RasterEncoding, Scene

CHIP = 128
BAND = BandSpec(name="B4", wavelength=665, unit="reflectance × 10000")
BURNT = Target(name="mask", kind="binary", classes=("unburned", "burned"), level="pixel", values=(0, 1))


def source_of(path: Path, side: int = 500) -> Source:
    """A scene of numbers from 0 to 1, and its one row."""
    pixels = np.random.default_rng(0).random((1, side, side), dtype=np.float32)
    place = from_origin(500_000, 5_000_000, 10, 10)
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=1, dtype="float32", crs="EPSG:32633",
        transform=place,
    ) as file:  # fmt: skip
        file.write(pixels)
        crs = file.crs.to_wkt()
    scene = Scene(str(path), path.name, side, side, crs, tuple(place)[:6], (BAND,))
    rows = [Row(0, ChipReference(scene, 0, 0))]
    encoding = RasterEncoding(chip=CHIP, patch=8, bands=(BAND,))
    return Source(path.name, str(path), "", ("image",), lambda: iter(rows), encoding)


def pixels_of(samples: Sequence[Sample]) -> np.ndarray:
    return np.stack([sample["pixels"][0] for sample in samples])


def test_a_model_that_sees_single_pixels_leaves_no_seam(tmp_path: Path) -> None:
    found = seam_figures(
        source_of(tmp_path / "scene.tif"), BURNT, lambda samples: pixels_of(samples).reshape(-1, CHIP**2, 1)
    )
    assert found["changed_at_seams"] == found["changed_elsewhere"] == found["seam_ratio"] == 0
    assert found["says_something"]


def test_what_tiles_do_at_their_edges_shows_and_noise_everywhere_does_not(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    inner = np.zeros((CHIP, CHIP), bool)
    inner[8:-8, 8:-8] = True

    def edges(samples: Sequence[Sample]) -> np.ndarray:
        """Sure of nothing at the edges of its tile, where it says more than a blend can mend."""
        noise = np.where(inner, 0, 1e4 * random.standard_normal((len(samples), CHIP, CHIP)))
        return (pixels_of(samples) + noise).reshape(-1, CHIP**2, 1).astype(np.float32)

    def everywhere(samples: Sequence[Sample]) -> np.ndarray:
        return random.random((len(samples), CHIP**2, 1), dtype=np.float32)

    source = source_of(tmp_path / "scene.tif")
    assert seam_figures(source, BURNT, edges)["seam_ratio"] > 1.5
    assert 0.8 < seam_figures(source, BURNT, everywhere)["seam_ratio"] < 1.25


def test_a_scene_without_a_pixel_between_its_seams_is_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path / "scene.tif", side=300)
    with pytest.raises(GroundworkError, match="Take a larger scene"):
        seam_figures(source, BURNT, lambda samples: pixels_of(samples).reshape(-1, CHIP**2, 1))
