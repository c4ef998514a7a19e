"""The frame around a heatmap: where the slide lies in the picture, scale bar, colours, text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsi_attention.geometry import Grid
from wsi_attention.plain_text import visible
from wsi_attention.structures import Prediction, error_text

BAR = 280, 16
"""(w, h) of the colour bar in pixels."""
RULER = 190
"""Pixels of the scale bar, at most."""


def title(pen: ImageDraw.ImageDraw, prediction: Prediction, frame: Frame) -> None:
    """Write slide, label, probability with its standard error, tiles read, and what the picture is not for."""
    right = frame.size[0] - MARGIN
    use, tiles = prediction.warning.capitalize() or "Research use only", _tiles_read(prediction)
    room, below = (right - MARGIN - width_of(text, size) - 24 for text, size in ((use, 18), (tiles, 16)))
    name = prediction.slide.replace("\\", "/").rstrip("/").rpartition("/")[2]
    probability = "" if prediction.probability is None else f"   probability {prediction.probability:.3f}"
    label = f"{prediction.shown_lead}{probability}{error_text(prediction.spread)}"
    write(pen, (MARGIN, 18), fitted(name, 24, room), 24)
    write(pen, (MARGIN, 54), fitted(label, 19, below), 19)
    write(pen, (right, 22), use, 18, MARK, "ra")
    write(pen, (right, 56), tiles, 16, MUTED, "ra")


def legend(image: Image.Image, prediction: Prediction, frame: Frame, top: float | None) -> None:
    """Draw colour bar, keys and scale bar below the slide.

    Args:
        image: the picture, drawn on in place.
        prediction: whose picture it is.
        frame: where the slide lies in it.
        top: attention × cells at the colour bar's end; None where there is no attention map.
    """
    pen = ImageDraw.Draw(image)
    y = frame.origin[1] + frame.slide[1] + 22
    if top is not None:
        _color_bar(image, pen, (MARGIN, y), top)
    if prediction.glimpses:
        _keys(pen, (MARGIN + BAR[0] + 48, y), _unread(prediction))
    scale_bar(pen, prediction.mpp, frame, y)


def _unread(prediction: Prediction) -> str:
    return "" if prediction.unread_mass is None else f", with {prediction.unread_mass:.1%} of the attention"


def _tiles_read(prediction: Prediction) -> str:
    if not prediction.glimpses:
        return "overview alone, no tiles read"
    read = sum(int(glimpse.valid.sum()) for glimpse in prediction.glimpses)
    asked = sum(len(glimpse.valid) for glimpse in prediction.glimpses)
    return f"{read} tiles read" if read == asked else f"{read} of {asked} tiles read"


def _color_bar(image: Image.Image, pen: ImageDraw.ImageDraw, at: tuple[int, int], top: float) -> None:
    x, y = at[0], at[1] + 26
    write(pen, at, "Attention × cells (1 = average)", 16)
    level = np.tile(np.linspace(0, 1, BAR[0]), (BAR[1], 1))
    image.paste(Image.fromarray(ramp(level).round().astype(np.uint8)), (x, y))
    pen.rectangle((x, y, x + BAR[0] - 1, y + BAR[1] - 1), outline=LINE)
    for value in ticks(top):
        place = x + np.log(value) / np.log(top) * (BAR[0] - 1)
        pen.line((place, y + BAR[1], place, y + BAR[1] + 5), fill=MUTED)
        write(pen, (place, y + BAR[1] + 8), f"{value:g}", 14, MUTED, "la" if value == 1 else "ma")


def ticks(top: float) -> list[float]:
    """Return 1 and the round numbers of a logarithmic scale up to `top`, at most six."""
    powers = [10.0**k for k in range(int(np.floor(np.log10(top) + 1e-9)) + 1)]
    steps = (1, 3) if len(powers) <= 3 else (1,)
    found = [step * power for power in powers for step in steps if step * power <= top * (1 + 1e-9)]
    return found[:: max(1, -(-len(found) // 6))]


def _keys(pen: ImageDraw.ImageDraw, at: tuple[int, int], unread: str) -> None:
    x, y = at
    pen.rectangle((x + 4, y + 4, x + 17, y + 17), outline=INK)
    write(pen, (x + 32, y + 2), "tile read", 16)
    pen.rectangle((x + 3, y + 31, x + 18, y + 46), outline=MARK, width=3)
    write(pen, (x + 32, y + 30), "highest weight, with rank", 16)
    for k in range(0, 22, 5):
        pen.line((x + k, y + 59 + 15, x + min(k + 15, 21), y + 59 + max(0, k - 6)), fill=HATCH)
    pen.rectangle((x, y + 59, x + 21, y + 74), outline=LINE)
    write(pen, (x + 32, y + 58), f"tissue not inspected{unread}", 16)


def scale_bar(pen: ImageDraw.ImageDraw, mpp: float, frame: Frame, y: int) -> None:
    """Draw a scale bar at the right, of a round length; mpp is µm per level-0 pixel."""
    per_pixel = mpp / frame.scale[0]
    length = round_length(min(RULER, max(frame.slide[0], 40)) * per_pixel)
    right = frame.size[0] - MARGIN
    left = right - round(length / per_pixel)
    write(pen, ((left + right) / 2, y), length_text(length), 16, anchor="ma")
    pen.rectangle((left, y + 30, right, y + 35), fill=INK)


INK = (28, 32, 38)
MUTED = (104, 110, 120)
PAPER = (255, 255, 255)
LINE = (206, 210, 216)
MARK = (200, 16, 46)
HATCH = (70, 74, 84)

RAMP = ((0.0, (43, 72, 140)), (0.33, (28, 133, 141)), (0.66, (92, 190, 94)), (1.0, (253, 231, 37)))
"""Blue, teal, green, yellow: lightness rises evenly, and no step looks like haematoxylin or eosin."""

FACES = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf", "Helvetica.ttc")
"""Typefaces, tried in order; where none is installed, Pillow's own, which lacks µ and ×."""


