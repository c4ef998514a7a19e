"""The regions of an importance map as boxes, and the boxes read again at a finer level.

RAMS-Trans's dynamic patch proposal, https://arxiv.org/abs/2107.08192, and the last step of TRT's localisation,
https://arxiv.org/abs/2208.01838. Maps are (b, rows, cols); boxes are (b, 4) int64 x, y, w, h in cells, half-open, so
that times the cell's size they are pixels. Nothing here carries a gradient: a region is a constant to the network.
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

from wsi_attention.errors import NoTissueError, TileReadError
from wsi_attention.geometry import Grid
from wsi_attention.methods.overview import square_view
from wsi_attention.nn.preprocess import background
from wsi_attention.protocols import TileSource
from wsi_attention.structures import Glimpse, TileSet

ALPHA = 1.3
"""Threshold over the map's mean in the paper; the released code takes `ALPHA_AS_RELEASED`."""
ALPHA_AS_RELEASED = 1.2


def above_mean(values: Tensor, alpha: float = ALPHA) -> Tensor:
    """Cells whose value is above alpha times the map's mean (RAMS-Trans, DPPM); scaling the map changes nothing.

    Args:
        values: (b, rows, cols), non-negative; NaN where there is no tissue, which counts neither way.
        alpha: factor on the mean.

    Returns:
        (b, rows, cols) bool; all False for a flat map, see `propose`.
    """
    mean = values.nanmean(dim=(-2, -1), keepdim=True)
    return values > alpha * mean


def above_share(values: Tensor, share: float) -> Tensor:
    """Cells at or above a share of the maximum after min-max normalisation (TRT §2.4: 0.10 for CUB, 0.12 for ILSVRC).

    Args:
        values: (b, rows, cols).
        share: threshold in [0, 1].

    Returns:
        (b, rows, cols) bool; all True for a flat map.
    """
    low = values.amin(dim=(-2, -1), keepdim=True)
    high = values.amax(dim=(-2, -1), keepdim=True)
    return values - low >= share * (high - low)


def components(mask: Tensor) -> tuple[Tensor, ...]:
    """The 8-connected components of one mask, the largest first, of equals the first in scan order.

    RAMS-Trans takes only the first; a slide with several lesions wants all above some area.

    Args:
        mask: (rows, cols) bool.

    Returns:
        Masks (rows, cols) bool, one a component; none where the mask is empty.
    """
    from skimage.measure import label

    numbered: NDArray[np.int64] = np.asarray(label(mask.cpu().numpy(), connectivity=2), np.int64)  # type: ignore[no-untyped-call]
    found, first, area = np.unique(numbered, return_index=True, return_counts=True)
    order = sorted(zip(-area, first, found, strict=True))
    return tuple(torch.from_numpy(numbered == number).to(mask.device) for _, _, number in order if number)


def bounding_box(mask: Tensor) -> tuple[int, int, int, int]:
    """(x, y, w, h) in cells of the smallest rectangle around a mask's true cells; the whole map where none is true.

    Args:
        mask: (rows, cols) bool.
    """
    if not bool(mask.any()):
        return 0, 0, mask.shape[1], mask.shape[0]
    rows, cols = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    y, x = int(rows[0]), int(cols[0])
    return x, y, int(cols[-1]) + 1 - x, int(rows[-1]) + 1 - y


def propose(mask: Tensor) -> Tensor:
    """The box of each mask's largest component; the whole map where nothing passed the threshold.

    A flat map has no value above 1.3 times its mean: the released code then crashes, here the region is everything.

    Args:
        mask: (b, rows, cols) bool, from `above_mean` or `above_share`.

    Returns:
        (b, 4) int64 x, y, w, h in cells.
    """
    boxes = [bounding_box(next(iter(components(one)), one)) for one in mask]
    return torch.tensor(boxes, dtype=torch.int64, device=mask.device).reshape(-1, 4)


def grown(boxes: Tensor, size: Tensor, shape: tuple[int, int]) -> Tensor:
    """Boxes of at least the given size around the same centre, pushed back inside the map; never smaller than before.

    Keeps a box from degenerating to one cell and, with `square_size`, keeps the aspect of tissue. Not in the paper.

    Args:
        boxes: (b, 4) x, y, w, h in cells.
        size: (2,) or (b, 2) wanted w, h; limited to the map.
        shape: (rows, cols) of the map.
    """
    limit = torch.tensor([shape[1], shape[0]], device=boxes.device)
    wanted = torch.maximum(boxes[:, 2:], size).minimum(limit)
    start = boxes[:, :2] - (wanted - boxes[:, 2:]).div(2, rounding_mode="floor")
    return torch.cat([start.clamp(min=0).minimum(limit - wanted), wanted], dim=1)


def square_size(boxes: Tensor) -> Tensor:
    """(b, 2): the longer side of each box twice, as the size `grown` makes a square of."""
    return boxes[:, 2:].amax(dim=1, keepdim=True).expand(-1, 2)


def pixel_boxes_as_released(boxes: Tensor, patch: int) -> Tensor:
    """The released code's pixel boxes: one row and one column too many at the top left, unless the box is at 0.

    It cuts from r0·P − 1 (not below 0) up to and with r1·P − 1. The paper's box is simply boxes · patch.

    Args:
        boxes: (b, 4) x, y, w, h in patches.
        patch: P, pixels a patch.

    Returns:
        (b, 4) x, y, w, h in pixels.
    """
    start = (boxes[:, :2] * patch - 1).clamp(min=0)
    end = (boxes[:, :2] + boxes[:, 2:]) * patch
    return torch.cat([start, end - start], dim=1)


