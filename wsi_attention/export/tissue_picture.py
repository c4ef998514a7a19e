"""A picture of a tissue mask over its slide: tissue as it is, outlined; the rest greyed out."""

from __future__ import annotations

from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsi_attention.export import legend as canvas
from wsi_attention.export.legend import MARGIN, Frame, scale_bar
from wsi_attention.export.sampling import sampled
from wsi_attention.geometry import Grid
from wsi_attention.structures import TissueMask

OUTLINE = (0, 112, 96)
"""Colour of the line around tissue, unlike any stain or pen."""
LINE = 2
"""Its width in pixels."""
VEIL, VEILED = (104, 110, 120), 0.55
"""Colour over the rest of the slide, and its opacity."""


def draw_tissue(
    tissue: TissueMask, overview: NDArray[np.uint8], downsample: float, extent: tuple[int, int], mpp: float, slide: str
) -> Image.Image:
    """Draw the picture, RGB, at most 1600 pixels on its longer side.

    Args:
        tissue: what to show.
        overview: (h, w, 3), the whole slide.
        downsample: level-0 pixels per pixel of it.
        extent: (w, h) of the slide in level-0 pixels.
        mpp: µm per level-0 pixel.
        slide: its path, for the title.
    """
    frame, step = Frame.around(extent), tissue.downsample
    rows, columns = tissue.mask.shape
    mask = sampled(tissue.mask, Grid(rows, columns, (step, step)), frame.grid)
    right, low = (min(e / downsample, float(p)) for e, p in zip(extent, overview.shape[1::-1], strict=True))
    resized = Image.fromarray(overview).resize(frame.slide, Image.Resampling.BICUBIC, (0, 0, right, low), 2.0)
    pixels = np.asarray(resized, np.float32)
    pixels = np.where(mask[..., None], pixels, pixels * (1 - VEILED) + np.array(VEIL) * VEILED)
    pixels[_line(mask)] = OUTLINE
    image = Image.new("RGB", frame.size, canvas.PAPER)
    image.paste(Image.fromarray(pixels.round().astype(np.uint8)), frame.origin)
    pen = ImageDraw.Draw(image)
    x, y = frame.origin
    pen.rectangle((x - 1, y - 1, x + frame.slide[0], y + frame.slide[1]), outline=canvas.LINE)
    _words(pen, frame, PurePath(slide.replace("\\", "/")).name, tissue_words(tissue, extent, mpp), tissue.notes)
    scale_bar(pen, mpp, frame, y + frame.slide[1] + 22)
    return image


def tissue_words(tissue: TissueMask, extent: tuple[int, int], mpp: float) -> str:
    """Say how much tissue there is, and at which scale it was looked for."""
    share, area = tissue.area / (extent[0] * extent[1]), tissue.area * mpp**2 / 1e6
    if not tissue.mask.any():
        return f"no tissue found, looked for at {tissue.downsample * mpp:.3g} µm/px"
    return f"tissue {min(share, 1.0):.1%} of the slide, {area:.3g} mm², at {tissue.downsample * mpp:.3g} µm/px"


def _line(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels just outside of the mask, `LINE` wide."""
    around = mask
    for _ in range(LINE):
        padded = np.pad(around, 1)
        around = padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2] | around
    return around & ~mask


def _words(pen: ImageDraw.ImageDraw, frame: Frame, name: str, words: str, notes: tuple[str, ...]) -> None:
    room = frame.size[0] - 2 * MARGIN
    canvas.write(pen, (MARGIN, 18), canvas.fitted(name, 24, room), 24)
    canvas.write(pen, (MARGIN, 54), canvas.fitted(words, 19, room), 19)
    y = frame.origin[1] + frame.slide[1] + 22
    for line, (text, fill, outline) in enumerate((("tissue", canvas.PAPER, OUTLINE), ("left out", VEIL, canvas.LINE))):
        top = y + 28 * line
        pen.rectangle((MARGIN, top + 1, MARGIN + 21, top + 16), fill, outline, LINE)
        canvas.write(pen, (MARGIN + 32, top), text, 16)
    for text in notes[:1]:
        canvas.write(pen, (MARGIN, y + 62), canvas.fitted(text, 16, room), 16, canvas.MARK)
