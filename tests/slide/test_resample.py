"""Exact area means."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_attention.slide import resample
from wsi_attention.slide.resample import area_mean, overlaps


def integrated(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The mean of a staircase along axis 0 between each two edges, by its integral."""
    total = np.concatenate([np.zeros((1, *values.shape[1:])), values.cumsum(0)])
    low = np.floor(edges).astype(int)
    share = (edges - low)[:, None, None]
    at = total[low] * (1 - share) + total[np.minimum(low + 1, len(values))] * share
    return np.diff(at, axis=0) / np.diff(edges)[:, None, None]


def exact_mean(pixels: np.ndarray, start: tuple[float, float], step: float, size: tuple[int, int]) -> np.ndarray:
    rows = integrated(pixels.astype(float), start[1] + step * np.arange(size[1] + 1))
    return integrated(rows.swapaxes(0, 1), start[0] + step * np.arange(size[0] + 1)).swapaxes(0, 1)


@pytest.mark.parametrize("step", [1.3, 2.0, 2.5, 3.7, 8.0])
@pytest.mark.parametrize("start", [(0.0, 0.0), (0.25, 0.75)])
def test_every_cell_is_the_mean_of_what_it_covers(step: float, start: tuple[float, float]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (90, 100, 3)).astype(np.uint8)
    mean = area_mean(pixels, start, step, (11, 9))
    assert mean.shape == (9, 11, 3)
    assert np.abs(mean - exact_mean(pixels, start, step, (11, 9))).max() < 0.501  # half a grey level is rounding


def test_whole_steps_are_plain_means_rounded_half_up() -> None:
    pixels = np.array([[0, 1], [0, 1]], np.uint8)[..., None].repeat(3, -1)
    assert area_mean(pixels, (0, 0), 2, (1, 1)).tolist() == [[[1, 1, 1]]]


def test_white_stays_white_and_shares_sum_to_one() -> None:
    white = np.full((50, 50, 3), 255, np.uint8)
    assert (area_mean(white, (0.1, 0.2), 3.3, (15, 15)) == 255).all()
    _, shares = overlaps(0.3, 2.7, 12)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("values", [1, 700])
def test_bands_do_not_change_pixels(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (90, 70, 3)).astype(np.uint8)
    expected = area_mean(pixels, (0.3, 0.7), 2.31, (29, 37))
    monkeypatch.setattr(resample, "BAND_VALUES", values)
    np.testing.assert_array_equal(area_mean(pixels, (0.3, 0.7), 2.31, (29, 37)), expected)


@pytest.mark.parametrize("step", [2, 3, 4, 6, 8, 15, 16])
def test_whole_cells_are_summed_exactly(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(step).integers(0, 256, (step * 21 + 2, step * 17 + 3, 3)).astype(np.uint8)
    pixels[: step * 4] = 255
    cells = pixels[2:, 3:].reshape(21, step, 17, step, 3).astype(int).sum((1, 3))
    expected = (2 * cells + step * step) // (2 * step * step)
    assert np.array_equal(area_mean(pixels, (3.0, 2.0), float(step), (17, 21)), expected)
    monkeypatch.setattr(resample, "BAND_VALUES", 200)
    assert np.array_equal(area_mean(pixels, (3.0, 2.0), float(step), (17, 21)), expected)
    if step & (step - 1) == 0:  # halves are exact in binary, so that the two ways agree
        monkeypatch.setattr(resample, "MOST_WHOLE", 0)
        assert np.array_equal(area_mean(pixels, (3.0, 2.0), float(step), (17, 21)), expected)


@pytest.mark.parametrize(("start", "step"), [((0.0, 0.0), 1.5625), ((0.4, 0.7), 2.31)])
def test_sparse_products_give_the_same_means(
    start: tuple[float, float], step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (150, 170, 3)).astype(np.uint8)
    monkeypatch.setattr(resample, "BAND_VALUES", 5_000)
    size = int(169 / step), int(149 / step)
    expected = area_mean(pixels, start, step, size)
    monkeypatch.setattr(resample, "MANY_VALUES", 1)
    np.testing.assert_array_equal(area_mean(pixels, start, step, size), expected)
