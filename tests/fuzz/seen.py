"""What the product saw of slides it called done, against what they are: run as a program, a JSON of slides in, one out.

A mutant may end the process that reads it, so this is a process of its own.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from base_slides import MPP, SCENE, Pixels
from PIL import Image

from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.view import View
from wsi_attention.structures import TileSet
from wsi_attention.tiles.source import SlideSource

TOLERANCE = 0.05
OVERVIEW_MPP = 16.0
"""The demo model's."""
FAR = 40.0
"""Levels of grey that a block of 8 × 8 pixels is off by where it is another one; JPEG makes it 5."""
MOST = 0.03
"""The share of blocks that may be far off: edges, where a level's pixels are cut otherwise."""


def differences(path: str, tiles: Path, mpp: float, truth: Pixels) -> list[str]:
    """What is not as it should be: [] for a slide whose scale and pixels were read right.

    Args:
        path: of the slide.
        tiles: the product's table of tiles.
        mpp: µm per pixel of the slide as it really is.
        truth: (h, w, 3) pixels of its level 0.
    """
    with open_slide(path) as slide:
        width, height = (length * slide.mpp / MPP for length in slide.dimensions)
        wanted = (SCENE.size[0] * mpp / MPP, SCENE.size[1] * mpp / MPP)
        if abs(width / wanted[0] - 1) > TOLERANCE or abs(height / wanted[1] - 1) > TOLERANCE:
            w, h = slide.dimensions
            return [f"{w} x {h} pixels of {slide.mpp:.4g} um are not the slide ({wanted[0]:.0f} wide at {MPP} um)"]
        shown = View.at_mpp(slide, OVERVIEW_MPP).read_whole()
        found = [_told("the overview", _far(shown, _reduced(truth, shown.shape[1], shown.shape[0])))]
        found += [_told(f"the tile at {box[:2]}", _tile(slide, box, truth)) for box in _boxes(tiles)]
    return [text for text in found if text]


def _told(what: str, share: float) -> str:
    return f"{what} is another one in {share:.0%} of its blocks" if share > MOST else ""


def _far(shown: Pixels, true: Pixels) -> float:
    """The share of blocks that are far off, in the mean of the colours."""
    return float((np.abs(shown.astype(np.float64) - true).mean(axis=-1) > FAR).mean())


def _reduced(pixels: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def _tile(slide: Slide, box: tuple[int, ...], truth: Pixels) -> float:
    """The share of a tile's blocks that are far off."""
    x, y, width, height = box
    size = (128, round(128 * height / width))
    read = SlideSource(slide).read(TileSet(np.array([[x, y]]), size, width / size[0]))
    if not read.valid.all():
        return 1.0
    shown = np.ascontiguousarray(read.pixels[0, 0].permute(1, 2, 0).numpy())
    ratio = truth.shape[1] / slide.dimensions[0]
    left, top, wide, high = (round(value * ratio) for value in box)
    canvas = np.full((high, wide, 3), 255, np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + wide, truth.shape[1]), min(top + high, truth.shape[0])
    if x1 <= x0 or y1 <= y0:
        return 0.0
    canvas[y0 - top : y1 - top, x0 - left : x1 - left] = truth[y0:y1, x0:x1]
    blocks = (size[0] // 8, size[1] // 8)
    inside = np.zeros((high, wide), np.uint8)
    inside[y0 - top : y1 - top, x0 - left : x1 - left] = 255
    whole = np.asarray(Image.fromarray(inside).resize(blocks, Image.Resampling.BOX)) == 255
    off = np.abs(_reduced(shown, *blocks).astype(np.float64) - _reduced(canvas, *blocks)).mean(axis=-1) > FAR
    return float(off[whole].mean()) if whole.any() else 0.0


def _boxes(table: Path) -> list[tuple[int, ...]]:
    """Boxes of the tiles that were read."""
    with table.open(newline="", encoding="utf-8") as file:
        return [
            tuple(int(row[name]) for name in ("minx", "miny", "width", "height"))
            for row in csv.DictReader(file)
            if row["read"] == "1"
        ]


def main(asked: Path, truth: Path, answer: Path) -> None:
    """Answer for every slide of a JSON list of {path, tiles, mpp}; a line is added as soon as one is looked at."""
    pixels = np.load(truth)
    for number, one in enumerate(json.loads(asked.read_text())):
        try:
            found: Any = differences(one["path"], Path(one["tiles"]), one["mpp"], pixels)
        except Exception as error:
            found = [f"cannot be read again: {type(error).__name__}: {error}"]
        with answer.open("a") as file:
            file.write(json.dumps([number, found]) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
