"""Held gates: no tile says more for a class than it may, tiles within the limit say what they did, proofs get cheap."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from populations import Given
from torch import Generator, Tensor

from wsi_attention.certificate.bounds import Calibration, Head, bounds_of
from wsi_attention.certificate.reading import Goal, settle
from wsi_attention.certificate.verdict import PROOF
from wsi_attention.config import Recipe
from wsi_attention.errors import InputError
from wsi_attention.methods.grow.certifying import within
from wsi_attention.methods.grow.judge import held, said
from wsi_attention.methods.grow.model import GrowingAttention, grow
from wsi_attention.protocols import Holding
from wsi_attention.structures import Output
from wsi_attention.targets.one_label import OneLabel
from wsi_attention.tiles.tensors import TensorSource
from wsi_attention.training.certainty import judged
from wsi_attention.training.data import Example
from wsi_attention.training.listener import Silent

SMALL = {
    "tile_size": 16,
    "tile_mpp": 1.0,
    "overview_mpp": 4.0,
    "encoder_widths": (8,),
    "features": 4,
    "attention_widths": (4, 4),
    "context": 3,
    "hidden": 4,
    "draws": 4,
    "growth": 2,
    "rounds": 1,
}


def model(seed: int, **options: object) -> GrowingAttention:
    """A model whose attention and gates are sharp."""
    torch.manual_seed(seed)
    made = grow(2, **SMALL, **options).eval()
    assert isinstance(made, GrowingAttention)
    with torch.no_grad():
        made.gate.attention.score.weight *= 8.0  # type: ignore[union-attr, operator]
        made.attention.score.weight *= 80.0  # type: ignore[union-attr, operator]
    return made


def image(seed: int) -> Tensor:
    return torch.rand(1, 3, 96, 96, generator=Generator().manual_seed(seed))


def exact(network: GrowingAttention, seed: int) -> Output:
    return network.exact(TensorSource(image(seed)))


def test_held_gates_against_a_loop() -> None:
    random = Generator().manual_seed(0)
    log_gate = torch.rand(40, generator=random, dtype=torch.float64).log()
    scores = 4 * torch.randn(40, 3, generator=random, dtype=torch.float64)
    most = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)
    found = held(log_gate, scores, most).exp()
    for gate, own, new in zip(log_gate.exp().tolist(), scores.tolist(), found.tolist(), strict=True):
        expected = gate
        for c in range(3):
            for k in range(3):
                if own[c] > own[k]:
                    expected = min(expected, float(most[c]) / (own[c] - own[k]))
        assert new == pytest.approx(expected, rel=1e-12)
    assert (said(found.log(), scores) <= most * (1 + 1e-12)).all()
    assert bool((found < log_gate.exp()).any()) and bool((found == log_gate.exp()).any())


def test_equal_scores_have_a_gradient() -> None:
    scores = torch.zeros(2, 2, requires_grad=True)
    held(torch.zeros(2), scores, torch.tensor([1.0, 1.0])).sum().backward()
    assert scores.grad is not None and bool(torch.isfinite(scores.grad).all())


def test_what_was_said_is_not_held_and_more_is() -> None:
    network = model(1)
    before = exact(network, 0)
    most = network.said(before)[0].tolist()
    assert isinstance(network, Holding) and min(most) > 0
    assert network.hold(most) == {"most": [pytest.approx(1.25 * one) for one in most]}
    assert network.hold([1e-3, 1e-3]) == {}
    assert torch.equal(exact(network, 0).logits, before.logits)
    tight = model(1, most=[0.5 * one for one in most])
    assert bool((tight.said(exact(tight, 0))[0] <= 0.5 * torch.tensor(most) * (1 + 1e-5)).all())
    assert not torch.equal(exact(tight, 0).logits, before.logits)


def test_models_that_are_not_to_be_held() -> None:
    assert model(0, hold=0.0).hold([1.0, 1.0]) == {} == model(0).hold([0.0, 0.0])
    ungated = grow(2, **SMALL, pooling="attention")
    assert isinstance(ungated, Holding) and ungated.hold([1.0, 1.0]) == {}
    assert model(0).hold([0.0, 4.0])["most"] == [pytest.approx(5e-3), pytest.approx(5.0)]
    with pytest.raises(InputError, match="most has 3 numbers for 2 classes"):
        grow(2, **SMALL, most=[1.0, 1.0, 1.0])


def test_bounds_hold_after_calibration() -> None:
    random = np.random.default_rng(0)
    head = Head(random.normal(size=(3, 5)), random.normal(size=3))
    most, known = np.array([0.3, 1.0, 2.0]), Calibration(np.full(3, 1.7), np.array([0.4, -0.1, -0.3]))
    features = random.normal(size=(500, 5))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    scores, log_gate = torch.from_numpy(head.scores(features)), torch.from_numpy(np.log(random.uniform(0, 1, 500)))
    gates = held(log_gate, scores, torch.from_numpy(most)).exp().numpy()
    for calibration in (None, known):
        own = head.calibrated(calibration)
        leads = gates[:, None] * own.scores(features)
        pairs = leads[:, :, None] - leads[:, None, :]
        wide = bounds_of(own)
        found = within(wide, most, calibration)
        assert bool((pairs <= found.high + 1e-9).all() and (pairs >= found.low - 1e-9).all())
        assert bool((found.high < wide.high).sum() >= 4)
    uneven = Calibration(np.array([1.0, 2.0, 1.0]), np.zeros(3))
    assert within(wide, most, uneven) is wide


@pytest.mark.parametrize("seed", range(4))
def test_held_models_are_certified_sooner_and_as_exact_says(seed: int) -> None:
    free = model(seed)
    most = free.said(exact(free, seed))[0]
    tight = model(seed, most=(1.05 * most + 1e-3).tolist())
    plain, certified = (one.certified(TensorSource(image(seed)), 1.0, 900) for one in (free, tight))
    found, before = certified.certificate, plain.certificate
    assert found is not None and before is not None and found.tiles <= before.tiles
    logits = exact(tight, seed).logits[0]
    assert found.level == 1.0 and int(logits.argmax()) == found.classes[0]
    lead = float(logits[found.classes[0]] - logits[found.classes[1]])
    assert found.lead[0] - 1e-4 <= lead <= found.lead[1] + 1e-4
    assert found.score[1] <= float(most[found.classes[0]]) * 1.06 + 2e-3


@pytest.mark.parametrize("level", [PROOF, 0.99])
def test_one_hidden_tile_is_never_certified_away(level: float) -> None:
    """Of 120 tiles with flat attention one says 12 for the second class and turns the label that the others have."""
    bounds = within(bounds_of(Head(np.array([[11.0], [-11.0]]), np.zeros(2))), np.array([0.11, 12.5]), None)
    for seed in range(12):
        margin = np.full(120, -0.08)
        margin[np.random.default_rng(seed).integers(120)] = 12.0
        population = Given(np.full(120, 1 / 120), np.stack([np.zeros(120), margin], axis=1))
        found = settle(population, bounds, Goal(level, 10**6, 1e-5), np.random.default_rng(seed))
        assert found.verdict is not None and (found.verdict.level is None or found.verdict.winner == 1)
        quick = settle(population, bounds, Goal(level, 40, 1e-5), np.random.default_rng(seed)).verdict
        assert quick is not None and (quick.level is None or quick.winner == 1)


def test_training_holds_a_model_to_its_last_look() -> None:
    network = model(2)
    examples = [
        Example(f"s{i}", i % 2, f"k{i}", lambda i=i: nullcontext(TensorSource(image(i))))  # type: ignore[misc]
        for i in range(20)
    ]
    recipe = Recipe(familiar=False)
    fabric = Fabric(accelerator="cpu", devices=1)
    _, fitted = judged(fabric, network, [], examples, recipe, OneLabel(("a", "b")), Silent())
    told = fitted["most"]
    assert isinstance(told, list) and tuple(told) == network.options.most
    seen = [network.said(network(TensorSource(image(i)))).max(dim=0).values for i in range(20)]
    allowed = torch.tensor(told)
    assert (
        bool((torch.stack(seen) <= allowed).all())
        and not judged(fabric, model(2), [], examples[:5], recipe, OneLabel(("a", "b")), Silent())[1]
    )
