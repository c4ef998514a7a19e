"""Paints a planned slide: two stain concentrations on a canvas, then colour."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import fftfreq, irfft2, rfft2, rfftfreq
from scipy.ndimage import map_coordinates

from wsi_attention.testing.slide_plan import Blob, Map, SlidePlan
from wsi_attention.testing.stain import level
from wsi_attention.testing.stamps import POOL_SEED, Stamp, stamp_pool, symmetries

BLOCK = 512
MARGIN_UM = 100.0
FIELD = 2048


@dataclass(frozen=True, eq=False)
class Canvas:
    """H and E concentrations of a slide with a margin on every side, so that a stamp never needs cutting.

    Attributes:
        h, e: (rows + 2 · margin, cols + 2 · margin) uint8.
        margin: pixels.
        mpp: µm a pixel.
    """

    h: NDArray[np.uint8]
    e: NDArray[np.uint8]
    margin: int
    mpp: float

    @classmethod
    def empty(cls, extent: tuple[int, int], mpp: float) -> Canvas:
        """Return bare glass."""
        margin = round(MARGIN_UM / mpp)
        shape = (extent[1] + 2 * margin, extent[0] + 2 * margin)
        return cls(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), margin, mpp)

    def inner(self, x: int, y: int, w: int, h: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return views of H and E over a box in slide pixels."""
        window = (slice(y + self.margin, y + self.margin + h), slice(x + self.margin, x + self.margin + w))
        return self.h[window], self.e[window]


@cache
def fibres(mpp: float) -> tuple[Map, Map]:
    """Return (bundles, strands): periodic wavy noise of deviation 1 running left to right, (FIELD + BLOCK)² each."""
    rng = np.random.default_rng([POOL_SEED, 1])
    px = 1 / mpp

    def noise(across: float, along: float) -> Map:
        return periodic_noise(rng, (across * px, along * px))

    sway = 9 * px * noise(45, 45) + 2.5 * px * noise(14, 14)
    rows = np.arange(FIELD)[:, None] + sway
    cols = np.broadcast_to(np.arange(FIELD)[None], rows.shape)
    bundles, strands = noise(1.7, 22) + 0.5 * noise(4, 40), noise(0.45, 9)

    def warped(field: Map) -> Map:
        moved: Map = map_coordinates(field, [rows, cols], order=1, mode="grid-wrap")
        return np.pad(moved, ((0, BLOCK), (0, BLOCK)), mode="wrap")

    return warped(bundles), warped(strands)


def periodic_noise(rng: np.random.Generator, sigma: tuple[float, float]) -> Map:
    """Return white noise blurred by a Gaussian of (vertical, horizontal) pixels: FIELD², periodic, deviation 1."""
    rows = np.exp(-2 * (np.pi * sigma[0] * fftfreq(FIELD)) ** 2)
    cols = np.exp(-2 * (np.pi * sigma[1] * rfftfreq(FIELD)) ** 2)
    waves = rfft2(rng.standard_normal((FIELD, FIELD), np.float32))
    field = irfft2(waves * np.float32(rows[:, None] * cols[None]), s=(FIELD, FIELD))
    return np.asarray(field / field.std(), np.float32)


@cache
def turned_stamps(mpp: float, kind: str) -> list[Stamp]:
    """Return all stamps of a kind (a field of `StampPool`) in their eight symmetries."""
    return symmetries(getattr(stamp_pool(mpp), kind))


def enlarged(values: Map, box: tuple[int, int, int, int], step: float) -> Map:
    """Return a map's values over a box (x, y, w, h) of slide pixels, bilinear."""
    x, y, w, h = box
    image = Image.fromarray(values)
    part = (x / step, y / step, min((x + w) / step, image.width), min((y + h) / step, image.height))
    return np.asarray(image.resize((w, h), Image.Resampling.BILINEAR, box=part))


def _window(field: Map, x: int, y: int, w: int, h: int) -> Map:
    """Return a window of a periodic field; w and h at most BLOCK."""
    return field[y % FIELD : y % FIELD + h, x % FIELD : x % FIELD + w]