def enlarged(pixels: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Each image's box resized to the input size, bilinear with aligned corners, as published.

    On a slide the box is read again at a finer level instead; this is for images without a finer level.

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
    """Squares of b images, m in all, at one downsample.

    Attributes:
        pixels: (m, c, S, S), as the source gave them.
        images: (m,) which image each one shows, ascending.
        origins: (m, 2) float64, (x, y) of each top left corner in level-0 pixels.
        downsample: level-0 pixels per pixel.
    """

    pixels: Tensor
    images: tuple[int, ...]
    origins: NDArray[np.float64]
    downsample: float

    def grids(self, cells: int) -> tuple[Grid, ...]:
        """Each view cut into cells × cells."""
        step = self.pixels.shape[-1] * self.downsample / cells
        return tuple(Grid(cells, cells, (step, step), (float(x), float(y))) for x, y in self.origins)


class Region(NamedTuple):
    """A part of a view that is worth a finer look.

    Attributes:
        view: number of the view.
        box: x, y, w, h in cells of the map it was found on.
        attention: mean of the map over the cells that made the region.
        peak: x, y of the cell among them with the highest value.
    """

    view: int
    box: tuple[int, int, int, int]
    attention: float
    peak: tuple[int, int]


def whole_images(source: TileSource, size: int) -> Views:
    """Each image of the source as one square of S = `size` pixels, in the middle of background."""
    pixels, origin, side = square_view(source, size)
    return Views(
        pixels, tuple(range(source.batch)), np.tile(np.array(origin, np.float64), (source.batch, 1)), side / size
    )


def tissue_of(source: TileSource, views: Views, cells: int) -> Tensor:
    """(m, cells, cells) bool: the cells of each view that are worth looking at.

    Raises:
        NoTissueError: a view has none.
    """
    found = [source.tissue(grid)[image] for grid, image in zip(views.grids(cells), views.images, strict=True)]
    if not all(bool(one.any()) for one in found):
        raise NoTissueError(f"no tissue in any of a view's {cells} × {cells} patches: there is nothing to look at")
    return torch.stack(found)


def find_regions(values: Tensor, alpha: float, most: int = 1, least_area: int = 1) -> tuple[Region, ...]:
    """The largest components above alpha times the mean, for each of m maps (RAMS-Trans, DPPM).

    A map with no value above the threshold, such as a flat one or one of a single cell, gives all of its tissue.

    Args:
        values: (m, rows, cols), NaN where there is no tissue.
        alpha: threshold over the mean of a map's tissue.
        most: regions of a map, largest first.
        least_area: cells of a region; the largest is taken however small.
    """
    found = []
    for view, (one, mask) in enumerate(zip(values, above_mean(values, alpha), strict=True)):
        blobs = components(mask)[:most] or (~one.isnan(),)
        kept = [blob for number, blob in enumerate(blobs) if number == 0 or int(blob.sum()) >= least_area]
        found += [_region(view, one, blob) for blob in kept]
    return tuple(found)


def boxes_of(regions: Sequence[Region], cells: int, least: int = 1, most: int | None = None) -> Tensor:
    """(r, 4) int64 x, y, w, h in cells: the regions' boxes, not below the least side and not above the most.

    A smaller box grows around its centre; of a larger one, what lies around its peak is left. None sets no limit.
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
    """Reads each region's box as a square of S × S pixels, in one request.

    All squares of a request have the side of the largest box, and cover S pixels at downsample `finest` at least; they
    grow around their centres, and never beyond their view. So no box is ever up-sampled.

    Args:
        source: b images.
        views: where the regions were found; each image has one at least.
        regions: ascending by view.
        boxes: (r, 4) int64, each region's x, y, w, h in pixels of its view.
        finest: the least downsample.
        name: of the glimpses.

    Returns:
        The views of what could be read, m' of them; where their boxes lie in them (m', 4), in their pixels; and each
        image's glimpse with weights that are equal over the regions that could be read.

    Raises:
        TileReadError: not one region of some image could be read.
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
    """Views (m, c, S, S) with background outside their boxes (m, 4), x, y, w, h in pixels, borders rounded."""
    at = torch.arange(pixels.shape[-1]) + 0.5
    x, y, w, h = boxes.T[..., None]
    across, down = (at >= x) & (at < x + w), (at >= y) & (at < y + h)
    inside = (down[:, None, :, None] & across[:, None, None, :]).to(pixels.device)
    return pixels.masked_fill(~inside, background(pixels))


def within(tissue: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Tissue (m, cells, cells) in the cells that boxes (m, 4), in pixels of size², touch; all of it where none is."""
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
    """The tiles (b, n), images with fewer filled up with their last one; and each region's place along n."""
    corners = np.round(origins).astype(np.int64)
    own = [corners[images == image] for image in range(b)]
    most = max(map(len, own))
    locations = np.stack([np.pad(one, ((0, most - len(one)), (0, 0)), "edge") for one in own])
    slots = np.concatenate([np.arange(len(one)) for one in own])
    return TileSet(locations, (size, size), downsample), slots


def _glimpse(
    tiles: TileSet, image: int, attention: NDArray[np.float64], valid: NDArray[np.bool_], name: str
) -> Glimpse:
    if not valid.any():
        raise TileReadError(f"none of the {len(valid)} regions of {name} could be read")
    read = TileSet(tiles.locations[image, : len(valid)], tiles.size, tiles.downsample)
    return Glimpse(read, valid / valid.sum(), attention, valid, name)
