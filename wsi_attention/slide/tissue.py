"""Where there is tissue: optical density against the glass, a threshold, islands and holes.

A view is gone through in strips, whether it is at hand or read strip by strip: what is judged by a pixel and its
neighbours needs no more, and keeps its large numbers for no longer than a strip. Of the whole view only planes of
bytes are kept: two where strips are read, and the colours in addition where a view is at hand and the threshold is
still to be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import UnsupportedSlideError
from wsi_attention.slide.glass import (
    BLACK,
    ROUGH,
    Glass,
    darkest_and_lightest,
    find_glass,
    grey_stained,
    never_scanned,
    stains_grey,
)
from wsi_attention.slide.ink import CERTAIN, CLEAR, LARGEST_OF_SLIDE, NEARLY_CLEAR, find_ink, ink_classes
from wsi_attention.slide.masks import widened, without_clefts, without_holes, without_specks
from wsi_attention.slide.strips import cut, rows_of
from wsi_attention.slide.user_mask import load_mask
from wsi_attention.structures import Strip, TissueMask

__all__ = ["Staining", "check_brightfield", "find_tissue", "find_tissue_in_strips", "load_mask", "staining"]

SPECK = 5_000.0
"""µm²: smaller islands are dust or single cells; on tiny slides 1 % of the slide, if that is less."""
HOLE = 40_000.0
"""µm²: smaller holes are lumina, vessels or fat and belong to the tissue around them."""
GAP = 32.0
"""µm: narrower clefts between stained places are closed."""
FAINTEST, STRONGEST = 0.03, 0.06
"""Bounds on the threshold, in optical density between a pixel's darkest and lightest channel."""
GREY = 0.12
"""Below this share of colour in its darkness a pixel is a shadow, dust or a coverslip's edge, not stain."""
SMEAR, NEUTRAL = 2.5, 0.02
"""On glass whose channels differ by more than `NEUTRAL` in density that share grows by so much of the difference: JPEG
keeps colour coarser than lightness, so what is dark and narrow has the colour of the glass around it."""
EDGE = 2
"""Pixels beside what was never scanned in which its colour is mixed with the slide's."""
MOST_TISSUE = 0.95
"""Share of what was scanned above which a mask is doubtful: a section hardly ever covers all glass."""
STRONG_TINT = 0.045
"""Density by which the channels of glass differ where a note tells its tint; on usual slides it is less than half."""
STRIP_PIXELS = 250_000
"""Pixels whose densities are in memory at once, 100 bytes each."""
PALE = 0.029
"""Density below which neither colour nor structure counts, less than `FAINTEST` and what `roughness` starts from."""
STRETCH = 64
"""Columns that are skipped together where all is pale."""
LARGE = 1_000_000
"""Pixels of a view from which on pale places are skipped although Otsu's threshold depends on them a little."""


LEAST_DARK = 0.25
"""Share of a view that is dark at least where its colours are inverted."""


class Staining(NamedTuple):
    """What only a view of the whole slide can tell about tissue; a coarser view tells nearly the same.

    Attributes:
        glass: what is no tissue.
        threshold: least difference between the optical densities of a stained pixel's channels.
        grey: whether the stain is grey or black, as silver is, so that tissue is told by its structure as well.
    """

    glass: Glass
    threshold: float
    grey: bool = False


class _Seen(NamedTuple):
    """What is kept of each pixel: colour (h, w) up to 3 · STRONGEST, whether it is more than grey, and classes, of ink
    and `ROUGH`; and how many pixels were scanned."""

    colour: NDArray[np.float32]
    tinted: NDArray[np.bool_]
    classes: NDArray[np.uint8]
    scanned: int


def find_tissue(rgb: NDArray[np.uint8], downsample: float, mpp: float, glass: Glass | None = None) -> TissueMask:
    """Mark stained tissue on a coarse view.

    Stain absorbs one colour more than another, glass, shadows and black ink absorb all alike: so the difference between
    the darkest and the lightest channel's optical density, against the glass, is compared with Otsu's threshold.
    The threshold has fixed bounds, for a blank slide has no two modes, and neither has one that is all tissue.
    Ink of pens is left out unless the colour is so common that it must be the stain.

    Args:
        rgb: (h, w, 3) uint8, the whole slide; best at 4-32 µm/px.
        downsample: level-0 pixels per pixel of `rgb`.
        mpp: µm per level-0 pixel.
        glass: of the view, where it was found already.

    Returns:
        The mask at the same downsample; without any tissue it is empty.
    """
    seen, known = _survey(rgb, mpp * downsample, glass or find_glass(rgb))
    stained = (seen.colour > known.threshold) & seen.tinted
    return _masked(stained, seen.classes, seen.scanned, known, downsample, mpp)


