"""Optical density of a view against its glass, and the small blur that takes the noise out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMOOTHING = 8.0
"""µm: standard deviation of the Gaussian that takes out noise and joins neighbouring cells."""
TRUNCATED = 3.0
"""Standard deviations after which the Gaussian ends."""


def glass_colour(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The colour of empty glass, (3,): the median of what is light and nearly neutral; white where that is rare."""
    low, high = darkest_and_lightest(rgb)
    empty = (low > 200) & (high - low < 24)
    if empty.mean() < 0.02:
        return np.full(3, 250.0)
    return np.array([np.median(rgb[..., c][empty]) for c in range(3)], np.float64)


def darkest_and_lightest(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The smallest and the largest of the three channels, (h, w) each."""
    red, green, blue = (rgb[..., c] for c in range(3))
    low = np.minimum(np.minimum(red, green), blue)
    return low, np.maximum(np.maximum(red, green), blue)


def optical_density(rgb: NDArray[np.uint8], glass: NDArray[np.float64]) -> NDArray[np.float32]:
    """-log10 of each channel against the glass, at least 0, shape (3, h, w)."""
    grey = np.log10(np.arange(256) + 1.0)
    table = np.clip(np.log10(glass + 1.0)[:, None] - grey, 0.0, None).astype(np.float32)
    return np.stack([table[c].take(rgb[..., c]) for c in range(3)])


def blur(shape: tuple[int, int], side: float) -> float:
    """Standard deviation in pixels of the Gaussian for a whole view (h, w) with pixels of `side` µm."""
    return float(max(0.5, min(SMOOTHING / side, min(shape) / 64, 6.0)))


def reach(sigma: float) -> int:
    """How many pixels away the Gaussian still takes something from."""
    return int(TRUNCATED * sigma + 0.5)


def smoothed(density: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """The density (3, h, w) blurred, its border repeated beyond."""
    from skimage.filters import gaussian

    smooth = gaussian(density, sigma, channel_axis=0, truncate=TRUNCATED)  # type: ignore[no-untyped-call]
    return np.asarray(smooth, np.float32)
