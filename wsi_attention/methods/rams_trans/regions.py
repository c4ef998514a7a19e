"""RAMS-Trans's regions: from an importance map to boxes, and the boxes read again at a finer level.

docs/methods/rams_trans.md §2.3 and §5. Maps are (b, rows, cols). Boxes are (b, 4) int64 x, y, w, h in cells; times the
side of a cell they are pixels. Nothing here carries a gradient: a region is a constant to the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wsi_attention.geometry import Grid
from wsi_attention.methods.outputs import require_tiles, require_tissue
from wsi_attention.methods.overview import square_view
from wsi_attention.nn.preprocess import background
from wsi_attention.protocols import TileSource
from wsi_attention.structures import Glimpse, TileSet

ALPHA = 1.3
"""Threshold on importance, as a factor on its mean, in the paper; the released code has 1.2."""


def above_mean(values: Tensor, alpha: float = ALPHA) -> Tensor:
    """Return the cells whose value is above alpha times the mean of the map; scaling the map changes nothing.

    Args:
        values: (b, rows, cols), 0 or more; NaN where there is no tissue, which does not count.
        alpha: factor on the mean.

    Returns:
        (b, rows, cols) bool; all False for a flat map, see `propose`.
    """
    mean = values.nanmean(dim=(-2, -1), keepdim=True)
    return values > alpha * mean


def above_share(values: Tensor, share: float) -> Tensor:
    """Return the cells at or above a share of the maximum after min-max normalisation, which is TRT's rule.

    Args:
        values: (b, rows, cols).
        share: threshold in [0, 1]; TRT has 0.10 for CUB and 0.12 for ILSVRC.

    Returns:
        (b, rows, cols) bool; all True for a flat map.
    """
    low = values.amin(dim=(-2, -1), keepdim=True)
    high = values.amax(dim=(-2, -1), keepdim=True)
    return values - low >= share * (high - low)


def components(mask: Tensor) -> tuple[Tensor, ...]:
    """Return the 8-connected components of a mask, the largest first, of equals the first in scan order.

    The paper takes only the first one; a slide with several lesions needs all of a certain area.

    Args:
        mask: (rows, cols) bool.

    Returns:
        Masks (rows, cols) bool, one per component; none where the mask is empty.
    """
    from skimage.measure import label

    numbered: NDArray[np.int64] = np.asarray(label(mask.cpu().numpy(), connectivity=2), np.int64)
    found, first, area = np.unique(numbered, return_index=True, return_counts=True)
    order = sorted(zip(-area, first, found, strict=True))
    return tuple(torch.from_numpy(numbered == number).to(mask.device) for _, _, number in order if number)


def bounding_box(mask: Tensor) -> tuple[int, int, int, int]:
    """Return (x, y, w, h) in cells of the smallest rectangle around the mask; the whole map where it is empty.

    Args:
        mask: (rows, cols) bool.
    """
    if not bool(mask.any()):
        return 0, 0, mask.shape[1], mask.shape[0]
    rows, cols = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    y, x = int(rows[0]), int(cols[0])
    return x, y, int(cols[-1]) + 1 - x, int(rows[-1]) + 1 - y


def propose(mask: Tensor) -> Tensor:
    """Return the box of each mask's largest component; the whole map where nothing passed the threshold.

    A flat map has no value above 1.3 times its mean. The released code crashes then; here the region is the whole map.

    Args:
        mask: (b, rows, cols) bool, from `above_mean` or `above_share`.

    Returns:
        (b, 4) int64 x, y, w, h in cells.
    """
    boxes = [bounding_box(next(iter(components(one)), one)) for one in mask]
    return torch.tensor(boxes, dtype=torch.int64, device=mask.device).reshape(-1, 4)


def grown(boxes: Tensor, size: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return boxes of at least the given size around the same centres, moved inside the map; none becomes smaller.

    So a box is never a single cell and, with `square_size`, tissue is not distorted. Not in the paper.

    Args:
        boxes: (b, 4) x, y, w, h in cells.
        size: (2,) or (b, 2), wanted w, h; at most that of the map.
        shape: (rows, cols) of the map.
    """
    limit = torch.tensor([shape[1], shape[0]], device=boxes.device)
    wanted = torch.maximum(boxes[:, 2:], size).minimum(limit)
    start = boxes[:, :2] - (wanted - boxes[:, 2:]).div(2, rounding_mode="floor")
    return torch.cat([start.clamp(min=0).minimum(limit - wanted), wanted], dim=1)


def square_size(boxes: Tensor) -> Tensor:
    """Return (b, 2), the longer side of each box twice: the size with which `grown` makes it a square."""
    return boxes[:, 2:].amax(dim=1, keepdim=True).expand(-1, 2)