def staining(rgb: NDArray[np.uint8], downsample: float, mpp: float, glass: Glass | None = None) -> Staining:
    """Return what `find_tissue_in_strips` needs to know from a coarse view; arguments as in `find_tissue`."""
    return _survey(rgb, mpp * downsample, glass or find_glass(rgb))[1]


def find_tissue_in_strips(
    strips: Iterable[Strip[NDArray[np.uint8]]], shape: tuple[int, int], downsample: float, mpp: float, known: Staining
) -> TissueMask:
    """Mark tissue on a view that is never whole; with `known` of that view itself the mask is that of `find_tissue`.

    Args:
        strips: all rows of the view, in order, each with `surroundings` rows above and below.
        shape: (h, w) of the view.
        downsample: level-0 pixels per pixel of the strips.
        mpp: µm per level-0 pixel.
        known: from a coarser view of the same slide.
    """
    side, scanned = mpp * downsample, 0
    stained, classes = np.zeros(shape, np.bool_), np.zeros(shape, np.uint8)
    for strip in strips:
        seen = _look_beside_pale(strip, known.glass, shape, side)
        rows = slice(strip.first, strip.last)
        stained[rows], classes[rows] = (seen.colour > known.threshold) & seen.tinted, seen.classes
        scanned += seen.scanned
    return _masked(stained, classes, scanned, known, downsample, mpp)


def surroundings(shape: tuple[int, int], downsample: float, mpp: float) -> int:
    """Return how many rows strips of a view (h, w) need above and below."""
    side = mpp * downsample
    return max(reach(blur(shape, side)) + grain(side), EDGE)


def check_brightfield(rgb: NDArray[np.uint8], path: str) -> None:
    """Refuse a view that light does not shine through: fluorescence or dark field.

    Such a view is mostly black and hardly anywhere light, or its colours are inverted, so that the glass is dark. A
    brightfield slide with a black border still has glass or stained tissue in it that lets all three colours through.
    Black that was never scanned does not count.

    Args:
        rgb: (h, w, 3) uint8, the whole slide.
        path: named in the error.

    Raises:
        UnsupportedSlideError: the view is dark.
    """
    low, high = darkest_and_lightest(rgb)
    dark, seen = float((high < 64).mean()), low
    if dark > LEAST_DARK and never_scanned(high <= BLACK):
        seen = low[high > BLACK]
    light, bright = (float((seen >= least).mean()) if seen.size else 0.0 for least in (100, 180))
    if (dark > 0.5 and light < 0.05) or _is_negative(high, seen, light, bright):
        raise UnsupportedSlideError(
            f"{path}: {dark:.0%} of the slide is black and {light:.0%} light, as in fluorescence or dark field, or with"
            " inverted colours; only RGB brightfield slides can be classified, leave it out"
        )


def _is_negative(high: NDArray[np.uint8], seen: NDArray[np.uint8], light: float, bright: float) -> bool:
    """Tell whether a view is dark where a slide has glass: nearly nothing that was scanned is as light as glass."""
    unscanned = high.size - seen.size
    dark = (np.count_nonzero(high < 64) - unscanned) / max(1, seen.size)
    return bool(dark > LEAST_DARK and bright < 0.05 and light < dark / 2)


def _survey(rgb: NDArray[np.uint8], side: float, glass: Glass) -> tuple[_Seen, Staining]:
    """Look at a whole view. Of a large one pale places are skipped if the threshold is at its bound all the same."""
    if rgb.shape[0] * rgb.shape[1] >= LARGE:
        seen = _look_over(rgb, side, glass, _look_beside_pale)
        threshold = _otsu(seen, 2)
        if threshold >= STRONGEST + PALE / 2:  # pale places shift the mean of glass by `PALE` at most, Otsu's by half
            return seen, _staining(seen, side, glass, threshold)
    seen = _look_over(rgb, side, glass, _look)
    return seen, _staining(seen, side, glass, _otsu(seen))


def _otsu(seen: _Seen, step: int = 1) -> np.floating:
    """Return Otsu's threshold of the colour beside certain ink, on each so many pixels across and down."""
    from skimage.filters import threshold_otsu

    inky, colour = (seen.classes & CERTAIN) > 0, seen.colour[::step, ::step]
    some_ink = 0 < np.count_nonzero(inky) < LARGEST_OF_SLIDE * inky.size
    found: np.floating = threshold_otsu(colour[~widened(inky, 2)[::step, ::step]] if some_ink else colour)
    return found


