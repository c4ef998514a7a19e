"""Attention networks: shapes, where a cell lies, and that strips give what the whole gives."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from wsi_attention.nn.attention_nets import MnistAttentionNet, TissueAttentionNet


def small() -> TissueAttentionNet:
    torch.manual_seed(0)
    return TissueAttentionNet(3, (8, 8, 8), 5).eval()


def test_shapes() -> None:
    net = TissueAttentionNet()
    logits, features = net(torch.randn(2, 3, 32, 48))
    assert net.stride == 8
    assert logits.shape == (2, 4, 6)
    assert features.shape == (2, net.dim, 4, 6)
    logits, features = MnistAttentionNet()(torch.randn(2, 1, 18, 20))
    assert logits.shape == (2, 18, 20)
    assert features.shape == (2, 8, 18, 20)


def test_mnist_net_is_the_papers() -> None:
    net = MnistAttentionNet()
    assert sum(p.numel() for p in net.parameters()) == (9 * 8 + 8) + (9 * 64 + 8) + (9 * 8 + 1)


def test_attention_starts_near_uniform() -> None:
    logits, _ = small()(torch.randn(1, 3, 64, 64, generator=Generator().manual_seed(0)))
    assert float(logits.detach().std()) < 0.1


def test_a_strip_gives_what_the_whole_gives() -> None:
    net, view = small(), torch.randn(1, 3, 64, 128, generator=Generator().manual_seed(0))
    whole, strip = net(view)[0], net(view[..., 32:96])[0]
    torch.testing.assert_close(strip[..., 3:5], whole[..., 7:9], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", [(3, 4), (5, 7)])
def test_a_cell_sees_its_own_square_from_the_middle(cell: tuple[int, int]) -> None:
    net, view = small(), torch.randn(1, 3, 80, 96, generator=Generator().manual_seed(1), requires_grad=True)
    net.context.mix.weight.data.zero_()
    logits, _ = net(view)
    (gradient,) = torch.autograd.grad(logits[0, cell[0], cell[1]], view)
    rows, cols = gradient.abs().sum((0, 1)).nonzero().T
    centre = ((rows.min() + rows.max() + 1) / 2, (cols.min() + cols.max() + 1) / 2)
    assert (float(centre[0]), float(centre[1])) == (8 * cell[0] + 4, 8 * cell[1] + 4)
    assert int(rows.max() - rows.min()) + 1 >= 8
