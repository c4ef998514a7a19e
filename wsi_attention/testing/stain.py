"""Haematoxylin and eosin as two uint8 concentrations, and the one table that turns them into colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FULL = 1.25
"""The stain concentration that the value 255 stands for; 1 is a well stained nucleus (H) or red cell (E)."""

_HAEMATOXYLIN = np.array([0.62, 0.74, 0.34])
_EOSIN = np.array([0.045, 0.50, 0.26])
_RED_CELL = np.array([0.10, 0.50, 0.48])


def level(concentration: float) -> int:
    """Return the uint8 value of a stain concentration, clipped to the range of a canvas."""
    return int(np.clip(round(concentration / FULL * 255), 0, 255))


@dataclass(frozen=True)
class Stain:
    """How one slide was stained and scanned.

    Attributes:
        haematoxylin: strength of the blue stain, 1 is usual.
        eosin: strength of the pink stain, 1 is usual.
        hue: (3,) small additive change of both stains' optical density vectors.
        white: (3,) RGB of empty glass.
    """

    haematoxylin: float = 1.0
    eosin: float = 1.0
    hue: tuple[float, float, float] = (0.0, 0.0, 0.0)
    white: tuple[int, int, int] = (243, 243, 243)

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Stain:
        """Draw a stain as it varies between laboratories and from week to week."""
        tint = rng.integers(238, 248)
        red, green, blue = (int(tint + shift) for shift in rng.integers(-3, 3, 3))
        r, g, b = (float(shift) for shift in rng.normal(0, 0.022, 3))
        haematoxylin, eosin = float(rng.uniform(0.82, 1.18)), float(rng.uniform(0.75, 1.25))
        return cls(haematoxylin, eosin, (r, g, b), (red, green, blue))

    def table(self) -> NDArray[np.uint32]:
        """Colour of every pair of concentrations, shape (65536,): R, G, B, 0 in memory order at H · 256 + E."""
        h, e = np.meshgrid(np.linspace(0, FULL, 256), np.linspace(0, FULL, 256), indexing="ij")
        e = e * (1 - 0.45 * np.clip(h / 0.8, 0, 1))
        red = np.clip((e - 0.85) / 0.25, 0, 1)[..., None] * (h < 0.3)[..., None]
        hue = np.array(self.hue)
        density = self.haematoxylin * h[..., None] * (_HAEMATOXYLIN + hue)
        density = density + self.eosin * e[..., None] * ((1 - red) * _EOSIN + red * _RED_CELL + hue / 2)
        colour = np.zeros((256, 256, 4), np.uint8)
        colour[..., :3] = np.round(np.array(self.white) * 10.0**-density)
        return colour.view(np.uint32).reshape(-1)


def coloured(h: NDArray[np.uint8], e: NDArray[np.uint8], table: NDArray[np.uint32], rgb: NDArray[np.uint8]) -> None:
    """Write the colour of two concentration images (rows, cols) under a slide's table into rgb (rows, cols, 3)."""
    index = h.astype(np.uint16)
    index <<= 8
    index |= e
    pixels = np.take(table, index).view(np.uint8).reshape(*h.shape, 4)
    for channel in range(3):
        rgb[..., channel] = pixels[..., channel]
