"""Tiles brought to one stain, so that colour and darkness of the overview say next to nothing about a tile.

Reinhard, Ashikhmin, Gooch & Shirley, "Color Transfer between Images", IEEE Computer Graphics and Applications 2001, in
CIELAB: each tile's mean and deviation become those of an average tile. What is left of the mean colour, because
averages of pixels are not averages in CIELAB and because pixels are clipped, is taken away in RGB.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache

import numpy as np
from needle_tiles import Tiles, load
from numpy.typing import NDArray
from skimage.color import lab2rgb, rgb2lab

AT_ONCE = 256
"""Tiles in memory as floats."""
STRETCH = 2.5
"""A deviation is multiplied by this at most, and divided by it at most."""
ROUNDS = 3
"""How often what clipping moved is put right."""

Floats = NDArray[np.float64]


@cache
def load_matched(part: str) -> Tiles:
    """The tiles of a part, each brought to the stain of the average tile of the encoder's part."""
    tiles = load(part)
    return replace(tiles, pixels=matched(tiles.pixels, *target()))


@cache
def target() -> tuple[Floats, Floats, Floats]:
    """Mean (3,) and deviation (3,) in CIELAB of the average tile of the encoder's part, and its mean (3,) in RGB."""
    pixels = load("encoder").pixels
    found = [_moments(np.asarray(rgb2lab(part), np.float64)) for part in _parts(pixels)]
    means, deviations = (np.concatenate(each) for each in zip(*found, strict=True))
    return means.mean(axis=0), deviations.mean(axis=0), pixels.mean(axis=(0, 1, 2), dtype=np.float64)


def matched(pixels: NDArray[np.uint8], mean: Floats, deviation: Floats, grey: Floats) -> NDArray[np.uint8]:
    """Bring tiles to one stain.

    Args:
        pixels: (n, h, w, 3).
        mean: (3,) wanted of each tile in CIELAB.
        deviation: (3,) wanted, likewise.
        grey: (3,) wanted mean of red, green and blue, 0 to 255.
    """
    return np.concatenate([_matched(part, mean, deviation, grey) for part in _parts(pixels)])


def _matched(pixels: NDArray[np.uint8], mean: Floats, deviation: Floats, grey: Floats) -> NDArray[np.uint8]:
    lab = np.asarray(rgb2lab(pixels), np.float64)
    own, spread = _moments(lab)
    factor = np.clip(deviation / np.maximum(spread, 1e-6), 1 / STRETCH, STRETCH)
    moved = (lab - own[:, None, None]) * factor[:, None, None] + mean
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # colours that do not exist are clipped
        rgb = 255 * np.asarray(lab2rgb(moved), np.float64)
    for _ in range(ROUNDS):
        rgb = np.clip(rgb + (grey - rgb.mean(axis=(1, 2)))[:, None, None], 0, 255)
    return np.asarray(rgb.round(), np.uint8)


def _moments(tiles: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of each tile, both (n, 3)."""
    return tiles.mean(axis=(1, 2)), tiles.std(axis=(1, 2))


def _parts(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [pixels[start : start + AT_ONCE] for start in range(0, len(pixels), AT_ONCE)]
