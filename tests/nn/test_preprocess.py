"""Bytes and floats come out alike; nothing but numbers is saved."""

from __future__ import annotations

import pytest
import torch

from wsi_attention.nn.preprocess import Normalise, background


def test_bytes_and_floats_come_out_alike() -> None:
    norm = Normalise((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    pixels = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    expected = (pixels / 255 - norm.mean) / norm.std
    torch.testing.assert_close(norm(pixels), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm(pixels / 255), expected, atol=1e-5, rtol=1e-5)
    assert norm(pixels).dtype == torch.float32
    assert norm(pixels).is_contiguous(memory_format=torch.channels_last)


def test_background() -> None:
    assert background(torch.zeros(1, dtype=torch.uint8)) == 255.0
    assert background(torch.zeros(1)) == 0.0


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.1, 0.1)), ((0.5,), (0.0,))])
def test_refuses(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="std"):
        Normalise(mean, std)
