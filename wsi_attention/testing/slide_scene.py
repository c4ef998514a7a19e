"""One synthetic slide from its numbers: plans it, paints its tissue, colours it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from wsi_attention.testing.slide_plan import (
    STEP_UM,
    Blob,
    Map,
    SlidePlan,
    folds,
    free_spots,
    pen_strokes,
    smooth,
    tissue_outline,
    zone,
)
from wsi_attention.testing.stain import Stain, coloured, level
from wsi_attention.testing.stamps import stamp_pool
from wsi_attention.testing.tissue_painter import (
    Canvas,
    blocks,
    enlarged,
    packed,
    paint_stroma,
    scatter,
    stamp_nuclei,
    stamp_opaque,
    turned_stamps,
)

Layers = tuple[NDArray[np.uint8], NDArray[np.uint8]]

RIM_UM = 34.0
"""Width of the pale stroma around a lesion."""

INKS = ((28, 52, 128), (22, 96, 62), (38, 36, 44), (46, 40, 110))


def plan_slide(
    rng: np.random.Generator,
    extent: tuple[int, int],
    mpp: float,
    coverage: float,
    fixed: tuple[Blob, ...],
    lesion_share: tuple[float, ...],
) -> SlidePlan:
    """Return a layout: tissue, zones, artefacts, aggregates, and lesions both fixed and at random places.

    Args:
        rng: the source of every choice.
        extent: (w, h) in level-0 pixels.
        mpp: µm per level-0 pixel.
        coverage: share of the slide that is tissue.
        fixed: lesions at given places; tissue grows around them.
        lesion_share: share of the tissue area of each further lesion.
    """
    step = STEP_UM / mpp
    shape = (int(np.ceil(extent[1] / step)) + 1, int(np.ceil(extent[0] / step)) + 1)
    outline = tissue_outline(rng, shape, coverage, fixed, step)
    tissue = outline > 0
    folded = folds(rng, tissue, int(rng.integers(0, 4)))
    ink = pen_strokes(rng, shape, int(rng.integers(1, 3)) if rng.random() < 0.3 else 0)
    room = _room(tissue & (folded < 0.05) & (ink < 0.05), fixed, step)
    area = float(tissue.sum()) * step**2
    wanted = [max(np.sqrt(share * area / np.pi), 20 / mpp) for share in lesion_share]
    lesions = free_spots(rng, room, wanted, step)
    size = area * mpp**2 / 1e6
    count = int(rng.integers(2, 5)) + int(rng.poisson(min(0.5 * size, 4)))
    radii = [float(rng.uniform(28, 95)) / mpp for _ in range(count)]
    aggregates = free_spots(rng, room, radii, step)
    glandular, fatty = zone(rng, shape, 60, 0.38), zone(rng, shape, 45, 0.10, 0.15)
    deep = np.clip((outline - 6) / 3, 0, 1)
    return SlidePlan(
        extent=extent,
        step=step,
        outline=outline,
        glandular=np.asarray(glandular * (1 - fatty) * deep, np.float32),
        fatty=fatty * np.clip(outline, 0, 1),
        direction=zone(rng, shape, 22, 0.5, 0.5),
        cellular=(np.clip(outline - 0.7, 0, 1) * np.exp(0.5 * smooth(rng, shape, 18))).astype(np.float32),
        vascular=(0.55 * (1 - glandular) * deep).astype(np.float32),
        eosin=(1 + 0.12 * smooth(rng, shape, 40) + 0.06 * smooth(rng, shape, 8)).astype(np.float32),
        looseness=np.clip(0.62 + 0.22 * smooth(rng, shape, 30) + 0.08 * smooth(rng, shape, 6), 0, 1.2).astype(
            np.float32
        ),
        fold=folded,
        pen=ink,
        aggregates=tuple(aggregates),
        lesions=(*fixed, *lesions),
        fibre_shift=tuple(rng.integers(0, 1 << 20, 4).tolist()),
    )


def _room(free: NDArray[np.bool_], fixed: tuple[Blob, ...], step: float) -> NDArray[np.float64]:
    """Return the distance of each map cell to whatever is not free or is a fixed lesion."""
    framed = np.pad(free, 1)[1:-1, 1:-1].copy()
    framed[[0, -1]] = False
    framed[:, [0, -1]] = False
    room = np.asarray(distance_transform_edt(framed))
    y, x = np.mgrid[: free.shape[0], : free.shape[1]]
    for blob in fixed:
        np.minimum(room, np.hypot(x - blob.x / step, y - blob.y / step) - 1.5 * blob.radius / step, out=room)
    return room


def paint(plan: SlidePlan, mpp: float, rng: np.random.Generator) -> Canvas:
    """Paint all tissue of a plan on one canvas."""
    canvas = Canvas.empty(plan.extent, mpp)
    paint_stroma(canvas, plan)
    _stromal_cells(canvas, plan, rng)
    _structures(canvas, plan, rng)
    for blob in plan.aggregates:
        _aggregate(canvas, blob)
    for blob in plan.lesions:
        _lesion(canvas, blob)
    return canvas


def _stromal_cells(canvas: Canvas, plan: SlidePlan, rng: np.random.Generator) -> None:
    """Draw fibroblasts along the fibres, paler round nuclei, and single lymphocytes."""
    shape = plan.outline.shape
    points = scatter(rng, 900 * plan.cellular, plan, canvas.mpp)
    cells = np.minimum((points // plan.step).astype(np.int64), np.array(shape)[::-1] - 1)
    upright = plan.direction[cells[:, 1], cells[:, 0]] > rng.random(len(points))
    ways = (np.round(rng.normal(0, 1.3, len(points))).astype(np.int64) + np.where(upright, 6, 0)) % 12
    spindles = [stamp for way in stamp_pool(canvas.mpp).fibroblasts for stamp in way]
    stamp_nuclei(canvas, points, spindles, ways * 6 + rng.integers(0, 6, len(points)))
    inflamed = np.exp(1.1 * smooth(rng, shape, 14)).astype(np.float32)
    for kind, per_mm2 in (("plump", 260 * plan.cellular), ("lymphocytes", 110 * inflamed * (plan.cellular > 0))):
        stamps = turned_stamps(canvas.mpp, kind)
        points = scatter(rng, per_mm2, plan, canvas.mpp)
        stamp_nuclei(canvas, points, stamps, rng.integers(0, len(stamps), len(points)))


def _structures(canvas: Canvas, plan: SlidePlan, rng: np.random.Generator) -> None:
    """Draw fat, glands and vessels in their zones, away from the tissue's border."""
    kinds = (("fat", 62.0, plan.fatty), ("glands", 128.0, plan.glandular), ("vessels", 240.0, plan.vascular))
    everywhere = Blob(plan.extent[0] / 2, plan.extent[1] / 2, float(np.hypot(*plan.extent)) * 0.65)
    for kind, spacing_um, share in kinds:
        stamps = turned_stamps(canvas.mpp, kind)
        points = packed(rng, everywhere, spacing_um / canvas.mpp)
        points = points[((points >= 0) & (points < np.array(plan.extent))).all(axis=1)]
        cells = (points / plan.step).astype(np.int64)
        points = points[share[cells[:, 1], cells[:, 0]] > rng.random(len(points)) * 0.9 + 0.05]
        stamp_opaque(canvas, points, stamps, rng.integers(0, len(stamps), len(points)))


