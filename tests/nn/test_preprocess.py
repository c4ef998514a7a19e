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


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_in_any_order_of_memory_give_the_same_numbers(channels: int) -> None:
    norm = Normalise((0.5, 0.4, 0.3)[:channels], (0.1, 0.2, 0.3)[:channels])
    rows = torch.randint(0, 256, (2, 5, 7, channels), dtype=torch.uint8)
    expected = (rows.movedim(-1, 1) - 255 * norm.mean) / (255 * norm.std)
    for pixels in (rows.movedim(-1, 1), rows.movedim(-1, 1).contiguous(), rows.movedim(-1, 1).contiguous()[..., 1:6]):
        kept = pixels.clone()
        found = norm(pixels)
        torch.testing.assert_close(found, expected[..., 1:6] if pixels.shape[-1] == 5 else expected, rtol=0, atol=0)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(pixels, kept)
    assert norm(rows.movedim(-1, 1)[:0]).shape == (0, channels, 5, 7)
