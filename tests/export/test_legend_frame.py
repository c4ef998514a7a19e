from __future__ import annotations

import pytest

from wsi_attention.export.legend import FOOT, HEAD, LONGEST, MARGIN, NARROWEST, Frame


@pytest.mark.parametrize(
    "extent", [(1, 1), (16, 16), (300, 200), (2_220, 2_967), (100_000, 100_000), (200_000, 20_000), (9_000, 300_000)]
)
def test_the_slide_fits_and_keeps_its_shape(extent: tuple[int, int]) -> None:
    frame = Frame.around(extent)
    assert max(frame.size) <= LONGEST and frame.size[0] >= NARROWEST
    assert frame.origin[0] >= MARGIN and frame.origin[1] == HEAD
    assert frame.size[1] == HEAD + frame.slide[1] + FOOT
    assert frame.slide[0] / extent[0] == pytest.approx(frame.scale[0])
    w, h = (round(extent[k] * min(frame.scale)) for k in range(2))
    assert abs(w - frame.slide[0]) <= 1 + 0.02 * w or frame.slide[0] == 1
    assert abs(h - frame.slide[1]) <= 1 + 0.02 * h or frame.slide[1] == 1


def test_the_grid_covers_the_slide_exactly() -> None:
    frame = Frame.around((21_000, 16_500))
    grid = frame.grid
    assert grid.cols * grid.step[0] == pytest.approx(21_000)
    assert grid.rows * grid.step[1] == pytest.approx(16_500)


def test_a_tiny_slide_is_enlarged_but_not_beyond_half_the_picture() -> None:
    assert Frame.around((16, 16)).slide == (LONGEST // 2, LONGEST // 2)
