"""The picture of where every row of the needle benchmark looked on one slide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from needle import Place

PANEL, GAP, HEAD = 392, 20, 58
"""Pixels of a panel's side, between panels, and of its title."""
COLUMNS = 4


def draw(place: Place, rows: Sequence[str], slide: str | None = None) -> Path:
    """A panel a row: its map over the same slide in faint colours, the tumour outlined; the slide itself first."""
    from needle import looker_of
    from needle_measure import truth_of

    paths = sorted(place.slides("test-0.01").glob("needle_*.tiff"))
    positive = [path for path in paths if truth_of(path).label]
    path = next((one for one in positive if one.stem == slide), positive[0])
    truth = truth_of(path)
    panels = []
    for row in rows:
        seen = looker_of(place, row, 0)(path)
        cells = np.where(truth.tissue, seen.cells, np.nan)
        panels.append(_panel(path, row, f"tumour {seen.probability:.2f}", cells, truth.tumour))
    panels.insert(
        0, _panel(path, "slide", f"tumour in {truth.tumour.sum()} of {truth.tissue.sum()} tiles", None, truth.tumour)
    )
    out = place.result("needle", 0).with_name("needle.png")
    _sheet(panels).quantize(256).save(out, optimize=True)
    return out


def _panel(
    path: Path, name: str, note: str, cells: NDArray[np.float64] | None, tumour: NDArray[np.bool_]
) -> Image.Image:
    import openslide

    from wsi_attention.export import legend as canvas

    with openslide.OpenSlide(path) as file:
        picture = np.asarray(file.get_thumbnail((PANEL, PANEL)).resize((PANEL, PANEL)).convert("RGB"), np.float32)
    side = PANEL // len(tumour)
    if cells is not None:
        rank = _ranks(cells).repeat(side, 0).repeat(side, 1)
        grey = picture.mean(axis=-1, keepdims=True) * 0.5 + 127
        colour = canvas.ramp(np.nan_to_num(rank))
        picture = np.where(np.isnan(rank)[..., None], grey, 0.25 * grey + 0.75 * colour)
    sheet = Image.new("RGB", (PANEL, PANEL + HEAD), canvas.PAPER)
    sheet.paste(Image.fromarray(picture.round().clip(0, 255).astype(np.uint8)), (0, HEAD))
    pen = ImageDraw.Draw(sheet)
    canvas.write(pen, (0, 4), name, 22)
    canvas.write(pen, (0, 32), note, 16, canvas.MUTED)
    _outline(pen, tumour, side)
    return sheet


def _ranks(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each cell's value as a share of the highest; maps differ too much in peakedness to share one scale."""
    top = np.nanmax(cells)
    return np.sqrt(cells / top) if top > 0 else cells * 0


def _outline(pen: ImageDraw.ImageDraw, tumour: NDArray[np.bool_], side: int) -> None:
    from wsi_attention.export import legend as canvas

    padded = np.pad(tumour, 1)
    for row, col in np.argwhere(tumour):
        x, y = col * side, row * side + HEAD
        edges = {
            (0, 1): ((x, y), (x, y + side)),
            (2, 1): ((x + side, y), (x + side, y + side)),
            (1, 0): ((x, y), (x + side, y)),
            (1, 2): ((x, y + side), (x + side, y + side)),
        }
        for (dx, dy), line in edges.items():
            if not padded[row + dy, col + dx]:
                pen.line(line, canvas.MARK, 3)


def _sheet(panels: Sequence[Image.Image]) -> Image.Image:
    rows = math.ceil(len(panels) / COLUMNS)
    size = COLUMNS * (PANEL + GAP) + GAP, rows * (PANEL + HEAD + GAP) + GAP
    sheet = Image.new("RGB", size, (255, 255, 255))
    for i, panel in enumerate(panels):
        sheet.paste(panel, (GAP + i % COLUMNS * (PANEL + GAP), GAP + i // COLUMNS * (PANEL + HEAD + GAP)))
    return sheet
