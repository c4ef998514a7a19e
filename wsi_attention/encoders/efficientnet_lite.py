"""EfficientNet-lite0: 4.7 M parameters, 0.1 to 0.4 GFLOP a tile, tiles of any size; needs torch alone.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019, table 1, without
squeeze-and-excitation and with ReLU6, as its authors' "lite" variants are. Parameters have the names that they have in
timm's `tf_efficientnet_lite0`, so the files of both fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

NAME = "efficientnet-lite0"
STEM, HEAD = 32, 1280
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Colours of the published weights: they were trained on (x - 127) / 128, x in 0 … 255."""


class Stage(NamedTuple):
    """A row of the paper's table 1."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
POOLED = (3, 5, 7)
"""Stages whose means are the feature, counted from 1: the last ones before the image is halved again, and the end."""


class EfficientNetLite0(nn.Module):
    """The network with several stages pooled: features of early stages tell textures, those of late ones objects.

    Args:
        channels: channels of the tiles.
        stages: which of the seven stages are pooled, counted from 1; 8 is the last 1 x 1 convolution. Each one's mean
            is scaled to length 1 before they are joined, so that none outweighs another.

    Attributes:
        dim: length of the feature.
        classifiers: names of modules that published weights hold and the network does not have.
        map_layer: layer with the last feature map but one; TNet's location module sees it.
    """

    def __init__(self, channels: int = 3, stages: Sequence[int] = POOLED) -> None:
        super().__init__()
        if not stages or not set(stages) <= set(range(1, len(STAGES) + 2)):
            raise ValueError(f"stages of {NAME} are 1 to {len(STAGES) + 1}, got {list(stages)}")
        self.pooled = tuple(sorted(set(stages)))
        self.conv_stem, self.bn1 = SameConv(channels, STEM, 3, 2), _norm(STEM)
        widths = (STEM, *(stage.width for stage in STAGES))
        depth = max(self.pooled)
        plans = zip(pairwise(widths), STAGES, strict=True)
        self.blocks = nn.ModuleList([_stage(before, stage) for (before, _), stage in plans][:depth])
        self.head = depth > len(STAGES)
        if self.head:
            self.conv_head, self.bn2 = SameConv(widths[-1], HEAD, 1), _norm(HEAD)
        self.classifiers = ("classifier", *(() if self.head else ("conv_head", "bn2")))
        self.classifiers += tuple(f"blocks.{index}" for index in range(depth, len(STAGES)))
        self.dim = sum((*widths, HEAD)[stage] for stage in self.pooled)
        self.map_layer = f"blocks.{min(depth, 5) - 1}"

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (m, c, h, w) to (m, dim), rows of length 1; the part of each stage has the same length."""
        x = functional.relu6(self.bn1(self.conv_stem(tiles)))
        parts: list[Tensor] = []
        for number, stage in enumerate(self.blocks, 1):
            x = stage(x)
            parts += [_pooled(x)] if number in self.pooled else []
        if self.head:
            parts.append(_pooled(functional.relu6(self.bn2(self.conv_head(x)))))
        features: Tensor = torch.cat(parts, dim=-1) / len(parts) ** 0.5
        return features


class SameConv(nn.Conv2d):
    """A convolution whose output has ceil(side / stride) cells a side: zeros around, the odd one right and below.

    Args:
        before: channels that come in.
        after: channels that go out.
        kernel: side of the kernel.
        stride: step.
        groups: as many independent parts.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (m, before, h, w) to (m, after, ceil(h / stride), ceil(w / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in x.shape[-2:])
        padded = functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        result: Tensor = super().forward(padded)
        return result


class _Separable(nn.Module):
    """A convolution of each channel, then one of each pixel; the only block of the first stage."""

    def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = SameConv(before, before, kernel, stride, before), _norm(before)
        self.conv_pw, self.bn2 = SameConv(before, after, 1), _norm(after)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.bn1(self.conv_dw(x)))
        result: Tensor = self.bn2(self.conv_pw(x))
        return result


class _Inverted(nn.Module):
    """Widen, convolve each channel, narrow; added to what came in where both have the same shape."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = before * expansion
        self.conv_pw, self.bn1 = SameConv(before, inside, 1), _norm(inside)
        self.conv_dw, self.bn2 = SameConv(inside, inside, kernel, stride, inside), _norm(inside)
        self.conv_pwl, self.bn3 = SameConv(inside, after, 1), _norm(after)
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self.bn1(self.conv_pw(x)))
        y = functional.relu6(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        result: Tensor = x + y if self.adds else y
        return result


def _stage(before: int, stage: Stage) -> nn.Sequential:
    parts: list[nn.Module] = []
    for number in range(stage.blocks):
        width, stride = (before, stage.stride) if number == 0 else (stage.width, 1)
        if stage.expansion == 1:
            parts.append(_Separable(width, stage.width, stage.kernel, stride))
        else:
            parts.append(_Inverted(width, stage.width, stage.kernel, stride, stage.expansion))
    return nn.Sequential(*parts)


def _pooled(x: Tensor) -> Tensor:
    means = x.mean(dim=(-2, -1))
    return functional.normalize(means.float() if means.dtype in (torch.float16, torch.bfloat16) else means, dim=-1)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LATER = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
LATER |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
"""Names of the package efficientnet-lite-pytorch -> names of timm: outside blocks, in the first one, in later ones."""


def timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of the package efficientnet-lite-pytorch under timm's names.

    Raises:
        ValueError: a name is none of that package's; the text is the name.
    """
    places = [f"{stage}.{block}" for stage, row in enumerate(STAGES) for block in range(row.blocks)]
    return {_timm_name(name, places): value for name, value in weights.items()}


def _timm_name(name: str, places: Sequence[str]) -> str:
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    part, _, rest = name.partition(".")
    if inside and int(inside[1]) < len(places):
        known = LATER if int(inside[1]) else FIRST
        if inside[2] in known:
            return f"blocks.{places[int(inside[1])]}.{known[inside[2]]}.{inside[3]}"
    elif part in OUTSIDE and rest:
        return f"{OUTSIDE[part]}.{rest}"
    raise ValueError(name)
