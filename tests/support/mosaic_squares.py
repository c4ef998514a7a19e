"""The squares of a mosaic: they share one periodic ground of fibres, and nothing crosses a border, so any two fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from wsi_attention.slide.resample import Pixels
from wsi_attention.testing.slide_plan import STEP_UM, Blob, Map, SlidePlan, smooth
from wsi_attention.testing.slide_scene import colour, paint
from wsi_attention.testing.stain import Stain
from wsi_attention.testing.tissue_painter import FIELD

SQUARE = FIELD
"""Pixels a side: the period of the fibres, and eight tiles."""

KINDS = ("stroma",) * 3 + ("vessels",) + ("glands",) * 4 + ("fat",) * 2 + ("aggregate",) * 3
LESION_KINDS = 5
"""Squares with a lesion come after the others, in this number."""


def paint_squares(rng: np.random.Generator, mpp: float, stain: Stain) -> tuple[list[Pixels], list[Blob]]:
    """All squares of a slide as RGB, and the lesions in pixels of their squares."""
    ground = _ground(rng, mpp)
    squares = [_painted(rng, mpp, stain, _plan(rng, mpp, ground, kind, ())) for kind in KINDS]
    lesions = [_blob(rng, mpp, 60, 90) for _ in range(LESION_KINDS)]
    squares += [_painted(rng, mpp, stain, _plan(rng, mpp, ground, "stroma", (blob,))) for blob in lesions]
    return squares, lesions


def lay_squares(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Which square (an index into KINDS) lies where, shape (rows, cols): glands and fat in zones, aggregates strewn."""
    zones = np.full(shape, "stroma", dtype="<U9")
    zones[smooth(rng, shape, 7.0) + 0.4 * smooth(rng, shape, 2.0) > 0.4] = "glands"
    zones[smooth(rng, shape, 5.0) + 0.4 * smooth(rng, shape, 2.0) > 1.5] = "fat"
    zones[(zones == "fat") & (rng.random(shape) < 0.35)] = "stroma"
    chance = rng.random(shape)
    zones[chance < 0.05] = "aggregate"
    zones[chance > 0.93] = "vessels"
    laid = np.zeros(shape, np.int64)
    for kind in dict.fromkeys(KINDS):
        these = [index for index, name in enumerate(KINDS) if name == kind]
        laid[zones == kind] = rng.choice(these, int((zones == kind).sum()))
    return laid


def _ground(rng: np.random.Generator, mpp: float) -> tuple[Map, Map, Map]:
    """(direction, eosin, looseness), periodic."""
    cells = round(SQUARE * mpp / STEP_UM)

    def noise(sigma: float) -> Map:
        field = gaussian_filter(rng.normal(size=(cells, cells)), sigma, mode="wrap")
        return np.pad(field / field.std(), ((0, 1), (0, 1)), mode="wrap").astype(np.float32)

    direction = np.clip(0.5 + 1.6 * noise(7), 0, 1)
    return direction, 1 + 0.03 * noise(3), np.clip(0.62 + 0.08 * noise(4), 0, 1.2)


def _plan(
    rng: np.random.Generator, mpp: float, ground: tuple[Map, Map, Map], kind: str, lesions: tuple[Blob, ...]
) -> SlidePlan:
    shape = ground[0].shape
    nothing = np.zeros(shape, np.float32)
    return SlidePlan(
        extent=(SQUARE, SQUARE),
        step=STEP_UM / mpp,
        outline=np.full(shape, 30, np.float32),
        glandular=_within(shape, 100) if kind == "glands" else nothing,
        fatty=_within(shape, 58) * (smooth(rng, shape, 16.0) > 0.1) if kind == "fat" else nothing,
        direction=ground[0],
        cellular=_within(shape, 10),
        vascular=_within(shape, 70) * (0.9 if kind == "vessels" else 0.15),
        eosin=ground[1],
        looseness=ground[2],
        fold=nothing,
        pen=nothing,
        aggregates=(_blob(rng, mpp, 35, 85),) if kind == "aggregate" else (),
        lesions=lesions,
    )


def _within(shape: tuple[int, ...], margin_um: float) -> Map:
    """1 inside a square of cells, 0 within so many µm of its border."""
    cells = int(np.ceil(margin_um / STEP_UM))
    field = np.zeros(shape, np.float32)
    field[cells : -cells - 1, cells : -cells - 1] = 1
    return field


def _blob(rng: np.random.Generator, mpp: float, low: float, high: float) -> Blob:
    """A blob of low to high µm radius not far from the middle of a square."""
    centre = SQUARE / 2 + rng.uniform(-0.15, 0.15, 2) * SQUARE
    return Blob(float(centre[0]), float(centre[1]), float(rng.uniform(low, high)) / mpp, int(rng.integers(1 << 31)))


def _painted(rng: np.random.Generator, mpp: float, stain: Stain, plan: SlidePlan) -> Pixels:
    return colour(paint(plan, mpp, rng), plan, stain, rng)
