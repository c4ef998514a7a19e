"""Arrays of pixels as every reader hands them out: outside the slide is white, and transparency is laid on white."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Crop = Callable[[slice, slice], NDArray[np.uint8]]


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels (h, w, 3 or 4) laid on white, contiguous (h, w, 3); rounds to the nearest grey level."""
    if pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels)
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    if int(alpha.min(initial=255)) == 255:
        opaque = np.empty((*pixels.shape[:2], 3), np.uint8)
        for channel in range(3):  # seven times as fast as ascontiguousarray
            opaque[..., channel] = colour[..., channel]
        return opaque
    share = alpha.astype(np.uint16)
    laid = colour.astype(np.uint16) * share + np.uint16(255) * (np.uint16(255) - share)
    return ((laid + np.uint16(127)) // np.uint16(255)).astype(np.uint8)


def level_location(location: tuple[int, int], downsample: float) -> tuple[int, int]:
    """The whole pixel of a level nearest to a level-0 location; halves go up.

    OpenSlide interpolates between pixels where a location falls between them; readers that go through this
    function take the nearest pixel, so the two differ by at most half a pixel of the level.
    """
    return int(np.floor(location[0] / downsample + 0.5)), int(np.floor(location[1] / downsample + 0.5))


def padded(crop: Crop, extent: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A (w, h) rectangle of a level that may reach outside it; outside is white.

    Args:
        crop: gives (h, w, 3 or 4) for a slice of rows and one of columns, both inside the level.
        extent: (w, h) of the level.
        corner: (x, y) of the rectangle in the level's pixels.
        size: (w, h) of the rectangle.
    """
    left, top = max(corner[0], 0), max(corner[1], 0)
    right, bottom = min(corner[0] + size[0], extent[0]), min(corner[1] + size[1], extent[1])
    if right <= left or bottom <= top:
        return np.full((size[1], size[0], 3), 255, np.uint8)
    inside = crop(slice(top, bottom), slice(left, right))
    if inside.shape[:2] != (bottom - top, right - left):
        raise ValueError(f"{inside.shape[1]}×{inside.shape[0]} pixels came instead of {right - left}×{bottom - top}")
    if (right - left, bottom - top) == size:
        return inside
    canvas = np.full((size[1], size[0], inside.shape[2]), 255, np.uint8)
    canvas[top - corner[1] : bottom - corner[1], left - corner[0] : right - corner[0]] = inside
    return canvas
