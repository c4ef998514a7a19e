"""Tiles are scaled and cropped as Pillow and torchvision do it, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from wsi_attention.encoders.resizing import centre, resized

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("old", "new"), [(256, 224), (224, 256), (96, 37), (37, 96), (64, 64), (5, 1)])
def test_pixels_are_pillows(old: int, new: int, interpolation: str) -> None:
    chance = np.random.default_rng(old + new)
    for highest in (256, 2):  # noise, and black and white, which a cubic kernel overshoots
        pixels = chance.integers(0, highest, (old, old, 3), dtype=np.uint8) * (255 // (highest - 1))
        expected = np.asarray(Image.fromarray(pixels).resize((new, new), FILTERS[interpolation]))
        found = resized(torch.from_numpy(pixels).permute(2, 0, 1)[None], new, interpolation)
        assert torch.equal(found[0].permute(1, 2, 0), torch.from_numpy(expected.astype(np.float64)))


def test_the_centre_is_cut_as_torchvision_cuts_it() -> None:
    tile = torch.arange(36).reshape(1, 1, 6, 6)
    assert torch.equal(centre(tile, 4), tile[..., 1:5, 1:5])
    assert torch.equal(centre(tile, 3), tile[..., 2:5, 2:5])  # round(1.5) is 2
    assert torch.equal(centre(tile, 6), tile)
