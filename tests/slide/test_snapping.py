"""Regions moved to the stored tiles: never more tiles than before, the fewest where that is possible, little shifts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from wsi_attention.slide.readers.array import ArrayLevels
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.snapping import snapped_to_tiles
from wsi_attention.slide.view import View


def slide_of(
    extent: tuple[int, int], downsamples: tuple[float, ...] = (1.0,), tile: tuple[int, int] | None = (256, 256)
) -> Slide:
    blank = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1, 1, 1), (0, 0, 0))
    shapes = [(round(extent[1] / downsample), round(extent[0] / downsample), 3) for downsample in downsamples]
    levels = tuple(np.broadcast_to(blank, shape) for shape in shapes)
    return open_slide(ArrayLevels(levels, downsamples=downsamples, tile_size=tile), mpp=0.25)


def touched(view: View, locations: np.ndarray, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Columns and rows of stored tiles that each region is computed from, counted one by one."""
    first, count = view.stored_spans(locations, size)
    tile, extent = view.stored.tile, view.stored.extent
    assert tile is not None
    return [
        tuple(
            len({pixel // tile[axis] for pixel in range(max(a[axis], 0), min(a[axis] + n[axis], extent[axis]))})
            for axis in (0, 1)
        )
        for a, n in zip(first.tolist(), count.tolist(), strict=True)
    ]  # type: ignore[return-value]


def test_a_small_tile_moves_into_the_stored_tile_that_holds_its_centre() -> None:
    view = View(slide_of((2000, 2000)), 1.0)
    places = np.array([[100, 100], [0, 32], [33, 255], [300, 500], [150, 1000]])
    found = snapped_to_tiles(view, places, (224, 224))
    assert found.tolist() == [[32, 32], [0, 32], [32, 256], [288, 512], [256, 1024]]


def test_a_large_tile_starts_on_the_grid() -> None:
    view = View(slide_of((4000, 4000)), 2.0)
    found = snapped_to_tiles(view, np.array([[100, 130], [511, 900], [256, 0]]), (256, 256))
    assert found.tolist() == [[0, 256], [512, 1024], [256, 0]]


@pytest.mark.parametrize("tile", [(256, 256), (240, 512)])
@pytest.mark.parametrize("levels", [(1.0,), (1.0, 4.0), (1.0, 4.00037, 16.0031), (1.0, 2.0)])
@pytest.mark.parametrize(
    ("size", "downsample"), [(224, 1.0), (256, 2.0), (224, 4.1), (64, 4.0), (256, 8.0), (100, 2.7)]
)
def test_fewer_tiles_small_shifts_nothing_lost(
    tile: tuple[int, int], levels: tuple[float, ...], size: int, downsample: float
) -> None:
    slide = slide_of((30_011, 20_003), levels, tile)
    view = View(slide, downsample)
    places = np.random.default_rng(0).integers((-300, -300), (30_100, 20_100), (150, 2))
    found = snapped_to_tiles(view, places, (size, size))
    before, after = touched(view, places, (size, size)), touched(view, found, (size, size))
    assert all(a <= b for one, other in zip(after, before, strict=True) for a, b in zip(one, other, strict=True))
    stored = view.stored
    limit = np.minimum(size * downsample / stored.downsample, tile) / 2 * stored.downsample + stored.downsample
    assert (np.abs(found - places) <= limit).all()
    centres = places + size * downsample / 2
    assert (np.abs(found + size * downsample / 2 - centres) <= size * downsample / 2 + stored.downsample).all()
    inside = ((places > 300) & (places < (29_000, 19_000))).all(axis=1)
    fewest = [math.ceil((size * downsample / stored.downsample + 1) / length) for length in tile]
    assert all(one[axis] <= fewest[axis] for one, ok in zip(after, inside, strict=True) if ok for axis in (0, 1))
    again = snapped_to_tiles(view, found, (size, size))
    assert (again == found).all()


def test_no_tile_shows_less_of_the_slide_than_before() -> None:
    view = View(slide_of((780, 780)), 1.0)
    places = np.array(list(itertools.product(range(-230, 800, 7), (300,))))
    found = snapped_to_tiles(view, places, (224, 224))
    for x, moved in zip(places[:, 0].tolist(), found[:, 0].tolist(), strict=True):
        assert min(moved + 224, 780) - max(moved, 0) >= min(x + 224, 780) - max(x, 0)


def test_without_stored_tiles_nothing_moves() -> None:
    places = np.random.default_rng(0).integers(0, 900, (20, 2))
    assert (snapped_to_tiles(View(slide_of((1000, 1000), tile=None), 1.0), places, (224, 224)) == places).all()
