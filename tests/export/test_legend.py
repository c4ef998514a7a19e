from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from wsi_attention.export import legend as canvas
from wsi_attention.export.legend import MARGIN, Frame, legend, ticks, title
from wsi_attention.testing.exporters import EXAMPLES, example_prediction


def blank(frame: Frame) -> Image.Image:
    return Image.new("RGB", frame.size, canvas.PAPER)


@pytest.mark.parametrize("top", [10.0, 12.5, 99.0, 250.0, 1e4, 3.7e6, 1e9])
def test_ticks_are_few_and_within_the_scale(top: float) -> None:
    found = ticks(top)
    assert found[0] == 1
    assert 2 <= len(found) <= 6
    assert found == sorted(found) and found[-1] <= top


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_scale_bar_is_as_long_as_it_says(kind: str) -> None:
    prediction = example_prediction(kind=kind)
    frame = Frame.around(prediction.extent)
    image = blank(frame)
    legend(image, prediction, frame, None)
    row = np.asarray(image)[frame.origin[1] + frame.slide[1] + 22 + 33]
    drawn = (row == canvas.INK).all(axis=-1)[frame.size[0] // 2 :].sum() - 1
    length = drawn / frame.scale[0] * prediction.mpp
    assert 30 <= drawn <= 190
    digits = length / 10 ** np.floor(np.log10(length) + 0.02)
    assert min(abs(digits - round_one) / round_one for round_one in (1, 2, 5, 10)) < 0.02


def test_a_long_name_does_not_run_into_the_notice() -> None:
    frame = Frame.around((10_000, 8_000))
    named = replace(example_prediction(), slide="x" * 400 + ".svs", classes=("normal", "tumour " * 60))
    image = blank(frame)
    title(ImageDraw.Draw(image), named, frame)
    pixels = np.asarray(image)
    dark = (pixels.astype(int) < 120).all(axis=-1)
    right = frame.size[0] - MARGIN
    notice, tiles = right - canvas.width_of("Research use only", 18), right - canvas.width_of("31 of 32 tiles read", 16)
    assert dark[:50].any() and not dark[:50, notice - 20 :].any()
    assert dark[50:].any() and not dark[50:, tiles - 20 :].any()


def test_a_demonstration_says_so_on_the_picture() -> None:
    frame = Frame.around((10_000, 8_000))
    usual, shown = blank(frame), blank(frame)
    title(ImageDraw.Draw(usual), example_prediction(), frame)
    title(ImageDraw.Draw(shown), replace(example_prediction(), purpose="demonstration"), frame)
    marked = [(np.asarray(one)[:50] == canvas.MARK).all(axis=-1).sum() for one in (usual, shown)]
    assert marked[1] > 2 * marked[0] > 0


def test_nothing_is_drawn_outside_the_picture_or_on_the_slide() -> None:
    for kind in EXAMPLES:
        prediction = example_prediction(kind=kind)
        frame = Frame.around(prediction.extent)
        image = blank(frame)
        legend(image, prediction, frame, 300.0)
        title(ImageDraw.Draw(image), prediction, frame)
        pixels = np.asarray(image)
        (x, y), (w, h) = frame.origin, frame.slide
        assert (pixels[y : y + h, x : x + w] == 255).all()
        assert (pixels[-4:] == 255).all() and (pixels[:, -MARGIN + 2 :] == 255).all()
