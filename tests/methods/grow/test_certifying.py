"""The certificate of grow: labels of the whole sum, whatever unread tiles show, with blocks and gates."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from wsi_attention.methods.grow.certifying import prepared
from wsi_attention.methods.grow.model import GrowingAttention, grow
from wsi_attention.nn.heads import ScaledLinear
from wsi_attention.testing.models import FailingSource
from wsi_attention.tiles.tensors import TensorSource

SMALL = {
    "tile_size": 16,
    "tile_mpp": 1.0,
    "overview_mpp": 4.0,
    "encoder_widths": (8,),
    "features": 4,
    "attention_widths": (4, 4),
    "context": 3,
    "hidden": 4,
    "floor": 1e-3,
}


def model(seed: int, sharpness: float) -> GrowingAttention:
    """A model whose attention and gates are as sharp as is wanted."""
    torch.manual_seed(seed)
    made = grow(2, **SMALL).eval()
    assert isinstance(made, GrowingAttention)
    with torch.no_grad():
        made.gate.attention.score.weight *= sharpness  # type: ignore[union-attr, operator]
        made.attention.score.weight *= 40 * sharpness  # type: ignore[union-attr, operator]
    return made


def image(seed: int) -> Tensor:
    return torch.rand(1, 3, 96, 96, generator=Generator().manual_seed(seed))


@pytest.mark.parametrize("failed", [(), (0, 2)])
def test_certified_labels_are_those_of_all_tiles(failed: tuple[int, ...]) -> None:
    settled, fewer = 0, 0
    for seed in range(6):
        network = model(seed, 4.0 if seed % 2 else 1.0)
        output = network.certified(FailingSource(image(seed), failed), 1.0, 300)
        found = output.certificate
        assert found is not None and int(output.logits.argmax()) == found.classes[0]
        if failed:
            continue  # which tiles fail depends on the order of reading here, so that `exact` is of other tiles
        logits = network.exact(TensorSource(image(seed))).logits[0]
        lead = float(logits[found.classes[0]] - logits[found.classes[1]])
        assert found.lead[0] - 1e-4 <= lead <= found.lead[1] + 1e-4
        if found.level == 1.0:
            settled, fewer = settled + 1, fewer + (found.tiles < 36)
            assert lead > 0
    assert failed or (settled >= 2 and fewer >= 1)


def test_blocks_are_read_and_context_counts_for_nothing() -> None:
    output = model(0, 1.0).certified(source := TensorSource(image(0)), 1.0, 9)
    (glimpse,) = output.glimpses[0]
    assert source.counters.tiles == len(glimpse.weights) in (4, 6, 9)
    assert sorted(glimpse.weights)[-1] == 1.0 and (glimpse.weights > 0).sum() == 1


def test_bounds_hold_for_every_gate() -> None:
    torch.manual_seed(0)
    head = ScaledLinear(8, 2)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([30.0, 0.0]))
    for least in (0.0, 0.3, 1.0):
        _, bounds, _ = prepared(head, None, least)
        seen = torch.nn.functional.normalize(torch.randn(200, 8), dim=-1)
        for gate in (least, 0.5 + 0.5 * least, 1.0):
            scores = gate * head(seen).detach()
            lead = scores[:, 0] - scores[:, 1]
            assert bounds.low[0, 1] <= lead.min() and lead.max() <= bounds.high[0, 1]
    assert prepared(head, None, 1.0).bounds.low[0, 1] > 0 == prepared(head, None, 0.0).bounds.low[0, 1]
