"""What Zoom-In looks at and reads, level by level, and the glimpses and maps that are left of it.

A level is a zoom step's cells over the whole image. A cell of one level is a region of the next: its view shows the
cells inside it. Cells of the last level stand for sub-tiles, which are read at full resolution. Where cells lie:
docs/methods/zoom_in.md §2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from wsi_attention.attention.sampling import available
from wsi_attention.attention.spread import negative_entropy
from wsi_attention.geometry import Grid
from wsi_attention.methods.outputs import require_tiles
from wsi_attention.methods.rounds import PART
from wsi_attention.methods.zoom_in.estimator import Stage, leaf_images, leaf_steps, leaf_weights
from wsi_attention.nn.heads import tile_evidence
from wsi_attention.protocols import TileSource
from wsi_attention.structures import AttentionMap, Glimpse, TileSet


class Level(NamedTuple):
    """The cells of one zoom step over the whole image, and how a region, which holds some of them, is seen.

    Attributes:
        grid: where the cells lie.
        tissue: (b, cells) bool, True for cells with tissue that begin inside the image.
        inside: (cells,) bool, True for cells that begin inside the image.
        side: cells along a side of a region, which is one cell of the level before; 0 for the first level.
        size: (w, h) of a region's view in pixels.
        downsample: level-0 pixels per pixel of that view, at least 1.
    """

    grid: Grid
    tissue: Tensor
    inside: Tensor
    side: int
    size: tuple[int, int]
    downsample: float

    def within(self, regions: Tensor) -> Tensor:
        """Return the flat cells (t, side²) of this level, row by row, inside flat cells (t,) of the level before."""
        cols = self.grid.cols // self.side
        row, col = regions // cols * self.side, regions % cols * self.side
        step = torch.arange(self.side, device=regions.device)
        rows, columns = row[:, None, None] + step[:, None], col[:, None, None] + step
        return (rows * self.grid.cols + columns).flatten(1)

    def reachable(self, cells: Tensor, images: Tensor) -> Tensor:
        """Return which of each region's cells may be drawn, (t, K) bool: those with tissue.

        A region may have a little tissue and yet no cell with enough of it. All of its cells that begin inside the
        image may be drawn then.

        Args:
            cells: (t, K) flat, of this level.
            images: (t,) int64, the images that the regions lie in.
        """
        tissue = self.tissue[images.unsqueeze(-1), cells]
        return tissue | (~tissue.any(dim=-1, keepdim=True) & self.inside[cells])


def zoom_levels(
    source: TileSource, strides: Sequence[int], mpps: Sequence[float], device: torch.device
) -> tuple[Level, ...]:
    """Return the levels of all steps: a regular grid over the image, then each cell cut into the next level's.

    The cells cover the image without gap or overlap, and a view shows its cell and nothing else. Under the paper's
    rule, which spreads the centres of cells from corner to corner, cells overlap a little, the outermost lie half
    outside the image, and a map over them is no regular grid.

    Args:
        source: b images.
        strides: for each step, pixels along the side of a cell in the view that its network looks at.
        mpps: µm per pixel of these views; the first is the overview's. Views are not enlarged: where the image does not
            have that many pixels, a region has fewer cells.
        device: where the masks go.
    """
    downsample = source.overview_downsample(mpps[0])
    side = strides[0] * downsample
    grid = Grid.covering(source.extent, (side, side))
    found = [_level(source, grid, 0, (grid.cols * strides[0], grid.rows * strides[0]), downsample, device)]
    for stride, mpp in zip(strides[1:], mpps[1:], strict=True):
        step = found[-1].grid.step[0]
        wanted = round(step / (stride * source.downsample(mpp)))
        cells = max(1, min(wanted, int(step / stride + 1e-9)))
        grid = Grid(found[-1].grid.rows * cells, found[-1].grid.cols * cells, (step / cells, step / cells))
        scale = max(1.0, step / (cells * stride))
        found.append(_level(source, grid, cells, (cells * stride, cells * stride), scale, device))
    return tuple(found)


def _level(
    source: TileSource, grid: Grid, side: int, size: tuple[int, int], downsample: float, device: torch.device
) -> Level:
    corners = grid.boxes()[:, :2]
    inside = torch.from_numpy((corners < np.array(source.extent)).all(axis=-1)).to(device)
    tissue = source.tissue(grid).to(device).flatten(1)
    return Level(grid, tissue & inside if side else tissue, inside, side, size, downsample)


See = Callable[[TileSource, TileSet, Tensor], tuple[Tensor | None, Tensor]]
"""(source, tiles (b, n), which of them are real (b, n)) -> the values of those that could be read, (m, …), image after
image, None where there are none; and which these are, (b, n) bool."""


class Reader:
    """Looks at regions of one source; what has been looked at is not read again.

    Args:
        source: b images.
        levels: of all zoom steps.
        tile: side in pixels, and downsample, of the sub-tiles that the last level's cells stand for.
    """

    def __init__(self, source: TileSource, levels: Sequence[Level], tile: tuple[int, float]) -> None:
        self.batch, self.levels = source.batch, tuple(levels)
        self._source, self._tile = source, tile
        self._known: dict[tuple[int, int, int], Tensor | None] = {}

    @property
    def tiles_read(self) -> int:
        """The number of different views and sub-tiles that were requested so far."""
        return len(self._known)

    def tiles(self, depth: int, cells: Tensor) -> TileSet:
        """Return what is read for cells (b, n) of a level: views of them, or sub-tiles where it is the last level."""
        last = depth + 1 == len(self.levels)
        size = (self._tile[0], self._tile[0]) if last else self.levels[depth + 1].size
        downsample = self._tile[1] if last else self.levels[depth + 1].downsample
        tiles = TileSet(self.levels[depth].grid.locations(cells.cpu().numpy(), size, downsample), size, downsample)
        return self._source.aligned(tiles) if last else tiles

    def look(self, depth: int, cells: Tensor, images: Tensor, see: See) -> tuple[Tensor, Tensor]:
        """Return what is seen in the regions that could be read, (valid, …), and which these are, (n,) bool.

        Args:
            depth: index of the level of the cells.
            cells: (n,) flat, image after image.
            images: (n,) int64, increasing, the images that the cells lie in.
            see: how a region becomes a value.

        Raises:
            TileReadError: not one of an image's regions could be read.
        """
        values = self.values(depth, cells, images, see)
        valid = torch.tensor([value is not None for value in values], device=cells.device)
        each, asked = by_image(valid, images, self.batch)
        require_tiles(each[asked.any(dim=-1)])
        return torch.stack([value for value in values if value is not None]), valid

    def values(self, depth: int, cells: Tensor, images: Tensor, see: See) -> list[Tensor | None]:
        """Return what is seen in each of the regions, None where one could not be read; arguments as in `look`."""
        keys = [(depth, *key) for key in zip(images.tolist(), cells.tolist(), strict=True)]
        new = [i for i, key in enumerate(keys) if key not in self._known]
        if new:
            index = torch.tensor(new, device=cells.device)
            self._read(depth, cells[index], images[index], see)
        return [self._known[key] for key in keys]

    def _read(self, depth: int, cells: Tensor, images: Tensor, see: See) -> None:
        """Read all in one request, or in parts where there are very many.

        All images of a request have equally many tiles: those with fewer repeat their first one.
        """
        index, asked = by_image(torch.arange(len(cells), device=cells.device), images, self.batch)
        index = torch.where(asked, index, index[:, :1])
        tiles = self.tiles(depth, cells[index])
        keys = [(depth, *key) for key in zip(images.tolist(), cells.tolist(), strict=True)]
        for start in range(0, len(tiles), PART):
            part = slice(start, start + PART)
            wanted = asked[:, part].cpu()
            seen, valid = see(self._source, tiles.select(part), wanted)
            values = iter(() if seen is None else seen)
            for i, good in zip(index[:, part].cpu()[wanted].tolist(), valid.cpu()[wanted].tolist(), strict=True):
                self._known[keys[i]] = next(values) if good else None


def by_image(values: Tensor, images: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Return entries (n, …) in a row for each image, (b, most, …), and which of these are real, (b, most) bool.

    Args:
        values: (n, …), image after image; an image with fewer than another gets zeros at the end.
        images: (n,) int64, increasing, the images that they belong to.
        batch: b.
    """
    counts = torch.bincount(images, minlength=batch)
    real = torch.arange(int(counts.max()), device=images.device) < counts.unsqueeze(-1)
    rows = values.new_zeros(*real.shape, *values.shape[1:])
    return rows.index_put((real,), values), real