def _fill(canvas: Canvas, blob: Blob, h: float, e: float, rng: np.random.Generator) -> None:
    """Replace what lies under a blob by an even ground of the given concentrations, with a soft border."""
    reach = int(1.6 * blob.radius) + 8
    x, y = round(blob.x), round(blob.y)
    box = (x - reach, y - reach, 2 * reach, 2 * reach)
    left, top = max(box[0], -canvas.margin), max(box[1], -canvas.margin)
    right = min(box[0] + box[2], canvas.h.shape[1] - canvas.margin)
    bottom = min(box[1] + box[3], canvas.h.shape[0] - canvas.margin)
    ys, xs = np.mgrid[top:bottom, left:right]
    angle = np.arctan2(ys - blob.y, xs - blob.x)
    alpha = np.clip((blob.outline(angle) - np.hypot(xs - blob.x, ys - blob.y)) * canvas.mpp / 5 + 0.5, 0, 1)
    grain = 1 + 0.13 * gaussian_filter(rng.normal(size=alpha.shape), 1.0 / canvas.mpp) * 2.5 / canvas.mpp
    for layer, value in zip(canvas.inner(left, top, right - left, bottom - top), (h, e), strict=True):
        ground = np.clip(value * grain * level(1.0), 0, 255)
        np.copyto(layer, (layer * (1 - alpha) + alpha * ground).astype(np.uint8))


