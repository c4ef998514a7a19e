"""What an overview shows: its glass, what lies on it, and whether a stored tile that is missing is lost or empty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_attention.geometry import Box
from wsi_attention.once import once
from wsi_attention.slide.glass import Glass, find_glass
from wsi_attention.slide.holes import Hole
from wsi_attention.slide.ink import GLASS

LOST = 0.25
"""Share of a hole, its rim left out, that shows something: more, and pixels are missing there."""
CUT = 0.3
"""Share of a side of what nothing shows along which something is seen: more, and it goes on in there."""


class Overview:
    """The whole slide at one downsample, and what is found on it, each once.

    Attributes:
        pixels: (h, w, 3) uint8.
        downsample: level-0 pixels per pixel.
        unknown: level-0 boxes in which it is white because nothing is stored there.
    """

    def __init__(self, pixels: NDArray[np.uint8], downsample: float, unknown: Sequence[Box] = ()) -> None:
        """Take the pixels; find nothing yet."""
        self.pixels, self.downsample, self.unknown = pixels, downsample, tuple(unknown)

    @once
    def glass(self) -> Glass:
        """What is no tissue."""
        return find_glass(self.pixels)

    @once
    def covered(self) -> NDArray[np.bool_]:
        """Where a channel is darker than glass by a density of `GLASS`, (h, w)."""
        least = (self.glass.colours.min(0) + 1) * 10**-GLASS - 1
        found: NDArray[np.bool_] = self.pixels[..., 0] < least[0]
        for channel in (1, 2):
            found |= self.pixels[..., channel] < least[channel]
        return found


class Seen:
    """What an overview shows.

    Attributes:
        known: share of the slide that some stored tile shows.
        cut: share of what is seen, with the parts that it seems to go on in and that nothing shows, that these are.
    """

    def __init__(self, overview: Overview) -> None:
        """Look at an overview."""
        self._downsample = overview.downsample
        hidden = np.zeros_like(overview.covered)
        for box in overview.unknown:
            hidden[self._within(box)] = True
        self._something = overview.covered & ~hidden
        cut = np.zeros_like(hidden)
        for box in overview.unknown:
            cut[self._within(box)] |= self._is_cut(box, hidden)
        shown = np.count_nonzero(self._something)
        self.known = 1.0 - float(hidden.mean())
        self.cut = float(cut.sum() / max(1, shown + cut.sum()))
        self._something |= cut

    def lost(self, holes: Sequence[Hole], downsample: float) -> bool:
        """Tell whether something was seen in one of the holes of a level at a downsample."""
        return any(self._share(hole, downsample) > LOST for hole in holes)

    def _share(self, hole: Hole, downsample: float) -> float:
        """Return the share of a hole that shows something; its rim may show what lies beside it, and is left out."""
        ranges = []
        for begin, end in ((hole.top, hole.bottom), (hole.left, hole.right)):
            first, last = begin * downsample / self._downsample, end * downsample / self._downsample
            rim = min(1.0, (last - first) / 3)
            ranges.append(slice(int(first + rim), max(int(np.ceil(last - rim)), int(first + rim) + 1)))
        part = self._something[tuple(ranges)]
        return float(part.mean()) if part.size else 0.0

    def _within(self, box: Box) -> tuple[slice, slice]:
        x, y, right, bottom = (side / self._downsample for side in (box.x, box.y, box.x + box.w, box.y + box.h))
        return (
            slice(round(y), max(round(bottom), round(y) + 1)),
            slice(round(x), max(round(right), round(x) + 1)),
        )

    def _is_cut(self, box: Box, hidden: NDArray[np.bool_]) -> bool:
        """Tell whether something is seen along one of a box's sides."""
        rows, cols = self._within(box)
        sides = (
            (slice(rows.start - 1, rows.start), cols), (slice(rows.stop, rows.stop + 1), cols),
            (rows, slice(cols.start - 1, cols.start)), (rows, slice(cols.stop, cols.stop + 1)),
        )  # fmt: skip
        for side in sides:
            if min(part.start for part in side) < 0:
                continue
            there = ~hidden[side]
            if there.sum() >= 2 and self._something[side][there].mean() > CUT:
                return True
        return False
