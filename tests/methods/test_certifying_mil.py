"""The certificate of attention MIL: all tiles are read, and those that fail are reckoned with at their worst."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Generator, Tensor

from wsi_attention.methods.mil import AttentionPooling, mil
from wsi_attention.structures import Certificate, Output
from wsi_attention.testing.models import FailingSource
from wsi_attention.tiles.tensors import TensorSource

SMALL = {
    "tile_size": 16,
    "tile_mpp": 1.0,
    "overview_mpp": 8.0,
    "encoder_widths": (8, 16),
    "features": 16,
    "hidden": 4,
}
EVERYTHING = 10**9


def model(sharpness: float = 1.0) -> AttentionPooling:
    torch.manual_seed(1)
    made = mil(2, **SMALL).eval()
    assert isinstance(made, AttentionPooling)
    with torch.no_grad():
        made.attention.score.weight *= sharpness  # type: ignore[union-attr, operator]
    return made


def image() -> Tensor:
    return torch.rand(1, 3, 64, 64, generator=Generator().manual_seed(0))


def certificate(output: Output) -> Certificate:
    assert output.certificate is not None
    return output.certificate


@pytest.mark.parametrize("level", [1.0, 0.99])
def test_with_all_tiles_read_it_is_a_proof(level: float) -> None:
    network, source = model(), TensorSource(image())
    output = network.certified(source, level, EVERYTHING)
    found, (logits,) = certificate(output), network(TensorSource(image())).logits
    assert (found.kind, found.tiles, found.failed, found.drawn) == ("proof", 16, 0, 0)
    assert (output.logits == logits).all()
    lead = float((logits.max() - logits.min()).detach())
    assert found.lead == pytest.approx((lead, lead), abs=1e-5)


def test_failed_tiles_are_bounded_by_the_largest_attention() -> None:
    """Against a tile that says the most and the least, with the most, the usual and the least attention."""
    network = model()
    output = network.certified(FailingSource(image(), (3,)), 1.0, EVERYTHING)
    found = certificate(output)
    assert found.failed == 1
    features, valid = output.terms["features"], output.terms["valid"][0]
    raw = network.attention(features)[0].detach()
    largest = float(network.attention.score.weight.detach().abs().sum())  # type: ignore[union-attr, operator]
    assert float(raw.abs().max()) < largest
    u = (network.classifier.log_scale.exp() * network.classifier.linear.weight).detach()  # type: ignore[union-attr, operator, index]
    u = u[found.classes[0]] - u[found.classes[1]]
    leads = []
    for score, logit in itertools.product(found.score, (-largest, 0.0, largest)):
        full = torch.where(valid, raw, torch.tensor(logit)).exp()
        scores = torch.where(valid, features[0] @ u, score)
        leads.append(float((full * scores).sum() / full.sum()))
    assert found.lead[0] <= min(leads) + 1e-5
    assert found.lead[1] >= max(leads) - 1e-5
    assert found.lead[0] > min(leads) - 0.1 * float(u.norm())


@pytest.mark.parametrize("scale", [200.0, 1e5])
def test_a_failed_tile_that_could_have_nearly_all_attention_leaves_nothing_settled(scale: float) -> None:
    found = certificate(model(scale).certified(FailingSource(image(), (3,)), 1.0, EVERYTHING))
    assert found.kind == "no"
    assert found.lead[0] < 0 < found.lead[1]
    other = model()
    other.attention = torch.nn.Sequential(torch.nn.Linear(16, 1), torch.nn.Flatten(-2))
    assert certificate(other.certified(FailingSource(image(), (3,)), 1.0, EVERYTHING)).kind == "no"
    assert all(math.isfinite(one) for one in found.lead)
