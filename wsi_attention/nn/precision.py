"""Where the eight bits of bfloat16 are too few: attention and classifiers run in float32 whatever surrounds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
HALF = (torch.float16, torch.bfloat16)


def in_float32(network: Callable[..., T], *tensors: Tensor) -> T:
    """What a network gives without autocast, half-precision inputs made float32; other inputs stay as they are.

    For what decides which cells are drawn and what is read out as a probability: a bfloat16 logit of 5 is rounded by
    up to 0.016, so cells would be drawn by the rounding, and a jackknife over leave-one-out logits would see nothing
    else. Such networks cost little beside an encoder of tiles.

    Args:
        network: a module or a function of tensors.
        tensors: its arguments, all on one device.
    """
    with torch.autocast(tensors[0].device.type, enabled=False):
        return network(*(one.float() if one.dtype in HALF else one for one in tensors))
