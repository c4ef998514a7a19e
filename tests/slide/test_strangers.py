"""Levels that do not belong to their slide are left out; however a level was made from its slide, it stays."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wsi_attention.errors import SlideOpenError
from wsi_attention.slide.agreement import OTHER_PICTURE, difference
from wsi_attention.slide.description import describe
from wsi_attention.slide.readers.array import ArrayLevels
from wsi_attention.slide.seen import Overview
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.strangers import leave_out_strangers
from wsi_attention.slide.view import View
from wsi_attention.testing.slide_levels import pyramid
from wsi_attention.testing.slides import SlideSpec, paint_slide

Pixels = np.ndarray
Change = Callable[[Pixels], Pixels]


@pytest.fixture(scope="module")
def finest() -> Pixels:
    return paint_slide(SlideSpec((1600, 1201), seed=5, label="lesion", coverage=0.5))[0]


@pytest.fixture(scope="module")
def other(finest: Pixels) -> Pixels:
    return np.ascontiguousarray(finest[::-1, ::-1])


def averaged(rgb: Pixels, step: int) -> Pixels:
    h, w = rgb.shape[0] // step * step, rgb.shape[1] // step * step
    return rgb[:h, :w].reshape(h // step, step, w // step, step, 3).mean((1, 3)).round().astype(np.uint8)


def decimated(rgb: Pixels, step: int) -> Pixels:
    return np.ascontiguousarray(rgb[: rgb.shape[0] // step * step : step, : rgb.shape[1] // step * step : step])


def jpeg(rgb: Pixels, quality: int) -> Pixels:
    import imagecodecs

    return np.asarray(imagecodecs.jpeg_decode(imagecodecs.jpeg_encode(rgb, level=quality)))


def sharpened(rgb: Pixels) -> Pixels:
    blurred = sum(np.roll(rgb.astype(np.int64), shift, (0, 1)) for shift in ((0, 1), (1, 0), (0, -1), (-1, 0))) / 4
    return np.clip(rgb + 1.5 * (rgb - blurred), 0, 255).astype(np.uint8)


def compared(levels: list[Pixels], seen_at: float | None = None) -> Slide:
    slide = open_slide(ArrayLevels(tuple(levels), tile_size=(256, 256)), mpp=0.5)
    coarse = seen_at or float(slide.level_downsamples[-1])
    leave_out_strangers(slide, lambda: Overview(View(slide, coarse).read_whole(), coarse))
    return slide


MADE: dict[str, Callable[[Pixels, int], Pixels]] = {
    "averaged": averaged,
    "decimated": decimated,
    "JPEG of low quality": lambda rgb, step: jpeg(averaged(rgb, step), 30),
    "decimated JPEG": lambda rgb, step: jpeg(decimated(rgb, step), 40),
    "sharpened": lambda rgb, step: sharpened(averaged(rgb, step)),
    "moved by half a pixel": lambda rgb, step: averaged(np.roll(rgb, (step // 2, step // 2), (0, 1)), step),
    "moved by a pixel": lambda rgb, step: np.roll(averaged(rgb, step), (1, -1), (0, 1)),
    "of odd size": lambda rgb, step: averaged(rgb, step)[:-1, :-1],
    "with another gamma": lambda rgb, step: (255 * (averaged(rgb, step) / 255.0) ** 1.08).round().astype(np.uint8),
}


@pytest.mark.parametrize("step", [2, 4, 16])
@pytest.mark.parametrize("how", MADE)
def test_levels_of_the_slide_stay(how: str, step: int, finest: Pixels) -> None:
    levels = [finest, MADE[how](finest, step)]
    if step == 4:
        levels.append(MADE[how](levels[-1], step))
    slide = compared(levels)
    assert slide.left_out == ()
    assert slide.levels == tuple(range(len(levels)))


def test_a_white_slide_keeps_its_levels() -> None:
    white = np.full((1200, 1600, 3), 243, np.uint8)
    assert compared([white, averaged(white, 4), np.full((75, 100, 3), 241, np.uint8)]).left_out == ()


def test_a_place_that_shows_something_at_its_border_alone_decides_nothing(finest: Pixels) -> None:
    """Its middle is what is looked for in the other picture: there JPEG has left no more than a faint shade."""
    level = averaged(finest, 4)
    tissue = [level[100:164, 150:214], level[150:214, 200:264]]
    border = np.full_like(tissue[0], 243)
    border[:, 57:] = 190
    shaded = border.copy()
    shaded[:, 32:57] = 242
    assert difference([*((one, jpeg(one, 75)) for one in tissue), (shaded, border)]) is None
    moved = [(one, np.roll(one, (4, 4), (0, 1))) for one in tissue]
    assert difference([*moved, (shaded, border)]) == OTHER_PICTURE


@pytest.mark.slow
def test_a_pyramid_whose_corner_is_compared_keeps_its_levels() -> None:
    levels = pyramid(paint_slide(SlideSpec((2400, 2000), seed=135, label="lesion"))[0], 4, smallest=150)
    assert compared([jpeg(level, 75) for level in levels], seen_at=32.0).left_out == ()


CHANGED: dict[str, tuple[Change, str]] = {
    "mirrored": (lambda rgb: rgb[:, ::-1], "another picture"),
    "upside down": (lambda rgb: rgb[::-1], "another picture"),
    "moved by 4 pixels": (lambda rgb: np.roll(rgb, (4, 4), (0, 1)), "another picture"),
    "moved far": (lambda rgb: np.roll(rgb, (30, 60), (0, 1)), "another picture"),
    "inverted": (lambda rgb: 255 - rgb, "(another picture|other colours)"),
    "blue for red": (lambda rgb: rgb[..., ::-1], "other colours"),
    "green for red": (lambda rgb: rgb[..., [1, 0, 2]], "other colours"),
    "grey": (lambda rgb: rgb.mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8), "other colours"),
    "white": (lambda rgb: np.full_like(rgb, 255), "another picture"),
    "glass": (lambda rgb: np.full_like(rgb, 240), "another picture"),
    "black": (np.zeros_like, "(another picture|other colours)"),
}


@pytest.mark.parametrize("step", [2, 4])
@pytest.mark.parametrize("how", CHANGED)
def test_levels_that_show_something_else_are_left_out(how: str, step: int, finest: Pixels) -> None:
    change, what = CHANGED[how]
    slide = compared([finest, np.ascontiguousarray(change(averaged(finest, step)))])
    assert re.fullmatch(f"level 1 left out: {what} than level 0", " and ".join(slide.left_out))
    assert slide.levels == (0,)


def test_the_level_between_is_left_out_and_the_others_stay(finest: Pixels, other: Pixels) -> None:
    slide = compared([finest, averaged(other, 2), averaged(finest, 4), averaged(finest, 8)])
    assert slide.left_out == ("level 1 left out: another picture than level 0",)
    assert slide.levels == (0, 2, 3)
    assert View(slide, 2.0).stored.downsample == 1.0
    assert np.array_equal(View(slide, 2.0).read_whole(), View(open_slide(finest), 2.0).read_whole())
    assert pickle.loads(pickle.dumps(slide)).levels == (0, 2, 3)


def test_whose_smaller_levels_all_show_another_slide_is_refused(finest: Pixels, other: Pixels) -> None:
    with pytest.raises(SlideOpenError, match="levels 1, 2 show another picture than level 0"):
        compared([finest, averaged(other, 4), averaged(other, 16)])


def test_other_proportions_are_known_from_the_sizes_alone(finest: Pixels) -> None:
    slide = open_slide([finest, finest[:600, :400], averaged(finest, 4)])
    assert slide.left_out == ("level 1 left out: 4× smaller than level 0 across and 2× down",)
    assert slide.levels == (0, 2)


def test_rounded_sizes_of_tiny_levels_are_no_other_proportions() -> None:
    sizes = [(601, 403), (300, 201), (150, 100), (75, 50), (37, 25), (18, 12), (9, 6), (4, 3), (2, 1), (1, 1)]
    slide = open_slide([np.full((h, w, 3), 240, np.uint8) for w, h in sizes])
    assert slide.levels == tuple(range(10))


def test_few_pixels_are_read(finest: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = open_slide(ArrayLevels((finest, averaged(finest, 4), averaged(finest, 16)), tile_size=(256, 256)))
    picture = View(slide, 16.0).read_whole()
    read, pixels = Slide.read, []

    def counted(self: Slide, location: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
        pixels.append((level, size[0] * size[1]))
        return read(self, location, level, size)

    monkeypatch.setattr(Slide, "read", counted)
    leave_out_strangers(slide, lambda: Overview(picture, 16.0))
    leave_out_strangers(slide, lambda: Overview(picture, 16.0))
    assert 0 < sum(count for level, count in pixels if level == 0) <= 3 * 256**2
    assert sum(count for level, count in pixels if level) <= 6 * 256**2


def test_real_pyramids(shared_data: Path) -> None:
    folder = shared_data / "slides-derived"
    for name in ("cmu1sr-libvips-pyramid-jpeg.tif", "cmu1sr-tifffile-pyramid.ome.tif", "cmu1sr-v04.ome.zarr.zip"):
        with open_slide(folder / name) as slide:
            assert not any(level["left_out"] for level in describe(slide)["levels"]), name
    with open_slide(shared_data / "slides" / "aperio" / "TCGA-CR-7395-01A-01-TS1.svs") as slide:
        assert not any(level["left_out"] for level in describe(slide)["levels"])


def test_the_real_dicom_series_whose_smaller_levels_are_in_other_colours(shared_data: Path) -> None:
    with open_slide(shared_data / "slides-derived" / "cmu1sr-dicom") as slide:
        told = describe(slide)
    assert [level["left_out"] for level in told["levels"]] == [False, True, True, True, True]
    assert "levels 1, 2, 3, 4 left out: other colours than level 0" in told["odd"]
