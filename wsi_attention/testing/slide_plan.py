"""Where things lie on a synthetic slide: the outline of the tissue, its zones, folds, pen, aggregates and lesions.

Maps have one value every `STEP_UM` µm; value (r, c) stands for the square [c·step, (c+1)·step) × … of level-0 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, gaussian_filter, label

from wsi_attention.once import once
from wsi_attention.testing.stamps import wobble

STEP_UM = 8.0
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Blob:
    """A roundish region: centre (x, y) and mean radius in level-0 pixels; `seed` fixes its outline and its cells."""

    x: float
    y: float
    radius: float
    seed: int = 0

    def outline(self, angles: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the radius in pixels at each angle (radians)."""
        rng = np.random.default_rng([self.seed, 7])
        return self.radius * np.clip(wobble(rng, angles, 0.09), 0.6, 1.5)

    def polygon(self, points: int = 72) -> NDArray[np.float64]:
        """Return (points, 2) vertices (x, y) in level-0 pixels, clockwise on the screen, not closed."""
        angles = np.arange(points) * 2 * np.pi / points
        radius = self.outline(angles)
        return np.stack([self.x + radius * np.cos(angles), self.y + radius * np.sin(angles)], axis=-1)


@dataclass(frozen=True, eq=False)
class SlidePlan:
    """The layout of one slide.

    Attributes:
        extent: (w, h) of level 0 in pixels.
        step: level-0 pixels a map value.
        outline: positive inside the tissue, roughly the distance to its border in map cells.
        glandular: 0..1, how far a place belongs to the glandular zone.
        fatty: 0..1, how far it belongs to fat.
        direction: 0..1, which of two fibre directions prevails.
        cellular: 0..2, relative density of the stroma's own cells; 0 outside the tissue.
        vascular: 0..1, how likely a vessel lies at a place where one fits.
        eosin: about 1, how strongly the stroma is stained.
        looseness: 0..1, how loose its fibres lie.
        fold: 0..1, where the section lies double.
        pen: 0..1, ink on the glass.
        aggregates: lymphoid aggregates.
        lesions: nests of tumour cells.
        fibre_shift: where the periodic fibre texture starts, (x, y) of the lying and of the standing fibres.
    """

    extent: tuple[int, int]
    step: float
    outline: Map
    glandular: Map
    fatty: Map
    direction: Map
    cellular: Map
    vascular: Map
    eosin: Map
    looseness: Map
    fold: Map
    pen: Map
    aggregates: tuple[Blob, ...]
    lesions: tuple[Blob, ...]
    fibre_shift: tuple[int, int, int, int] = (0, 0, 0, 0)

    @once
    def tissue(self) -> NDArray[np.bool_]:
        """The cells that hold tissue."""
        return self.outline > 0


def smooth(rng: np.random.Generator, shape: tuple[int, int], period: float) -> Map:
    """Return noise of mean 0 and deviation 1 that changes over about `period` cells."""
    coarse = (int(shape[0] / period) + 4, int(shape[1] / period) + 4)
    noise = Image.fromarray(rng.normal(size=coarse).astype(np.float32))
    box = (1.0, 1.0, 1.0 + shape[1] / period, 1.0 + shape[0] / period)
    field = np.asarray(noise.resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box))
    return np.asarray(field / np.float32(0.62), np.float32)


