"""Optical density of a view against its glass, and the small blur that takes the noise out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMOOTHING = 8.0
"""µm: standard deviation of the Gaussian that takes out noise and joins neighbouring cells."""
STRUCTURE = 12.0
"""µm: distance over which stained tissue differs from itself."""
TRUNCATED = 3.0
"""Standard deviations after which the Gaussian ends."""


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


def against(density: NDArray[np.float32], colours: NDArray[np.float64]) -> NDArray[np.float32]:
    """Density against the lightest of each channel as that against the one of several glasses, (k, 3), that leaves the
    least colour, pixel by pixel."""
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
    """How many pixels away the structure of tissue shows, in a view with pixels of `side` µm."""
    return max(1, min(6, round(STRUCTURE / side)))


def roughness(density: NDArray[np.float32], reach: int) -> NDArray[np.bool_]:
    """Where a density (h, w) differs between both sides of a pixel, `reach` away, by more than glass or shadows do."""
    padded = np.pad(density, reach, "edge")
    inner, low, high = slice(reach, -reach), slice(None, -2 * reach), slice(2 * reach, None)
    across = np.abs(padded[inner, high] - padded[inner, low])
    down = np.abs(padded[high, inner] - padded[low, inner])
    return np.asarray(np.maximum(across, down) > 0.03 + 0.1 * density, np.bool_)
