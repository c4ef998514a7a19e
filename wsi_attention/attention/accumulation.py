"""Attention accumulated over the epochs of a training, and the loss that teaches accumulated maps to another network.

docs/methods/oaa.md §2.3 and §2.4, after Jiang et al., ICCV 2019; released codes PengtaoJiang/OAA (Caffe, the paper's)
and PengtaoJiang/OAA-PyTorch. A memory is a value: functions take one and return a new one, and the caller keeps it.
Axes: b images, k classes, h × w positions, K cells. Only the loss carries a gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

WARM_UP = 1
"""Epochs without accumulation, because a bad early map would stay in the maximum for ever."""


class Memory(NamedTuple):
    """What has been accumulated so far.

    Attributes:
        values: (..., positions) in [0, 1]; 0 where nothing was accumulated.
        updates: int64, number of maps or visits behind the values: (b, k) for whole maps (b, k, h, w), of the shape of
            `values` for single cells. 0 means never seen, which differs from seen without evidence.
    """

    values: Tensor
    updates: Tensor


def empty_maps(shape: tuple[int, int, int, int]) -> Memory:
    """Return an empty memory of maps (b, k, h, w)."""
    return Memory(torch.zeros(shape), torch.zeros(shape[:2], dtype=torch.int64))


def empty_cells(shape: tuple[int, int]) -> Memory:
    """Return an empty memory of single cells (k, K)."""
    return Memory(torch.zeros(shape), torch.zeros(shape, dtype=torch.int64))


def gate(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return which maps are accepted: labels that are among the n most probable classes, n the number of labels.

    docs/methods/oaa.md §2.3. The paper states a condition on the probability of the class; both released codes apply
    this rule on its rank. Of equal probabilities, the class with the lower index ranks higher. With one class only, the
    rank says nothing, and p > 0.5 decides.

    Args:
        probabilities: (b, k), or any scores of the same order; probabilities if k is 1.
        labels: (b, k) bool, the classes of an image.

    Returns:
        (b, k) bool.
    """
    if probabilities.shape[-1] == 1:
        return labels & (probabilities > 0.5)
    order = probabilities.sort(dim=-1, descending=True, stable=True).indices
    rank = order.argsort(dim=-1)
    return labels & (rank < labels.sum(dim=-1, keepdim=True))


def acceptance(accepted: Tensor, labels: Tensor, updates: Tensor, epoch: int, epochs: int) -> Tensor:
    """Return which maps are accepted in this epoch: none in the warm-up, in the last epoch one for every label.

    docs/methods/oaa.md §2.3; the rule is that of OAA-PyTorch.

    Args:
        accepted: (b, k) bool, from `gate`.
        labels: (b, k) bool.
        updates: (b, k) of the memory.
        epoch: this epoch, from 0.
        epochs: number of epochs; in the last one, a label without any map takes the current one, accepted or not.

    Returns:
        (b, k) bool.
    """
    if epoch < WARM_UP:
        return torch.zeros_like(accepted)
    if epoch == epochs - 1:
        return accepted | (labels & (updates == 0))
    return accepted


def accumulate_maximum(memory: Memory, maps: Tensor, accepted: Tensor) -> Memory:
    """Return M_t = max(M_{t-1}, A_t) for accepted maps, a copy of the first; others stay the same bit for bit.

    Args:
        memory: memory of maps (b, k, h, w).
        maps: (b, k, h, w) in [0, 1], from `cam.attention_maps`, with augmentation undone.
        accepted: (b, k) bool.
    """
    higher = torch.maximum(memory.values, maps.detach())
    return _updated(memory, higher, accepted)


def accumulate_mean(memory: Memory, maps: Tensor, accepted: Tensor) -> Memory:
    """Return M_t = ((t − 1)·M_{t-1} + A_t) / t for accepted maps: the released averaging variant.

    It is 1.6 mIoU below the maximum in the paper.

    Args:
        memory: memory of maps (b, k, h, w).
        maps: (b, k, h, w) in [0, 1].
        accepted: (b, k) bool.
    """
    before = memory.updates[..., None, None]
    mean = (before * memory.values + maps.detach()) / (before + 1)
    return _updated(memory, mean, accepted)