def _pieces(rng: np.random.Generator, shape: tuple[int, int]) -> Map:
    """Return a hill for each of one to three pieces of tissue; a piece may hang over the border."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    field = np.full(shape, -9.0, np.float32)
    for _ in range(rng.integers(1, 4)):
        centre = rng.uniform(0.15, 0.85, 2) * shape
        half = rng.uniform(0.16, 0.34, 2) * shape
        way = rng.uniform(0, np.pi)
        u = ((x - centre[1]) * np.cos(way) + (y - centre[0]) * np.sin(way)) / half[0]
        v = (-(x - centre[1]) * np.sin(way) + (y - centre[0]) * np.cos(way)) / half[1]
        np.maximum(field, 1 - np.hypot(u, v), out=field)
    return field


def tissue_outline(
    rng: np.random.Generator, shape: tuple[int, int], coverage: float, kept: tuple[Blob, ...], step: float
) -> Map:
    """Return a signed map whose positive part covers the wanted share of the slide, lesions always inside."""
    span = max(shape)
    field = _pieces(rng, shape)
    for period, amount in ((span / 4, 0.22), (span / 10, 0.12), (span / 28, 0.06), (9.0, 0.025), (3.5, 0.012)):
        field = field + np.float32(amount) * smooth(rng, shape, max(period, 2.0))
    inside = field > np.quantile(field, 1 - coverage)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for blob in kept:
        reach = np.hypot(x + 0.5 - blob.x / step, y + 0.5 - blob.y / step)
        inside |= reach < 2.2 * blob.radius / step + 3 * smooth(rng, shape, 12.0)
    pieces, count = label(inside)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    inside &= sizes[pieces] > 0.01 * inside.sum()
    signed = distance_transform_edt(inside) - distance_transform_edt(~inside)
    return np.asarray(gaussian_filter(np.clip(signed, -30, 30), 0.7), np.float32)


def zone(rng: np.random.Generator, shape: tuple[int, int], period: float, share: float, width: float = 0.35) -> Map:
    """Return a 0..1 map that is 1 over about the given share of the slide."""
    field = smooth(rng, shape, period) + 0.35 * smooth(rng, shape, period / 3)
    return np.asarray(np.clip((field - np.quantile(field, 1 - share)) / width + 0.5, 0, 1), np.float32)


def free_spots(
    rng: np.random.Generator, room: NDArray[np.float64], radii: list[float], step: float, margin: float = 3.0
) -> list[Blob]:
    """Place blobs of the given radii (pixels) at random where the distance to anything else, `room` in cells, suffices.

    Take the room that each blob occupies off `room`; a blob without a place is left out.
    """
    blobs = []
    y, x = np.mgrid[: room.shape[0], : room.shape[1]]
    for radius in radii:
        spots = np.flatnonzero(room > 1.25 * radius / step + margin)
        if not len(spots):
            continue
        row, col = divmod(int(rng.choice(spots)), room.shape[1])
        blob = Blob((col + rng.random()) * step, (row + rng.random()) * step, radius, int(rng.integers(1 << 31)))
        np.minimum(room, np.hypot(x - col, y - row) - 1.5 * radius / step, out=room)
        blobs.append(blob)
    return blobs


def folds(rng: np.random.Generator, tissue: NDArray[np.bool_], count: int) -> Map:
    """Draw dark bands 25-60 µm wide that wind over part of the tissue."""
    canvas = Image.new("L", tissue.shape[::-1])
    spots = np.argwhere(tissue)
    for _ in range(count if len(spots) else 0):
        point = spots[rng.integers(len(spots))][::-1].astype(float)
        way, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.02)
        length = int(rng.uniform(0.08, 0.3) * max(tissue.shape))
        path = []
        for _ in range(length):
            path.append((float(point[0]), float(point[1])))
            point = point + np.array([np.cos(way), np.sin(way)])
            way += bend + rng.normal(0, 0.06)
        ImageDraw.Draw(canvas).line(path, fill=255, width=int(rng.integers(3, 8)), joint="curve")
    return np.asarray(gaussian_filter(np.asarray(canvas, np.float32) / 255, 0.8) * tissue, np.float32)


def pen_strokes(rng: np.random.Generator, shape: tuple[int, int], count: int) -> Map:
    """Draw thick arcs of ink, anywhere on the glass."""
    canvas = Image.new("L", shape[::-1])
    span = max(shape)
    for _ in range(count):
        x, y = rng.uniform(0, 1, 2) * shape[::-1]
        radius = rng.uniform(0.08, 0.3, 2) * span
        start = rng.uniform(0, 360)
        box = (float(x - radius[0]), float(y - radius[1]), float(x + radius[0]), float(y + radius[1]))
        end = start + rng.uniform(50, 220)
        ImageDraw.Draw(canvas).arc(box, start, end, fill=255, width=int(span * rng.uniform(0.018, 0.035)))
    ink = gaussian_filter(np.asarray(canvas, np.float32) / 255, 1.0)
    return np.asarray(ink * np.clip(0.85 + 0.12 * smooth(rng, shape, 5.0), 0, 1), np.float32)
