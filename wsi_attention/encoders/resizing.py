"""Scale and crop tiles as Pillow does, bit for bit, on tensors of any device.

Published encoders were trained and are documented with transforms that resize 8-bit images by Pillow. It scales along
x, rounds to 8 bits, then along y, and rounds again; weights are whole numbers of 22 bits. Here the same sums are
products with matrices in float64, which holds them exactly.

Pillow: src/libImaging/Resample.c, https://github.com/python-pillow/Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

BITS = 22
"""Bits of Pillow's weights behind the point: 32, less 8 of a pixel and 2 for overshoot."""


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _cubic(x: float, a: float = -0.5) -> float:
    x = abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


FILTERS: dict[str, tuple[Callable[[float], float], float]] = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0)}
"""Interpolation -> kernel and its support in pixels."""


def resized(pixels: Tensor, side: int, interpolation: str) -> Tensor:
    """Return square tiles of another side.

    Args:
        pixels: (m, c, h, w) with h = w, whole numbers 0 to 255 of any dtype.
        side: of the result.
        interpolation: "bilinear" or "bicubic".

    Returns:
        (m, c, side, side), whole numbers 0 to 255 as float64, or float32 where the device has no such.
    """
    weights = _weights(pixels.shape[-1], side, interpolation)
    if pixels.device.type == "mps":  # has no float64
        return resized(pixels.cpu(), side, interpolation).float().to(pixels.device)
    weights = weights.to(pixels.device)
    along_x = _rounded(pixels.double() @ weights.T)
    return _rounded(weights @ along_x)


def centre(pixels: Tensor, side: int) -> Tensor:
    """Return the middle (m, c, side, side) of tiles that are at least so large."""
    height, width = pixels.shape[-2:]
    top, left = round((height - side) / 2), round((width - side) / 2)
    return pixels[..., top : top + side, left : left + side]


def _rounded(sums: Tensor) -> Tensor:
    return torch.floor((sums + 2 ** (BITS - 1)) / 2**BITS).clamp_(0, 255)


@cache
def _weights(old: int, new: int, interpolation: str) -> Tensor:
    """Return the (new, old) whole-numbered weights of one axis."""
    kernel, support = FILTERS[interpolation]
    scale = old / new
    stretch = max(1.0, scale)
    reach = support * stretch
    rows = torch.zeros(new, old, dtype=torch.float64)
    for target in range(new):
        middle = (target + 0.5) * scale
        first, last = max(0, int(middle - reach + 0.5)), min(old, int(middle + reach + 0.5))
        values = [kernel((source - middle + 0.5) / stretch) for source in range(first, last)]
        total = sum(values) or 1.0
        whole = [math.trunc(math.copysign(0.5, value) + value / total * 2**BITS) for value in values]
        rows[target, first:last] = torch.tensor(whole, dtype=torch.float64)
    return rows
