"""What a slide looks like in a few numbers: its stain, its focus and scale, and what the model makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Traits: TypeAlias = Mapping[str, NDArray[np.float64]]
"""A vector for each of `GROUPS` that is known of a slide."""
GROUPS: Mapping[str, str] = {
    "stain": "its colours",
    "detail": "the focus or the scale of its tiles",
    "structure": "the focus or the scale of its overview",
    "features": "what the model makes of it",
}
"""Groups of traits, and what people read where one of them is unusual."""
TILES = 16
"""Tiles whose pixels are looked at for the group "detail"."""
TILE_OCTAVES, OVERVIEW_OCTAVES = 4, 3
FLOOR = 1e-6
"""Added to energies of grey values in [0, 1]: less than the rounding to 256 values leaves."""


def stain_traits(pixels: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Return mean and log deviation of the optical density of red, green and blue, (6,); None on too few pixels.

    Args:
        pixels: (n, 3), of tissue.
    """
    if len(pixels) < 16:
        return None
    density = -np.log((pixels.astype(np.float64) + 1.0) / 256.0)
    return np.concatenate([density.mean(axis=0), np.log(density.std(axis=0) + 0.01)])


def octave_energies(grey: NDArray[np.float64], inside: NDArray[np.bool_], octaves: int) -> NDArray[np.float64] | None:
    """Return log energies of detail of 1, 2, 4 … pixels, (octaves,); None where the picture is too small for them.

    An octave is what is left of a picture when the mean of each square of 2 × 2 pixels is taken off; the next one comes
    from these means. Blur takes energy from the first octaves, and another scale moves it from one to the next.

    Args:
        grey: (h, w) in [0, 1].
        inside: (h, w), pixels that count; a square counts where all of it does.
        octaves: how many.
    """
    found = []
    for _ in range(octaves):
        rows, cols = grey.shape[0] // 2, grey.shape[1] // 2
        blocks = grey[: 2 * rows, : 2 * cols].reshape(rows, 2, cols, 2)
        squares = inside[: 2 * rows, : 2 * cols].reshape(rows, 2, cols, 2)
        counted = np.asarray(squares.all(axis=(1, 3)), np.bool_)
        if not counted.any():
            return None
        means = blocks.mean(axis=(1, 3))
        energy = ((blocks - means[:, None, :, None]) ** 2).mean(axis=(1, 3))
        found.append(np.log(energy[counted].mean() + FLOOR))
        grey, inside = means, counted
    return np.array(found)


def detail_traits(tiles: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Return the mean log energies of the octaves of tiles, (4,); None without tiles, or where they are too small.

    Args:
        tiles: (n, h, w, 3).
    """
    every = [octave_energies(grey_of(tile), np.ones(tile.shape[:2], bool), TILE_OCTAVES) for tile in tiles]
    known = [one for one in every if one is not None]
    return np.mean(known, axis=0) if known else None


def overview_traits(overview: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Return the groups that an overview tells.

    Args:
        overview: (h, w, 3).
        tissue: (h, w).
    """
    found = {"stain": stain_traits(overview[tissue])}
    found["structure"] = octave_energies(grey_of(overview), tissue, OVERVIEW_OCTAVES)
    return {name: values for name, values in found.items() if values is not None}


def grey_of(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean of red, green and blue in [0, 1]."""
    return np.asarray(pixels.mean(axis=-1) / 255.0, np.float64)


def spaced(n: int, most: int = TILES) -> NDArray[np.int64]:
    """Return at most so many of the indices 0 … n − 1, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)) if n else np.empty(0, np.int64)
