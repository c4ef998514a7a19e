"""Deep Zoom levels and tiles: they cover the slide once, and show its own pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lesion_slide import BLUE, EXTENT, LESION, write_slide
from PIL import Image

from wsi_attention.errors import InputError
from wsi_attention.slide.slide import open_slide
from wsi_attention.slide.view import View
from wsi_attention.viewer.deepzoom import SIDE, DeepZoom

SIDES = st.integers(1, 120_000)


@given(SIDES, SIDES)
@settings(max_examples=60, deadline=None)
def test_levels_are_those_of_openslide(width: int, height: int) -> None:
    import openslide.deepzoom as reference

    class Slide:
        level_dimensions = ((width, height),)
        dimensions = (width, height)
        level_downsamples = (1.0,)
        properties: dict[str, str] = {}  # noqa: RUF012
        color_profile = None
        level_count = 1

        def get_best_level_for_downsample(self, downsample: float) -> int:
            return 0

    theirs = reference.DeepZoomGenerator(Slide(), SIDE, 0, False)  # type: ignore[arg-type]
    ours = DeepZoom((width, height))
    assert ours.last == theirs.level_count - 1
    for level in range(theirs.level_count):
        assert ours.size(level) == theirs.level_dimensions[level]


@given(SIDES, SIDES, st.data())
@settings(max_examples=60, deadline=None)
def test_tiles_of_a_level_cover_it_once(width: int, height: int, data: st.DataObject) -> None:
    pyramid = DeepZoom((width, height))
    level = data.draw(st.integers(max(0, pyramid.last - 8), pyramid.last))
    downsample = pyramid.downsample(level)
    (w, h), cols = pyramid.size(level), -(-pyramid.size(level)[0] // SIDE)
    widths = [pyramid.place(level, col, 0) for col in range(cols)]
    assert sum(size[0] for _, size in widths) == w and widths[0][0] == (0, 0)
    assert all(place[0] == i * SIDE * downsample for i, (place, _) in enumerate(widths))
    for outside in ((cols, 0), (0, -(-h // SIDE)), (-1, 0)):
        with pytest.raises(InputError, match="was asked"):
            pyramid.place(level, *outside)


def test_tiles_show_the_pixels_of_the_view(tmp_path: Path) -> None:
    with open_slide(write_slide(tmp_path / "a.tif")) as slide:
        pyramid = DeepZoom(slide.dimensions)
        for level in (pyramid.last, pyramid.last - 1, pyramid.last - 3):
            downsample = pyramid.downsample(level)
            col, row = LESION.x // downsample // SIDE, LESION.y // downsample // SIDE
            location, size = pyramid.place(level, col, row)
            shown = np.asarray(Image.open(io.BytesIO(pyramid.tile(slide, level, col, row))))
            expected = View(slide, downsample).read(location, size)
            assert shown.shape == expected.shape
            assert np.abs(shown.astype(int) - expected).mean() < 3
            assert (np.abs(expected.astype(int) - BLUE).max(-1) < 9).any()


def test_a_level_that_would_read_a_whole_slide_is_not_offered() -> None:
    flat = np.zeros((9000, 9000, 3), np.uint8)
    with open_slide(flat) as slide:
        pyramid = DeepZoom(slide.dimensions)
        coarsest = pyramid.coarsest(slide)
        assert pyramid.downsample(coarsest) == 8
        with pytest.raises(InputError, match="no coarse pixels"):
            pyramid.tile(slide, coarsest - 1, 0, 0)
        assert pyramid.tile(slide, coarsest, 0, 0)


def test_a_pyramid_offers_every_level(tmp_path: Path) -> None:
    with open_slide(write_slide(tmp_path / "a.tif")) as slide:
        assert DeepZoom(EXTENT).coarsest(slide) == 0