class Look(NamedTuple):
    """The regions, or sub-tiles, that one zoom step requested.

    Attributes:
        cells: (n,) flat, image after image, in the order of the draws.
        images: (n,) int64, the images that they lie in.
        attention: (n,) product of attention on the way down: α_c in the first step, α_c·β^c_j in the second.
        valid: (n,) bool; False where the region could not be read.
    """

    cells: Tensor
    images: Tensor
    attention: Tensor
    valid: Tensor


class Inside(NamedTuple):
    """Attention inside the regions of one step.

    Attributes:
        cells: (t, K) flat, of the step's level.
        images: (t,) int64, the images that the regions lie in.
        attention: (t, K), β; 0 where a cell cannot be drawn.
        shares: (t,) product of attention down to the region.
    """

    cells: Tensor
    images: Tensor
    attention: Tensor
    shares: Tensor


class Zoomed(NamedTuple):
    """One pass down all steps.

    Attributes:
        stages: one for each step, without what could not be read.
        looks: one for each step.
        insides: one for each step but the first.
        features: (leaves, d) of the sub-tiles that could be read.
    """

    stages: tuple[Stage, ...]
    looks: tuple[Look, ...]
    insides: tuple[Inside, ...]
    features: Tensor

    def draws(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return what each draw estimates by itself (b, n, d) and its weight (b, n), see `leaf_steps`.

        Weights are 0 where an image had fewer draws than another.
        """
        images = leaf_images(self.stages)
        steps, weights = leaf_steps(self.features, self.stages)
        return by_image(steps, images, batch)[0], by_image(weights.detach(), images, batch)[0]

    def chance(self, attention: Tensor) -> Tensor:
        """Return (b,) bool: False where each step had a single cell to take, so nothing was random.

        Args:
            attention: (b, K), α.
        """
        several = available(attention) > 1
        for inside in self.insides:
            more = (available(inside.attention) > 1).long()
            several = several | (torch.zeros_like(several, dtype=torch.int64).index_add(0, inside.images, more) > 0)
        return several


def summed_entropy(attention: Tensor, zoomed: Zoomed) -> Tensor:
    """Return minus the entropies of α and of every β^c that was computed, summed for each image; the mean over images.

    Args:
        attention: (b, K), α.
        zoomed: a pass over all b images.
    """
    total = negative_entropy(attention)
    for inside in zoomed.insides:
        total = total + negative_entropy(inside.attention) * (len(inside.images) / len(attention))
    return total


def zoom_glimpses(reader: Reader, rounds: Sequence[Zoomed], drawn: Tensor) -> tuple[tuple[Glimpse, ...], ...]:
    """Return a glimpse for each step of each image; each region is in it once, with its mean weight over the rounds.

    Args:
        reader: of the regions.
        rounds: passes over the same images.
        drawn: (b,) bool, True where regions were drawn at random by their attention.
    """
    random = drawn.tolist()
    names = ["views" if depth == 1 else f"views-{depth}" for depth in range(1, len(reader.levels))] + ["tiles"]
    weights = [[_weights(one, depth) for one in rounds] for depth in range(len(names))]
    return tuple(
        tuple(
            replace(
                _glimpse(reader, depth, name, image, [one.looks[depth] for one in rounds], weights[depth]),
                drawn=random[image],
            )
            for depth, name in enumerate(names)
        )
        for image in range(reader.batch)
    )


def _glimpse(
    reader: Reader, depth: int, name: str, image: int, looks: Sequence[Look], weights: Sequence[Tensor]
) -> Glimpse:
    mine = [look.images == image for look in looks]
    cells = torch.cat([look.cells[own] for look, own in zip(looks, mine, strict=True)]).cpu().numpy()
    counted = torch.cat([weight[own] for weight, own in zip(weights, mine, strict=True)]).cpu().double().numpy()
    attention = torch.cat([look.attention[own] for look, own in zip(looks, mine, strict=True)]).cpu().double().numpy()
    valid = torch.cat([look.valid[own] for look, own in zip(looks, mine, strict=True)]).cpu().numpy()
    _, first, member = np.unique(cells, return_index=True, return_inverse=True)
    order = np.argsort(first)
    total = np.bincount(member, counted, minlength=len(first))[order]
    first = first[order]
    tiles = reader.tiles(depth, torch.from_numpy(cells[first])[None])
    return Glimpse(tiles, total / total.sum(), attention[first], valid[first], name)


def _weights(zoomed: Zoomed, depth: int) -> Tensor:
    """Return the weight of each region of a step in its image's estimate, (n,); 0 where it could not be read."""
    look = zoomed.looks[depth]
    known = leaf_weights(zoomed.stages[: depth + 1]).detach()
    return torch.zeros_like(look.attention).masked_scatter(look.valid, known.to(look.attention.dtype))


def evidence_of(classifier: nn.Module, batch: int, passes: Sequence[Zoomed]) -> Tensor | None:
    """Return `Output.tile_evidence` for a single pass over a single image, else None."""
    if batch > 1 or len(passes) > 1:
        return None
    return drawn_evidence(passes[0], tile_evidence(classifier, passes[0].features))


def drawn_evidence(zoomed: Zoomed, evidence: Tensor) -> Tensor:
    """Return the evidence of the sub-tiles that a pass drew, each once, in the order of the last glimpse.

    Args:
        zoomed: a pass over one image.
        evidence: (leaves, classes) of the sub-tiles that could be read; the others get 0 in the result (1, n, classes).
    """
    look = zoomed.looks[-1]
    every = evidence.new_zeros(len(look.valid), evidence.shape[-1])
    every[look.valid] = evidence
    first = np.sort(np.unique(look.cells.cpu().numpy(), return_index=True)[1])
    return every[torch.from_numpy(first).to(every.device)].unsqueeze(0)


def zoom_unread(reader: Reader, attention: Tensor, rounds: Sequence[Zoomed]) -> Tensor:
    """Return the attention mass that was not read, (b,) float64 in [0, 1]: 1 − Σ α_c·β^c_j over what was read.

    It is computed as the sum over what was *not* read, so that it is exactly 0 where all is read: α of regions that
    were not viewed, and α_c·β^c_j of cells that were not drawn inside those that were. A region that could not be read
    counts as not viewed.

    Args:
        reader: of the regions.
        attention: (b, K), α.
        rounds: passes over the same images.
    """
    shares = _shares(reader, attention, rounds)
    left = torch.zeros(len(attention), dtype=torch.float64, device=attention.device)
    for depth, share in enumerate(shares):
        for look in (one.looks[depth] for one in rounds):
            share[look.images[look.valid], look.cells[look.valid]] = torch.nan
        left += share.double().nansum(dim=-1)
    return left.clamp(0.0, 1.0)


def zoom_maps(reader: Reader, attention: Tensor, rounds: Sequence[Zoomed]) -> tuple[tuple[AttentionMap, ...], ...]:
    """Return the maps of each image: "attention" is α over the tissue, then for each further step α_c·β^c_j.

    The last step's map is "zoom"; with three steps or more, those between are "zoom-1" and so on. They are NaN outside
    the regions that were viewed in any round.

    Args:
        reader: of the regions.
        attention: (b, K), α.
        rounds: passes over the same images.
    """
    names = [f"zoom-{depth}" for depth in range(1, len(reader.levels) - 1)] + ["zoom"]
    values = _shares(reader, attention, rounds)
    grids = [level.grid for level in reader.levels]
    return tuple(
        tuple(
            AttentionMap(one[image].cpu().numpy().astype(np.float32).reshape(grid.shape), grid, name)
            for one, grid, name in zip(values, grids, ["attention", *names], strict=False)
        )
        for image in range(reader.batch)
    )


def _shares(reader: Reader, attention: Tensor, rounds: Sequence[Zoomed]) -> list[Tensor]:
    """Return the product of attention down to every cell, (b, cells) for each level, NaN where no round looked."""
    values = [attention.detach().masked_fill(~reader.levels[0].tissue, torch.nan)]
    for depth, level in enumerate(reader.levels[1:]):
        found = torch.full(level.tissue.shape, torch.nan, dtype=attention.dtype, device=attention.device)
        for zoomed in rounds:
            inside = zoomed.insides[depth]
            known = inside.attention > 0
            images = inside.images.unsqueeze(-1).expand_as(inside.cells)
            product = (inside.shares.unsqueeze(-1) * inside.attention).detach()
            found[images[known], inside.cells[known]] = product[known].to(found.dtype)
        values.append(found)
    return values
