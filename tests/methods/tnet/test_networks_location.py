"""The location module, part by part and by hand."""

from __future__ import annotations

import pytest
import torch

from wsi_attention.methods.tnet.networks import Coordinates, LocationModule, SqueezeExcitation


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def weights() -> None:
    torch.manual_seed(0)


def test_the_gate_by_hand() -> None:
    gate = SqueezeExcitation(6, 0.5)
    assert gate.squeeze.weight.shape == (3, 6)
    mean = seeded(2, 6)
    inner = mean @ gate.squeeze.weight.T + gate.squeeze.bias
    inner = inner * torch.sigmoid(inner)
    expected = torch.sigmoid(inner @ gate.excite.weight.T + gate.excite.bias)
    torch.testing.assert_close(gate(mean), expected)
    assert bool(((gate(100 * mean) >= 0) & (gate(100 * mean) <= 1)).all())


def test_coordinates_run_from_minus_one_to_one() -> None:
    maps = Coordinates()(seeded(2, 4, 3, 3))
    assert maps.shape == (2, 6, 3, 3)
    assert maps[1, 4].tolist() == [[-1.0] * 3, [0.0] * 3, [1.0] * 3]
    assert maps[1, 5].tolist() == [[-1.0, 0.0, 1.0]] * 3
    coordinates = Coordinates()
    with torch.no_grad():
        coordinates.scale.copy_(torch.tensor([2.0, 3.0]))
        coordinates.shift.copy_(torch.tensor([0.5, -0.5]))
    maps = coordinates(seeded(1, 1, 3, 3))
    assert maps[0, 1, :, 0].tolist() == [-1.5, 0.5, 2.5]
    assert maps[0, 2, 0].tolist() == [-3.5, -0.5, 2.5]


def test_cells_meet_in_the_gate_alone() -> None:
    """With the gate held still, a cell's logit depends on that cell; with it, on all of them."""
    module, phi = LocationModule(5, 8), seeded(1, 5, 3, 3)
    other = phi.clone()
    other[0, :, 2, 2] += 3.0
    moved = (module(phi) - module(other)).detach().abs()[0]
    assert float(moved[:8].max()) > 0
    module.gate.excite.weight.data.zero_()
    moved = (module(phi) - module(other)).detach().abs()[0]
    assert float(moved[:8].max()) == 0
    assert float(moved[8]) > 0


def test_same_content_at_another_place_has_another_logit() -> None:
    logits = LocationModule(5, 8)(torch.ones(1, 5, 3, 3))
    assert logits.shape == (1, 9)
    assert len(set(logits[0].tolist())) == 9


def test_probabilities_start_near_uniform() -> None:
    p = LocationModule(16, 32)(seeded(4, 16, 5, 5)).softmax(-1)
    assert float(p.detach().max()) < 1.5 / 25
