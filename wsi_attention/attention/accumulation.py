"""Attention that adds up over epochs: accumulated maps and the loss that teaches them to a second network.

OAA and OAA+: Jiang et al., "Integral Object Mining via Online Attention Accumulation", ICCV 2019; its released codes
are PengtaoJiang/OAA (Caffe, the paper's) and PengtaoJiang/OAA-PyTorch. A memory is a value: it goes in, a new one comes
out, and who keeps it decides where it lives. Axes: b images, k classes, h × w positions, K cells. Nothing here but the
loss carries a gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

WARM_UP = 1
"""Epochs without accumulation: a bad early map in a maximum stays for ever."""


class Memory(NamedTuple):
    """What has been accumulated so far.

    Attributes:
        values: (..., positions) in [0, 1]; 0 where nothing was accumulated.
        updates: int64, how many maps or visits stand behind the values: (b, k) for whole maps (b, k, h, w), and as
            `values` for single cells. 0 means never seen, which is not the same as seen without evidence.
    """

    values: Tensor
    updates: Tensor


def empty_maps(shape: tuple[int, int, int, int]) -> Memory:
    """A memory of maps (b, k, h, w) that has seen nothing."""
    return Memory(torch.zeros(shape), torch.zeros(shape[:2], dtype=torch.int64))


def empty_cells(shape: tuple[int, int]) -> Memory:
    """A memory of single cells (k, K) that has seen nothing."""
    return Memory(torch.zeros(shape), torch.zeros(shape, dtype=torch.int64))


def gate(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Which maps are good enough: those of label classes among the n highest classes, n the image's labels (OAA §2.3).

    The paper words a condition on the class's probability; both released codes apply this rank rule. Of equal
    probabilities the lower class counts as higher. With one class only, the rank says nothing; there p > 0.5 decides.

    Args:
        probabilities: (b, k), or any scores of the same order; real probabilities where k is 1.
        labels: (b, k) bool, the classes an image has.

    Returns:
        (b, k) bool.
    """
    if probabilities.shape[-1] == 1:
        return labels & (probabilities > 0.5)
    order = probabilities.sort(dim=-1, descending=True, stable=True).indices
    rank = order.argsort(dim=-1)
    return labels & (rank < labels.sum(dim=-1, keepdim=True))


def acceptance(accepted: Tensor, labels: Tensor, updates: Tensor, epoch: int, epochs: int) -> Tensor:
    """The gate over the course of training: nothing in the warm-up, and at last a map for every label (OAA-PyTorch).

    Args:
        accepted: (b, k) bool, from `gate`.
        labels: (b, k) bool.
        updates: (b, k) of the memory.
        epoch: this epoch, from 0.
        epochs: how many there are; in the last, labels without any map take the current one whatever the gate says.

    Returns:
        (b, k) bool.
    """
    if epoch < WARM_UP:
        return torch.zeros_like(accepted)
    if epoch == epochs - 1:
        return accepted | (labels & (updates == 0))
    return accepted


def accumulate_maximum(memory: Memory, maps: Tensor, accepted: Tensor) -> Memory:
    """M_t = max(M_{t-1}, A_t) for accepted maps, the first one copied; the others stay bit for bit (OAA §2.3).

    Args:
        memory: of maps (b, k, h, w).
        maps: (b, k, h, w) in [0, 1], from `cam.attention_maps`, with any augmentation undone (`restored`).
        accepted: (b, k) bool.
    """
    higher = torch.maximum(memory.values, maps.detach())
    return _updated(memory, higher, accepted)


