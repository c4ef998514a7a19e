"""Where a slide lies in its heatmap picture."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_attention.geometry import Grid

LONGEST = 1600
"""Pixels of the picture's longer side, at most."""
NARROWEST = 900
"""Pixels of its width, at least, so that the legend has room."""
MARGIN, HEAD, FOOT = 28, 96, 118
"""White around the slide, above it for the title, below it for the legend."""


@dataclass(frozen=True)
class Frame:
    """Where the slide lies in the picture.

    Attributes:
        size: (w, h) of the whole picture.
        origin: (x, y) of the slide's top left corner.
        slide: (w, h) of the slide in the picture.
        scale: picture pixels per level-0 pixel, (x, y).
    """

    size: tuple[int, int]
    origin: tuple[int, int]
    slide: tuple[int, int]
    scale: tuple[float, float]

    @classmethod
    def around(cls, extent: tuple[int, int]) -> Frame:
        """The largest frame within `LONGEST` for a (w, h) slide, which may be enlarged."""
        room = LONGEST - 2 * MARGIN, LONGEST - HEAD - FOOT
        zoom = min(room[0] / extent[0], room[1] / extent[1], _largest_zoom(extent))
        w, h = max(1, round(extent[0] * zoom)), max(1, round(extent[1] * zoom))
        width = max(NARROWEST, w + 2 * MARGIN)
        return cls((width, h + HEAD + FOOT), ((width - w) // 2, HEAD), (w, h), (w / extent[0], h / extent[1]))

    @property
    def grid(self) -> Grid:
        """The slide's pixels of the picture as a grid over level 0."""
        return Grid(self.slide[1], self.slide[0], (1 / self.scale[0], 1 / self.scale[1]))


def _largest_zoom(extent: tuple[int, int]) -> float:
    """A slide of a few pixels is not blown up beyond half the picture."""
    return max(1.0, LONGEST / 2 / max(extent))
