"""Two processes come to the same numbers as one; the other one is played by a script."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from wsi_attention.training.data import Example
from wsi_attention.training.processes import agreed, gathered, share_buffers, sum_gradients


class OneOfTwo:
    """Rank 0 of 2; what the other one adds to each sum is given."""

    world_size, global_rank, device = 2, 0, torch.device("cpu")

    def __init__(self, other: Callable[[Tensor], Tensor]) -> None:
        self.other = other

    def all_reduce(self, values: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        return values + self.other(values)


class Alone(OneOfTwo):
    world_size = 1

    def __init__(self) -> None:
        super().__init__(lambda values: 1 / 0)  # type: ignore[arg-type, return-value]


def named(*names: str) -> list[Example]:
    return [Example(name, 0, name, lambda: nullcontext(cast(Any, None))) for name in names]


def test_gradients_are_summed_even_where_this_process_has_none() -> None:
    model = nn.Linear(2, 1)
    assert sum_gradients(cast(Any, OneOfTwo(torch.ones_like)), model)
    assert model.weight.grad is not None and model.bias.grad is not None
    assert model.weight.grad.tolist() == [[1.0, 1.0]]
    model.weight.grad.fill_(2.0)
    assert sum_gradients(cast(Any, OneOfTwo(torch.ones_like)), model)
    assert model.weight.grad.tolist() == [[3.0, 3.0]]
    assert not sum_gradients(cast(Any, OneOfTwo(torch.zeros_like)), nn.Linear(2, 1))
    assert not sum_gradients(cast(Any, Alone()), nn.Linear(2, 1))


def test_a_frozen_part_has_no_gradient_to_sum() -> None:
    model = nn.Sequential(nn.Linear(2, 3).requires_grad_(False), nn.Linear(3, 1), nn.Linear(1, 1))
    model[1](torch.ones(3)).sum().backward()
    summed: list[int] = []

    def other(values: Tensor) -> Tensor:
        summed.append(values.numel())
        return torch.zeros_like(values)

    assert sum_gradients(cast(Any, OneOfTwo(other)), model)
    assert summed == [4 + 2]
    assert all(parameter.grad is None for parameter in model[0].parameters())
    assert all(parameter.grad is not None for part in model[1:] for parameter in part.parameters())
    assert not sum_gradients(cast(Any, Alone()), nn.Linear(2, 1).requires_grad_(False))


def test_rows_come_from_whoever_has_them() -> None:
    def other(values: Tensor) -> Tensor:
        if values.shape == (2,):
            return torch.tensor([0.0, 2.0])
        return torch.tensor([[0, 0, 0], [0.25, 0.75, 1], [0, 0, 0]], dtype=torch.float64)

    rows = {"a": torch.tensor([0.5, 0.5])}
    table = gathered(cast(Any, OneOfTwo(other)), named("a", "b", "c"), rows)
    assert table[:2].tolist() == [[0.5, 0.5], [0.25, 0.75]]
    assert bool(table[2].isnan().all())
    alone = gathered(cast(Any, Alone()), named("a", "b"), rows)
    assert alone[0].tolist() == [0.5, 0.5] and bool(alone[1].isnan().all())


def test_failures_are_known_to_all() -> None:
    fabric = OneOfTwo(lambda values: torch.tensor([0.0, 1.0, 0.0]))
    found = agreed(cast(Any, fabric), named("a", "b", "c"), {"c": "broken"})
    assert found == {"b": "another process could not use it", "c": "broken"}
    assert agreed(cast(Any, Alone()), named("a", "b"), {"b": "broken"}) == {"b": "broken"}


def test_running_statistics_are_averaged() -> None:
    layer = nn.BatchNorm1d(1)
    share_buffers(cast(Any, OneOfTwo(lambda values: torch.full_like(values, 4.0))), layer)
    assert layer.running_mean is not None and layer.running_mean.tolist() == [2.0]