def pixel_boxes_as_released(boxes: Tensor, patch: int) -> Tensor:
    """Return the released code's boxes in pixels: with a row and a column too many at the top left, unless that is 0.

    It cuts from r0·P − 1 (at least 0) to r1·P − 1 inclusive. The paper's box is boxes · patch.

    Args:
        boxes: (b, 4) x, y, w, h in patches.
        patch: P, pixels along a side of a patch.

    Returns:
        (b, 4) x, y, w, h in pixels.
    """
    start = (boxes[:, :2] * patch - 1).clamp(min=0)
    end = (boxes[:, :2] + boxes[:, 2:]) * patch
    return torch.cat([start, end - start], dim=1)


def enlarged(pixels: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the box of each image resized to the input size, bilinear with aligned corners, as published.

    This is for images without a finer level; on a slide the box is read again at a finer level instead.

    Args:
        pixels: (b, c, h, w) float.
        boxes: (b, 4) x, y, w, h in pixels.
        size: (h, w) wanted.

    Returns:
        (b, c, *size).
    """
    crops = [one[None, :, y : y + h, x : x + w] for one, (x, y, w, h) in zip(pixels, boxes.tolist(), strict=True)]
    return torch.cat([functional.interpolate(crop, size, mode="bilinear", align_corners=True) for crop in crops])


class Views(NamedTuple):
    """Square views of b images, m in all, at one downsample.

    Attributes:
        pixels: (m, c, S, S), as the source returned them.
        images: index of the image that each view shows, ascending.
        origins: (m, 2) float64, (x, y) of the top left corners in level-0 pixels.
        downsample: level-0 pixels per pixel.
    """

    pixels: Tensor
    images: tuple[int, ...]
    origins: NDArray[np.float64]
    downsample: float

    def grids(self, cells: int) -> tuple[Grid, ...]:
        """Return each view as a grid of cells × cells."""
        step = self.pixels.shape[-1] * self.downsample / cells
        return tuple(Grid(cells, cells, (step, step), (float(x), float(y))) for x, y in self.origins)


class Region(NamedTuple):
    """A part of a view that is to be read at a finer level.

    Attributes:
        view: index of the view.
        box: x, y, w, h in cells of the view's map.
        attention: mean of the map over the cells of the region.
        peak: x, y of its cell with the highest value.
    """

    view: int
    box: tuple[int, int, int, int]
    attention: float
    peak: tuple[int, int]


def whole_images(source: TileSource, size: int) -> Views:
    """Return each image of the source as one square of S = `size` pixels, centred on background."""
    pixels, origin, side = square_view(source, size)
    return Views(
        pixels, tuple(range(source.batch)), np.tile(np.array(origin, np.float64), (source.batch, 1)), side / size
    )


def tissue_of(source: TileSource, views: Views, cells: int) -> Tensor:
    """Return (m, cells, cells) bool, the cells of each view with tissue.

    Raises:
        NoTissueError: a view has none.
    """
    grids = zip(views.grids(cells), views.images, strict=True)
    tissue = torch.stack([source.tissue(grid)[image] for grid, image in grids])
    require_tissue(tissue, "patches")
    return tissue


def find_regions(values: Tensor, alpha: float, most: int = 1, least_area: int = 1) -> tuple[Region, ...]:
    """Return the largest components above alpha times the mean, of each of m maps (docs/methods/rams_trans.md §2.3).

    Where no value is above the threshold, as in a flat map or one of a single cell, the region is all of the tissue.

    Args:
        values: (m, rows, cols), NaN where there is no tissue.
        alpha: threshold, as a factor on the mean over the tissue of a map.
        most: most regions of a map, largest first.
        least_area: fewest cells of a region; the largest one is taken however small.
    """
    found = []
    for view, (one, mask) in enumerate(zip(values, above_mean(values, alpha), strict=True)):
        blobs = components(mask)[:most] or (~one.isnan(),)
        kept = [blob for number, blob in enumerate(blobs) if number == 0 or int(blob.sum()) >= least_area]
        found += [_region(view, one, blob) for blob in kept]
    return tuple(found)


def boxes_of(regions: Sequence[Region], cells: int, least: int = 1, most: int | None = None) -> Tensor:
    """Return (r, 4) int64, x, y, w, h in cells: the boxes of regions, with sides from `least` to `most`.

    A smaller box grows around its centre; a larger one becomes the surroundings of its peak. None sets no limit.
    """
    boxes = torch.tensor([region.box for region in regions])
    if most is not None:
        peaks = torch.tensor([(*region.peak, 1, 1) for region in regions])
        around = grown(peaks, torch.tensor([most, most]), (cells, cells))
        boxes = torch.where(boxes[:, 2:].amax(dim=1, keepdim=True) > most, around, boxes)
    return grown(boxes, torch.tensor([least, least]), (cells, cells))


def look_again(
    source: TileSource, views: Views, regions: Sequence[Region], boxes: Tensor, finest: float, name: str
) -> tuple[Views, Tensor, tuple[Glimpse, ...]]:
    """Read the box of each region as a square of S × S pixels, in one request.

    All squares of a request have one side: that of the largest box, and no less than S pixels at downsample `finest`,
    so that no box is enlarged. They grow around the centres of their boxes and stay inside their views.

    Args:
        source: b images.
        views: where the regions were found; at least one for each image.
        regions: ascending by view.
        boxes: (r, 4) int64, x, y, w, h of each region in pixels of its view.
        finest: the least downsample.
        name: name of the glimpses.

    Returns:
        The views that could be read, m' of them; (m', 4), the boxes in the pixels of these views; and for each image
        its glimpse, with equal weights for all regions that could be read.

    Raises:
        TileReadError: an image of which no region could be read.
    """
    size = views.pixels.shape[-1]
    least = min(size, math.ceil(size * finest / views.downsample - 1e-9))
    side = max(least, int(square_size(boxes).max()))
    squares = grown(boxes, torch.tensor([side, side]), (size, size))
    downsample = max(1.0, side * views.downsample / size)
    parents = [region.view for region in regions]
    origins = views.origins[parents] + squares[:, :2].numpy() * views.downsample
    images = np.array([views.images[parent] for parent in parents])
    tiles, slots = _request(origins, images, source.batch, size, downsample)
    batch = source.read(tiles)
    valid = batch.valid.cpu().numpy()[images, slots]
    attention = np.array([region.attention for region in regions])
    glimpses = tuple(
        _glimpse(tiles, image, attention[images == image], valid[images == image], name)
        for image in range(source.batch)
    )
    pixels = batch.pixels[images[valid], slots[valid]]
    inside = torch.cat([boxes[:, :2] - squares[:, :2], boxes[:, 2:]], dim=1).double() * (size / side)
    return Views(pixels, tuple(images[valid].tolist()), origins[valid], downsample), inside[valid], glimpses


def without_surroundings(pixels: Tensor, boxes: Tensor) -> Tensor:
    """Return views (m, c, S, S) with background outside their boxes (m, 4), x, y, w, h in pixels, borders rounded."""
    at = torch.arange(pixels.shape[-1]) + 0.5
    x, y, w, h = boxes.T[..., None]
    across, down = (at >= x) & (at < x + w), (at >= y) & (at < y + h)
    inside = (down[:, None, :, None] & across[:, None, None, :]).to(pixels.device)
    return pixels.masked_fill(~inside, background(pixels))


def within(tissue: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Return tissue (m, cells, cells) in cells that touch boxes (m, 4), in pixels of size²; all where none does."""
    patch = size / tissue.shape[-1]
    at = torch.arange(tissue.shape[-1]) * patch
    x, y, w, h = boxes.T[..., None]
    across, down = (at + patch > x) & (at < x + w), (at + patch > y) & (at < y + h)
    inside: Tensor = tissue & (down[:, :, None] & across[:, None]).to(tissue.device)
    return inside.where(inside.any(dim=(-2, -1), keepdim=True), tissue)