def _staining(seen: _Seen, side: float, glass: Glass, otsu: np.floating) -> Staining:
    threshold = float(np.clip(otsu, FAINTEST, STRONGEST))
    grey = stains_grey(seen.classes, (seen.colour > threshold) & seen.tinted, side)
    return Staining(glass, threshold, grey)


Look = Callable[[Strip[NDArray[np.uint8]], Glass, tuple[int, int], float], _Seen]


def _look_over(rgb: NDArray[np.uint8], side: float, glass: Glass, look: Look) -> _Seen:
    """Look at a whole view strip by strip."""
    shape, scanned = (rgb.shape[0], rgb.shape[1]), 0
    colour, tinted, classes = np.empty(shape, np.float32), np.empty(shape, np.bool_), np.empty(shape, np.uint8)
    for strip in cut(rgb, rows_of(shape[1], STRIP_PIXELS), surroundings(shape, 1.0, side)):
        seen, rows = look(strip, glass, shape, side), slice(strip.first, strip.last)
        colour[rows], tinted[rows], classes[rows] = seen.colour, seen.tinted, seen.classes
        scanned += seen.scanned
    return _Seen(colour, tinted, classes, scanned)


def _look_beside_pale(strip: Strip[NDArray[np.uint8]], glass: Glass, shape: tuple[int, int], side: float) -> _Seen:
    """Return what `_look` returns; but where a strip and what surrounds it are pale, colour is 0 without a look."""
    if glass.black or glass.white:
        return _look(strip, glass, shape, side)
    halo, size = surroundings(shape, 1.0, side), (strip.last - strip.first, shape[1])
    colour, tinted = np.zeros(size, np.float32), np.zeros(size, np.bool_)
    classes = np.full(size, CLEAR | NEARLY_CLEAR, np.uint8)
    for part in _darker(strip.pixels, glass, halo):
        left = max(part.start - halo, 0)
        seen = _look(replace(strip, pixels=strip.pixels[:, left : part.stop + halo]), glass, shape, side)
        inner = slice(part.start - left, part.stop - left)
        colour[:, part], tinted[:, part] = seen.colour[:, inner], seen.tinted[:, inner]
        classes[:, part] = seen.classes[:, inner]
    return _Seen(colour, tinted, classes, size[0] * size[1])


def _darker(pixels: NDArray[np.uint8], glass: Glass, halo: int) -> Iterator[slice]:
    """Yield the columns beside which, as far as a halo, some pixel is denser than `PALE`; in whole stretches."""
    dense = optical_density(pixels.min(0)[None], glass.colours.max(0)).max(axis=(0, 1)) > PALE
    near = widened(dense[None], halo)[0]
    starts = np.arange(0, len(near), STRETCH)
    some = np.concatenate([[False], np.logical_or.reduceat(near, starts), [False]]).astype(np.int8)
    for first, last in np.flatnonzero(np.diff(some)).reshape(-1, 2).tolist():
        yield slice(first * STRETCH, min(last * STRETCH, len(near)))


def _look(strip: Strip[NDArray[np.uint8]], glass: Glass, shape: tuple[int, int], side: float) -> _Seen:
    unscanned, own = glass.unscanned(strip.pixels), strip.own
    far = ~widened(unscanned, EDGE)[own] if glass.black or glass.white else True
    density = optical_density(strip.pixels, glass.colours.max(0))
    if glass.black:
        density[:, unscanned] = 0.0
    smooth = smoothed(density, blur(shape, side))
    rough = roughness(smooth.max(0), grain(side))[own] & far
    smooth = against(smooth[:, own], glass.colours)
    lightest, darkest = smooth.min(0), smooth.max(0)
    colour = darkest - lightest
    grey = GREY + SMEAR * max(0.0, glass.tint - NEUTRAL)
    classes = ink_classes(smooth, lightest, darkest) | rough.astype(np.uint8) * ROUGH
    scanned = int(np.count_nonzero(~unscanned[own]))
    return _Seen(np.clip(colour, 0.0, 3 * STRONGEST), (colour > grey * darkest) & far, classes, scanned)