@cache
def face() -> str | None:
    """Return the first installed typeface that knows the signs we need; None where there is none."""
    for name in FACES:
        try:
            ImageFont.truetype(name, 12)
        except OSError:
            continue
        return name
    return None


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the drawing's typeface at a size in pixels."""
    name = face()
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


def legible(text: str) -> str:
    """Return the text with replacements for signs that the typeface lacks or that no line of text can hold."""
    text = visible(text)
    if face():
        return text
    text = text.replace("µ", "u").replace("×", "x").replace("–", "-").replace("…", "...")
    return text.encode("ascii", "replace").decode("ascii") if not text.isascii() else text


def width_of(text: str, size: int) -> int:
    """Return how many pixels wide a line of text is."""
    return int(np.ceil(font(size).getlength(legible(text))))


def fitted(text: str, size: int, width: int) -> str:
    """Return the text, its middle left out where it is longer than `width` pixels."""
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
    """Write one line of text; `anchor` as in Pillow, `halo` pixels of white around it."""
    draw.text(at, legible(text), color, font(size), anchor, stroke_width=halo, stroke_fill=PAPER)


def ramp(values: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the colours of values in [0, 1], shape (..., 3), 0 to 255."""
    stops = np.array([stop for stop, _ in RAMP])
    colors = np.array([color for _, color in RAMP], np.float64)
    return np.stack([np.interp(values, stops, colors[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def round_length(longest: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is no longer than `longest`."""
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9)))


def length_text(micrometers: float) -> str:
    """Return a length with its unit: 200 µm, 2 mm."""
    return f"{micrometers / 1000:g} mm" if micrometers >= 1000 else f"{micrometers:g} µm"


LONGEST = 1200
"""Pixels of the picture's longer side, at most."""
NARROWEST = 900
"""Pixels of its width, at least, so that the legend has room."""
MARGIN, HEAD, FOOT = 28, 96, 118
"""White around the slide, above it for the title, below it for the legend."""


@dataclass(frozen=True)
class Frame:
    """Where the slide lies in the picture.

    Attributes:
        size: (w, h) of the whole picture.
        origin: (x, y) of the slide's top left corner.
        slide: (w, h) of the slide in the picture.
        scale: picture pixels per level-0 pixel, (x, y).
    """

    size: tuple[int, int]
    origin: tuple[int, int]
    slide: tuple[int, int]
    scale: tuple[float, float]

    @classmethod
    def around(cls, extent: tuple[int, int]) -> Frame:
        """Return the largest frame within `LONGEST` for a (w, h) slide, which may be enlarged."""
        room = LONGEST - 2 * MARGIN, LONGEST - HEAD - FOOT
        zoom = min(room[0] / extent[0], room[1] / extent[1], _largest_zoom(extent))
        w, h = max(1, round(extent[0] * zoom)), max(1, round(extent[1] * zoom))
        width = max(NARROWEST, w + 2 * MARGIN)
        return cls((width, h + HEAD + FOOT), ((width - w) // 2, HEAD), (w, h), (w / extent[0], h / extent[1]))

    @property
    def grid(self) -> Grid:
        """The slide's pixels of the picture as a grid over level 0."""
        return Grid(self.slide[1], self.slide[0], (1 / self.scale[0], 1 / self.scale[1]))


def _largest_zoom(extent: tuple[int, int]) -> float:
    """Return the zoom at which a tiny slide fills half the picture, at least 1."""
    return max(1.0, LONGEST / 2 / max(extent))