def _aggregate(canvas: Canvas, blob: Blob) -> None:
    """Paint a lymphoid aggregate: closely packed small, round, even nuclei that thin out around it."""
    rng = np.random.default_rng([blob.seed, 11])
    stamps = turned_stamps(canvas.mpp, "lymphocytes")
    _fill(canvas, blob, 0.08, rng.uniform(0.12, 0.22), rng)
    points = packed(rng, blob, rng.uniform(7.2, 8.6) / canvas.mpp)
    halo = rng.normal(0, 1, (len(points) // 2, 2)) * blob.radius * 0.75 + (blob.x, blob.y)
    points = np.concatenate([points, np.round(halo).astype(np.int64)])
    stamp_nuclei(canvas, points, stamps, rng.integers(0, len(stamps), len(points)))


def _lesion(canvas: Canvas, blob: Blob) -> None:
    """Paint a nest of crowded, large, irregular, dark nuclei in dense red-purple cytoplasm, in a pale rim."""
    rng = np.random.default_rng([blob.seed, 13])
    stamps = turned_stamps(canvas.mpp, "tumour")
    _fill(canvas, replace(blob, radius=blob.radius + RIM_UM / canvas.mpp), 0.05, rng.uniform(0.16, 0.24), rng)
    _fill(canvas, blob, rng.uniform(0.24, 0.32), rng.uniform(0.80, 0.95), rng)
    points = packed(rng, blob, rng.uniform(12.5, 15.0) / canvas.mpp, shrink=0.92)
    stamp_opaque(canvas, points, stamps, rng.integers(0, len(stamps), len(points)))


def colour(canvas: Canvas, plan: SlidePlan, stain: Stain, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return RGB (h, w, 3) of the whole slide: stain, folds, ink and dust."""
    w, h = plan.extent
    rgb = np.empty((h, w, 3), np.uint8)
    rgb.reshape(h, -1)[:] = np.tile(np.array(stain.white, np.uint8), w)
    table = stain.table()
    for box in blocks(plan, plan.outline > -4):
        layers = canvas.inner(*box)
        if _any(plan.fold, box, plan.step):
            layers = _folded(layers, enlarged(plan.fold, box, plan.step))
        coloured(*layers, table, rgb[box[1] : box[1] + box[3], box[0] : box[0] + box[2]])
    ink = 1 - np.array(INKS[int(rng.integers(len(INKS)))]) / 255
    for box in blocks(plan, plan.pen > 0.01):
        window = rgb[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
        window[:] = (window * (1 - enlarged(plan.pen, box, plan.step)[..., None] * ink)).astype(np.uint8)
    _dust(rgb, rng, stain)
    return rgb


def _any(values: Map, box: tuple[int, int, int, int], step: float) -> bool:
    x, y, w, h = (value / step for value in box)
    return bool(values[int(y) : int(y + h) + 2, int(x) : int(x + w) + 2].max(initial=0) > 0.01)


def _folded(
    layers: tuple[NDArray[np.uint8], NDArray[np.uint8]], fold: Map
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return both stains as where the section lies double: darker, its nuclei blurred into the layer above."""
    shift = (37, 53)
    both = []
    for layer, floor in zip(layers, (0.10, 0.25), strict=True):
        other = np.roll(layer, shift, axis=(0, 1)).astype(np.float32) + floor * level(1.0)
        both.append(np.clip(layer + fold * other, 0, 255).astype(np.uint8))
    return both[0], both[1]


def _dust(rgb: NDArray[np.uint8], rng: np.random.Generator, stain: Stain) -> None:
    """Paint a few grey specks."""
    height, width = rgb.shape[:2]
    for _ in range(int(rng.poisson(height * width / 4e6))):
        size = int(rng.integers(3, 12))
        x, y = int(rng.integers(0, max(width - size, 1))), int(rng.integers(0, max(height - size, 1)))
        speck = np.clip(gaussian_filter(rng.random((size, size)), 1.2) * 2.4 - 0.9, 0, 1)[..., None]
        part = rgb[y : y + size, x : x + size]
        part[:] = (part * (1 - 0.6 * speck[: part.shape[0], : part.shape[1]])).astype(np.uint8)
