"""What lies between the ground and the file: clouds and their shadows, haze, blur, and sensor noise."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from domains.geospatial.simulator.fields import blurred, grid, noise, rotated
from domains.geospatial.simulator.surfaces import Sun

CLOUD_REFLECTANCE = np.array([0.62, 0.61, 0.60, 0.64, 0.46, 0.34])
"""A thick water cloud of 10 μm droplets, which absorb beyond 1.5 μm (Platnick et al., IEEE Trans. Geosci.
Remote Sens. 2003, 41, 459)."""
HAZE_COLOUR = np.array([1.0, 0.77, 0.55, 0.35, 0.09, 0.05])
"""Path radiance relative to B2: wavelength to the power −2, between molecules and continental aerosol,
without the darkest part that atmospheric correction removes (Chavez, Remote Sens. Environ. 1988, 24, 459)."""
OPAQUE = 0.45
"""Cloud cover of a pixel from which on it counts as cloud."""
SHADOW_DEPTH = 0.6
POINT_SPREAD = 0.65
"""σ of the optics in pixels, near that of Sentinel-2's 10 m bands."""
MARGIN = 48
"""Pixels by which the sky is larger than the scene: shadows fall in from clouds outside."""


def observe(rng: Generator, ground: np.ndarray, sun: Sun) -> tuple[np.ndarray, np.ndarray]:
    """What the sensor measures of ``ground`` [6, h, w], and how much of each pixel is cloud [h, w]."""
    clouds, shadow = _clouds(rng, ground.shape[-2:], sun)
    image = ground * (1 - SHADOW_DEPTH * shadow)
    image = image * (1 - clouds) + CLOUD_REFLECTANCE[:, None, None] * clouds
    image = _hazy(rng, image)
    # A pixel sees its neighbours: the point spread of the optics, and light scattered in from around.
    image = blurred(image, POINT_SPREAD)
    image = 0.94 * image + 0.06 * blurred(image, 4.0)
    return _noisy(rng, image), clouds


def _clouds(rng: Generator, shape: tuple[int, int], sun: Sun) -> tuple[np.ndarray, np.ndarray]:
    """Cover of the clouds and of their shadows, float64 [h, w] from 0 to 1; none in most scenes."""
    if rng.random() > 0.4:
        return np.zeros(shape), np.zeros(shape)
    height, width = shape
    sky = noise(rng, (height + 2 * MARGIN, width + 2 * MARGIN), 60.0, 4)
    cover = np.clip((sky - rng.uniform(0.9, 1.9)) / rng.uniform(0.3, 0.9), 0, 1)
    distance = rng.uniform(10, 30) * np.tan(sun.zenith)
    down, right = (
        int(np.rint(np.clip(distance * part, -MARGIN, MARGIN)))
        for part in (np.cos(sun.azimuth), -np.sin(sun.azimuth))
    )
    overhead = cover[MARGIN : MARGIN + height, MARGIN : MARGIN + width]
    shadow = cover[MARGIN - down : MARGIN - down + height, MARGIN - right : MARGIN - right + width]
    return overhead, blurred(shadow, 1.0)


def _hazy(rng: Generator, image: np.ndarray) -> np.ndarray:
    shape = image.shape[-2:]
    along, _ = rotated(*grid(shape), rng.uniform(0, 2 * np.pi))
    gradient = (along - along.mean()) / max(along.std(), 1.0)
    haze = rng.gamma(1.5, 0.012) * np.clip(1 + 0.4 * gradient + 0.25 * noise(rng, shape, 80.0, 2), 0, 3)
    veil = HAZE_COLOUR[:, None, None] * haze
    return image * (1 - veil) + veil


def _noisy(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Shot and read-out noise, and a gain that is never quite the same."""
    gain = 1 + 0.03 * rng.standard_normal((image.shape[0], 1, 1))
    spread = np.sqrt(0.004**2 + 0.0004 * np.clip(image, 0, None))
    return image * gain + spread * rng.standard_normal(image.shape)
