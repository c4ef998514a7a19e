"""Encoding a bag: chunks change nothing, failed tiles never reach the encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_attention.nn.bags import encode
from wsi_attention.structures import TileBatch


class Recording(nn.Module):
    """Mean of each channel; remembers how many tiles came at once, and the largest value."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.largest = 0.0

    def forward(self, tiles: Tensor) -> Tensor:
        """(m, c, h, w) -> (m, c)."""
        self.sizes.append(len(tiles))
        self.largest = max(self.largest, float(tiles.detach().max()))
        return tiles.mean((-1, -2))


def bag(valid: list[list[bool]]) -> TileBatch:
    mask = torch.tensor(valid)
    pixels = torch.rand(*mask.shape, 3, 4, 4, requires_grad=True)
    return TileBatch(torch.where(mask[..., None, None, None], pixels, 99.0), mask)


def test_only_valid_tiles_are_encoded_in_chunks() -> None:
    tiles, encoder = bag([[True, False, True], [True, True, True]]), Recording().eval()
    features = encode(tiles, nn.Identity(), encoder, chunk=2)
    assert encoder.sizes == [2, 2, 1]
    assert encoder.largest <= 1.0
    assert features.shape == (2, 3, 3)
    assert features[0, 1].tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(features[1], tiles.pixels[1].mean((-1, -2)))
    torch.testing.assert_close(features[0, 2], tiles.pixels[0, 2].mean((-1, -2)))


def test_training_takes_all_at_once() -> None:
    encoder = Recording().train()
    encode(bag([[True] * 5]), nn.Identity(), encoder, chunk=2)
    assert encoder.sizes == [5]
