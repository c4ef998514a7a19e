"""Where there is tissue, judged by colour on a coarse view; and whether the view is brightfield at all.

A view is gone through in strips, whether it is at hand or read strip by strip: what is judged by a pixel and its
neighbours needs no more, and keeps its large numbers for no longer than a strip. Of the whole view only planes of
bytes are kept: two where strips are read, and the colours in addition where a view is at hand and the threshold is
still to be found.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import UnsupportedSlideError
from wsi_attention.slide import density as densities
from wsi_attention.slide.ink import GLASS, find_ink, ink_classes
from wsi_attention.slide.regions import without_clefts, without_holes, without_specks
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
STRIP_PIXELS = 250_000
"""Pixels whose densities are in memory at once, 100 bytes each."""


class Staining(NamedTuple):
    """What tissue is told by that only a view of the whole slide can say; a coarser view says nearly the same.

    Attributes:
        glass: (3,), colour of empty glass.
        threshold: least difference between the optical densities of a stained pixel's channels.
    """

    glass: NDArray[np.float64]
    threshold: float


class _Seen(NamedTuple):
    """What is kept of each pixel: colour (h, w) up to 3 · STRONGEST, whether it is more than grey, and ink's classes;
    and how many pixels are glass."""

    colour: NDArray[np.float32]
    tinted: NDArray[np.bool_]
    inky: NDArray[np.uint8]
    glass: int


def find_tissue(rgb: NDArray[np.uint8], downsample: float, mpp: float) -> TissueMask:
    """Marks stained tissue on a coarse view.

    Stain absorbs one colour more than another, glass, shadows and black ink absorb all alike: so the difference between
    the darkest and the lightest channel's optical density, against the glass, is compared with Otsu's threshold.
    The threshold has fixed bounds, for a blank slide has no two modes, and neither has one that is all tissue.
    Ink of pens is left out unless the colour is so common that it must be the stain.

    Args:
        rgb: (h, w, 3) uint8, the whole slide; best at 4-32 µm/px.
        downsample: level-0 pixels per pixel of `rgb`.
        mpp: µm per level-0 pixel.

    Returns:
        The mask at the same downsample; without any tissue it is empty.
    """
    seen, known = _survey(rgb, mpp * downsample)
    stained = (seen.colour > known.threshold) & seen.tinted
    return TissueMask(_mask(stained, seen.inky, seen.glass, mpp * downsample), downsample)


def staining(rgb: NDArray[np.uint8], downsample: float, mpp: float) -> Staining:
    """What a coarse view tells for `find_tissue_in_strips`; arguments as in `find_tissue`."""
    return _survey(rgb, mpp * downsample)[1]


def find_tissue_in_strips(
    strips: Iterable[Strip[NDArray[np.uint8]]], shape: tuple[int, int], downsample: float, mpp: float, known: Staining
) -> TissueMask:
    """The same on a view that is never whole; with `known` of that view itself the mask is that of `find_tissue`.

    Args:
        strips: all rows of the view, in order, each with `surroundings` rows above and below.
        shape: (h, w) of the view.
        downsample: level-0 pixels per pixel of the strips.
        mpp: µm per level-0 pixel.
        known: from a coarser view of the same slide.
    """
    side, glass = mpp * downsample, 0
    stained, inky = np.zeros(shape, np.bool_), np.zeros(shape, np.uint8)
    for strip in strips:
        seen = _look(strip, known.glass, densities.blur(shape, side))
        rows = slice(strip.first, strip.last)
        stained[rows], inky[rows] = (seen.colour > known.threshold) & seen.tinted, seen.inky
        glass += seen.glass
    return TissueMask(_mask(stained, inky, glass, side), downsample)


def surroundings(shape: tuple[int, int], downsample: float, mpp: float) -> int:
    """Rows that strips of a view (h, w) need above and below."""
    return densities.reach(densities.blur(shape, mpp * downsample))


def check_brightfield(rgb: NDArray[np.uint8], path: str) -> None:
    """Refuses a view that light does not shine through: fluorescence or dark field.

    Such a view is mostly black and hardly anywhere light; a brightfield slide with a black border still has glass or
    stained tissue in it that lets all three colours through.

    Args:
        rgb: (h, w, 3) uint8, the whole slide.
        path: named in the error.

    Raises:
        UnsupportedSlideError: the view is dark.
    """
    low, high = densities.darkest_and_lightest(rgb)
    dark, light = float((high < 64).mean()), float((low >= 100).mean())
    if dark > 0.5 and light < 0.05:
        raise UnsupportedSlideError(
            f"{path}: {dark:.0%} of the slide is black and {light:.0%} light, as in fluorescence or dark field; "
            "only RGB brightfield slides can be classified, leave it out"
        )


def _survey(rgb: NDArray[np.uint8], side: float) -> tuple[_Seen, Staining]:
    from skimage.filters import threshold_otsu

    shape = rgb.shape[0], rgb.shape[1]
    sigma, glass = densities.blur(shape, side), densities.glass_colour(rgb)
    colour, tinted, inky, clear = np.empty(shape, np.float32), np.empty(shape, np.bool_), np.empty(shape, np.uint8), 0
    for strip in cut(rgb, rows_of(shape[1], STRIP_PIXELS), densities.reach(sigma)):
        seen, rows = _look(strip, glass, sigma), slice(strip.first, strip.last)
        colour[rows], tinted[rows], inky[rows] = seen.colour, seen.tinted, seen.inky
        clear += seen.glass
    otsu = threshold_otsu(colour)  # type: ignore[no-untyped-call]
    return _Seen(colour, tinted, inky, clear), Staining(glass, float(np.clip(otsu, FAINTEST, STRONGEST)))


def _look(strip: Strip[NDArray[np.uint8]], glass: NDArray[np.float64], sigma: float) -> _Seen:
    smooth = densities.smoothed(densities.optical_density(strip.pixels, glass), sigma)[:, strip.own]
    darkest = smooth.max(0)
    colour = darkest - smooth.min(0)
    clear = int(np.count_nonzero(darkest < GLASS))
    return _Seen(np.clip(colour, 0.0, 3 * STRONGEST), colour > GREY * darkest, ink_classes(smooth), clear)


def _mask(stained: NDArray[np.bool_], inky: NDArray[np.uint8], clear: int, side: float) -> NDArray[np.bool_]:
    pixel = side**2
    ink = find_ink(inky, stained, clear / stained.size, pixel)
    mask = without_clefts(stained & ~ink, GAP / side)
    mask = without_specks(mask, min(SPECK / pixel, 0.01 * mask.size))
    return without_holes(mask, min(HOLE / pixel, 0.01 * mask.size)) & ~ink
