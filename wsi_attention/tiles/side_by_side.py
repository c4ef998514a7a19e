"""Several slides as one `TileSource`: side by side on one canvas, background between them.

A model of a patient's slides as one bag needs nothing else: its attention is one distribution over the whole canvas, so
that tiles are drawn over all slides in proportion to attention mass. Places map back to a slide by a shift alone.

*Frame.* All slides have the same scale (within 5 %, as everywhere), so that a level-0 pixel of the canvas is one of any
slide. A slide begins at a whole number of cells of the model's attention map, rounded to a pixel, so that its cells are
those it has alone; an overview at another downsample than the map's is off by at most half an overview pixel. Tiles are
always cut from where they lie, to the pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.errors import NoTissueError
from wsi_attention.geometry import Grid
from wsi_attention.protocols import Remembering, RememberingTurned, TileSource
from wsi_attention.structures import Counters, TileBatch, TileSet

GAP = 32
"""Overview pixels of background between two slides, at least, so that a network sees one slide at a time."""


class Layout:
    """Where slides lie on the canvas.

    Attributes:
        extents: (w, h) of each slide.
        left: (slides,) int64, x of each slide's left edge; all begin at y = 0.
        extent: (w, h) of the canvas.
    """

    def __init__(self, extents: Sequence[tuple[int, int]], downsample: float, stride: int) -> None:
        """Lay slides out from left to right.

        Args:
            extents: (w, h) of each slide in level-0 pixels, at least one.
            downsample: level-0 pixels along a pixel of the overview.
            stride: overview pixels along a cell of the attention map.
        """
        self.extents = tuple(extents)
        cell = downsample * stride
        cells = [math.ceil(width / cell) + math.ceil(GAP / stride) for width, _ in extents]
        self.left = np.array([round(sum(cells[:k]) * cell) for k in range(len(cells))], np.int64)
        self.extent = int(self.left[-1]) + extents[-1][0], max(height for _, height in extents)
        self._borders = (self.left[:-1] + [width for width, _ in extents[:-1]] + self.left[1:]) / 2

    def owners(self, tiles: TileSet) -> NDArray[np.int64]:
        """Return (n,), the slide that the centre of each tile lies on, or nearest to."""
        centres = tiles.locations[0, :, 0] + tiles.footprint[0] / 2
        return np.searchsorted(self._borders, centres, side="right").astype(np.int64)

    def local(self, tiles: TileSet, number: int, index: NDArray[np.int64]) -> TileSet:
        """Return some of the tiles in the level-0 pixels of a slide."""
        return replace(tiles, locations=tiles.locations[:, index] - np.array([self.left[number], 0]))

    def reach(self, tiles: TileSet, number: int) -> NDArray[np.bool_]:
        """Return (n,), which tiles show a part of a slide, or have it for their own."""
        x, width = tiles.locations[0, :, 0], tiles.footprint[0]
        left = int(self.left[number])
        meets = (x < left + self.extents[number][0]) & (x + width > left)
        return np.asarray(meets | (self.owners(tiles) == number))

    def columns(self, tiles: TileSet, number: int) -> NDArray[np.bool_]:
        """Return (n, w), which columns of pixels of each tile lie on a slide, or nearest to it."""
        steps = (np.arange(tiles.size[0]) + 0.5) * tiles.downsample
        at = tiles.locations[0, :, 0, None] + steps
        return np.asarray(np.searchsorted(self._borders, at, side="right") == number)

    def parts(self, tiles: TileSet) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield (slide, indices of the tiles that show it and no other), for slides that have such tiles."""
        reach = np.stack([self.reach(tiles, k) for k in range(len(self.extents))])
        alone = reach.sum(axis=0) == 1
        for number, own in enumerate(reach):
            if (index := np.flatnonzero(own & alone)).size:
                yield number, index


class _Memories:
    """What is known of tiles on the canvas: what each slide knows of its own. Tiles that show two are not known."""

    def __init__(self, layout: Layout, parts: Sequence[Remembering | None]) -> None:
        self._layout, self._parts = layout, parts

    def remembered(self, tiles: TileSet) -> tuple[Tensor, Tensor] | None:
        """Return features (1, n, d) and which are known (1, n), see `protocols.Remembering`."""
        found = []
        for number, index in self._layout.parts(tiles):
            part = self._parts[number]
            known = part.remembered(self._layout.local(tiles, number, index)) if part else None
            if known is not None:
                found.append((torch.from_numpy(index), *known))
        if not found:
            return None
        first = found[0][1]
        features = first.new_zeros((1, len(tiles), first.shape[-1]))
        valid = torch.zeros((1, len(tiles)), dtype=torch.bool, device=found[0][2].device)
        for places, own, known_here in found:
            features[:, places.to(features.device)], valid[:, places.to(valid.device)] = own, known_here
        return features, valid

    def remember(self, tiles: TileSet, features: Tensor, valid: Tensor) -> None:
        """Hand each slide what is known of its own tiles now."""
        for number, index in self._layout.parts(tiles):
            if part := self._parts[number]:
                here, there = torch.from_numpy(index).to(features.device), torch.from_numpy(index).to(valid.device)
                part.remember(self._layout.local(tiles, number, index), features[:, here], valid[:, there])


