"""Laying on white, rounding of locations, and reading over the border."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from wsi_attention.slide.resample import level_location, on_white, padded


def test_on_white_equals_pillow_for_every_alpha() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (64, 64, 4)).astype(np.uint8)
    image, expected = Image.fromarray(rgba), Image.new("RGB", (64, 64), "white")
    expected.paste(image, mask=image.getchannel("A"))
    assert np.array_equal(on_white(rgba), np.asarray(expected))


def test_opaque_pixels_stay_and_come_contiguous() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (9, 7, 4)).astype(np.uint8)
    rgba[..., 3] = 255
    assert np.array_equal(on_white(rgba), rgba[..., :3])
    assert on_white(rgba).flags.c_contiguous


@pytest.mark.parametrize(
    ("location", "downsample", "pixel"),
    [((10, 20), 1.0, (10, 20)), ((-3, -1), 2.0, (-1, 0)), ((1, 3), 2.0, (1, 2)), ((1000, 999), 2.0005, (500, 499))],
)
def test_level_location_is_the_nearest_pixel(
    location: tuple[int, int], downsample: float, pixel: tuple[int, int]
) -> None:
    assert level_location(location, downsample) == pixel


def test_padded_over_all_borders_and_outside() -> None:
    level = np.random.default_rng(0).integers(0, 200, (5, 6, 3)).astype(np.uint8)
    around = padded(lambda rows, cols: level[rows, cols], (6, 5), (-2, -3), (10, 11))
    assert np.array_equal(around[3:8, 2:8], level)
    around[3:8, 2:8] = 255
    assert (around == 255).all()
    assert (padded(lambda rows, cols: level[rows, cols], (6, 5), (6, 0), (2, 2)) == 255).all()


def test_padded_notices_a_short_answer() -> None:
    with pytest.raises(ValueError, match="came instead of"):
        padded(lambda rows, cols: np.zeros((1, 1, 3), np.uint8), (6, 5), (0, 0), (4, 4))
