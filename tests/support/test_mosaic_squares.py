from __future__ import annotations

import mosaic_squares
import numpy as np

from wsi_attention.testing.stain import Stain


def test_squares_fit_each_other_in_any_order(monkeypatch):
    monkeypatch.setattr(mosaic_squares, "KINDS", ("glands", "fat"))
    monkeypatch.setattr(mosaic_squares, "LESION_KINDS", 1)
    squares, (blob,) = mosaic_squares.paint_squares(np.random.default_rng(1), 0.5, Stain())
    assert len(squares) == 3
    for left in squares:
        for right in squares:
            pair = np.hstack([left[:, -64:], right[:, :64]]).astype(int)
            steps = np.abs(np.diff(pair, axis=1)).mean(axis=(0, 2))
            assert steps[63] < 1.3 * np.median(steps)
    x, y = round(blob.x), round(blob.y)
    assert squares[2][y - 30 : y + 30, x - 30 : x + 30, 0].mean() < 150


def test_zones_use_every_kind():
    laid = mosaic_squares.lay_squares(np.random.default_rng(0), (40, 40))
    kinds = {mosaic_squares.KINDS[index] for index in laid.ravel()}
    assert kinds == set(mosaic_squares.KINDS)
