"""The eight ways to turn and mirror a square."""

from __future__ import annotations

from torch import Tensor


def oriented(pixels: Tensor, turn: int) -> Tensor:
    """Return pixels under one of the eight flips and quarter turns of a square; `turn` 0 changes nothing.

    Args:
        pixels: (..., h, w).
        turn: 0 to 7; from 4 on flipped left to right first, then turned by turn % 4 quarters.
    """
    flipped = pixels.flip(-1) if turn >= 4 else pixels
    return flipped.rot90(turn % 4, (-2, -1))


def restored(maps: Tensor, turn: int) -> Tensor:
    """Return the maps of an augmented image in the frame of the image: the inverse of `oriented`."""
    turned = maps.rot90(-(turn % 4), (-2, -1))
    return turned.flip(-1) if turn >= 4 else turned
