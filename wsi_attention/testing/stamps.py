"""Small pictures of cells and structures, drawn once a process and stamped thousands of times.

All are concentrations of haematoxylin and eosin (`stain.FULL` at 255). Sizes are given in µm and drawn for one mpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from wsi_attention.slide.resample import Pixels
from wsi_attention.testing.stain import level

POOL_SEED = 20240


class Stamp(NamedTuple):
    """A picture to copy where `mask` is set: h and e (rows, cols) uint8."""

    h: Pixels
    e: Pixels
    mask: NDArray[np.bool_]


class Polar(NamedTuple):
    """A pixel grid around a wobbly ellipse: `rho` is 1 on its outline; `angle` in its own frame; `px` pixels a unit."""

    rho: NDArray[np.float64]
    angle: NDArray[np.float64]
    px: float


@dataclass(frozen=True, eq=False)
class StampPool:
    """Everything that is stamped, for one mpp.

    Attributes:
        lymphocytes: small, round, uniform, dark nuclei (haematoxylin only).
        fibroblasts: spindle nuclei by direction: `fibroblasts[k]` points at k · 180° / 12.
        plump: larger pale stromal nuclei.
        tumour: large, irregular, dark nuclei with clumped chromatin, nucleoli and mitoses.
        glands: rings of columnar epithelium around a lumen.
        vessels: walls with red cells inside.
        fat: empty vacuoles.
    """

    lymphocytes: list[Stamp]
    fibroblasts: list[list[Stamp]]
    plump: list[Stamp]
    tumour: list[Stamp]
    glands: list[Stamp]
    vessels: list[Stamp]
    fat: list[Stamp]


@cache
def stamp_pool(mpp: float) -> StampPool:
    """Return the pool for a resolution; the same in every process."""
    rng = np.random.default_rng(POOL_SEED)
    px = 1.0 / mpp
    lymphocytes = [_nucleus(rng, px, rng.uniform(3.0, 3.5), 1.08, 0.96, 0.03, 0.10) for _ in range(64)]
    spindles = [[_spindle(rng, px, np.pi * k / 12) for _ in range(6)] for k in range(12)]
    plump = [_nucleus(rng, px, rng.uniform(3.6, 4.8), rng.uniform(1.1, 1.6), 0.58, 0.05, 0.25) for _ in range(48)]
    epithelium = [
        _nucleus(rng, px, rng.uniform(3.0, 3.6), rng.uniform(1.3, 1.7), 0.70, 0.04, 0.2, 0.0) for _ in range(48)
    ]
    return StampPool(
        lymphocytes,
        spindles,
        plump,
        [_tumour(rng, px) for _ in range(192)],
        [_gland(rng, px, epithelium) for _ in range(40)],
        [_vessel(rng, px) for _ in range(16)],
        [_fat(rng, px) for _ in range(24)],
    )


def symmetries(stamps: list[Stamp]) -> list[Stamp]:
    """Return every stamp in its eight turned and mirrored forms."""
    return [turned(stamp, turn) for stamp in stamps for turn in range(8)]


def turned(stamp: Stamp, turn: int) -> Stamp:
    """Return one of the eight symmetries of a stamp."""
    if turn & 4:
        stamp = Stamp(stamp.h.T, stamp.e.T, stamp.mask.T)
    if turn & 2:
        stamp = Stamp(stamp.h[::-1], stamp.e[::-1], stamp.mask[::-1])
    return Stamp(stamp.h[:, ::-1], stamp.e[:, ::-1], stamp.mask[:, ::-1]) if turn & 1 else stamp


def wobble(rng: np.random.Generator, angle: NDArray[np.float64], amount: float, low: int = 2) -> NDArray[np.float64]:
    """Return an outline's radius around 1 over the angle, smooth and closed: a few harmonics with falling amplitude."""
    radius = np.ones_like(angle)
    for k in range(low, 7):
        radius += amount * rng.normal() / (k - low + 1) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return radius


def polar(rng: np.random.Generator, half: tuple[float, float], direction: float, ragged: float) -> Polar:
    """Return the grid of a wobbly ellipse with half axes in pixels, long axis along `direction`."""
    reach = int(np.ceil(max(half) * (1.15 + 2.5 * ragged))) + 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    u = (x * np.cos(direction) + y * np.sin(direction)) / half[0]
    v = (-x * np.sin(direction) + y * np.cos(direction)) / half[1]
    angle = np.arctan2(v, u)
    return Polar(np.hypot(u, v) / wobble(rng, angle, ragged), angle, min(half))