class SideBySide:
    """Slides on one canvas, in the order given. Not for several threads at once.

    Attributes:
        sources: of the slides, one image each.
        layout: where they lie.
        extent: (w, h) of the canvas in level-0 pixels.
        batch: 1.
    """

    def __init__(self, sources: Sequence[TileSource], overview_mpp: float, stride: int = 1) -> None:
        """Lay the slides out; nothing is read.

        Args:
            sources: at least one, of the same scale.
            overview_mpp: µm per pixel of the model's overview.
            stride: overview pixels along a cell of the model's attention map.
        """
        self.sources = tuple(sources)
        self.batch = 1
        self.layout = Layout([source.extent for source in sources], self.overview_downsample(overview_mpp), stride)
        self.extent: tuple[int, int] = self.layout.extent
        self._memories = _Memories(self.layout, [one if isinstance(one, Remembering) else None for one in sources])

    @property
    def failures(self) -> list[str]:
        """One line for each tile of the slides but the first that could not be read."""
        return [line for source in self.sources[1:] for line in getattr(source, "failures", ())]

    @property
    def counters(self) -> Counters:
        """What reading has cost so far; a tile that shows two slides counts for both."""
        return sum((source.counters for source in self.sources), Counters())

    def downsample(self, mpp: float) -> float:
        """Return the coarsest of the slides' own downsamples; they differ only where stored levels do."""
        return max(source.downsample(mpp) for source in self.sources)

    def overview_downsample(self, mpp: float) -> float:
        """Return the coarsest of the slides' own."""
        return max(source.overview_downsample(mpp) for source in self.sources)

    def overview(self, downsample: float) -> Tensor:
        """Return the canvas, (1, c, ceil(h / downsample), ceil(w / downsample)), background between the slides."""
        views = [source.overview(downsample) for source in self.sources]
        height, width = (math.ceil(side / downsample) for side in self.extent[::-1])
        background = 255 if views[0].dtype == torch.uint8 else 0
        canvas = views[0].new_full((1, views[0].shape[1], height, width), background)
        for view, left in zip(views, self.layout.left, strict=True):
            at = round(int(left) / downsample)
            own = view[..., :height, : width - at]
            canvas[..., : own.shape[-2], at : at + own.shape[-1]] = own
        return canvas

    def tissue(self, grid: Grid) -> Tensor:
        """Return (1, rows, cols) bool: the cells that are worth looking at on some slide.

        Raises:
            NoTissueError: there is none on any slide.
        """
        found: Tensor | None = None
        for source, left in zip(self.sources, self.layout.left, strict=True):
            origin = grid.origin[0] - float(left), grid.origin[1]
            try:
                own = source.tissue(replace(grid, origin=origin))
            except NoTissueError as error:
                last = error
                continue
            found = own if found is None else found | own
        if found is None:
            raise last
        return found

    def aligned(self, tiles: TileSet) -> TileSet:
        """Return the tiles, each moved as its slide moves it; those that show two slides stay where they are."""
        locations = tiles.locations.copy()
        for number, index in self.layout.parts(tiles):
            moved = self.sources[number].aligned(self.layout.local(tiles, number, index))
            locations[:, index] = moved.locations + np.array([self.layout.left[number], 0])
        return replace(tiles, locations=locations)

    def read(self, tiles: TileSet) -> TileBatch:
        """Read all tiles, one request a slide, (1, n, c, h, w) in the order given.

        A tile that reaches over two slides is put together of both, and valid where both parts could be read.
        """
        joined: TileBatch | None = None
        for number, source in enumerate(self.sources):
            index = np.flatnonzero(self.layout.reach(tiles, number))
            if index.size:
                part = source.read(self.layout.local(tiles, number, index))
                joined = joined or _blank(part, len(tiles))
                mine = torch.from_numpy(self.layout.columns(tiles, number)[index]).to(part.pixels.device)
                _paste(joined, part, torch.from_numpy(index).to(part.pixels.device), mine)
        return joined if joined is not None else self.sources[0].read(tiles)

    def remembered(self, tiles: TileSet) -> tuple[Tensor, Tensor] | None:
        """Return what the slides know of tiles, see `protocols.Remembering`; None where none knows any."""
        return self._memories.remembered(tiles)

    def remember(self, tiles: TileSet, features: Tensor, valid: Tensor) -> None:
        """Hand features of tiles to their slides."""
        self._memories.remember(tiles, features, valid)

    def turned(self, turn: int) -> Remembering | None:
        """Return what the slides know of tiles that are turned before they are encoded; None where none does."""
        parts = [one.turned(turn) if isinstance(one, RememberingTurned) else None for one in self.sources]
        return _Memories(self.layout, parts) if any(part is not None for part in parts) else None


def _blank(part: TileBatch, count: int) -> TileBatch:
    background = 255 if part.pixels.dtype == torch.uint8 else 0
    pixels = part.pixels.new_full((1, count, *part.pixels.shape[2:]), background)
    return TileBatch(pixels, torch.ones((1, count), dtype=torch.bool, device=part.valid.device))


def _paste(batch: TileBatch, part: TileBatch, index: Tensor, columns: Tensor) -> None:
    """Put a slide's part of some tiles in its place: columns (k, w) of tiles `index` (k,)."""
    own = columns[None, :, None, None, :]
    batch.pixels[:, index] = torch.where(own, part.pixels, batch.pixels[:, index])
    batch.valid[:, index.to(batch.valid.device)] &= part.valid
