"""Connected parts of a mask in strips, against labels of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.filters import apply_hysteresis_threshold
from skimage.measure import label

from wsi_attention.slide import masks as components
from wsi_attention.slide.masks import large_components, without_holes, without_specks


def blots(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 60, 2)
    return gaussian_filter(rng.normal(size=shape), rng.uniform(0, 1.5)) > 0.3 * rng.normal()


@pytest.mark.parametrize("pixels", [1, 40, 300, 10_000])
@pytest.mark.parametrize("connectivity", [1, 2])
def test_strips_find_what_the_whole_has(connectivity: int, pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "STRIP_PIXELS", pixels)
    for seed in range(40):
        monkeypatch.setattr(components, "HELD_PIXELS", 900 * (seed % 2))  # found twice, or held where it is small
        mask = blots(seed)
        labels = label(mask, connectivity=connectivity)
        large = np.bincount(labels.ravel()) >= seed
        large[0] = False
        np.testing.assert_array_equal(large_components(mask, seed, connectivity), large[labels])


@pytest.mark.parametrize("pixels", [1, 100])
def test_only_what_counts_is_counted(pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "STRIP_PIXELS", pixels)
    for seed in range(40):
        weak = blots(seed)
        strong = weak & (np.random.default_rng(seed).random(weak.shape) < 0.05)
        expected = apply_hysteresis_threshold(1.0 * weak + strong, 0.5, 1.5)
        np.testing.assert_array_equal(large_components(weak, 1, 1, strong), expected)


def test_a_snake_through_all_strips_is_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "STRIP_PIXELS", 9)
    snake = np.zeros((13, 9), bool)
    snake[::2] = True
    snake[1::4, -1] = snake[3::4, 0] = True
    assert large_components(snake, int(snake.sum()), 1).sum() == snake.sum()
    assert not large_components(snake, int(snake.sum()) + 1, 1).any()


def test_nothing_has_no_parts() -> None:
    assert not large_components(np.zeros((4, 3), bool), 0, 2).any()
    assert large_components(np.zeros((0, 3), bool), 0, 2).shape == (0, 3)


@pytest.mark.parametrize("area", [0, 1, 5, 60])
def test_specks_and_holes_are_those_of_the_whole_mask(area: int) -> None:
    for seed in range(40):
        mask = np.pad(blots(seed), ((seed % 3, 0), (0, seed % 5)))
        np.testing.assert_array_equal(without_specks(mask, area), large_components(mask, area, 2))
        around = np.pad(~mask, 40, constant_values=True)  # a gap at the border is no hole
        kept = large_components(around, area, 1)[40:-40, 40:-40]
        np.testing.assert_array_equal(without_holes(mask, area), ~kept)
