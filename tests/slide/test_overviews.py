"""Overviews of a slide: their limits, strips against the whole, tissue above what is held whole."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_attention.errors import InputError, UnsupportedSlideError
from wsi_attention.slide.overviews import Overviews, coarse_enough
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.structures import TissueMask

EXTENT = (1301, 1003)


def stained_slide() -> Slide:
    """Glass with two pieces of tissue, one with a hole and a blue stroke beside them, all of it noisy."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: EXTENT[1], : EXTENT[0]]
    tissue = ((x - 400) ** 2 + (y - 380) ** 2 < 300**2) & ((x - 450) ** 2 + (y - 300) ** 2 > 90**2)
    tissue |= (abs(x - 1000) < 160) & (abs(y - 640) < 300)
    pixels = np.where(tissue[..., None], (190, 110, 160), (244, 243, 245)) + rng.normal(0, 6, (*tissue.shape, 3))
    pixels[900:960, 100:700] = (40, 60, 180)
    rgb = pixels.clip(0, 255).astype(np.uint8)
    return open_slide([rgb, rgb[::4, ::4]], mpp=2.0)


def overlap(a: TissueMask, b: TissueMask) -> float:
    return float((a.mask & b.mask).sum() / (a.mask | b.mask).sum())


def test_coarse_enough_is_just_within() -> None:
    slide = stained_slide()
    downsample = coarse_enough(slide, 5_000)
    pixels = Overviews(slide).pixels(downsample)
    assert 4_700 < pixels <= 5_000
    assert coarse_enough(slide, 10**7) == 1.0


def test_limits() -> None:
    views = Overviews(stained_slide(), most=80_000, whole=20_000)
    assert views.allowed(5.0) == 5.0
    assert views.pixels(views.allowed(2.0)) <= 80_000
    assert views.whole_at(10.0) == 10.0
    assert views.pixels(views.whole_at(5.0)) <= 20_000
    with pytest.raises(InputError, match="in one piece"):
        views.rgb(5.0)
    with pytest.raises(InputError, match="the most is"):
        views.strips(2.0, 10, 1)


@pytest.mark.parametrize("downsample", [4.0, 5.3])
def test_strips_are_the_whole_and_none_of_it_is_kept(downsample: float) -> None:
    whole, split = Overviews(stained_slide()), Overviews(stained_slide(), whole=20_000)
    for views in (whole, split):
        strips = list(views.strips(downsample, 64, 8))
        rows = np.concatenate([strip.pixels[strip.own] for strip in strips])
        np.testing.assert_array_equal(rows, whole.rgb(downsample))
    assert all(split.pixels(downsample) <= 20_000 for downsample in split.read)
    assert split.counters.pixels == whole.pixels(downsample) + split.pixels(split.read[0])


def test_tissue_in_strips_is_nearly_that_of_the_whole() -> None:
    """All but the glass's colour and the threshold is exactly that of the whole (test_tissue)."""
    whole, split = (Overviews(stained_slide(), whole=limit).tissue(4.0) for limit in (10**6, 5_000))
    assert whole.mask.shape == split.mask.shape
    assert overlap(whole, split) > 0.99
    assert not split.mask[226:239, 30:170].any()


def test_strips_of_a_dark_slide_are_refused() -> None:
    views = Overviews(open_slide(np.zeros((400, 400, 3), np.uint8), mpp=2.0), whole=1_000)
    with pytest.raises(UnsupportedSlideError, match="fluorescence"):
        views.strips(4.0, 8, 0)
