"""From pixels to the numbers that a network takes; and what stays in float32 while the rest runs in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from wsi_attention.options import Options, option

HE_MEAN = (0.76, 0.62, 0.75)
"""Per-channel means in [0, 1] that are typical of haematoxylin-eosin views with some white in them."""
HE_STD = (0.18, 0.24, 0.17)
"""Per-channel standard deviations of the same, of values in [0, 1]."""


class Normalise(nn.Module):
    """(x − mean) / std per channel; uint8 pixels are divided by 255 first, floats are taken as they are.

    Pixels travel to the device as bytes, not as floats. The result is channels-last in memory, which is faster for
    convolutions on CPUs and on tensor cores.

    Args:
        mean: per channel, of values in [0, 1].
        std: per channel, of values in [0, 1]; above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = HE_MEAN, std: Sequence[float] = HE_STD) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(f"mean and std need one value a channel and std above 0, got mean {mean}, std {std}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (m, c, h, w), uint8 or float on any device, to (m, c, h, w) float32 on this module's device."""
        x = pixels.to(self.mean.device, non_blocking=True)
        if pixels.dtype == torch.uint8:
            return self._of_bytes(x)
        x = x.to(self.mean.dtype, memory_format=torch.channels_last)
        return (x - self.mean) / self.std

    def _of_bytes(self, pixels: Tensor) -> Tensor:
        """Map bytes, in the order in which long runs of memory share one operation: two to five times as fast."""
        mean, std = 255.0 * self.mean, 255.0 * self.std
        if pixels.stride(1) != 1:  # channel by channel
            x = pixels.to(mean.dtype, memory_format=torch.contiguous_format)
            return x.sub_(mean).div_(std).to(memory_format=torch.channels_last)
        x = pixels.to(mean.dtype, memory_format=torch.channels_last)
        m, c, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).view(m * h, w * c)
        rows.sub_(mean.view(-1).repeat(w)).div_(std.view(-1).repeat(w))
        return x


@dataclass(frozen=True, kw_only=True)
class PixelOptions(Options):
    """How pixels become what networks take: one place for every method, for tiles and overviews alike."""

    mean: tuple[float, ...] = option(
        HE_MEAN, "mean of each channel, between 0 and 1", "typical of H&E", low=-10, high=10
    )
    std: tuple[float, ...] = option(
        HE_STD, "standard deviation of each channel, between 0 and 1", "typical of H&E", low=1e-6, high=1e6
    )

    @property
    def channels(self) -> int:
        """The number of channels."""
        return len(self.mean)

    def preprocess(self) -> nn.Module:
        """Return the module that turns pixels of any dtype, (m, c, h, w), into floats on its own device."""
        return Normalise(self.mean, self.std)


def background(pixels: Tensor) -> float:
    """Return the value of empty surroundings: white for the bytes of a brightfield slide, 0 for float images."""
    return 255.0 if pixels.dtype == torch.uint8 else 0.0


T = TypeVar("T")
HALF = (torch.float16, torch.bfloat16)


def in_float32(network: Callable[..., T], *tensors: Tensor) -> T:
    """Return a network's output without autocast; inputs of half precision become float32, others stay as they are.

    This is for networks whose output decides which cells are drawn or is read as a probability: a bfloat16 logit of 5
    is rounded by up to 0.016, so that rounding would decide about cells, and a jackknife over leave-one-out logits
    would measure little else. Such networks cost little compared with an encoder of tiles.

    Args:
        network: a module or a function of tensors.
        tensors: its arguments, all on one device.
    """
    with torch.autocast(tensors[0].device.type, enabled=False):
        return network(*(one.float() if one.dtype in HALF else one for one in tensors))
