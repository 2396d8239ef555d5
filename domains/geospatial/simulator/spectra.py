"""What the ground reflects: materials with published reflectances, and the land covers made of them.

Reflectances are means over the Sentinel-2 bands B2, B3, B4, B8, B11 and B12 (492, 560, 665, 833, 1,614 and
2,202 nm; full widths of ESA's spectral response functions) of the spectra collected in ``earthlib`` 1.1.0
(C. Anderson, MIT licence), medians or means about a quantile of brightness or of greenness:

- canopies: 2,000 runs of PROSAIL (Jacquemoud et al., Remote Sens. Environ. 2009, 113, S56);
- soils: 4,168 soils of the ICRAF–ISRIC spectral library (Garrity & Bindraban, World Agroforestry Centre,
  2004), dry and in the laboratory, and fields measured outdoors;
- roofs, roads and concrete: the urban library of Santa Barbara (Herold et al., IEEE Trans. Geosci. Remote
  Sens. 2004, 42, 1907);
- litter, straw and bark: field spectra in the same collection.

Water is not in it: irradiance reflectance 0.33 b/(a + b) (Morel & Prieur, Limnol. Oceanogr. 1977, 22, 709)
with the absorption of pure water (Pope & Fry, Appl. Opt. 1997, 36, 8710), half of it leaving the surface, and
0.01 of sky glint; ``clear`` scatters b = 0.006 / m, ``turbid`` 0.25 / m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

MATERIALS: dict[str, tuple[float, ...]] = {
    "closed canopy": (0.024, 0.057, 0.020, 0.420, 0.161, 0.054),
    "vigorous canopy": (0.029, 0.069, 0.024, 0.513, 0.193, 0.069),
    "light canopy": (0.037, 0.112, 0.051, 0.367, 0.174, 0.072),
    "sparse canopy": (0.056, 0.120, 0.078, 0.334, 0.240, 0.136),
    "litter": (0.058, 0.088, 0.135, 0.225, 0.336, 0.232),
    "straw": (0.157, 0.208, 0.283, 0.436, 0.407, 0.273),
    "dark soil": (0.062, 0.095, 0.157, 0.211, 0.310, 0.295),
    "field soil": (0.103, 0.140, 0.184, 0.244, 0.397, 0.415),
    "red soil": (0.116, 0.183, 0.281, 0.358, 0.480, 0.425),
    "sand": (0.191, 0.244, 0.278, 0.300, 0.377, 0.375),
    "asphalt": (0.076, 0.081, 0.084, 0.091, 0.098, 0.099),
    "worn asphalt": (0.122, 0.144, 0.158, 0.172, 0.222, 0.221),
    "shingle": (0.105, 0.126, 0.164, 0.165, 0.155, 0.141),
    "clay tile": (0.055, 0.088, 0.196, 0.249, 0.538, 0.578),
    "concrete": (0.206, 0.252, 0.279, 0.307, 0.397, 0.422),
    "metal roof": (0.185, 0.223, 0.200, 0.198, 0.270, 0.250),
    "clear water": (0.034, 0.021, 0.012, 0.010, 0.010, 0.010),
    "turbid water": (0.043, 0.078, 0.057, 0.023, 0.010, 0.010),
}

Texture = Literal["smooth", "crowns", "mottled", "rows"]


@dataclass(frozen=True)
class State:
    """One look of a land cover: a mixture of two materials, and how it varies.

    The share of ``second`` is ``share`` plus three Gaussian terms: ``between`` patches, with the ``texture``
    (``within``), and from pixel to pixel (``grain``), all as standard deviations. ``shade`` is the mean share
    of shade that things cast on themselves; crowns and rows modulate it.
    """

    first: str
    second: str
    share: float
    seasons: tuple[float, float] = (1.0, 1.0)
    """How common it is among the patches of its cover, in summer and in winter."""
    between: float = 0.2
    within: float = 0.1
    grain: float = 0.1
    shade: float = 0.0
    texture: Texture = "mottled"


@dataclass(frozen=True)
class LandCover:
    """A class of the label mask."""

    name: str
    colour: str
    states: tuple[State, ...]
    specks: State | None = None
    """What is strewn over it in places of one to three pixels: trees on a meadow, gaps in a forest."""
    speckled: float = 0.0
    """Share of the pixels that are specks."""


LAND_COVERS = (
    LandCover(
        "water",
        "#2b6cb8",
        (State("clear water", "turbid water", 0.4, between=0.05, within=0.3, grain=0.15, texture="smooth"),),
    ),
    LandCover(
        "forest",
        "#1f6b3a",
        (
            State(
                "closed canopy", "vigorous canopy", 0.3, (0.5, 0.3), shade=0.38, texture="crowns", grain=0.35
            ),
            State("closed canopy", "litter", 0.15, (0.3, 0.5), shade=0.42, texture="crowns", grain=0.18),
            State("light canopy", "litter", 0.25, (0.2, 0.2), shade=0.25, texture="crowns", grain=0.22),
        ),
        specks=State("light canopy", "litter", 0.3, shade=0.1, grain=0.3),
        speckled=0.25,
    ),
    LandCover(
        "grassland",
        "#9bc25b",
        (
            State("light canopy", "litter", 0.3, (0.5, 0.25), shade=0.08, within=0.22, grain=0.3),
            State("sparse canopy", "litter", 0.4, (0.3, 0.5), shade=0.06, within=0.25, grain=0.3),
            State("light canopy", "vigorous canopy", 0.25, (0.2, 0.1), shade=0.1, within=0.25, grain=0.3),
        ),
        specks=State("closed canopy", "litter", 0.2, shade=0.35, grain=0.2),
        speckled=0.22,
    ),
    LandCover(
        "cropland",
        "#e3c34c",
        (
            State(
                "vigorous canopy", "light canopy", 0.35, (0.35, 0.15), shade=0.06, texture="rows", grain=0.35
            ),
            State("straw", "vigorous canopy", 0.4, (0.25, 0.1), shade=0.05, texture="rows", grain=0.25),
            State("straw", "field soil", 0.4, (0.15, 0.3), shade=0.05, texture="rows", grain=0.25),
            State("field soil", "dark soil", 0.5, (0.25, 0.45), shade=0.08, texture="rows", grain=0.3),
        ),
        specks=State("sparse canopy", "litter", 0.5, shade=0.1, grain=0.3),
        speckled=0.16,
    ),
    LandCover(
        "bare ground",
        "#b98d5e",
        (
            State("sand", "field soil", 0.35, (0.5, 0.5), shade=0.05, within=0.3, grain=0.3),
            State("red soil", "sand", 0.4, (0.5, 0.5), shade=0.05, within=0.3, grain=0.3),
        ),
        specks=State("sparse canopy", "litter", 0.5, shade=0.1, grain=0.3),
        speckled=0.25,
    ),
    LandCover(
        "built-up",
        "#c0392b",
        (
            State("asphalt", "worn asphalt", 0.5, (0.2, 0.2), shade=0.05, grain=0.2, texture="smooth"),
            State("shingle", "concrete", 0.3, (0.22, 0.22), shade=0.12, grain=0.2, texture="smooth"),
            State("clay tile", "shingle", 0.4, (0.12, 0.12), shade=0.12, grain=0.2, texture="smooth"),
            State("concrete", "metal roof", 0.4, (0.14, 0.14), shade=0.1, grain=0.25, texture="smooth"),
            State("light canopy", "closed canopy", 0.4, (0.2, 0.2), shade=0.2, grain=0.25, texture="smooth"),
            State("field soil", "worn asphalt", 0.5, (0.12, 0.12), shade=0.08, grain=0.2, texture="smooth"),
        ),
    ),
    LandCover(
        "wetland",
        "#5fb8a5",
        (
            State("light canopy", "turbid water", 0.4, (0.6, 0.4), within=0.22, grain=0.15, shade=0.1),
            State("litter", "clear water", 0.45, (0.4, 0.6), within=0.22, grain=0.15, shade=0.1),
        ),
        specks=State("clear water", "turbid water", 0.6, grain=0.2),
        speckled=0.26,
    ),
    LandCover("cloud", "#f2f2f2", ()),
)
"""Classes in code order; a pixel under an opaque cloud is cloud, for nobody can tell what lies below it."""

WATER, FOREST, GRASSLAND, CROPLAND, BARE, BUILT_UP, WETLAND, CLOUD = range(len(LAND_COVERS))


def reflectance(material: str) -> np.ndarray:
    """Reflectance of a material in B2, B3, B4, B8, B11 and B12, float64 [6]."""
    return np.array(MATERIALS[material])
