"""Levels that do not belong to a slide: found by comparing each with the next finer one at a few places."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import SlideOpenError
from wsi_attention.slide.agreement import OTHER_PICTURE, Pair, difference
from wsi_attention.slide.seen import Overview
from wsi_attention.slide.slide import Slide
from wsi_attention.slide.snapping import snapped_to_tiles
from wsi_attention.slide.view import View

Picture = Callable[[], Overview]
"""Return the whole slide as the levels in use show it."""

PLACES, APART = 3, 3
"""Places at which levels are compared where a picture shows tissue, and cells between them."""
BLIND_PLACES = 4
"""Places a side where it shows none."""
CELLS, CELL = 24, 16
"""Cells of a picture's longer side, in which tissue is looked for, and pixels a side that a cell needs for it."""
UNREADABLE = "cannot be read where there is tissue"
FINER, LEAST, MOST = 256, 24, 64
"""Pixels a side that a place has in the finer level, about; and in the coarser one."""


def leave_out_strangers(slide: Slide, picture: Picture) -> None:
    """Leave out the levels of a slide that do not show what the finer ones show.

    A few stored tiles of each level are read, once for an open slide.

    Args:
        slide: open; its `left_out` then says what was found.
        picture: asked again after a level was left out, for the picture may have come from it.

    Raises:
        SlideOpenError: none of two or more coarser levels shows what level 0 shows: who is wrong cannot be told.
    """
    checked: tuple[int, ...] = slide.levels if slide.levels_compared else ()
    while checked != slide.levels and len(slide.levels) > 1:
        checked = slide.levels
        where = places(picture())
        odd = {level: why for level in checked[1:] if (why := _compared(slide, level, where)) is not None}
        if len(odd) == len(checked) - 1 > 1 and all(why.startswith(OTHER_PICTURE) for why in odd.values()):
            raise SlideOpenError(
                f"{slide.path}: its levels {', '.join(map(str, odd))} show another picture than level 0: which is the"
                " slide cannot be told; write the pyramid again from the original, or leave it out"
            )
    slide.levels_compared = True


def places(overview: Overview) -> NDArray[np.float64]:
    """Return (n, 2) level-0 centres of varied tissue; of a grid where nothing shows any, as its level may be blank."""
    stride = max(1, max(overview.pixels.shape[:2]) // (CELLS * CELL))
    rgb, covered = overview.pixels[::stride, ::stride], overview.covered[::stride, ::stride]
    h, w = covered.shape
    side = max(1, -(-max(h, w) // CELLS))
    rows, cols = -(-h // side), -(-w // side)
    brightness, there = np.zeros((2, rows * side, cols * side), np.float32)
    brightness[:h, :w], there[:h, :w] = sum(rgb[..., c].astype(np.float32) for c in range(3)) / 3, covered
    cells = (plane.reshape(rows, side, cols, side) for plane in (brightness, there))
    score = next(cells).std((1, 3)) * next(cells).mean((1, 3))
    found = [(col * side + side / 2, row * side + side / 2) for row, col in _highest(score)]
    if not found:
        steps = (np.arange(BLIND_PLACES) + 0.5) / BLIND_PLACES
        found = [(x * w, y * h) for y in steps for x in steps]
    return np.asarray(np.array(found) * overview.downsample * stride, np.float64)


def _highest(score: NDArray[np.floating]) -> Iterator[tuple[int, int]]:
    """Return cells of the highest score, some way apart."""
    left, least = score.copy(), 0.1 * float(score.max())
    for _ in range(PLACES):
        row, col = divmod(int(left.argmax()), left.shape[1])
        if left[row, col] <= least:
            return
        yield row, col
        left[max(row - APART, 0) : row + APART + 1, max(col - APART, 0) : col + APART + 1] = 0


def _compared(slide: Slide, level: int, where: NDArray[np.float64]) -> str | None:
    """Leave out a level that differs from the next finer one in use, and say how."""
    view = View(slide, slide.level_downsamples[level])
    finer = view.finer()
    if finer is None or view.stored.downsample != slide.level_downsamples[level]:  # a level stored twice
        return None
    step = view.stored.downsample / finer.stored.downsample
    side = int(np.clip(FINER / step, LEAST, MOST))
    size = min(side, view.size[0]), min(side, view.size[1])
    corners = where - np.array(size) * view.downsample / 2
    most = np.array(slide.dimensions) - np.array(size) * view.downsample
    inside: NDArray[np.int64] = np.clip(corners, 0, np.maximum(most, 0)).round().astype(np.int64)
    seen = list(_read(view, finer, np.unique(snapped_to_tiles(finer, inside, size), axis=0), size))
    why = UNREADABLE if seen and not any(seen) else None
    pairs = [each for each in seen if each is not None]
    if pairs and (found := difference(pairs)) is not None:
        why = f"{found} than level {slide.level_downsamples.index(finer.stored.downsample)}"
    if why is not None:
        slide.leave_out(level, why)
    return why


def _read(view: View, finer: View, corners: NDArray[np.int64], size: tuple[int, int]) -> Iterator[Pair | None]:
    """Yield both views of each place that the finer one can show; None where the other cannot."""
    stored = [
        (x, y) for x, y in corners.tolist() if not (view.has_holes((x, y), size) or finer.has_holes((x, y), size))
    ]
    shown, others = np.zeros((2, len(stored), size[1], size[0], 3), np.uint8)
    where = np.array(stored, np.int64).reshape(-1, 2)
    lost, unknown = view.read_many(where, size, shown), finer.read_many(where, size, others)
    for one, other, why, why_not in zip(shown, others, lost, unknown, strict=True):
        if why_not is None:
            yield None if why is not None else (one, other)
