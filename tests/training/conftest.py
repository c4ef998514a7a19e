"""Plain images that behave like slides, so that training is tested without files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from wsi_attention.geometry import Grid
from wsi_attention.structures import Counters, TileBatch, TileSet
from wsi_attention.training.data import Example


class CanvasSource:
    """A (1, c, h, w) tensor as a slide of 1 µm/px; outside is white for bytes, 0 for floats."""

    def __init__(self, canvas: Tensor, tissue: Tensor | None = None) -> None:
        self.canvas = canvas
        self.mask = torch.ones(canvas.shape[-2:], dtype=torch.bool) if tissue is None else tissue
        self.extent = (canvas.shape[-1], canvas.shape[-2])
        self.batch = canvas.shape[0]
        self.counters = Counters()
        self.outside = 255 if canvas.dtype == torch.uint8 else 0

    def downsample(self, mpp: float) -> float:
        return max(mpp, 1.0)

    def aligned(self, tiles: TileSet) -> TileSet:
        return tiles

    def overview_downsample(self, mpp: float) -> float:
        return self.downsample(mpp)

    def overview(self, downsample: float) -> Tensor:
        d = int(downsample)
        assert d == downsample
        missing = (0, -self.extent[0] % d, 0, -self.extent[1] % d)
        whole = functional.pad(self.canvas.double(), missing, value=self.outside)
        return functional.avg_pool2d(whole, d).round().to(self.canvas.dtype)

    def tissue(self, grid: Grid) -> Tensor:
        centres = np.floor(grid.centres(np.arange(grid.rows * grid.cols))).astype(int)
        inside = ((centres >= 0) & (centres < np.array(self.extent))).all(-1)
        x, y = (np.clip(centres[:, i], 0, self.extent[i] - 1) for i in (0, 1))
        found = self.mask.numpy()[y, x] & inside
        return torch.from_numpy(found.reshape(1, *grid.shape)).expand(self.batch, -1, -1)

    def read(self, tiles: TileSet) -> TileBatch:
        d = int(tiles.downsample)
        cut = [[self._cut(b, x, y, tiles.size, d) for x, y in tiles.locations[b]] for b in range(self.batch)]
        pixels = torch.stack([torch.stack(row) for row in cut])
        return TileBatch(pixels, torch.ones(pixels.shape[:2], dtype=torch.bool))

    def _cut(self, image: int, x: int, y: int, size: tuple[int, int], step: int) -> Tensor:
        columns, rows = x + step * torch.arange(size[0]), y + step * torch.arange(size[1])
        (w, h) = self.extent
        pixels = self.canvas[image][:, rows.clamp(0, h - 1)][:, :, columns.clamp(0, w - 1)]
        inside = ((rows >= 0) & (rows < h))[:, None] & ((columns >= 0) & (columns < w))
        return pixels.masked_fill(~inside, self.outside)


def spotted(label: int, seed: int, size: int = 128) -> Tensor:
    """A pink noisy canvas; of class 1, with a dark blue square somewhere."""
    generator = torch.Generator().manual_seed(seed)
    canvas = 200 + torch.randint(-20, 20, (1, 3, size, size), generator=generator)
    if label:
        x, y = (int(v) for v in torch.randint(0, size - 24, (2,), generator=generator))
        canvas[..., y : y + 24, x : x + 24] -= torch.tensor([150, 150, 60]).view(3, 1, 1)
    return canvas.clamp(0, 255).to(torch.uint8)


@pytest.fixture
def canvas_source() -> type[CanvasSource]:
    return CanvasSource


@pytest.fixture
def spotted_examples() -> Callable[[int, int], tuple[Example, ...]]:
    """(how many, first seed) -> examples of alternating class."""

    def examples(count: int, first: int = 0) -> tuple[Example, ...]:
        sources = [CanvasSource(spotted(i % 2, first + i)) for i in range(count)]
        return tuple(
            Example(f"s{first + i}", i % 2, f"key{first + i}", lambda source=source: nullcontext(source))
            for i, source in enumerate(sources)
        )

    return examples
