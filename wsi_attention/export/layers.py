"""Attention as layers of colour, for pictures and for pages."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_attention.export.legend import RAMP
from wsi_attention.export.measures import (
    LEAST_RANGE,
    above_average,
    clipped,
    deciding,
    main_map,
    map_of,
    percentiles,
    read_boxes,
    shown_name,
)
from wsi_attention.export.sampling import mask_grid, sampled, without_boxes
from wsi_attention.geometry import Grid
from wsi_attention.structures import Glimpse, Prediction

FINEST = 400
"""Pixels of the longer side of the mask of tissue that was not inspected."""
MOST_CELLS = 1024
"""Cells along a side of an attention map that are kept; of a finer map every second, third … cell is shown."""
MOST_BOXES = 1000
"""Boxes that are listed, heaviest first; more would hide the slide."""


class ShownBox(TypedDict):
    """A tile that was read, as a page shows it."""

    x: int
    """Level-0 pixels, as y, w and h; inside the slide."""
    y: int
    w: int
    h: int
    weight: float
    glimpse: str
    percentile: float | None
    """Of attention; None where there is none."""
    rank: int | None
    """1 for the heaviest of the deciding glimpse; None for other glimpses and for weight 0."""


@dataclass(frozen=True)
class Layer:
    """A picture over the slide.

    Attributes:
        png: the picture's bytes.
        place: x, y, w, h in level-0 pixels that it covers.
        name: what it shows.
        top: for attention, attention × cells at the end of the scale.
    """

    png: bytes
    place: tuple[float, float, float, float]
    name: str
    top: float = 0.0


def attention_layer(prediction: Prediction) -> Layer | None:
    """Return the main attention map, one pixel for each cell: grey is the place on the colour scale, 0 at the average.

    The scale is the heatmap's: logarithmic in attention × cells, and cells at or below the average are transparent.
    None where the model has no map.
    """
    found = main_map(prediction)
    if found is None:
        return None
    ratio = above_average(found)
    thin = max(1, -(-max(ratio.values.shape) // MOST_CELLS))
    values = ratio.values[::thin, ::thin]
    top = max(LEAST_RANGE, float(np.nanmax(ratio.values, initial=0.0)))
    level = np.log(np.clip(np.nan_to_num(values, nan=0.0, posinf=top), 1.0, top)) / np.log(top)
    alpha = np.where(level > 0, 0.15 + 0.85 * np.sqrt(level), 0.0)
    pixels = np.stack([level, alpha], axis=-1)
    step, origin = ratio.grid.step, ratio.grid.origin
    place = (*origin, values.shape[1] * step[0] * thin, values.shape[0] * step[1] * thin)
    image = Image.fromarray((pixels * 255).round().astype(np.uint8), "LA")
    return Layer(png_bytes(image), place, shown_name(prediction, found), top)


def unseen_layer(prediction: Prediction) -> Layer | None:
    """Return white where there is tissue that no tile covered, else black; None where the model reads no tiles."""
    place = unseen_place(prediction)
    if place is None:
        return None
    grid = _unseen_grid(prediction)
    tissue = sampled(prediction.tissue.mask, mask_grid(prediction), grid)
    unseen = without_boxes(tissue, read_boxes(prediction), grid)
    image = Image.fromarray(np.where(unseen, 255, 0).astype(np.uint8), "L").convert("1")
    return Layer(png_bytes(image), place, "not inspected")


def unseen_place(prediction: Prediction) -> tuple[float, float, float, float] | None:
    """Return x, y, w, h in level-0 pixels that `unseen_layer` covers; None where there is no such layer."""
    grid = _unseen_grid(prediction)
    return (0.0, 0.0, grid.cols * grid.step[0], grid.rows * grid.step[1]) if prediction.glimpses else None


def _unseen_grid(prediction: Prediction) -> Grid:
    step = max(prediction.tissue.downsample, max(prediction.extent) / FINEST)
    return Grid.covering(prediction.extent, (step, step))


def boxes(prediction: Prediction) -> list[ShownBox]:
    """Return the tiles read, glimpse by glimpse, heaviest first; each box once, at most `MOST_BOXES` of a glimpse."""
    return [one for number in range(len(prediction.glimpses)) for one in _boxes_of(prediction, number)]


def _boxes_of(prediction: Prediction, number: int) -> Iterator[ShownBox]:
    glimpse = prediction.glimpses[number]
    decides = glimpse is deciding(prediction)
    weights = total_weights(glimpse.tiles.locations[0], np.where(glimpse.valid, glimpse.weights, 0.0))
    percents = percentiles(glimpse.attention, map_of(prediction, number))
    inside = clipped(glimpse.tiles.boxes[0], prediction.extent)
    for rank, index in enumerate(_read_once(glimpse, weights), start=1):
        (x, y, w, h), weight, percent = inside[index].tolist(), float(weights[index]), float(percents[index])
        if w > 0 and h > 0:
            yield {
                "x": x,
                "y": y,
                "w": w,
                "h": h,
                "weight": weight,
                "glimpse": glimpse.name,
                "percentile": percent if np.isfinite(percent) else None,
                "rank": rank if decides and weight > 0 else None,
            }


def _read_once(glimpse: Glimpse, weights: NDArray[np.float64]) -> list[int]:
    """Return indices of tiles that could be read, the first of each box, heaviest first."""
    valid = np.flatnonzero(glimpse.valid)
    _, first = np.unique(glimpse.tiles.locations[0][valid], axis=0, return_index=True)
    once = valid[np.sort(first)]
    return [int(index) for index in once[np.argsort(-weights[once], kind="stable")][:MOST_BOXES]]


def total_weights(locations: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,), the weight of each tile, summed over all draws of the same box."""
    _, member = np.unique(locations, axis=0, return_inverse=True)
    total = np.bincount(member.ravel(), np.nan_to_num(weights))
    return np.asarray(total[member.ravel()], np.float64)


