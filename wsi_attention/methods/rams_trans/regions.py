"""From an attention map to the box that is worth a finer look: threshold, connected component, bounding box.

RAMS-Trans's dynamic patch proposal, https://arxiv.org/abs/2107.08192, and the last step of TRT's localisation,
https://arxiv.org/abs/2208.01838. Maps are (b, rows, cols); boxes are (b, 4) int64 x, y, w, h in cells, half-open, so
that times the cell's size they are pixels. Nothing here carries a gradient: a region is a constant to the network.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

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