def paint_stroma(canvas: Canvas, plan: SlidePlan) -> None:
    """Paint wavy collagen in two directions, looser and denser, wherever the plan has tissue; ragged at its border."""
    bundles, strands = fibres(canvas.mpp)
    shift = plan.fibre_shift
    for box in blocks(plan, plan.outline > -2):
        x, y, w, h = box
        lying = [_window(field, x + shift[0], y + shift[1], w, h) for field in (bundles, strands)]
        standing = [_window(field, y + shift[2], x + shift[3], h, w).T for field in (bundles, strands)]
        share = enlarged(plan.direction, box, plan.step)
        bundle = lying[0] + share * (standing[0] - lying[0])
        strand = lying[1] + share * (standing[1] - lying[1])
        dense = np.clip(1.25 - enlarged(plan.looseness, box, plan.step) + 0.55 * bundle, 0.12, 1)
        inside = np.clip((enlarged(plan.outline, box, plan.step) + 0.5 * bundle) * 1.2, 0, 1)
        e = enlarged(plan.eosin, box, plan.step) * dense * (0.55 + 0.09 * strand) * inside
        into_h, into_e = canvas.inner(*box)
        np.copyto(into_e, np.clip(e * level(1.0), 0, 255).astype(np.uint8))
        np.copyto(into_h, np.clip((0.05 + 0.02 * strand) * inside * level(1.0), 0, 255).astype(np.uint8))


def blocks(plan: SlidePlan, where: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Return the BLOCK² boxes of the slide, cut at its right and bottom edge, that hold anything of a map."""
    found = []
    for y in range(0, plan.extent[1], BLOCK):
        for x in range(0, plan.extent[0], BLOCK):
            w, h = min(BLOCK, plan.extent[0] - x), min(BLOCK, plan.extent[1] - y)
            rows = slice(int(y / plan.step), int((y + h) / plan.step) + 2)
            if where[rows, int(x / plan.step) : int((x + w) / plan.step) + 2].any():
                found.append((x, y, w, h))
    return found


def scatter(rng: np.random.Generator, density: Map, plan: SlidePlan, mpp: float) -> NDArray[np.int64]:
    """Return random (x, y) points, shape (n, 2), with so many a mm² as the map says."""
    cell = (plan.step * mpp / 1000) ** 2
    counts = rng.poisson(density * cell)
    rows, cols = np.nonzero(counts)
    many = counts[rows, cols]
    corner = np.stack([np.repeat(cols, many), np.repeat(rows, many)], axis=-1)
    points = ((corner + rng.random(corner.shape)) * plan.step).astype(np.int64)
    return points[(points < np.array(plan.extent)).all(axis=1)]


def packed(rng: np.random.Generator, blob: Blob, spacing: float, shrink: float = 1.0) -> NDArray[np.int64]:
    """Return points (n, 2) on a jittered hexagonal grid inside a blob."""
    reach = 1.6 * blob.radius
    ys = np.arange(-reach, reach, spacing * 0.87)
    xs = np.arange(-reach, reach, spacing)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1)
    grid[1::2, :, 0] += spacing / 2
    points = grid.reshape(-1, 2) + rng.normal(0, 0.2 * spacing, (grid.size // 2, 2))
    angle = np.arctan2(points[:, 1], points[:, 0])
    points = points[np.hypot(*points.T) < shrink * blob.outline(angle)]
    return np.asarray(np.round(points + np.array([blob.x, blob.y])), np.int64)


def stamp_nuclei(canvas: Canvas, points: NDArray[np.int64], stamps: list[Stamp], picks: NDArray[np.int64]) -> None:
    """Darken the canvas by a nucleus at every point; where nuclei overlap the darker one stays."""
    h, margin = canvas.h, canvas.margin
    shape = np.array(canvas.h.shape)[::-1] - 2 * margin
    near = ((points > -margin // 2) & (points < shape + margin // 2)).all(axis=1)
    for (x, y), pick in zip((points[near] + margin).tolist(), picks[near].tolist(), strict=True):
        stamp = stamps[pick].h
        top, left = y - stamp.shape[0] // 2, x - stamp.shape[1] // 2
        part = h[top : top + stamp.shape[0], left : left + stamp.shape[1]]
        np.maximum(part, stamp, out=part)


def stamp_opaque(canvas: Canvas, points: NDArray[np.int64], stamps: list[Stamp], picks: NDArray[np.int64]) -> None:
    """Copy whole structures, which hide what lies under them."""
    for (x, y), pick in zip((points + canvas.margin).tolist(), picks.tolist(), strict=True):
        stamp = stamps[pick]
        top, left = y - stamp.h.shape[0] // 2, x - stamp.h.shape[1] // 2
        window = (slice(top, top + stamp.h.shape[0]), slice(left, left + stamp.h.shape[1]))
        if min(top, left) < 0 or canvas.h[window].shape != stamp.h.shape:
            continue
        np.copyto(canvas.h[window], stamp.h, where=stamp.mask)
        np.copyto(canvas.e[window], stamp.e, where=stamp.mask)