def _edge(grid: Polar, softness: float = 1.0) -> NDArray[np.float64]:
    return np.clip((1 - grid.rho) * grid.px / softness + 0.5, 0, 1)


def _grain(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> NDArray[np.float64]:
    noise = gaussian_filter(rng.normal(size=shape), sigma)
    return np.asarray(noise / (noise.std() + 1e-9))


def _as_stamp(h: NDArray[np.float64], e: NDArray[np.float64], mask: NDArray[np.bool_]) -> Stamp:
    into_h, into_e = (np.clip(part * level(1.0), 0, 255).astype(np.uint8) for part in (h, e))
    return Stamp(into_h, into_e, mask)


def _nucleus(
    rng: np.random.Generator,
    px: float,
    radius: float,
    aspect: float,
    dark: float,
    ragged: float,
    clumps: float,
    direction: float | None = None,
    rim: float = 0.25,
) -> Stamp:
    """Return a nucleus of a mean radius in µm: rim, chromatin in clumps, soft border; eosin as in the cytoplasm."""
    way = rng.uniform(0, np.pi) if direction is None else direction
    grid = polar(rng, (radius * px * aspect**0.5, radius * px / aspect**0.5), way, ragged)
    chromatin = 1 + clumps * _grain(rng, grid.rho.shape, 0.35 * px)
    border = rim * np.exp(-(((1 - grid.rho) * grid.px / (0.45 * px)) ** 2))
    h = _edge(grid, 0.5 * px) * dark * rng.uniform(0.88, 1.12) * (0.9 * chromatin + border)
    return _as_stamp(h, np.full_like(h, 0.30), grid.rho < 1)


def _columnar(rng: np.random.Generator, px: float) -> Stamp:
    return _nucleus(rng, px, rng.uniform(3.0, 3.6), rng.uniform(1.3, 1.7), 0.70, 0.04, 0.2, 0.0)


def _spindle(rng: np.random.Generator, px: float, direction: float) -> Stamp:
    return _nucleus(rng, px, rng.uniform(2.3, 3.0), rng.uniform(3.5, 6.5), 0.85, 0.06, 0.12, direction)


def _tumour(rng: np.random.Generator, px: float) -> Stamp:
    """Return a pleomorphic nucleus, 11-22 µm across, with clumps and nucleoli; one in twenty-five in mitosis."""
    if rng.random() < 0.04:
        return _nucleus(rng, px, rng.uniform(3.5, 4.5), rng.uniform(1.6, 2.6), 1.2, 0.18, 0.15)
    radius = rng.uniform(4.8, 8.0) if rng.random() < 0.88 else rng.uniform(8.0, 10.5)
    stamp = _nucleus(rng, px, radius, rng.uniform(1.0, 1.7), rng.uniform(0.58, 0.86), 0.09, 0.36, rim=0.55)
    h = stamp.h.astype(np.float64)
    centre = np.array(h.shape) / 2
    y, x = np.indices(h.shape)
    for _ in range(rng.integers(1, 4)):
        spot = centre + rng.normal(0, 0.3 * radius * px, 2)
        near = np.hypot(y - spot[0], x - spot[1]) < rng.uniform(0.9, 1.6) * px
        h[near & stamp.mask] = level(1.12)
    return stamp._replace(h=h.astype(np.uint8), e=np.full_like(stamp.e, level(0.6)))


def _paste(target: tuple[NDArray[np.float64], NDArray[np.float64]], stamp: Stamp, y: float, x: float) -> None:
    """Copy a stamp into float concentrations (1 is level(1)), centred on (y, x), where it fits."""
    top, left = round(y) - stamp.h.shape[0] // 2, round(x) - stamp.h.shape[1] // 2
    if (
        min(top, left) < 0
        or top + stamp.h.shape[0] > target[0].shape[0]
        or left + stamp.h.shape[1] > target[0].shape[1]
    ):
        return
    window = (slice(top, top + stamp.h.shape[0]), slice(left, left + stamp.h.shape[1]))
    part = target[0][window]
    np.maximum(part, stamp.h / level(1.0), out=part)


def _gland(rng: np.random.Generator, px: float, nuclei: list[Stamp]) -> Stamp:
    """Return a gland 60-130 µm across: clear lumen with secretion, pink cytoplasm, basal nuclei, a thin membrane."""
    size = rng.uniform(28, 62)
    grid = polar(rng, (size * px, size * px / rng.uniform(1.0, 1.6)), rng.uniform(0, np.pi), 0.05)
    height = rng.uniform(13, 18) * px / grid.px
    inner = 1 - height * (1 + 0.12 * np.sin(rng.integers(9, 16) * grid.angle))
    depth = np.clip((grid.rho - inner) * grid.px / px + 0.5, 0, 1)
    noise = _grain(rng, grid.rho.shape, 1.2 * px)
    secretion = 0.10 * rng.random() * (noise > 0.2)
    h = depth * (0.20 + 0.03 * noise)
    e = depth * (0.42 + 0.05 * noise) + (1 - depth) * secretion
    e = np.where(np.abs(grid.rho - 1) * grid.px < 0.7 * px, 0.62, e)
    _line_with_nuclei(rng, px, (h, e), grid, nuclei)
    return _as_stamp(h, e, grid.rho < 1)


def _line_with_nuclei(
    rng: np.random.Generator,
    px: float,
    target: tuple[NDArray[np.float64], NDArray[np.float64]],
    grid: Polar,
    nuclei: list[Stamp],
) -> None:
    """Set a row of nuclei near the base of a gland's epithelium, long axes towards the lumen."""
    basal = 1 - 5.5 * px / grid.px
    band = np.argwhere(np.abs(grid.rho - basal) * grid.px < 1.6 * px)
    band = band[rng.permutation(len(band))[:600]]
    taken: NDArray[np.float64] = np.empty((0, 2))
    centre = np.array(grid.rho.shape) / 2
    for spot in band:
        if taken.size and np.min(np.hypot(*(taken - spot).T)) < 5.4 * px:
            continue
        taken = np.vstack([taken, spot])
        way = np.degrees(np.arctan2(*(spot - centre)))
        _paste(target, _rotated(nuclei[int(rng.integers(len(nuclei)))], -way + rng.normal(0, 8)), *spot)


def _rotated(stamp: Stamp, degrees: float) -> Stamp:
    from PIL import Image

    return stamp._replace(h=np.asarray(Image.fromarray(stamp.h).rotate(degrees, Image.Resampling.BILINEAR)))


def _vessel(rng: np.random.Generator, px: float) -> Stamp:
    """Return a small vessel: pink wall, flat endothelium, red cells in most of them."""
    size = rng.uniform(14, 40)
    grid = polar(rng, (size * px, size * px / rng.uniform(1.0, 2.2)), rng.uniform(0, np.pi), 0.06)
    wall = np.clip((grid.rho - (1 - rng.uniform(3, 8) * px / grid.px)) * grid.px / px + 0.5, 0, 1)
    ripple = np.sin(grid.rho * grid.px / px * 2.2)
    h, e = 0.10 * wall, wall * (0.60 + 0.06 * ripple)
    cells = polar(rng, (3.3 * px, 3.0 * px), 0.0, 0.02)
    cell = Stamp(np.zeros(cells.rho.shape, np.uint8), (_edge(cells, px) * 255).astype(np.uint8), cells.rho < 1)
    inside = np.argwhere(wall < 0.05)
    for spot in inside[rng.integers(0, max(len(inside), 1), int(len(inside) / (30 * px * px) * rng.uniform(0, 1.6)))]:
        _paste((e, h), Stamp(cell.e, cell.h, cell.mask), *spot)
    return _as_stamp(h, e, grid.rho < 1)


def _fat(rng: np.random.Generator, px: float) -> Stamp:
    """Return a fat cell 45-90 µm across: an empty vacuole in a thin rim."""
    size = rng.uniform(22, 44)
    grid = polar(rng, (size * px, size * px / rng.uniform(1.0, 1.25)), rng.uniform(0, np.pi), 0.05)
    rim = np.clip((grid.rho - (1 - 1.3 * px / grid.px)) * grid.px / px + 0.5, 0, 1)
    return _as_stamp(0.05 * rim, 0.40 * rim, grid.rho < 1)
