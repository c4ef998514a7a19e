"""Where there is tissue, judged by colour on a coarse view; and whether the view is brightfield at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import UnsupportedSlideError
from wsi_attention.slide.ink import find_ink
from wsi_attention.slide.regions import without_clefts, without_holes, without_specks
from wsi_attention.slide.user_mask import load_mask
from wsi_attention.structures import TissueMask

__all__ = ["check_brightfield", "find_tissue", "load_mask"]

SMOOTHING = 8.0
"""µm: standard deviation of the Gaussian that takes out noise and joins neighbouring cells."""
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
    side = mpp * downsample
    pixel = side**2
    density = _smooth(_optical_density(rgb), SMOOTHING / side)
    darkest = density.max(0)
    colour = darkest - density.min(0)
    stained = (colour > _threshold(colour)) & (colour > GREY * darkest)
    ink = find_ink(density, stained, pixel)
    mask = without_clefts(stained & ~ink, GAP / side)
    mask = without_specks(mask, min(SPECK / pixel, 0.01 * mask.size))
    mask = without_holes(mask, min(HOLE / pixel, 0.01 * mask.size)) & ~ink
    return TissueMask(mask, downsample)


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
    dark = float((rgb.max(-1) < 64).mean())
    light = float((rgb.min(-1) >= 100).mean())
    if dark > 0.5 and light < 0.05:
        raise UnsupportedSlideError(
            f"{path}: {dark:.0%} of the slide is black and {light:.0%} light, as in fluorescence or dark field; "
            "only RGB brightfield slides can be classified, leave it out"
        )


def _optical_density(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """-log10 of each channel against the glass, at least 0, shape (3, h, w)."""
    planes = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    grey = np.log10(np.arange(256) + 1.0)
    table = np.clip(np.log10(_glass(planes) + 1.0)[:, None] - grey, 0.0, None).astype(np.float32)
    return np.stack([table[c].take(planes[c]) for c in range(3)])


def _glass(planes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The colour of empty glass, (3,): the median of what is light and nearly neutral; white where that is rare."""
    low, high = planes.min(0), planes.max(0)
    empty = (low > 200) & (high - low < 24)
    if empty.mean() < 0.02:
        return np.full(3, 250.0)
    return np.array([np.median(plane[empty]) for plane in planes], np.float64)


def _smooth(density: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    from skimage.filters import gaussian

    coarsest = min(density.shape[1:]) / 64
    sigma = max(0.5, min(sigma, coarsest, 6.0))
    smooth = gaussian(density, sigma, channel_axis=0, truncate=3.0)  # type: ignore[no-untyped-call]
    return np.asarray(smooth, np.float32)


def _threshold(colour: NDArray[np.float32]) -> float:
    from skimage.filters import threshold_otsu

    otsu = threshold_otsu(np.clip(colour, 0.0, 3 * STRONGEST))  # type: ignore[no-untyped-call]
    return float(np.clip(otsu, FAINTEST, STRONGEST))
