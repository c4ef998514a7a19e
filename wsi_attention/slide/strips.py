"""An overview read from top to bottom in strips, each with some rows around it, so that it is never whole in memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from wsi_attention.slide.resample import Pixels
from wsi_attention.slide.view import View
from wsi_attention.structures import Strip


def rows_of(width: int, pixels: int, multiple: int = 1) -> int:
    """Return the rows of a strip with about so many pixels, a whole number of `multiple`."""
    return max(1, pixels // max(1, width) // multiple) * multiple


def cut(rgb: Pixels, rows: int, halo: int) -> Iterator[Strip[Pixels]]:
    """Yield strips of an overview that is at hand, without a copy.

    Args:
        rgb: (h, w, 3).
        rows: of a strip; the last one may have fewer.
        halo: rows of surroundings above and below, fewer at the slide's border.
    """
    for first in range(0, len(rgb), rows):
        last, top = min(first + rows, len(rgb)), max(first - halo, 0)
        yield Strip(first, last, top, rgb[top : last + halo])


def read_strips(view: View, rows: int, halo: int) -> Iterator[Strip[Pixels]]:
    """Yield strips of a view that is not at hand; each row is read once. Arguments as in `cut`.

    Where a stored level is damaged, the rest of the view is averaged from the next finer one.

    Raises:
        TileReadError: the file's pixels could not be read at any level.
    """
    height, held, top = view.size[1], np.empty((0, view.size[0], 3), np.uint8), 0
    for first in range(0, height, rows):
        last = min(first + rows, height)
        keep, have, need = max(first - halo, 0), top + len(held), min(last + halo, height)
        more = held[:0]
        if need > have:
            view, more = view.or_finer(partial(_rows, first=have, count=need - have))
        held, top = np.concatenate([held[keep - top :], more]), keep
        yield Strip(first, last, top, held)


def _rows(view: View, first: int, count: int) -> tuple[View, Pixels]:
    return view, view.read_rows(first, count)
