"""Cells gathered into blocks: their attention adds up."""

from __future__ import annotations

import torch
from torch import Generator

from wsi_attention.nn.attention_nets import PooledAttention, TissueAttentionNet


def test_blocks_have_their_cells_attention_and_mean_feature() -> None:
    network = TissueAttentionNet(3, (8, 8), 3)
    view = torch.rand(2, 3, 24, 48, generator=Generator().manual_seed(0))
    with torch.no_grad():
        network.score.weight.mul_(100)
        (fine, of_cells), (logits, features) = network(view), PooledAttention(network, 3)(view)
    assert (logits.shape, features.shape) == ((2, 2, 4), (2, 8, 2, 4))
    cells = fine.flatten(1).softmax(-1).reshape(2, 2, 3, 4, 3)
    blocks = logits.flatten(1).softmax(-1).reshape(2, 2, 4)
    torch.testing.assert_close(blocks, cells.sum((2, 4)))
    whole = (of_cells.flatten(2) * fine.flatten(1).softmax(-1).unsqueeze(1)).sum(-1)
    torch.testing.assert_close((features * blocks.unsqueeze(1)).sum((-1, -2)), whole)


def test_one_cell_a_block_changes_nothing() -> None:
    network = TissueAttentionNet(3, (8, 8), 3)
    pooled, view = PooledAttention(network, 1), torch.rand(1, 3, 16, 16)
    for one, other in zip(network(view), pooled(view), strict=True):
        torch.testing.assert_close(one, other)
    assert (pooled.stride, pooled.dim) == (4, 8)
