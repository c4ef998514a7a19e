"""Tiles that decode to something else than the overview shows there are told from all that scanners do to levels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import TileSet
from wsi_attention.tiles.source import SlideSource
from wsi_attention.tiles.strays import strays

Rgb = NDArray[np.uint8]
DOWNSAMPLE = 8.0


def smooth(seed: int, width: int = 512, height: int = 512) -> Rgb:
    """Blotches of many colours, about 60 pixels wide."""
    small = np.random.default_rng(seed).integers(60, 240, (height // 64, width // 64, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def overview(rgb: Rgb, how: Image.Resampling = Image.Resampling.BOX) -> Rgb:
    size = round(rgb.shape[1] / DOWNSAMPLE), round(rgb.shape[0] / DOWNSAMPLE)
    return np.asarray(Image.fromarray(rgb).resize(size, how))


def check(tile: Rgb, shown: Rgb, box: tuple[int, int, int, int] = (100, 120, 128, 128)) -> bool:
    return bool(strays(tile[None], np.array([box]), shown, DOWNSAMPLE)[0])


def test_a_tile_that_shows_what_the_overview_shows() -> None:
    rgb = smooth(0)
    tile = rgb[120:248, 100:228]
    for how in (Image.Resampling.BOX, Image.Resampling.NEAREST, Image.Resampling.LANCZOS):
        assert not check(tile, overview(rgb, how))
    assert not check(tile, np.roll(overview(rgb), 1, 1))  # moved by a pixel of the overview
    assert not check(np.clip(tile.astype(int) + 20, 0, 255).astype(np.uint8), overview(rgb))


@pytest.mark.parametrize("rows", [96, 128])
def test_a_tile_of_which_most_or_all_is_another(rows: int) -> None:
    tile = smooth(0)[120:248, 100:228].copy()
    tile[:rows] = 128 - (tile[:rows] // 2) + 127 * (tile[:rows] < 128)
    assert check(tile, overview(smooth(0)))


def test_what_cannot_be_compared_is_no_stray() -> None:
    other = smooth(1)
    assert not check(other[:32, :32], overview(smooth(0)), (100, 120, 32, 32))  # two pixels of the overview
    assert not check(other[:128, :128], overview(smooth(0)), (-120, 0, 128, 128))  # beyond the slide


def test_a_tile_at_the_border_is_compared_where_it_is_on_the_slide() -> None:
    rgb = smooth(0)
    tile = np.full((128, 128, 3), 255, np.uint8)
    tile[:64] = rgb[-64:, :128]
    assert not check(tile, overview(rgb), (0, 448, 128, 128))
    tile[:64] = 255 - rgb[-64:, :128]
    assert check(tile, overview(rgb), (0, 448, 128, 128))


def test_a_stray_counts_as_a_tile_that_cannot_be_read() -> None:
    """Level 0 is another picture in one corner; the overview comes from level 1."""
    rgb = smooth(0)
    fine = rgb.copy()
    fine[:128, :128] = 255 - fine[:128, :128]
    with open_slide([fine, overview(rgb)], mpp=1.0) as slide:
        source = SlideSource(slide)
        source.overview_rgb(DOWNSAMPLE)
        read = source.read(TileSet(np.array([[0, 0], [256, 256]]), (128, 128), 1.0))
    assert read.valid.tolist() == [[False, True]] and source.counters.failed == 1
    assert not read.pixels[0, 0].any() and "the tile at (0, 0) shows something else" in source.failures[0]


@pytest.mark.parametrize("how", [Image.Resampling.BOX, Image.Resampling.NEAREST, Image.Resampling.LANCZOS])
def test_a_tile_of_another_place_of_the_same_colours(how: Image.Resampling) -> None:
    """Its colours alone pass at most of them."""
    rgb = (smooth(0) // 5 * 4 + 30).astype(np.uint8)
    shown, told = overview(rgb, how), 0
    for x, y in np.random.default_rng(1).integers(0, 384, (40, 2)).tolist():
        assert not check(rgb[y : y + 128, x : x + 128], shown, (x, y, 128, 128))
        other = rgb[384 - y : 512 - y, 384 - x : 512 - x]
        told += check(other, shown, (x, y, 128, 128))
    assert told >= 15


def test_noise_jpeg_and_a_moved_level_are_no_strays() -> None:
    rng = np.random.default_rng(2)
    rgb = smooth(0)
    noisy = np.clip(rgb + rng.normal(0, 25, rgb.shape), 0, 255).astype(np.uint8)
    moved = np.roll(overview(noisy, Image.Resampling.NEAREST), (1, 1), (0, 1))
    for x, y in rng.integers(16, 368, (40, 2)).tolist():
        assert not check(rgb[y : y + 128, x : x + 128], moved, (x, y, 128, 128))
