"""Stains without a colour of their own, such as silver: tissue is dark and uneven, shadows and dust are not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.ink import CLEAR
from wsi_attention.slide.regions import narrowed, widened

ROUGH = 128
"""Bit of a pixel's classes: density differs from side to side, `density.roughness`."""
BETWEEN = 32.0
"""µm: even places in tissue are at most that far from uneven ones."""
THICKEST_RIM = 128.0
"""µm: narrower than this are rims of bubbles, scratches, edges of coverslips and shadows."""
MUCH = 0.12
"""Uneven grey area beside coloured area, where the stain is grey."""
LEAST = 200_000.0
"""µm² of it at least; on tiny views 5 % of the view, if that is less."""

Mask = NDArray[np.bool_]
Classes = NDArray[np.uint8]


def stains_grey(classes: Classes, stained: Mask, side: float) -> bool:
    """Whether much of a whole view is uneven and dark but without colour.

    Args:
        classes: (h, w), bits of `ink_classes` and `ROUGH`.
        stained: (h, w), where there is colour.
        side: µm per pixel.
    """
    least = min(LEAST / side**2, 0.05 * stained.size)
    coloured = int(np.count_nonzero(stained))
    if int(np.count_nonzero(_uneven(classes) & ~stained)) < max(0.5 * least, 0.5 * MUCH * coloured):
        return False
    near = widened(stained, max(1, round(BETWEEN / side)))
    found = int(np.count_nonzero(grey_stained(classes, side) & ~near))
    return found > max(least, MUCH * coloured)


def grey_stained(classes: Classes, side: float) -> Mask:
    """Where tissue is, told by its structure alone; arguments as in `stains_grey`."""
    between, rim = max(1, round(BETWEEN / side)), max(1, round(THICKEST_RIM / side / 2))
    closed = narrowed(widened(_uneven(classes), between), between)
    return closed & widened(narrowed(closed, rim), rim + between)


def _uneven(classes: Classes) -> Mask:
    return np.asarray((classes & (ROUGH | CLEAR)) == ROUGH, np.bool_)
