"""Empty glass, found by its light and colour; a slide without colour of its own is judged by its grey."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.ink import CLEAR
from wsi_attention.slide.masks import Mask, narrowed, widened
from wsi_attention.slide.resample import Pixels

SAMPLE = 60_000
"""Pixels that the glass is looked for in; larger views are gone through with a step."""
FLAT = 6
"""Neighbouring pixels of glass differ by no more than this in any channel, in grey values; of noisy glass some do."""
DARKEST = 100
"""Grey value that glass has at least in every channel."""
DIM = 0.6
"""Glass is at least so light beside the lightest of the view."""
MOST_TINTED = 0.2
"""Optical density by which glass may differ between its channels."""
BIN = 0.01
"""Step of optical density in which tints are counted."""
NEAR = 0.015
"""Tints that differ by less, in optical density, are of one glass."""
LEAST_SHARE = 0.02
"""Share of what was scanned that one glass covers at least."""
MOST = 3
"""Kinds of glass that are told apart: bare, under mounting medium, scanned with another setting."""
EVEN, ALIKE = 0.8, 16
"""Of all pixels of its tint that are about as light, in grey values, so many are flat where it is a further glass; pale
tissue has structure."""
PINKEST, PINK = 0.04, 0.012
"""Density by which glass, and a further glass beyond the first, absorb green more than both other colours at most."""

BLACK, WHITE = 16, 253
"""At or below, at or above this in every channel a pixel may never have been scanned."""
EXACT = 2
"""The same for exact black."""
LEAST_UNSCANNED = 0.01
"""Share of a view that is exactly black or white at least, where some was never scanned."""
BLURRED = 8
"""Pixels beside it whose colours JPEG has mixed with it."""
SPECKS = 2
"""Half the side in pixels of spots that do not count in it."""
RUN = 8
"""Pixels of a straight edge at least."""
STRAIGHT = 0.7
"""Share of the edges of an area that are straight at least where it was never scanned."""

_NONE = np.empty((0, 3))


class Glass(NamedTuple):
    """What is no tissue, as a view of the whole slide tells it.

    Attributes:
        colours: (k, 3), each kind of empty glass, the lightest first.
        black: whether black area was never scanned.
        white: whether white area was never scanned.
    """

    colours: NDArray[np.float64]
    black: bool = False
    white: bool = False

    @property
    def tint(self) -> float:
        """Optical density by which the channels of the lightest kind differ."""
        return float(np.ptp(np.log10(self.colours[0] + 1)))

    def unscanned(self, rgb: Pixels) -> Mask:
        """Return (h, w): where a view (h, w, 3) shows what was never scanned."""
        found = np.zeros(rgb.shape[:2], np.bool_)
        if not (self.black or self.white):
            return found
        low, high = darkest_and_lightest(rgb)
        if self.black:
            found |= high <= BLACK
        if self.white:
            found |= low >= WHITE
        return found


def darkest_and_lightest(rgb: Pixels) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the smallest and the largest of the three channels, (h, w) each."""
    red, green, blue = (rgb[..., c] for c in range(3))
    low = np.minimum(np.minimum(red, green), blue)
    return low, np.maximum(np.maximum(red, green), blue)


def find_glass(rgb: Pixels) -> Glass:
    """Return the glass of a view (h, w, 3): its light, even tints. White where there are none.

    Glass is lighter than anything on it, and even; it has a tint, a lamp's or that of yellowed mounting medium, that
    much of the view shares. Area that was never scanned is exactly black or white, with straight edges.
    """
    pixels, flat = _sample(rgb)
    low, high = darkest_and_lightest(pixels)
    least = LEAST_UNSCANNED * low.size
    black = bool((high <= EXACT).sum() > least) and never_scanned(darkest_and_lightest(rgb)[1] <= BLACK)
    white = bool((low == 255).sum() > least) and never_scanned(darkest_and_lightest(rgb)[0] >= WHITE)
    if black or white:
        step = _step(rgb)
        scanned = ~widened(Glass(_NONE, black, white).unscanned(rgb), BLURRED)[:-1:step, :-1:step]
        pixels, flat = pixels[scanned], flat[scanned]
    colours = _tints(pixels.reshape(-1, 3), flat.ravel())
    return Glass(np.array(colours or [np.full(3, 250.0)]), black, white)


def never_scanned(area: Mask) -> bool:
    """Tell whether an area (h, w) has the edges of what a scanner left out: straight ones, up and down or across."""
    area = narrowed(widened(area, 2 * SPECKS), SPECKS)  # without the noise of JPEG at its edges
    area = widened(narrowed(area, 2 * SPECKS), SPECKS)
    edges = straight = 0
    for change in (area[:, 1:] != area[:, :-1], (area[1:] != area[:-1]).T):
        edges += int(np.count_nonzero(change))
        straight += int(np.count_nonzero(_in_runs(change)))
    return straight > STRAIGHT * edges


