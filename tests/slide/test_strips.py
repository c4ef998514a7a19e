"""Strips of a view, at hand and read, against the whole."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_attention.errors import TileReadError
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.strips import cut, read_strips, rows_of
from wsi_attention.slide.view import View


def noisy_slide() -> Slide:
    pixels = np.random.default_rng(2).integers(0, 256, (401, 303, 3)).astype(np.uint8)
    return open_slide([pixels, pixels[::4, ::4]], mpp=1.0)


@pytest.mark.parametrize("downsample", [1.0, 2.7, 4.0, 6.31, 4.1])
@pytest.mark.parametrize(("rows", "halo"), [(1, 0), (7, 3), (16, 40), (1000, 5)])
def test_strips_show_what_the_whole_view_shows(downsample: float, rows: int, halo: int) -> None:
    with noisy_slide() as slide:
        whole = View(slide, downsample).read_whole()
        read = list(read_strips(View(slide, downsample), rows, halo))
    for strip, other in zip(read, cut(whole, rows, halo), strict=True):
        assert (strip.first, strip.last, strip.top) == (other.first, other.last, other.top)
        assert strip.top == max(strip.first - halo, 0)
        np.testing.assert_array_equal(strip.pixels, other.pixels)
        np.testing.assert_array_equal(strip.pixels[strip.own], whole[strip.first : strip.last])
    assert read[-1].last == len(whole)


def test_a_damaged_level_gives_way_to_the_finer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Slide.read

    def damaged(self: Slide, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        if level == 1 and location[1] + 4 * size[1] > 200:
            raise TileReadError("damaged")
        return read(self, location, level, size)

    monkeypatch.setattr(Slide, "read", damaged)
    with noisy_slide() as slide:
        strips = list(read_strips(View(slide, 4.0), 10, 2))
        finer = View(slide, 4.0).finer()
        assert finer is not None
        np.testing.assert_array_equal(strips[-1].pixels, finer.read_whole()[-3:])
    assert sum(strip.last - strip.first for strip in strips) == 101


def test_rows_are_whole_multiples() -> None:
    assert rows_of(100, 1_000) == 10
    assert rows_of(100, 1_000, 8) == 8
    assert rows_of(10_000, 1_000, 8) == 8
