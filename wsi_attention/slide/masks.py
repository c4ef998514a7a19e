"""Masks: their connected parts, and small islands, holes and clefts, measured in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def widened(mask: Mask, reach: int) -> Mask:
    """Return the mask widened by `reach` pixels, across and down."""
    for axis in (0, 1):
        width = ((reach, reach), (0, 0))
        mask, length = np.pad(np.swapaxes(mask, 0, axis), width), 1
        while length <= 2 * reach:  # each step joins two windows of that length
            step = min(length, 2 * reach + 1 - length)
            mask, length = mask[:-step] | mask[step:], length + step
        mask = np.swapaxes(mask, 0, axis)
    return np.ascontiguousarray(mask)


def narrowed(mask: Mask, reach: int) -> Mask:
    """Return the mask narrowed by `reach` pixels; the view's border counts as mask."""
    return ~widened(~mask, reach)


def without_clefts(mask: Mask, width: float) -> Mask:
    """Return the mask with gaps of up to `width` pixels closed, 8 at most."""
    reach = round(min(width, 8.0) / 2)
    return narrowed(widened(mask, reach), reach)


def without_specks(mask: Mask, area: float) -> Mask:
    """Return the mask without islands (8-connected) of fewer pixels than `area`."""
    kept, box = np.zeros_like(mask), extent(mask)
    kept[box] = large_components(mask[box], area, connectivity=2)
    return kept


def without_holes(mask: Mask, area: float) -> Mask:
    """Return the mask, its holes (4-connected) of fewer pixels than `area` filled; a gap at the border is no hole."""
    filled, box = np.zeros_like(mask), extent(mask)
    rim = math.ceil(math.sqrt(max(area, 1.0)) / 2)  # so wide that the gap around the mask counts as large
    empty = np.pad(~mask[box], rim, constant_values=True)
    filled[box] = ~large_components(empty, area, connectivity=1)[rim:-rim, rim:-rim]
    return filled


def extent(mask: Mask) -> tuple[slice, slice]:
    """Return the rows and columns from the first to the last that hold some of the mask; none where it is empty."""
    found = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    rows, columns = (slice(int(one[0]), int(one[-1]) + 1) if len(one) else slice(0, 0) for one in found)
    return rows, columns


STRIP_PIXELS = 500_000
"""Pixels labelled at once; labels take four times the memory of the mask."""
HELD_PIXELS = 5_000_000
"""Pixels of a mask whose labels are held until they are known to be large; those of a larger one are found twice."""

Labels = NDArray[np.int32]


def large_components(mask: Mask, least: float, connectivity: int, counted: Mask | None = None) -> Mask:
    """Return the parts of the mask that hold at least so many pixels that count.

    Parts that go on in the next strip are joined by the rows where strips meet (Rosenfeld and Pfaltz, 1966).

    Args:
        mask: (h, w) bool.
        least: pixels; at 0 or below every part is large enough.
        connectivity: 1 joins pixels that share an edge, 2 also those that share a corner.
        counted: (h, w) bool, which pixels count; all where None.
    """
    if not mask.any():
        return np.zeros_like(mask)
    tops = range(0, len(mask), max(1, STRIP_PIXELS // mask.shape[1]))
    sums, pairs, last = list[NDArray[np.int64]](), list[NDArray[np.int64]](), np.zeros(mask.shape[1], np.int64)
    strips: Iterable[tuple[slice, Labels, int, int]] = _labelled(mask, tops, connectivity)
    held = mask.size <= HELD_PIXELS
    if held:
        strips = list(strips)
    for part, labels, known, count in strips:
        these = labels.ravel() if counted is None else labels[counted[part]]
        sums.append(np.bincount(these, minlength=count + 1)[1:])
        first = np.where(labels[0] > 0, labels[0] + known, 0)
        pairs.append(_touching(last, first, connectivity))
        last = np.where(labels[-1] > 0, labels[-1].astype(np.int64) + known, 0)
    large = _joined(np.concatenate(sums), np.concatenate(pairs)) >= least
    kept = np.zeros_like(mask)
    for part, labels, known, count in strips if held else _labelled(mask, tops, connectivity):
        kept[part] = np.concatenate([[False], large[known : known + count]]).take(labels, mode="clip")  # half the time
    return kept


def _labelled(mask: Mask, tops: range, connectivity: int) -> Iterator[tuple[slice, Labels, int, int]]:
    """Yield for each strip its rows, its labels from 1 on, how many labels there were before, and how many it has."""
    from scipy.ndimage import generate_binary_structure, label

    structure, known = generate_binary_structure(2, connectivity), 0
    for top in tops:
        part = slice(top, top + tops.step)
        labels, count = label(mask[part], structure)
        yield part, labels, known, count
        known += count


def _touching(above: NDArray[np.int64], below: NDArray[np.int64], connectivity: int) -> NDArray[np.int64]:
    """Return pairs (n, 2) of labels that touch where two rows meet; 0 is no label."""
    shifts = [(above, below)]
    if connectivity > 1:
        shifts += [(above[1:], below[:-1]), (above[:-1], below[1:])]
    pairs = np.concatenate([np.stack(shift, axis=-1) for shift in shifts]).astype(np.int64)
    return np.unique(pairs[(pairs > 0).all(axis=-1)], axis=0)


def _joined(sums: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each label, counted from 1, the sum over all labels that pairs join it to."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(pairs):
        return sums
    links = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0] - 1, pairs[:, 1] - 1)), shape=(len(sums),) * 2)
    _, roots = connected_components(links, directed=False)
    totals = np.bincount(roots, weights=sums)[roots]
    return np.asarray(np.rint(totals), np.int64)
