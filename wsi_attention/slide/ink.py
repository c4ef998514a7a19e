"""Pen marks on glass, told from stain by what they absorb most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.regions import without_specks

STROKE = 30_000.0
"""µm²: a pen leaves strokes, not specks; less ink-coloured area than this is pigment, a counterstain or dirt."""
GLASS, LEAST_GLASS = 0.05, 0.02
"""Pens write on glass: ink is only looked for where this share of the slide lets light through, up to that density."""
LARGEST_OF_SLIDE, LARGEST_OF_STAIN = 0.2, 0.9
"""Where more than this of the slide, or of all coloured area, looks like ink, it is the stain's own colour."""


def find_ink(density: NDArray[np.float32], stained: NDArray[np.bool_], pixel_area: float) -> NDArray[np.bool_]:
    """Marks blue, green and black ink.

    Haematoxylin, eosin and DAB absorb green or blue at least as much as red, ink of blue and green pens absorbs red
    most; black ink absorbs everything. Strong ink is the seed, and what touches it with the same hue is its rim.

    Args:
        density: (3, h, w) optical density against the glass.
        stained: (h, w) bool, everything with colour, ink included.
        pixel_area: µm² per pixel.

    Returns:
        (h, w) bool; empty where the colour is so common that it is the stain, and where no glass is to be seen.
    """
    from skimage.filters import apply_hysteresis_threshold

    if (density.max(0) < GLASS).mean() < LEAST_GLASS:
        return np.zeros_like(stained)
    inky = np.maximum(_coloured(density), _black(density))
    ink = np.asarray(apply_hysteresis_threshold(inky, 0.5, 1.5), np.bool_)  # type: ignore[no-untyped-call]
    ink = without_specks(ink, STROKE / pixel_area)
    if ink.mean() > LARGEST_OF_SLIDE or (ink & stained).sum() > LARGEST_OF_STAIN * stained.sum():
        return np.zeros_like(ink)
    return _grown(ink)


def _coloured(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """2 where blue or green ink is strong, 1 where the hue alone is that of ink, else 0."""
    red, green, blue = density
    excess = red - np.maximum(green, 0.9 * blue)
    strong = (red > 0.35) & (excess > 0.12)
    deep_blue = (red > 0.6) & (blue < 0.42 * red) & (green < 1.1 * red)
    hue = (red > 0.08) & (excess > 0.1 * red)
    return np.asarray(1.0 * hue + (strong & hue) + 2.0 * deep_blue, np.float32)


def _black(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """2 where black ink is strong, 1 on its grey rim, else 0."""
    low, high = density.min(0), density.max(0)
    grey = (high > 0.15) & (high - low < 0.15 * high)
    strong = (low > 0.7) & (high - low < 0.25 * high)
    return np.asarray(np.where(strong, 2.0, grey), np.float32)


def _grown(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from skimage.morphology import dilation

    return np.asarray(dilation(ink, np.ones((5, 5), np.uint8)), np.bool_)
