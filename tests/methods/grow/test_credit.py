"""The leave-one-out gradient against the derivative of the expected loss, by enumeration of all draws."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional

from wsi_attention.attention import balanced
from wsi_attention.attention.balanced import Spread, chances, curve, draw_balanced
from wsi_attention.methods.grow.counting import counts, shares
from wsi_attention.methods.grow.credit import brought
from wsi_attention.methods.rounds import mean_of

SHAPE, DRAWS, CLASSES = (4, 4), 3, 3
TRUTH = torch.tensor([1])


def toy(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of attention (1, 16), features (16, 5), a classifier (5, 3)."""
    noise = Generator().manual_seed(seed)
    sizes: list[tuple[int, ...]] = [(1, 16), (16, 5), (5, CLASSES)]
    logits, features, head = (torch.randn(size, dtype=torch.float64, generator=noise) for size in sizes)
    return 0.5 * logits, features, 2 * head


def draws(attention: Tensor, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[float, Spread]]:
    """Every draw with how likely it is: all depends on one number, between whose jumps nothing changes."""
    chance = chances(attention, DRAWS)[0]
    jumps = (chance[torch.from_numpy(curve(*SHAPE))].cumsum(dim=-1) % 1).tolist()
    for low, high in itertools.pairwise(np.unique([0.0, 1.0, *jumps])):
        middle = torch.full((1, 1), (low + high) / 2, dtype=torch.float64)
        monkeypatch.setattr(balanced.torch, "rand", lambda *size, u=middle, **more: u)
        yield high - low, draw_balanced(attention, DRAWS, SHAPE)


def pooled(attention: Tensor, draw: Spread, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (1, n), features (1, n, 5) and the chance that each is not there, (1, n)."""
    at_cells, yes = attention.gather(1, draw.cells), torch.ones_like(draw.cells, dtype=torch.bool)
    found = counts(at_cells, draw.chance, ~yes, yes)
    return shares(found.coefficients, at_cells, torch.zeros_like(at_cells)), features[draw.cells], found.chance


def cross_entropy(head: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda means: functional.cross_entropy(
        (means @ head).flatten(0, 1), TRUTH.expand(means.shape[1]), reduction="none"
    ).view(means.shape[:2])


def gradients(
    start: Tensor, features: Tensor, head: Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Tensor, Tensor]:
    """By the logits of attention: of the expected loss, and on average the leave-one-out and the centred one."""
    losses = cross_entropy(head)

    def expected(logits: Tensor) -> Tensor:
        attention = logits.softmax(-1)
        parts = ((share, pooled(attention, draw, features)) for share, draw in draws(attention, monkeypatch))
        return sum((share * losses(mean_of(x, w)[:, None])[0, 0] for share, (w, x, _) in parts), torch.zeros(()))

    step = 1e-5 * torch.eye(16, dtype=torch.float64)
    true = torch.stack([(expected(start + one) - expected(start - one)) / 2e-5 for one in step]).detach()
    logits = start.clone().requires_grad_()
    attention = logits.softmax(-1)
    left_out, centred = torch.zeros(()), torch.zeros(())
    for share, draw in draws(attention, monkeypatch):
        w, x, chance = pooled(attention, draw, features)
        at_cells = attention.gather(1, draw.cells)
        left_out = left_out + share * (brought(losses, x, w, chance) * at_cells.log()).sum()
        centred = centred + share * losses(mean_of(x, w)[:, None]).sum()
    found = [torch.autograd.grad(one, logits, retain_graph=True)[0][0] for one in (left_out, centred)]
    return true, found[0], found[1]


def test_it_is_the_derivative_of_the_expected_loss_where_draws_are_independent() -> None:
    logits, features, head = toy(0)
    logits, features, losses, n = logits[:, :5].requires_grad_(), features[:5], cross_entropy(head), 3
    log_a, equal = logits.log_softmax(-1)[0], torch.full((1, n), 1 / n, dtype=torch.float64)
    true, estimated = torch.zeros(()), torch.zeros(())
    for cells in itertools.product(range(5), repeat=n):
        drawn = features[list(cells)][None]
        chance = log_a[list(cells)].sum().exp()
        brings = brought(losses, drawn, equal, torch.ones_like(equal))
        true = true + chance * losses(drawn.mean(1, keepdim=True)).sum()
        estimated = estimated + chance.detach() * (brings * log_a[list(cells)]).sum()
    torch.testing.assert_close(*(torch.autograd.grad(one, logits, retain_graph=True)[0] for one in (estimated, true)))


def test_with_few_draws_spread_it_knows_what_attention_on_nothing_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five of sixteen cells show something, three of them the class: what attention spends on the others is lost."""
    shows = {1: 1, 5: 1, 8: 1, 11: 0, 14: 2}
    features = torch.zeros(16, CLASSES, dtype=torch.float64)
    features[list(shows), list(shows.values())] = 1.0
    logits = torch.tensor([[2.0 if i in shows else 0.0 for i in range(16)]], dtype=torch.float64)
    true, left_out, centred = gradients(logits, features, 6 * torch.eye(CLASSES, dtype=torch.float64), monkeypatch)
    by_truth, by_left_out, by_centred = (float(one[list(shows)].sum()) for one in (true, left_out, centred))
    assert by_truth < by_left_out < 0 < by_centred, (
        "the centred gradient draws attention away from what shows something"
    )


def test_what_is_certain_moves_the_loss_by_its_weight() -> None:
    _, features, head = toy(0)
    losses, weights = cross_entropy(head), torch.rand(1, 16, dtype=torch.float64, generator=Generator().manual_seed(1))
    log_a = weights.log().requires_grad_()
    losses(mean_of(features[None], log_a.softmax(-1))[:, None]).sum().backward()
    share = weights / weights.sum()
    torch.testing.assert_close(brought(losses, features[None], share, torch.zeros_like(share)), log_a.grad)


def test_a_drawn_tile_brings_what_the_loss_is_without_it_and_one_alone_is_not_left_out() -> None:
    _, features, head = toy(0)
    losses, share = cross_entropy(head), torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    found = brought(losses, features[None, :3], share, torch.ones_like(share))
    others = mean_of(features[None, 1:3], share[:, 1:])
    whole = losses(mean_of(features[None, :3], share)[:, None])[0, 0]
    torch.testing.assert_close(found[0, 0], whole - losses(others[:, None])[0, 0])
    assert brought(losses, features[None, :1], torch.ones(1, 1).double(), torch.ones(1, 1)).abs().max() < 1e-12