def accumulate_mean(memory: Memory, maps: Tensor, accepted: Tensor) -> Memory:
    """M_t = ((t − 1)·M_{t-1} + A_t) / t for accepted maps: the released averaging variant, 1.6 mIoU below the maximum.

    Args:
        memory: of maps (b, k, h, w).
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
    """3 / (1/mean + 2/maximum), the Caffe code's blend of both memories' values; 0 where either is 0."""
    product = mean * maximum
    return torch.where(product > 0, 3 * product / (maximum + 2 * mean).clamp(min=torch.finfo(mean.dtype).tiny), 0.0)


def accumulate_cells(memory: Memory, cells: Tensor, evidence: Tensor) -> Memory:
    """What random glimpses found: the maximum of each cell's evidence, and how often it was visited.

    An extension to sampling methods: each epoch sees other tiles, and the memory turns glimpses into coverage. A cell
    drawn twice in a glimpse counts as two visits.

    Args:
        memory: of cells (k, K).
        cells: (n,) int64, the cells visited.
        evidence: (k, n) in [0, 1], their normalised evidence for each class.
    """
    index = cells.expand(evidence.shape)
    values = memory.values.scatter_reduce(-1, index, evidence.detach(), "amax")
    return Memory(values, memory.updates.scatter_add(-1, index, torch.ones_like(index)))


def coarser(memory: Memory, shape: tuple[int, int], factor: int) -> Memory:
    """A memory of cells for display on a coarser grid: the maximum of the evidence, the sum of the visits.

    There is no way back: finer cells would claim a look that never happened; they start empty.

    Args:
        memory: of cells (k, K).
        shape: (rows, cols) of the fine grid, rows · cols = K.
        factor: fine cells per coarse cell and axis; the last coarse cells may be cut.
    """
    values = functional.max_pool2d(memory.values.reshape(-1, *shape), factor, ceil_mode=True)
    padding = (0, -shape[1] % factor, 0, -shape[0] % factor)
    visits = functional.pad(memory.updates.reshape(-1, *shape), padding)
    visits = visits.reshape(-1, values.shape[1], factor, values.shape[2], factor).sum(dim=(2, 4))
    return Memory(values.flatten(1), visits.flatten(1))


def oriented(pixels: Tensor, turn: int) -> Tensor:
    """One of the eight flips and quarter turns of a square grid, as augmentation; `turn` 0 changes nothing.

    Args:
        pixels: (..., h, w).
        turn: 0-7; from 4 on flipped left to right first, then turned by turn % 4 quarters.
    """
    flipped = pixels.flip(-1) if turn >= 4 else pixels
    return flipped.rot90(turn % 4, (-2, -1))


def restored(maps: Tensor, turn: int) -> Tensor:
    """Undoes `oriented` on the maps of an augmented image, so that they accumulate in the image's own frame."""
    turned = maps.rot90(-(turn % 4), (-2, -1))
    return turned.flip(-1) if turn >= 4 else turned


def to_bytes(values: Tensor) -> Tensor:
    """Values in [0, 1] as uint8, rounded, so that loading and saving again never drifts.

    The Caffe code truncates: a stored 255 comes back as 254, and grey values lose a step an update.
    """
    return (values * 255).round().clamp(0, 255).to(torch.uint8)


def from_bytes(stored: Tensor) -> Tensor:
    """float32 values in [0, 1] of what `to_bytes` gave."""
    return stored.float() / 255


def integral_loss(logits: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
    """OAA+'s hybrid loss L+ + L−, over the sets where the accumulated map P is above 0 and where it is 0 (OAA §2.4).

        L+ = −(1/|N+|) Σ_{N+} P·log q,    L− = −(1/|N−|) Σ_{N−} log(1 − q),    q = σ(logits)

    An empty set's term is left out. L− has no factor P, which would make it zero. log σ is computed as such; the
    released code takes log(sigmoid(x)), which is −inf for very negative x. Each image has its own two sets over all
    classes, as published; where absent classes would drown the rest, pass (b · k, 1, h, w). The unweighted Caffe form
    is this with (P > 0) as the target.

    Args:
        logits: (b, k, h, w).
        target: (b, k, h, w), P in [0, 1].
        counted: (b, k, h, w) bool, the positions that belong to either set, such as tissue; all of them where None.

    Returns:
        A scalar, the mean over images.
    """
    weights, q = target.flatten(1), logits.flatten(1)
    inside, outside = weights > 0, weights == 0
    if counted is not None:
        inside, outside = inside & counted.flatten(1), outside & counted.flatten(1)
    enhanced = -(inside * weights * functional.logsigmoid(q)).sum(dim=1) / inside.sum(dim=1).clamp(min=1)
    suppressed = -(outside * functional.logsigmoid(-q)).sum(dim=1) / outside.sum(dim=1).clamp(min=1)
    return (enhanced + suppressed).mean()