def png_bytes(image: Image.Image) -> bytes:
    """Return the picture as PNG; the same picture gives the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=9)
    return buffer.getvalue()


def jpeg_bytes(pixels: NDArray[np.uint8], quality: int = 85) -> bytes:
    """Return (h, w, 3) pixels as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


STEPS = 17
"""Evenly spaced colours that a map is sampled at; browsers interpolate between them."""

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class ColourMap:
    """A colour map by name.

    Attributes:
        name: as in the page's markup.
        title: for readers.
        stops: (position in [0, 1], colour), positions rising from 0 to 1.
    """

    name: str
    title: str
    stops: tuple[tuple[float, RGB], ...]

    def at(self, value: float) -> RGB:
        """Return the colour of a value in [0, 1], linear between stops."""
        for (low, first), (high, second) in zip(self.stops[:-1], self.stops[1:], strict=True):
            if value <= high:
                share = (value - low) / (high - low)
                red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
                return red, green, blue
        return self.stops[-1][1]

    @property
    def colours(self) -> list[RGB]:
        """`STEPS` colours, evenly spaced."""
        return [self.at(step / (STEPS - 1)) for step in range(STEPS)]

    @property
    def tables(self) -> tuple[str, str, str]:
        """`tableValues` of an SVG feComponentTransfer for red, green and blue."""
        red, green, blue = (" ".join(f"{colour[c] / 255:.3f}" for colour in self.colours) for c in range(3))
        return red, green, blue

    @property
    def gradient(self) -> str:
        """A CSS gradient from left to right."""
        return f"linear-gradient(to right, {', '.join(f'rgb({r} {g} {b})' for r, g, b in self.colours)})"


MAPS = (
    ColourMap("green", "blue to yellow", RAMP),
    ColourMap(
        "fire",
        "violet to yellow",
        ((0.0, (46, 20, 92)), (0.35, (150, 34, 110)), (0.65, (228, 88, 56)), (1.0, (250, 224, 92))),
    ),
    ColourMap("blue", "pale to deep blue", ((0.0, (196, 222, 246)), (0.5, (58, 130, 205)), (1.0, (8, 32, 104)))),
    ColourMap("grey", "white to black", ((0.0, (246, 246, 246)), (1.0, (0, 0, 0)))),
)
"""The first is the default, and that of the heatmap."""
