"""Pixels that are plausible and wrong: levels of another slide, shifted, black; macro and label pictures."""

from __future__ import annotations

from random import Random

import numpy as np
from base_slides import Pixels, Scene
from PIL import Image


def wrong_levels(scene: Scene, chance: Random) -> tuple[list[Pixels], str]:
    """The scene's levels, one of the coarser ones not belonging to the others; and what was done."""
    levels = list(scene.levels)
    which = chance.choice((1, 2))
    how = chance.choice(list(LEVELS))
    levels[which] = np.ascontiguousarray(LEVELS[how](levels[which], scene.other[which]))
    return levels, f"level {which} {how}"


def _shifted(level: Pixels, other: Pixels) -> Pixels:
    return np.roll(level, (level.shape[0] // 6, level.shape[1] // 6), axis=(0, 1))


def _squeezed(level: Pixels, other: Pixels) -> Pixels:
    height, width = level.shape[:2]
    return np.asarray(Image.fromarray(level).resize((width, round(height * 0.8))))


def _cropped(level: Pixels, other: Pixels) -> Pixels:
    return level[: round(level.shape[0] * 0.85)]


LEVELS = {
    "is of another slide": lambda level, other: other,
    "is shifted by a sixth": _shifted,
    "is squeezed": _squeezed,
    "is cropped": _cropped,
    "is black": lambda level, other: np.zeros_like(level),
    "is white": lambda level, other: np.full_like(level, 255),
    "is inverted": lambda level, other: 255 - level,
    "has blue for red": lambda level, other: level[..., ::-1],
    "is upside down": lambda level, other: level[::-1],
    "is mirrored": lambda level, other: level[:, ::-1],
}
"""What may be wrong with a level: name -> its pixels from the right ones and those of another slide's."""


def macro(levels: tuple[Pixels, ...] | list[Pixels]) -> Pixels:
    """A picture of the whole glass: a label on the left, the section small on the right."""
    picture = Image.new("RGB", (360, 130), (222, 226, 222))
    picture.paste((40, 40, 60), (10, 15, 90, 60))
    small = Image.fromarray(levels[-1]).resize((100, 90))
    picture.paste(small, (180, 20))
    return np.asarray(picture)


def thumbnail(levels: tuple[Pixels, ...] | list[Pixels]) -> Pixels:
    """The section, small."""
    return np.asarray(Image.fromarray(levels[-1]).resize((125, 112)))
