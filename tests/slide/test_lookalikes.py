"""An image of the slide's proportions is its thumbnail where it shows the slide, and else one that could be meant."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsi_attention.errors import SeveralImagesError
from wsi_attention.slide.slide import open_slide
from wsi_attention.tiles.source import SlideSource

sys.path.insert(0, str(Path(__file__).resolve().parent))

from several_images import STRIPS, TILED, pages_of, write_ome, write_plain

SIZE = (1024, 768)


def blotches(seed: int) -> np.ndarray:
    """Round sections on glass: dark blotches of many colours, about 30 pixels wide."""
    rng = np.random.default_rng(seed)
    height, width = SIZE[1] // 32, SIZE[0] // 32
    small, (y, x) = rng.integers(60, 220, (height, width, 3)), np.mgrid[:height, :width]
    inside = np.zeros((height, width), np.bool_)
    for top, left in rng.uniform(0.2, 0.8, (3, 2)) * (height, width):
        inside |= (y - top) ** 2 + (x - left) ** 2 < 25
    small[~inside] = 240
    return np.asarray(Image.fromarray(small.astype(np.uint8)).resize(SIZE, Image.Resampling.BICUBIC))


def shrunk(rgb: np.ndarray, by: float, how: Image.Resampling = Image.Resampling.BOX) -> np.ndarray:
    size = round(rgb.shape[1] / by), round(rgb.shape[0] / by)
    return np.asarray(Image.fromarray(rgb).resize(size, how))


def plain(path: Path, slide: np.ndarray, small: np.ndarray) -> Path:
    return write_plain(path, [*pages_of([slide, shrunk(slide, 2)]), (small, STRIPS)], width=SIZE[0])


def tiled(path: Path, slide: np.ndarray, small: np.ndarray) -> Path:
    return write_plain(path, [*pages_of([slide, shrunk(slide, 2)]), (small, TILED)], width=SIZE[0])


def ome(path: Path, slide: np.ndarray, small: np.ndarray) -> Path:
    return write_ome(path, [("20x", [slide, shrunk(slide, 2)]), ("second", [small])])


KINDS: dict[str, Callable[[Path, np.ndarray, np.ndarray], Path]] = {"a.tif": plain, "b.tif": tiled, "c.ome.tif": ome}


def look(path: Path, **options: str | int) -> int:
    with open_slide(path, mpp=0.5, options=options) as slide:
        SlideSource(slide).check_levels(8.0)
        return slide.facts.image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", [2, 4, 7.3])
def test_another_picture_of_the_same_proportions_could_be_the_slide(kind: str, by: float, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path / kind, blotches(0), shrunk(blotches(1), by))
    with pytest.raises(
        SeveralImagesError, match=r"several images could be the slide: 0 .*, 1 .*; choose one with --series"
    ):
        look(path)
    assert look(path, series=0) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", [2, 4, 7.3])
@pytest.mark.parametrize("how", [Image.Resampling.BOX, Image.Resampling.NEAREST, Image.Resampling.LANCZOS])
def test_a_thumbnail_is_one(kind: str, by: float, how: Image.Resampling, tmp_path: Path) -> None:
    rgb = blotches(0)
    brighter = np.clip(shrunk(rgb, by, how) * 1.1 + 5, 0, 255).astype(np.uint8)
    assert look(KINDS[kind](tmp_path / kind, rgb, brighter)) == 0