def _masked(
    stained: NDArray[np.bool_], classes: NDArray[np.uint8], scanned: int, known: Staining, downsample: float, mpp: float
) -> TissueMask:
    side = mpp * downsample
    mask = _mask(stained, classes, known.grey, side)
    return TissueMask(mask, downsample, notes=tuple(_doubts(mask, scanned, known.glass)))


def _doubts(mask: NDArray[np.bool_], scanned: int, glass: Glass) -> Iterator[str]:
    share = int(np.count_nonzero(mask)) / max(scanned, 1)
    if share > MOST_TISSUE:
        yield f"tissue is {share:.0%} of the slide: the mask may be wrong, look at it (`wsi-attention info --tissue`)"
    if glass.tint > STRONG_TINT:
        red, green, blue = (round(float(value)) for value in glass.colours[0])
        yield (
            f"the glass is tinted (red {red}, green {green}, blue {blue}):"
            " a model that was not trained on such slides may give a wrong label"
        )


def _mask(stained: NDArray[np.bool_], classes: NDArray[np.uint8], grey: bool, side: float) -> NDArray[np.bool_]:
    pixel = side**2
    if grey:
        stained = stained | grey_stained(classes, side)
    clear = int(np.count_nonzero(classes & CLEAR))
    ink = find_ink(classes, stained, clear / stained.size, side, grey)
    mask = without_clefts(stained & ~ink, GAP / side)
    mask = without_specks(mask, min(SPECK / pixel, 0.01 * mask.size))
    return without_holes(mask, min(HOLE / pixel, 0.01 * mask.size)) & ~ink


SMOOTHING = 8.0
"""µm: standard deviation of the Gaussian that takes out noise and joins neighbouring cells."""
STRUCTURE = 12.0
"""µm: distance over which stained tissue differs from itself."""
TRUNCATED = 3.0
"""Standard deviations after which the Gaussian ends."""


def optical_density(rgb: NDArray[np.uint8], glass: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return −log10 of each channel relative to the glass, at least 0, shape (3, h, w)."""
    grey = np.log10(np.arange(256) + 1.0)
    table = np.clip(np.log10(glass + 1.0)[:, None] - grey, 0.0, None).astype(np.float32)
    density = np.empty((3, *rgb.shape[:2]), np.float32)
    for c in range(3):
        np.take(table[c], rgb[..., c], out=density[c], mode="clip")  # without a copy of the indices
    return density


def blur(shape: tuple[int, int], side: float) -> float:
    """Return the standard deviation, in pixels, of the Gaussian for a whole view (h, w) with pixels of `side` µm."""
    return float(max(0.5, min(SMOOTHING / side, min(shape) / 64, 6.0)))


def reach(sigma: float) -> int:
    """Return the radius of the Gaussian in pixels."""
    return int(TRUNCATED * sigma + 0.5)


def smoothed(density: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return the density (3, h, w) blurred, its border repeated beyond."""
    from skimage.filters import gaussian

    smooth = gaussian(density, sigma, channel_axis=0, truncate=TRUNCATED)
    return np.asarray(smooth, np.float32)


def against(density: NDArray[np.float32], colours: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the density against that one of several glasses (k, 3) which leaves the least colour, pixel by pixel.

    Args:
        density: (3, h, w) against the lightest value of each channel.
        colours: (k, 3), of the glasses.
    """
    offsets = (np.log10(colours.max(0) + 1) - np.log10(colours + 1)).astype(np.float32)
    if len(offsets) == 1:
        return density
    found = np.clip(density - offsets[0][:, None, None], 0.0, None)
    for offset in offsets[1:]:
        other = np.clip(density - offset[:, None, None], 0.0, None)
        better = np.ptp(other, axis=0) < np.ptp(found, axis=0)
        np.copyto(found, other, where=better)
    return np.asarray(found, np.float32)


def grain(side: float) -> int:
    """Return the distance in pixels at which the structure of tissue shows, in a view with pixels of `side` µm."""
    return max(1, min(6, round(STRUCTURE / side)))


def roughness(density: NDArray[np.float32], reach: int) -> NDArray[np.bool_]:
    """Return where a density (h, w) differs across a pixel, `reach` to each side, more than in glass or shadows."""
    padded = np.pad(density, reach, "edge")
    inner, low, high = slice(reach, -reach), slice(None, -2 * reach), slice(2 * reach, None)
    across = np.abs(padded[inner, high] - padded[inner, low])
    down = np.abs(padded[high, inner] - padded[low, inner])
    return np.asarray(np.maximum(across, down) > 0.03 + 0.1 * density, np.bool_)
