"""Small pieces of drawing with Pillow: type, colours, text with a halo, round lengths for a scale bar."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

from wsi_attention.plain_text import visible

INK = (28, 32, 38)
MUTED = (104, 110, 120)
PAPER = (255, 255, 255)
LINE = (206, 210, 216)
MARK = (200, 16, 46)
HATCH = (70, 74, 84)

RAMP = ((0.0, (43, 72, 140)), (0.33, (28, 133, 141)), (0.66, (92, 190, 94)), (1.0, (253, 231, 37)))
"""Blue, teal, green, yellow: lightness rises evenly, and no step looks like haematoxylin or eosin."""

FACES = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf", "Helvetica.ttc")
"""Tried in order; without any, Pillow's own face, which has neither µ nor ×."""


@cache
def face() -> str | None:
    """The first installed typeface that knows the signs we need; None where there is none."""
    for name in FACES:
        try:
            ImageFont.truetype(name, 12)
        except OSError:
            continue
        return name
    return None


@cache
def font(size: int) -> Any:
    """The drawing's typeface at a size in pixels."""
    name = face()
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


def legible(text: str) -> str:
    """The text with signs the typeface lacks, and those that no line of text can hold, written otherwise."""
    text = visible(text)
    if face():
        return text
    text = text.replace("µ", "u").replace("×", "x").replace("–", "-").replace("…", "...")
    return text.encode("ascii", "replace").decode("ascii") if not text.isascii() else text


def width_of(text: str, size: int) -> int:
    """Pixels a line of text takes."""
    return int(np.ceil(font(size).getlength(legible(text))))


def fitted(text: str, size: int, width: int) -> str:
    """The text, its middle left out where it is longer than `width` pixels."""
    if width_of(text, size) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        head = (kept + 1) // 2
        short = f"{text[:head]}…{text[len(text) - (kept - head) :]}"
        if width_of(short, size) <= width:
            return short
    return "…"


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    color: tuple[int, int, int] = INK,
    anchor: str = "la",
    halo: int = 0,
) -> None:
    """One line of text; `anchor` as in Pillow, `halo` pixels of white around it."""
    draw.text(at, legible(text), color, font(size), anchor, stroke_width=halo, stroke_fill=PAPER)


def ramp(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Colours of values in [0, 1], shape (..., 3), 0 to 255."""
    stops = np.array([stop for stop, _ in RAMP])
    colors = np.array([color for _, color in RAMP], np.float64)
    return np.stack([np.interp(values, stops, colors[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def round_length(longest: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is no longer than `longest`."""
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9)))


def length_text(micrometers: float) -> str:
    """A length with its unit: 200 µm, 2 mm."""
    return f"{micrometers / 1000:g} mm" if micrometers >= 1000 else f"{micrometers:g} µm"
