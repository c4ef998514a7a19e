"""Colours of attention on a page: one list of stops each, written as SVG filter tables, CSS gradients and JSON."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_attention.export.canvas import RAMP

STEPS = 17
"""Evenly spaced colours that a map is sampled at; browsers interpolate between them."""

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class ColourMap:
    """A colour map by name.

    Attributes:
        name: as in the page's markup.
        title: for readers.
        stops: (position in [0, 1], colour), positions rising from 0 to 1.
    """

    name: str
    title: str
    stops: tuple[tuple[float, RGB], ...]

    def at(self, value: float) -> RGB:
        """The colour of a value in [0, 1], linear between stops."""
        for (low, first), (high, second) in zip(self.stops[:-1], self.stops[1:], strict=True):
            if value <= high:
                share = (value - low) / (high - low)
                red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
                return red, green, blue
        return self.stops[-1][1]

    @property
    def colours(self) -> list[RGB]:
        """`STEPS` colours, evenly spaced."""
        return [self.at(step / (STEPS - 1)) for step in range(STEPS)]

    @property
    def tables(self) -> tuple[str, str, str]:
        """`tableValues` of an SVG feComponentTransfer for red, green and blue."""
        red, green, blue = (" ".join(f"{colour[c] / 255:.3f}" for colour in self.colours) for c in range(3))
        return red, green, blue

    @property
    def gradient(self) -> str:
        """A CSS gradient from left to right."""
        return f"linear-gradient(to right, {', '.join(f'rgb({r} {g} {b})' for r, g, b in self.colours)})"


MAPS = (
    ColourMap("green", "blue to yellow", RAMP),
    ColourMap(
        "fire",
        "violet to yellow",
        ((0.0, (46, 20, 92)), (0.35, (150, 34, 110)), (0.65, (228, 88, 56)), (1.0, (250, 224, 92))),
    ),
    ColourMap("blue", "pale to deep blue", ((0.0, (196, 222, 246)), (0.5, (58, 130, 205)), (1.0, (8, 32, 104)))),
    ColourMap("grey", "white to black", ((0.0, (246, 246, 246)), (1.0, (0, 0, 0)))),
)
"""The first is the default, and the heatmap's own."""
