"""Patches with tissue, taken out and put back."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from wsi_attention.methods.trt.reattention import Packing


def seeded(*shape: int) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(0))


def test_packing_there_and_back() -> None:
    chosen = torch.tensor([[True, False, True, True], [False, False, True, False]])
    packing, tokens = Packing.of(chosen), seeded(2, 4, 5)
    assert packing.places[0].tolist() == [0, 2, 3]
    assert packing.real.sum(-1).tolist() == [3, 1]
    assert packing.seen is not None and packing.seen.tolist() == [[True] * 4, [True, True, False, False]]
    assert torch.equal(packing.unpack(packing.pack(tokens)), tokens * chosen[..., None])
    assert torch.equal(packing.unpack(packing.pack(tokens)[..., 0]), tokens[..., 0] * chosen)
    assert Packing.of(torch.ones_like(chosen)).seen is None
