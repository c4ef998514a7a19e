"""What the processes of one training run exchange; with one process, nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wsi_attention.training.data import Example

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def sum_gradients(fabric: Fabric, model: nn.Module) -> bool:
    """Replace the gradients of every process by the sum over all; return False where no process has any."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if fabric.world_size > 1:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        joined = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        summed = torch.split(total(fabric, joined), [p.numel() for p in parameters])
        for parameter, gradient in zip(parameters, summed, strict=True):
            parameter.grad = gradient.view_as(parameter)
        return bool(any(gradient.any() for gradient in summed))
    return any(parameter.grad is not None for parameter in parameters)


def share_buffers(fabric: Fabric, model: nn.Module) -> None:
    """Replace running statistics by their mean over the processes."""
    if fabric.world_size > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(total(fabric, buffer) / fabric.world_size)


def gathered(fabric: Fabric, examples: Sequence[Example], rows: Mapping[str, Tensor]) -> Tensor:
    """Return one row an example, in their order, from whichever process has it; NaN where none has."""
    width = max((row.numel() for row in rows.values()), default=0)
    if fabric.world_size > 1:
        widths = torch.zeros(fabric.world_size, device=fabric.device)
        widths[fabric.global_rank] = width
        width = int(total(fabric, widths).max())
    table = torch.zeros(len(examples), width + 1, dtype=torch.float64)
    for position, example in enumerate(examples):
        if example.name in rows:
            table[position] = torch.cat([rows[example.name].reshape(-1).double(), torch.ones(1).double()])
    table = total(fabric, table.to(fabric.device)).cpu() if fabric.world_size > 1 else table
    return table[:, :-1].where(table[:, -1:] > 0, torch.nan)


def owned(fabric: Fabric, keys: Sequence[str], vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the vector of each key from whichever process has one, on the CPU; their mean where several have one.

    Args:
        fabric: of the run.
        keys: the same ones in every process, in the same order.
        vectors: key -> (n,) float64, of equal length for the same key.
    """
    if fabric.world_size == 1:
        return dict(vectors)
    lengths = torch.tensor([[float(key in vectors), len(vectors.get(key, ()))] for key in keys], dtype=torch.float64)
    counted = total(fabric, lengths.to(fabric.device)).cpu()
    found = {}
    for key, (count, length) in zip(keys, counted.tolist(), strict=True):
        if count:
            nothing = torch.zeros(round(length / count), dtype=torch.float64)
            found[key] = total(fabric, vectors.get(key, nothing).to(fabric.device)).cpu() / count
    return found


def agreed(fabric: Fabric, examples: Sequence[Example], failed: Mapping[str, str]) -> dict[str, str]:
    """Return the failures of all processes, in the order of the examples."""
    flags = torch.tensor([float(example.name in failed) for example in examples], device=fabric.device)
    flags = total(fabric, flags) if fabric.world_size > 1 else flags
    names = [example.name for example, flag in zip(examples, flags.tolist(), strict=True) if flag]
    return {name: failed.get(name, "another process could not use it") for name in names}


def total(fabric: Fabric, values: Tensor) -> Tensor:
    """Return the elementwise sum over the processes."""
    summed = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(summed, Tensor)
    return summed
