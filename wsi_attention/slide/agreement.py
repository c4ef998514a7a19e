"""Comparison of two pictures of the same places, which tells whether a level belongs to its pyramid.

Scanners and converters make coarse levels in many ways: averaged, decimated, sharpened, moved by half a pixel, stored
as JPEG of any quality. Another slide, a mirrored or moved picture, other colours, or nothing at all is told from these
by the colours of a few hundred pixels, and by how they vary from place to place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.resample import Pixels

Floats = NDArray[np.float32]
Pair = tuple[Pixels, Pixels]
"""One place as two levels show it, (h, w, 3) each at the same scale."""

OTHER_PICTURE, OTHER_COLOURS = "another picture", "other colours"
OTHER_COLOUR, OTHER_TINT, AT_ONE_PLACE = 16.0, 9.0, 40.0
"""Grey levels: by which the mean of a channel may be off over all places, the difference of two channels, and a
channel at one place."""
VARIED, TINTED = 5.0, 3.0
"""Standard deviation, in grey levels, of a pattern that is worth comparing: of brightness, and of tints."""
UNLIKE, SURE, CLOSER, SWAPPED = 0.5, 0.95, 0.1, -0.4
"""Correlations: below the first a pattern is another one, above the second the same; otherwise it is a moved one if it
is so much more like the other at another place. Tints below the last have taken each other's place."""
NOISE = 12.0
"""Grey levels by which patterns differ on average that decimation and JPEG alone have made unlike."""
ONE_UNLIKE, ONE_NOISE = 0.4, 16.0
"""The same two where a single pair of patterns decides."""
LEAST = 8
"""Pixels a side that a pattern has."""
BORDER = 1
"""Pixels by which a level may be moved against another."""
REACH = 8
"""Pixels within which a moved pattern is looked for."""


def difference(pairs: Sequence[Pair]) -> str | None:
    """Return `OTHER_PICTURE` or `OTHER_COLOURS`; None where both pictures of each pair show the same."""
    planes = [(_planes(one), _planes(other)) for one, other in pairs]
    if _elsewhere([(one.mean(0), other.mean(0)) for one, other in planes]):
        return OTHER_PICTURE
    off = np.array([one.mean((1, 2)) - other.mean((1, 2)) for one, other in planes])
    tints = np.abs((off - np.roll(off, 1, axis=1)).mean(0)).max()
    if np.abs(off).max() > AT_ONE_PLACE or np.abs(off.mean(0)).max() > OTHER_COLOUR or tints > OTHER_TINT:
        return OTHER_COLOURS
    return OTHER_COLOURS if _swapped(planes) else None


def is_another_pattern(one: Pixels, other: Pixels) -> bool:
    """Tell whether one picture of a place varies from point to point in another way than a second one, and by much.

    Stricter than `difference`, for a single pair decides; a pattern that varies little decides nothing.
    """
    first, second = (_smooth(_planes(each).mean(0)) for each in (one, other))
    if min(first.shape) < LEAST - 2 or max(first.std(), second.std()) <= VARIED:
        return False
    if np.abs(first - second).mean() <= ONE_NOISE:
        return False
    return max(_correlations(first, second, range(BORDER + 1))) < ONE_UNLIKE


def _planes(pixels: Pixels) -> Floats:
    """Return the three channels, (3, h, w)."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0), np.float32)


def _swapped(pairs: Sequence[tuple[Floats, Floats]]) -> bool:
    """Tell whether the difference of two channels (3, h, w) goes up where it should go down."""
    for first, second in ((0, 1), (1, 2), (2, 0)):
        one, other = (
            np.concatenate([_smooth(each[which][first] - each[which][second]).ravel() for each in pairs])
            for which in (0, 1)
        )
        if min(one.std(), other.std()) > TINTED and _correlation(one, other) < SWAPPED:
            return True
    return False


def _elsewhere(pairs: Sequence[tuple[Floats, Floats]]) -> bool:
    """Tell whether the patterns of brightness (h, w) are different ones, or lie at other places.

    A place whose middle shows nothing in both pictures decides nothing: what would be correlated is noise of JPEG.
    """
    patterns = [(_smooth(one), _smooth(other)) for one, other in pairs]
    patterns = [each for each in patterns if min(each[0].shape) >= LEAST and max(map(_varies, each)) > VARIED]
    if not patterns or np.mean([next(_correlations(*each, range(1))) for each in patterns]) > SURE:
        return False
    here = float(np.mean([max(_correlations(*each, range(BORDER + 1))) for each in patterns]))
    if here < UNLIKE and np.mean([np.abs(one - other).mean() for one, other in patterns]) > NOISE:
        return True
    if here > SURE:
        return False
    moved = float(np.mean([max(_correlations(*each, range(BORDER + 1, REACH + 1))) for each in patterns]))
    return moved > here + CLOSER


def _correlations(one: Floats, other: Floats, distances: range) -> Iterator[float]:
    """Correlate the middle of one pattern with the other, moved by 0, 1, … pixels along its longer side."""
    reach, core = _reach(one), _middle(one)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if max(abs(down), abs(right)) in distances:
                top, left = reach + down, reach + right
                yield _correlation(core, other[top : top + core.shape[0], left : left + core.shape[1]])


def _reach(plane: Floats) -> int:
    """Return the pixels by which the middle of a pattern can be moved within another one."""
    h, w = plane.shape
    return int(min(REACH, h // 4, w // 4))


def _middle(plane: Floats) -> Floats:
    """Return the part of a pattern (h, w) that is looked for in another one."""
    (h, w), reach = plane.shape, _reach(plane)
    return plane[reach : h - reach, reach : w - reach]


def _varies(plane: Floats) -> float:
    return float(_middle(plane).std())


def _smooth(plane: Floats) -> Floats:
    """Return means of 3 × 3 pixels, without those at the border."""
    h, w = plane.shape
    if min(h, w) < 3:
        return plane
    rows = plane[: h - 2] + plane[1 : h - 1] + plane[2:]
    return np.asarray((rows[:, : w - 2] + rows[:, 1 : w - 1] + rows[:, 2:]) / 9, np.float32)


def _correlation(one: Floats, other: Floats) -> float:
    first, second = (one - one.mean()).ravel(), (other - other.mean()).ravel()
    scale = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / scale if scale > 1e-6 else 0.0
