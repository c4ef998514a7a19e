"""Title and legend of the heatmap picture: what colours, outlines and hatching mean, how long a millimetre is."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from wsi_attention.export import canvas
from wsi_attention.export.frame import MARGIN, Frame
from wsi_attention.structures import Prediction, error_text

BAR = 280, 16
"""(w, h) of the colour bar in pixels."""
RULER = 190
"""Pixels of the scale bar, at most."""


def title(pen: ImageDraw.ImageDraw, prediction: Prediction, frame: Frame) -> None:
    """Slide, label, probability with its standard error, tiles read, and what the picture is not for."""
    right = frame.size[0] - MARGIN
    use, tiles = prediction.warning.capitalize() or "Research use only", _tiles_read(prediction)
    room, below = (right - MARGIN - canvas.width_of(text, size) - 24 for text, size in ((use, 18), (tiles, 16)))
    name = prediction.slide.replace("\\", "/").rstrip("/").rpartition("/")[2]
    probability = f"{float(prediction.probabilities.max()):.3f}{error_text(prediction.spread)}"
    label = f"{prediction.shown_label}   probability {probability}"
    canvas.write(pen, (MARGIN, 18), canvas.fitted(name, 24, room), 24)
    canvas.write(pen, (MARGIN, 54), canvas.fitted(label, 19, below), 19)
    canvas.write(pen, (right, 22), use, 18, canvas.MARK, "ra")
    canvas.write(pen, (right, 56), tiles, 16, canvas.MUTED, "ra")


def legend(image: Image.Image, prediction: Prediction, frame: Frame, top: float | None) -> None:
    """Colour bar, keys and scale bar below the slide.

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
    canvas.write(pen, at, "Attention × cells (1 = average)", 16)
    level = np.tile(np.linspace(0, 1, BAR[0]), (BAR[1], 1))
    image.paste(Image.fromarray(canvas.ramp(level).round().astype(np.uint8)), (x, y))
    pen.rectangle((x, y, x + BAR[0] - 1, y + BAR[1] - 1), outline=canvas.LINE)
    for value in ticks(top):
        place = x + np.log(value) / np.log(top) * (BAR[0] - 1)
        pen.line((place, y + BAR[1], place, y + BAR[1] + 5), fill=canvas.MUTED)
        canvas.write(pen, (place, y + BAR[1] + 8), f"{value:g}", 14, canvas.MUTED, "la" if value == 1 else "ma")


def ticks(top: float) -> list[float]:
    """1 and the round numbers of a logarithmic scale up to `top`, at most six."""
    powers = [10.0**k for k in range(int(np.floor(np.log10(top) + 1e-9)) + 1)]
    steps = (1, 3) if len(powers) <= 3 else (1,)
    found = [step * power for power in powers for step in steps if step * power <= top * (1 + 1e-9)]
    return found[:: max(1, -(-len(found) // 6))]


def _keys(pen: ImageDraw.ImageDraw, at: tuple[int, int], unread: str) -> None:
    x, y = at
    pen.rectangle((x + 4, y + 4, x + 17, y + 17), outline=canvas.INK)
    canvas.write(pen, (x + 32, y + 2), "tile read", 16)
    pen.rectangle((x + 3, y + 31, x + 18, y + 46), outline=canvas.MARK, width=3)
    canvas.write(pen, (x + 32, y + 30), "highest weight, with rank", 16)
    for k in range(0, 22, 5):
        pen.line((x + k, y + 59 + 15, x + min(k + 15, 21), y + 59 + max(0, k - 6)), fill=canvas.HATCH)
    pen.rectangle((x, y + 59, x + 21, y + 74), outline=canvas.LINE)
    canvas.write(pen, (x + 32, y + 58), f"tissue not inspected{unread}", 16)


def scale_bar(pen: ImageDraw.ImageDraw, mpp: float, frame: Frame, y: int) -> None:
    """Draws a scale bar at the right, of a round length; mpp is µm per level-0 pixel."""
    per_pixel = mpp / frame.scale[0]
    length = canvas.round_length(min(RULER, max(frame.slide[0], 40)) * per_pixel)
    right = frame.size[0] - MARGIN
    left = right - round(length / per_pixel)
    canvas.write(pen, ((left + right) / 2, y), canvas.length_text(length), 16, anchor="ma")
    pen.rectangle((left, y + 30, right, y + 35), fill=canvas.INK)
