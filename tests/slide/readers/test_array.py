"""Slides in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsi_attention.errors import InputError, SlideOpenError, UnsupportedSlideError
from wsi_attention.slide.readers.array import ArrayLevels
from wsi_attention.slide.slide import open_slide


def test_an_npy_file_opens_only_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.full((20, 30, 3), 7, np.uint8))
    with open_slide(path, reader="array", mpp=1.0) as slide:
        assert slide.dimensions == (30, 20)
        assert (slide.read((0, 0), 0, (30, 20)) == 7).all()
    with pytest.raises(SlideOpenError, match="no format that a reader knows"):
        open_slide(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(SlideOpenError, match=r"a\.npy: array cannot open it"):
        open_slide(path, reader="array")


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 5), np.uint8), np.zeros((3, 8, 8), "u2")],
)
def test_what_is_no_rgb_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(UnsupportedSlideError, match=r"a slide is \(h, w, 3\)"):
        open_slide(pixels)


def test_what_is_no_pyramid_is_refused() -> None:
    small, large = np.zeros((8, 8, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(SlideOpenError, match="not a pyramid"):
        open_slide([small, large])
    with pytest.raises(InputError, match="a path, a NumPy array or a list"):
        open_slide([])
    with pytest.raises(InputError, match="1 downsamples for 2 levels"):
        open_slide(ArrayLevels((large, small), downsamples=(1.0,)))


def test_the_caller_may_change_what_was_read() -> None:
    pixels = np.full((8, 8, 3), 7, np.uint8)
    with open_slide(pixels) as slide:
        slide.read((0, 0), 0, (8, 8))[:] = 0
        assert (slide.read((0, 0), 0, (8, 8)) == 7).all()