def _in_runs(change: Mask) -> Mask:
    """Return the values that stand in a row of `RUN` or more, along the first axis."""
    begins = len(change) - RUN + 1
    if begins < 1:
        return np.zeros_like(change)
    whole = change[:begins].copy()
    for k in range(1, RUN):
        whole &= change[k : k + begins]
    found = np.zeros_like(change)
    for k in range(RUN):
        found[k : k + begins] |= whole
    return found


def _step(rgb: Pixels) -> int:
    return max(1, int(np.sqrt(rgb.shape[0] * rgb.shape[1] / SAMPLE)))


def _sample(rgb: Pixels) -> tuple[Pixels, Mask]:
    """Return evenly spread pixels (h, w, 3), and which of them are like their neighbours to the right and below."""
    step = _step(rgb)
    if min(rgb.shape[:2]) < 2:
        return rgb[:0], np.zeros(rgb[:0].shape[:2], np.bool_)
    here, right, below = rgb[:-1:step, :-1:step], rgb[:-1:step, 1::step], rgb[1::step, :-1:step]
    flat = np.ones(here.shape[:2], np.bool_)
    for channel in range(3):
        centre = here[..., channel].astype(np.int16)
        for other in (right, below):
            flat &= np.abs(centre - other[..., channel]) <= FLAT
    return here, flat


def _tints(pixels: Pixels, flat: Mask) -> list[NDArray[np.float64]]:
    """Return the kinds of glass among scanned pixels (n, 3), the lightest first."""
    low, high = darkest_and_lightest(pixels)
    lightest = np.percentile(high[flat], 99) if flat.any() else 255
    light = (low >= DARKEST) & (high >= DIM * lightest)
    pixels, flat = pixels[light], flat[light]
    tints, found = _tint(pixels), list[NDArray[np.float64]]()
    for colour, even in sorted(_peaks(pixels, tints, flat, LEAST_SHARE * len(light)), key=lambda peak: -peak[0][1]):
        if not found or (even and not _stains(found[0], colour)):
            found.append(colour)
    return found[:MOST]


def _peaks(
    pixels: Pixels, tints: NDArray[np.float32], flat: Mask, least: float
) -> Iterator[tuple[NDArray[np.float64], bool]]:
    """Find the colours of the tints that many flat pixels share, and whether nearly all pixels like them are flat."""
    left = flat & (np.maximum(*np.abs(tints).T) < MOST_TINTED) & (np.maximum(*tints.T) > -PINKEST)
    for _ in range(2 * MOST):
        if np.count_nonzero(left) < max(least, 1):
            return
        peak = _most_common(tints[left])
        away = np.maximum(*np.abs(tints - peak).T)
        both = (away < NEAR) & left
        if np.count_nonzero(both) >= max(least, 1):
            colour = np.median(pixels[both], axis=0)
            alike = (away < NEAR) & (np.abs(pixels[:, 1] - colour[1]) < ALIKE)
            yield colour, bool(np.count_nonzero(alike & flat) > EVEN * np.count_nonzero(alike))
        left &= away > 1.5 * NEAR


def _tint(pixels: Pixels) -> NDArray[np.float32]:
    """Return the density of red and of blue beyond that of green, (n, 2): the same in light and shade."""
    table = np.log10(np.arange(256) + 1.0).astype(np.float32)
    red, green, blue = (table.take(pixels[..., c]) for c in range(3))
    return np.stack([green - red, green - blue], axis=-1)


def _most_common(tints: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the most common tint: the mean around the fullest bin."""
    bins = np.round(tints / BIN).astype(np.int64)
    side = 2 * round(MOST_TINTED / BIN) + 1
    counts = np.bincount(np.ravel_multi_index(tuple((bins + side // 2).T), (side, side)), minlength=side**2)
    best = np.array(np.unravel_index(int(counts.argmax()), (side, side))) - side // 2
    return np.asarray(tints[np.maximum(*np.abs(tints - best * BIN).T) < 1.5 * BIN].mean(0), np.float64)


def _stains(glass: NDArray[np.float64], colour: NDArray[np.float64]) -> bool:
    """Tell whether a colour differs from glass as a stain does: green is absorbed most, or it is much darker."""
    red, green, blue = np.log10(glass + 1) - np.log10(colour + 1)
    return bool(green - max(red, blue) > PINK or max(red, green, blue) > MOST_TINTED)


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

Classes = NDArray[np.uint8]


def stains_grey(classes: Classes, stained: Mask, side: float) -> bool:
    """Tell whether much of a whole view is uneven and dark but without colour.

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
    """Return where tissue is, told by its structure alone; arguments as in `stains_grey`."""
    between, rim = max(1, round(BETWEEN / side)), max(1, round(THICKEST_RIM / side / 2))
    closed = narrowed(widened(_uneven(classes), between), between)
    return closed & widened(narrowed(closed, rim), rim + between)


def _uneven(classes: Classes) -> Mask:
    return np.asarray((classes & (ROUGH | CLEAR)) == ROUGH, np.bool_)
