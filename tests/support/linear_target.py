"""The maximum-likelihood linear layer under a target's loss, to compare with that of other libraries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.targets.target import Target, Truth


def fitted_layer(target: Target, features: NDArray[object], truths: Sequence[Truth]) -> torch.nn.Linear:
    """The layer (n, d) -> (n, k) in double precision that makes the loss smallest."""
    x, truth = torch.as_tensor(features, dtype=torch.float64), target.tensor(truths)
    layer = torch.nn.Linear(x.shape[1], target.outputs).double()
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.LBFGS(
        layer.parameters(),
        max_iter=500,
        tolerance_grad=1e-11,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = target.loss(layer(x), truth)
        loss.backward()
        return loss.detach()

    for _ in range(3):
        optimiser.step(closure)
    return layer