def _updated(memory: Memory, values: Tensor, accepted: Tensor) -> Memory:
    kept = torch.where(accepted[..., None, None], values, memory.values)
    return Memory(kept, memory.updates + accepted)


def blended(mean: Tensor, maximum: Tensor) -> Tensor:
    """Return 3 / (1/mean + 2/maximum), the Caffe code's blend of the values of two memories; 0 where either is 0."""
    product = mean * maximum
    return torch.where(product > 0, 3 * product / (maximum + 2 * mean).clamp(min=torch.finfo(mean.dtype).tiny), 0.0)


def accumulate_cells(memory: Memory, cells: Tensor, evidence: Tensor) -> Memory:
    """Return the memory with the evidence of visited cells: their maximum, and one visit more for each.

    Ours, for methods that sample: each epoch sees other tiles, and together they cover the slide. A cell that was drawn
    twice in a glimpse counts as two visits.

    Args:
        memory: memory of cells (k, K).
        cells: (n,) int64, the visited cells.
        evidence: (k, n) in [0, 1], their evidence for each class.
    """
    index = cells.expand(evidence.shape)
    values = memory.values.scatter_reduce(-1, index, evidence.detach(), "amax")
    return Memory(values, memory.updates.scatter_add(-1, index, torch.ones_like(index)))


def coarser(memory: Memory, shape: tuple[int, int], factor: int) -> Memory:
    """Return a memory of cells on a coarser grid, for display: the maximum of the evidence, the sum of the visits.

    There is no function for the other direction: values of finer cells would claim visits that did not happen.

    Args:
        memory: memory of cells (k, K).
        shape: (rows, cols) of the fine grid, rows · cols = K.
        factor: fine cells along a side of a coarse one; the last coarse cells may have fewer.
    """
    values = functional.max_pool2d(memory.values.reshape(-1, *shape), factor, ceil_mode=True)
    padding = (0, -shape[1] % factor, 0, -shape[0] % factor)
    visits = functional.pad(memory.updates.reshape(-1, *shape), padding)
    visits = visits.reshape(-1, values.shape[1], factor, values.shape[2], factor).sum(dim=(2, 4))
    return Memory(values.flatten(1), visits.flatten(1))


def to_bytes(values: Tensor) -> Tensor:
    """Return values in [0, 1] as uint8, rounded, so that loading and saving again changes nothing.

    The Caffe code truncates: a stored 255 is read as 254, and grey values lose one step per update.
    """
    return (values * 255).round().clamp(0, 255).to(torch.uint8)


def from_bytes(stored: Tensor) -> Tensor:
    """Return the float32 values in [0, 1] that `to_bytes` stored."""
    return stored.float() / 255


def integral_loss(logits: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the loss L+ + L− of OAA+, over where the accumulated map P is above 0 and where it is 0; a scalar.

        L+ = −(1/|N+|) Σ_{N+} P·log q,    L− = −(1/|N−|) Σ_{N−} log(1 − q),    q = σ(logits)

    docs/methods/oaa.md §2.4. An empty set has no term. L− has no factor P, which would make it zero. log σ is computed
    in one step; the released code takes log(sigmoid(x)), which is −inf for very negative x. Each image has its own two
    sets over all classes, as published; where absent classes would drown the rest, pass (b · k, 1, h, w). The Caffe
    code has an unweighted form, which is this one with (P > 0) as the target.

    Args:
        logits: (b, k, h, w).
        target: (b, k, h, w), P in [0, 1].
        counted: (b, k, h, w) bool, the positions that count, such as tissue; all where None.

    Returns:
        The mean over images.
    """
    weights, q = target.flatten(1), logits.flatten(1)
    inside, outside = weights > 0, weights == 0
    if counted is not None:
        inside, outside = inside & counted.flatten(1), outside & counted.flatten(1)
    enhanced = -(inside * weights * functional.logsigmoid(q)).sum(dim=1) / inside.sum(dim=1).clamp(min=1)
    suppressed = -(outside * functional.logsigmoid(-q)).sum(dim=1) / outside.sum(dim=1).clamp(min=1)
    return (enhanced + suppressed).mean()
