"""Pen marks on glass, told from stain by what they absorb most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.components import large_components
from wsi_attention.slide.regions import without_specks

STROKE = 30_000.0
"""µm²: a pen leaves strokes, not specks; less ink-coloured area than this is pigment, a counterstain or dirt."""
GLASS, LEAST_GLASS = 0.05, 0.02
"""Pens write on glass: ink is only looked for where this share of the slide lets light through, up to that density."""
LARGEST_OF_SLIDE, LARGEST_OF_STAIN = 0.2, 0.9
"""Where more than this of the slide, or of all coloured area, looks like ink, it is the stain's own colour."""
HUE, STRONG = 1, 2
"""What `ink_classes` says of a pixel: the hue of ink alone, or certainly ink."""


def ink_classes(density: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`STRONG` where blue, green or black ink is, `HUE` on what may be its rim, else 0; pixel by pixel.

    Haematoxylin, eosin and DAB absorb green or blue at least as much as red, ink of blue and green pens absorbs red
    most; black ink absorbs everything.

    Args:
        density: (3, h, w) optical density against the glass.
    """
    return np.maximum(_coloured(density), _black(density))


def find_ink(
    classes: NDArray[np.uint8], stained: NDArray[np.bool_], glass: float, pixel_area: float
) -> NDArray[np.bool_]:
    """Marks blue, green and black ink. Strong ink is the seed, and what touches it with the same hue is its rim.

    Args:
        classes: (h, w) of the whole slide, from `ink_classes`.
        stained: (h, w) bool, everything with colour, ink included.
        glass: share of the slide with a density below `GLASS`.
        pixel_area: µm² per pixel.

    Returns:
        (h, w) bool; empty where the colour is so common that it is the stain, and where no glass is to be seen.
    """
    strong = classes == STRONG
    if glass < LEAST_GLASS or not strong.any():
        return np.zeros_like(stained)
    ink = large_components(classes >= HUE, 1, connectivity=1, counted=strong)
    ink = without_specks(ink, STROKE / pixel_area)
    if ink.mean() > LARGEST_OF_SLIDE or (ink & stained).sum() > LARGEST_OF_STAIN * stained.sum():
        return np.zeros_like(ink)
    return _grown(ink)


def _coloured(density: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Blue and green ink."""
    red, green, blue = density
    excess = red - np.maximum(green, 0.9 * blue)
    strong = (red > 0.35) & (excess > 0.12)
    deep_blue = (red > 0.6) & (blue < 0.42 * red) & (green < 1.1 * red)
    hue = (red > 0.08) & (excess > 0.1 * red)
    return np.where((strong & hue) | deep_blue, STRONG, hue).astype(np.uint8)


def _black(density: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Black ink, and its grey rim."""
    low, high = density.min(0), density.max(0)
    grey = (high > 0.15) & (high - low < 0.15 * high)
    strong = (low > 0.7) & (high - low < 0.25 * high)
    return np.where(strong, STRONG, grey).astype(np.uint8)


def _grown(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from skimage.morphology import dilation

    return np.asarray(dilation(ink, np.ones((5, 5), np.uint8)), np.bool_)
