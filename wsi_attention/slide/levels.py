"""Which stored level shows a slide at a wanted downsample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from wsi_attention.geometry import same_scale


class StoredLevel(NamedTuple):
    """A stored level: its downsample, the (w, h) of its tiles or None, its own (w, h)."""

    downsample: float
    tile: tuple[int, int] | None
    extent: tuple[int, int]


def snapped(level_downsamples: Sequence[float], downsample: float) -> float:
    """The stored downsample within 5 % of the wanted one, else the wanted one; never below 1."""
    nearest = _nearest(level_downsamples, downsample)
    found = level_downsamples[nearest] if same_scale(downsample, level_downsamples[nearest]) else downsample
    return max(1.0, float(found))


def best_level(level_downsamples: Sequence[float], downsample: float) -> int:
    """The coarsest stored level that is at least as fine as wanted; a level within 5 % counts as equal."""
    nearest = _nearest(level_downsamples, downsample)
    if same_scale(downsample, level_downsamples[nearest]):
        return nearest
    finer = [level for level, stored in enumerate(level_downsamples) if stored <= downsample]
    return max(finer, key=level_downsamples.__getitem__, default=0)


def _nearest(level_downsamples: Sequence[float], downsample: float) -> int:
    ratios = [abs(math.log(stored / downsample)) for stored in level_downsamples]
    return ratios.index(min(ratios))
