"""The ground of a simulated scene: which land cover lies where, what it reflects, how the sun falls on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from domains.geospatial.simulator.fields import (
    TABLE,
    cells,
    distance_to_line,
    grid,
    noise,
    number,
    rotated,
)
from domains.geospatial.simulator.spectra import (
    BARE,
    BUILT_UP,
    CROPLAND,
    FOREST,
    GRASSLAND,
    LAND_COVERS,
    WATER,
    WETLAND,
    State,
    reflectance,
)

DIFFUSE = 0.25
"""Share of the light that comes from the whole sky, whatever the slope."""


@dataclass(frozen=True)
class Sun:
    """Where the light comes from, in radians; the azimuth is clockwise from north."""

    zenith: float
    azimuth: float


@dataclass(frozen=True)
class Ground:
    """A landscape without an atmosphere."""

    cover: np.ndarray
    """Code of the land cover, uint8 [h, w]."""
    reflectance: np.ndarray
    """What a slope in this light seems to reflect, float64 [6, h, w]."""


@dataclass(frozen=True)
class _Patches:
    """Which pixels belong together, int64 [h, w] each."""

    wild: np.ndarray
    parcels: np.ndarray
    lots: np.ndarray
    rows: np.ndarray
    """Phase of the sowing rows across a parcel, float64 [h, w], in pixels."""


def simulate_ground(rng: Generator, shape: tuple[int, int], sun: Sun) -> Ground:
    """A landscape of ``shape``: lakes and a river, wild patches, fields in parcels, towns and a road."""
    elevation = noise(rng, shape, 120.0, 3)
    patches = _patches(rng, shape)
    cover, road = _cover(rng, shape, elevation, patches)
    season = rng.uniform(0.0, 1.0)
    surface = _surface(rng, cover, patches, road, season)
    relief = rng.uniform(1.0, 14.0) * _flattened(elevation + 0.1 * noise(rng, shape, 16.0, 2), cover)
    return Ground(cover, surface * _shading(relief, sun))


def _patches(rng: Generator, shape: tuple[int, int]) -> _Patches:
    rows, columns = grid(shape)
    bend = 9.0
    wild = cells(rng, rows + bend * noise(rng, shape, 30, 2), columns + bend * noise(rng, shape, 30, 2), 40)
    # Fields follow the roads of their district: straight, but each district is turned its own way.
    district = cells(rng, rows, columns, 90)
    parcels = np.zeros(shape, np.int64)
    phase = np.zeros(shape)
    for name in np.unique(district):
        inside = district == name
        along, across = rotated(rows[inside], columns[inside], rng.uniform(0, np.pi))
        length, width = rng.uniform(22, 44), rng.uniform(12, 22)
        strip = np.floor(across / width).astype(np.int64)
        parcels[inside] = number(
            np.floor(along / length + 0.37 * strip).astype(np.int64), strip + 31 * int(name)
        )
        phase[inside] = across
    along, across = rotated(rows, columns, rng.uniform(0, np.pi))
    lots = number(np.floor(along / 2.6).astype(np.int64), np.floor(across / 2.6).astype(np.int64))
    return _Patches(wild, parcels, lots, phase)


def _cover(
    rng: Generator, shape: tuple[int, int], elevation: np.ndarray, patches: _Patches
) -> tuple[np.ndarray, np.ndarray]:
    """Code of every pixel, uint8 [h, w], and where the roads run, bool [h, w]."""
    moisture = noise(rng, shape, 90.0, 2)
    # What a scene is rich in differs from scene to scene, as between regions.
    share = rng.dirichlet([2.2, 2.2, 1.4])
    per_cell = np.array([FOREST, GRASSLAND, BARE])[np.searchsorted(np.cumsum(share)[:2], rng.random(TABLE))]
    cover = per_cell[patches.wild]
    farmed = noise(rng, shape, 110.0, 2) - 0.4 * elevation + rng.uniform(-0.9, 0.7) > 0
    cover[farmed] = CROPLAND
    wet = (elevation < np.quantile(elevation, rng.uniform(0.1, 0.28))) & (moisture > -0.6)
    cover[wet] = WETLAND
    town = noise(rng, shape, 75.0, 2) - rng.uniform(0.7, 1.8) > 0
    cover[town & ~wet] = BUILT_UP
    road = np.zeros(shape, bool)
    if rng.random() < 0.4:
        road = distance_to_line(rng, shape, 0.4) < 1.1
        cover[road] = BUILT_UP
    cover[elevation < np.quantile(elevation, rng.uniform(0.0, 0.13))] = WATER
    if rng.random() < 0.55:
        river = distance_to_line(rng, shape, 1.3) - rng.uniform(3.0, 7.0)
        cover[(river < rng.uniform(4.0, 10.0)) & (moisture > 0.2) & ~road] = WETLAND
        cover[(river < 0) & ~road] = WATER
    return cover.astype(np.uint8), road & (cover == BUILT_UP)


def _surface(
    rng: Generator, cover: np.ndarray, patches: _Patches, road: np.ndarray, season: float
) -> np.ndarray:
    """Reflectance of flat ground in even light, float64 [6, h, w]."""
    shape = cover.shape
    textures = {
        "smooth": noise(rng, shape, 40.0, 2),
        "mottled": noise(rng, shape, 14.0, 3),
        "crowns": noise(rng, shape, 2.2),
        "rows": np.sin(patches.rows * 2 * np.pi / rng.uniform(3.2, 4.5)),
    }
    grain, shade_grain = rng.standard_normal((2, *shape))
    # Ranks, so that a share of the pixels is a share of the ranks.
    strewn = _ranks(noise(rng, shape, 1.8))
    surface = np.zeros((6, *shape))

    def paint(here: np.ndarray, state: State, offset: np.ndarray | float) -> None:
        texture = textures[state.texture][here]
        second = state.share + state.between * offset + state.grain * grain[here] + state.within * texture
        shade = state.shade * (1 + 0.35 * shade_grain[here])
        if state.texture in ("crowns", "rows"):
            shade = shade * (1 + 0.5 * texture)
        first, other = reflectance(state.first)[:, None], reflectance(state.second)[:, None]
        mixed = first + np.clip(second, 0, 1) * (other - first)
        surface[:, here] = mixed * (1 - np.clip(shade, 0, 0.9))

    for code, land_cover in enumerate(LAND_COVERS):
        if not land_cover.states:
            continue
        patch = {CROPLAND: patches.parcels, BUILT_UP: patches.lots}.get(code, patches.wild)
        choice, offset = _choices(rng, land_cover.states, season)[patch], rng.standard_normal(TABLE)[patch]
        inside = cover == code
        for number_of_state, state in enumerate(land_cover.states):
            here = inside & (choice == number_of_state)
            paint(here, state, offset[here])
        if land_cover.specks:
            paint(inside & (strewn < land_cover.speckled), land_cover.specks, 0.0)
    paint(road, LAND_COVERS[BUILT_UP].states[0], 0.0)  # the first of the built-up states is paving
    return surface


def _ranks(field: np.ndarray) -> np.ndarray:
    """Share of the pixels that lie lower, float64 [h, w] from 0 to 1."""
    return np.argsort(np.argsort(field, axis=None)).reshape(field.shape) / field.size


def _choices(rng: Generator, states: tuple[State, ...], season: float) -> np.ndarray:
    """Which state each patch is in, int64 [TABLE]."""
    summer, winter = np.array([state.seasons for state in states]).T
    weights = summer + season * (winter - summer)
    weights = rng.dirichlet(12 * weights / weights.sum())  # no two scenes farm alike
    return np.searchsorted(np.cumsum(weights)[:-1], rng.random(TABLE))


def _flattened(elevation: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Elevation with level water."""
    level = elevation.copy()
    if (cover == WATER).any():
        level[cover == WATER] = elevation[cover == WATER].mean()
    return level


def _shading(height: np.ndarray, sun: Sun) -> np.ndarray:
    """Light on a slope as a multiple of that on level ground, float64 [h, w].

    The cosine of the angle to the sun plus an even sky (Teillet et al., Can. J. Remote Sens. 1982, 8, 84);
    ``height`` is in pixels.
    """
    down, right = np.gradient(height)
    toward_sun = np.sin(sun.azimuth) * right - np.cos(sun.azimuth) * down
    cosine = (np.cos(sun.zenith) - np.sin(sun.zenith) * toward_sun) / np.sqrt(1 + down**2 + right**2)
    return DIFFUSE + (1 - DIFFUSE) * np.clip(cosine / np.cos(sun.zenith), 0.0, 1.8)
