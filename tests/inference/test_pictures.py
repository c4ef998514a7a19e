"""How finely a slide is shown behind its heatmap."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from wsi_attention.inference.pictures import picture_downsample
from wsi_attention.slide.levels import snapped
from wsi_attention.structures import TissueMask
from wsi_attention.testing.exporters import example_prediction


def chosen(side: int, levels: tuple[float, ...], overview: float, source: str = "computed") -> float:
    sizes = tuple((round(side / level), round(side / level)) for level in levels)
    slide = SimpleNamespace(
        dimensions=(side, side),
        levels=range(len(levels)),
        level_downsamples=levels,
        level_dimensions=sizes,
        snapped=partial(snapped, levels),
    )
    mask = TissueMask(np.ones((2, 2), bool), overview, source)
    return picture_downsample(slide, replace(example_prediction(), tissue=mask))


@pytest.mark.parametrize(
    ("side", "levels", "overview", "expected"),
    [
        (100_000, (1, 4, 16, 64), 64.0, 64.0),
        (3_000, (1,), 32.0, 2.0),
        (1_000, (1,), 32.0, 1.0),
        (16_000, (1, 4, 16), 32.0, 16.0),
        (16_000, (1, 4), 32.0, 16_000 / 1500),
        (20_000, (1,), 64.0, 64.0),
        (20_000, (1, 15), 64.0, 15.0),
    ],
)
def test_small_slides_are_read_again_and_large_ones_never(side, levels, overview, expected) -> None:
    assert chosen(side, levels, overview) == pytest.approx(expected)


def test_what_was_seen_in_strips_is_shown_coarser() -> None:
    downsample = chosen(200_000, (1, 4, 16, 64), 32.0)
    assert (200_000 / downsample) ** 2 == pytest.approx(4e6, rel=0.01)
    assert chosen(100_000, (1, 4, 16, 48), 32.0) == pytest.approx(50.0, rel=0.05)


def test_a_given_mask_says_nothing_about_the_overview() -> None:
    assert chosen(100_000, (1, 4, 16, 64), 1_000.0, "mask.png") == pytest.approx(100_000 / 600)
