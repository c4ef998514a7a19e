"""Mean and deviation of the tissue's colours, for models that normalise by them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch

from wsi_attention.errors import InputError, SlideError
from wsi_attention.geometry import Grid
from wsi_attention.training.examples import Example, ahead

SLIDES = 32
"""Slides looked at; more change the third decimal."""

Colour = tuple[float, ...]


def tissue_colours(examples: Sequence[Example], overview_mpp: float) -> tuple[Colour, Colour]:
    """Mean and standard deviation per channel, of 1, over the tissue of up to `SLIDES` evenly spaced examples.

    Each slide counts the same, whatever its size.

    Raises:
        InputError: none of the slides can be used.
    """
    spaced = np.unique(np.linspace(0, len(examples) - 1, min(SLIDES, len(examples))).astype(int))
    moments = []
    with closing(ahead([examples[i] for i in spaced])) as opened:
        for _, source in opened:
            if isinstance(source, SlideError):
                continue
            downsample = source.overview_downsample(overview_mpp)
            view = source.overview(downsample)[0].float() / 255
            grid = Grid(view.shape[-2], view.shape[-1], (downsample, downsample))
            pixels = view[:, source.tissue(grid)[0]].double()
            moments.append(torch.stack([pixels.mean(1), (pixels**2).mean(1)]))
    if not moments:
        raise InputError("no training slide can be used; the lines above say why")
    mean, square = torch.stack(moments).mean(0)
    deviation = (square - mean**2).clamp_min(1e-6).sqrt()
    return _rounded(mean), _rounded(deviation)


def _rounded(values: torch.Tensor) -> Colour:
    return tuple(round(float(value), 4) for value in values)
