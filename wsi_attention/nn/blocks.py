"""Small blocks that several networks share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional

M = TypeVar("M", bound=nn.Module)


class ModulesOf(nn.ModuleList, Generic[M]):
    """A list of modules of one type; PyTorch's own forgets the type."""

    if TYPE_CHECKING:

        def __init__(self, modules: Iterable[M]) -> None: ...

        def __iter__(self) -> Iterator[M]: ...

        @overload
        def __getitem__(self, idx: slice) -> ModulesOf[M]: ...

        @overload
        def __getitem__(self, idx: int) -> M: ...

        def __getitem__(self, idx: int | slice) -> M | ModulesOf[M]: ...


class Encoder(nn.Module):
    """Base of networks that turn a tile into one feature: (m, c, h, w) -> (m, dim), rows of length 1.

    Attributes:
        dim: length of the feature.
        classifiers: names of modules that published weights hold and the encoder does not have.
        renamed: pairs (pattern, replacement) that turn names of published tensors into those of the encoder.
    """

    dim: int
    classifiers: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()

    def directions(self) -> Tensor | None:
        """Return (g, dim) vectors of which each feature is a sum with factors of 0 or more; None where it can be any.

        They tell how much a tile that was not read can say for a class (docs/certificate.md).
        """
        return None


class OverviewNet(nn.Module):
    """Base of networks that look at an overview: (b, c, h, w) -> logits (b, gh, gw), features (b, dim, gh, gw).

    Attributes:
        stride: side of a cell in pixels; gh = h / stride, gw = w / stride.
        dim: length of the feature of a cell.
        reach: width in cells of the surroundings on which the values of a strip depend; None where they depend on all.
    """

    stride: int
    dim: int
    reach: int | None = None


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel (ConvNeXt): local, so a crop has the values of the whole.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised (b, c, h, w)."""
        rows = x.permute(0, 2, 3, 1)
        rows = functional.layer_norm(rows, rows.shape[-1:], self.weight, self.bias, 1e-6)
        return rows.permute(0, 3, 1, 2)


class UnitNorm(nn.Module):
    """Features of length 1: with equal lengths, draws by attention have the least variance (ATS, section 3.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (m, d) to (m, d), float32 at least."""
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return functional.normalize(x, dim=-1)


class GlobalMax(nn.Module):
    """Map (m, c, h, w) to (m, c): the largest value of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (m, c, h, w) to (m, c)."""
        return x.amax(dim=(-2, -1))


class GlobalMean(nn.Module):
    """Map (m, c, h, w) to (m, c): the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (m, c, h, w) to (m, c)."""
        return x.mean(dim=(-2, -1))


class GlobalMeanMax(nn.Module):
    """Map (m, c, h, w) to (m, 2c): the mean of each channel, then the largest value of each."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (m, c, h, w) to (m, 2c)."""
        return torch.cat([x.mean(dim=(-2, -1)), x.amax(dim=(-2, -1))], dim=-1)