def _region(view: int, values: Tensor, mask: Tensor) -> Region:
    y, x = divmod(int(values.where(mask, -torch.inf).argmax()), values.shape[1])
    return Region(view, bounding_box(mask), float(values[mask].mean()), (x, y))


def _request(
    origins: NDArray[np.float64], images: NDArray[np.int64], b: int, size: int, downsample: float
) -> tuple[TileSet, NDArray[np.int64]]:
    """Return tiles (b, n), rows filled up with the last tile of an image, and the index of each region along n."""
    corners = np.round(origins).astype(np.int64)
    own = [corners[images == image] for image in range(b)]
    most = max(map(len, own))
    locations = np.stack([np.pad(one, ((0, most - len(one)), (0, 0)), "edge") for one in own])
    slots = np.concatenate([np.arange(len(one)) for one in own])
    return TileSet(locations, (size, size), downsample), slots


def _glimpse(
    tiles: TileSet, image: int, attention: NDArray[np.float64], valid: NDArray[np.bool_], name: str
) -> Glimpse:
    require_tiles(torch.from_numpy(valid)[None], f"regions of {name}")
    read = TileSet(tiles.locations[image, : len(valid)], tiles.size, tiles.downsample)
    return Glimpse(read, valid / valid.sum(), attention, valid, name)
