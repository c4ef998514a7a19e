"""TNet's policy: bounds, likelihood by enumeration, and the sign of the reward."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from wsi_attention.attention.sampling import draw_without_replacement, top_k
from wsi_attention.methods.tnet import policy as g


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step_by_step(p: torch.Tensor, draw: tuple[int, ...]) -> float:
    chance, left = 1.0, 1.0
    for cell in draw:
        chance *= float(p[cell]) / left
        left -= float(p[cell])
    return chance


def test_bounds_of_unit_norm_probabilities() -> None:
    assert g.largest_probability(9) == pytest.approx(0.2653, abs=5e-5)
    assert g.largest_probability(25) == pytest.approx(0.1036, abs=5e-5)


@pytest.mark.parametrize("cells", [9, 25])
def test_unit_norm_probabilities_respect_the_bounds(cells: int) -> None:
    logits = seeded(500, cells) * seeded(500, 1, seed=1).exp() * 10
    p = g.unit_norm_logits(logits).softmax(-1)
    torch.testing.assert_close(p.sum(-1), torch.ones(500, dtype=torch.float64))
    assert (p.amax(-1) / p.amin(-1)).max() <= math.exp(math.sqrt(2))
    assert p.max() <= g.largest_probability(cells)
    torch.testing.assert_close(g.unit_norm_logits(logits * 37.0), g.unit_norm_logits(logits))


@pytest.mark.parametrize("cells", [9, 25])
def test_the_bound_is_reached(cells: int) -> None:
    logits = torch.full((1, cells), -1.0, dtype=torch.float64)
    logits[0, 3] = cells - 1.0
    assert float(g.unit_norm_logits(logits).softmax(-1)[0, 3]) == pytest.approx(g.largest_probability(cells), abs=1e-12)


def test_zero_logits_give_uniform_and_finite_gradients() -> None:
    logits = torch.zeros(1, 4, requires_grad=True)
    p = g.unit_norm_logits(logits).softmax(-1)
    assert torch.equal(p, torch.full((1, 4), 0.25))
    p[0, 0].backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_cells_without_tissue_stay_out_of_the_norm() -> None:
    logits = torch.tensor([[3.0, -torch.inf, 4.0]], requires_grad=True)
    unit = g.unit_norm_logits(logits)
    torch.testing.assert_close(unit, torch.tensor([[0.6, -torch.inf, 0.8]]))
    unit.softmax(-1)[0, 0].backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_likelihood_equals_the_enumerated_probability(k: int) -> None:
    logits = seeded(1, 5) * 2
    p = logits.softmax(-1)[0]
    draws = list(itertools.permutations(range(5), k))
    found = g.log_likelihood(logits.expand(len(draws), -1), torch.tensor(draws)).exp()
    expected = torch.tensor([step_by_step(p, draw) for draw in draws], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-12)


def test_score_function_is_unbiased_by_enumeration() -> None:
    logits = seeded(1, 5).requires_grad_()
    draws = list(itertools.permutations(range(5), 2))
    likelihood = g.log_likelihood(logits.expand(len(draws), -1), torch.tensor(draws))
    rewards = seeded(len(draws), seed=3)
    chance = likelihood.exp()
    (exact,) = torch.autograd.grad((chance * rewards).sum(), logits, retain_graph=True)
    for baseline in [0.0, 0.7]:
        losses = torch.stack([g.reinforce(likelihood[i], rewards[i], baseline) for i in range(len(draws))])
        (estimate,) = torch.autograd.grad((chance.detach() * losses).sum(), logits, retain_graph=True)
        torch.testing.assert_close(-estimate, exact, rtol=0, atol=1e-10)


def test_likelihood_gradient_and_shorter_rows() -> None:
    logits, cells = seeded(2, 4), torch.tensor([[2, 0, 3], [1, 0, 0]])
    drawn = torch.tensor([[True, True, True], [True, False, False]])
    assert torch.autograd.gradcheck(lambda z: g.log_likelihood(z, cells, drawn), logits.requires_grad_())
    found = g.log_likelihood(logits, cells, drawn)
    torch.testing.assert_close(found[:1], g.log_likelihood(logits[:1], cells[:1]))
    torch.testing.assert_close(found[1:], g.log_likelihood(logits[1:], cells[1:, :1]))


def test_likelihood_of_cells_without_tissue_around() -> None:
    logits = torch.tensor([[0.5, -torch.inf, 1.5]], dtype=torch.float64, requires_grad=True)
    cells, drawn = torch.tensor([[2, 0, 0]]), torch.tensor([[True, True, False]])
    found = g.log_likelihood(logits, cells, drawn)
    torch.testing.assert_close(found, logits[:, [0, 2]].log_softmax(-1)[:, 1])
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_released_likelihood_is_that_of_draws_with_replacement() -> None:
    logits, cells = seeded(3, 6), torch.tensor([[0, 1], [5, 2], [3, 4]])
    found = g.log_probability_as_released(logits, cells)
    torch.testing.assert_close(found, logits.log_softmax(-1).gather(1, cells), atol=1e-8, rtol=0)
    assert (found.sum(-1) < g.log_likelihood(logits, cells)).all()


def test_exactly_k_different_cells_and_ties_in_order() -> None:
    p = g.unit_norm_logits(torch.zeros(4, 9)).softmax(-1)
    assert top_k(p, 3).tolist() == [[0, 1, 2]] * 4
    drawn = draw_without_replacement(p, 5, torch.Generator().manual_seed(0)).cells
    assert all(len(set(row)) == 5 for row in drawn.tolist())


@pytest.mark.parametrize(("rewarded", "sign"), [(1.0, 1), (0.0, -1)])
def test_a_step_raises_what_was_right_and_lowers_what_was_wrong(rewarded: float, sign: int) -> None:
    features, cells = seeded(1, 9, 4).requires_grad_(), torch.tensor([[2, 7]])
    scorer = seeded(4, seed=1).requires_grad_()

    def chosen() -> torch.Tensor:
        return g.log_likelihood(g.unit_norm_logits(features.detach() @ scorer), cells)

    before = chosen()
    g.reinforce(before, torch.tensor([rewarded]), 0.5).backward()  # type: ignore[no-untyped-call]
    assert features.grad is None
    assert scorer.grad is not None
    with torch.no_grad():
        scorer -= 1e-3 * scorer.grad
    assert sign * float((chosen() - before).detach()) > 0


def test_reward_at_the_baseline_gives_no_gradient() -> None:
    logits = seeded(2, 9).requires_grad_()
    each = g.log_probability_as_released(logits, torch.tensor([[0, 1], [2, 3]]))
    g.reinforce(each, torch.full((2, 2), 0.5), 0.5).backward()  # type: ignore[no-untyped-call]
    assert torch.equal(logits.grad, torch.zeros(2, 9, dtype=torch.float64))  # type: ignore[arg-type]


def test_reward_is_one_where_the_arg_max_is_right() -> None:
    logits = torch.tensor([[[0.0, 1.0], [2.0, 1.0]]])
    assert g.reward(logits, torch.tensor([[1, 1]])).tolist() == [[1.0, 0.0]]


def test_baseline_by_hand() -> None:
    ones = torch.ones(2)
    assert g.next_baseline(g.BASELINE_START, ones, torch.ones(2, 3), 0.3) == pytest.approx(0.55)
    mixed = g.next_baseline(0.5, torch.tensor([1.0, 0.0]), torch.zeros(2, 3), 0.3)
    assert mixed == pytest.approx(0.45 + 0.1 * 0.3 * 0.5)


def test_losses_balance() -> None:
    assert float(g.balanced(torch.tensor(2.0), torch.tensor(4.0), 0.25)) == 3.5


def test_feature_weighting() -> None:
    features, gate, weight = seeded(2, 5, 3), seeded(2, 3).sigmoid(), seeded(3, seed=2)
    pooled, share = g.weighted_feature(features, gate, weight)
    torch.testing.assert_close(share.sum(-1), torch.ones(2, dtype=torch.float64))
    logits = torch.stack([(features[:, j] * gate) @ weight for j in range(5)], dim=1)
    torch.testing.assert_close(share, logits.softmax(-1))
    order = torch.tensor([3, 1, 4, 0, 2])
    again, _ = g.weighted_feature(features[:, order], gate, weight)
    torch.testing.assert_close(again, pooled)
    equal, _ = g.weighted_feature(features[:, :1].expand(-1, 5, -1), gate, weight)
    torch.testing.assert_close(equal, features[:, 0])


def test_contrast_of_identical_and_orthogonal_features_is_free() -> None:
    features = torch.tensor([[2.0, 0.0], [5.0, 0.0], [0.0, 3.0]])
    target = torch.tensor([0, 0, 1])
    assert float(g.pairwise_contrast(features, target)) == pytest.approx(0.0, abs=1e-6)


def test_contrast_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert float(g.pairwise_contrast(features, torch.tensor([1, 1]))) == pytest.approx(2 * 0.4 / 4)
    assert float(g.pairwise_contrast(features, torch.tensor([0, 1]))) == pytest.approx(2 * 0.2 / 4)


def test_steps_of_the_likelihood_are_fair_and_plain_log_p_is_not() -> None:
    """With a reward that is always 1 nothing should move, on average over all draws."""
    logits = seeded(1, 5).requires_grad_()
    draws = torch.tensor(list(itertools.permutations(range(5), 3)))
    rows = logits.expand(len(draws), -1)
    each = g.log_likelihood_of_each(rows, draws)
    chance = g.log_likelihood(rows, draws).exp().detach()
    torch.testing.assert_close(each.sum(-1), g.log_likelihood(rows, draws))
    for j in range(3):
        (mean,) = torch.autograd.grad((chance * each[:, j]).sum(), logits, retain_graph=True)
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-12)
    released = g.log_probability_as_released(rows, draws)
    (mean,) = torch.autograd.grad((chance * released[:, 2]).sum(), logits)
    assert float(mean.abs().max()) > 0.01


@pytest.mark.parametrize("random", [True, False])
def test_rows_with_few_cells_give_all_they_have(random: bool) -> None:
    attention = torch.tensor([[0.5, 0.0, 0.3, 0.2], [0.0, 1.0, 0.0, 0.0], [1e-38, 0.0, 0.0, 1.0]])
    generator = torch.Generator().manual_seed(0)
    cells, drawn = g.attend(attention, 3, generator) if random else g.attend_top(attention, 3)
    assert drawn.sum(-1).tolist() == [3, 1, 2]
    assert drawn.tolist()[1:] == [[True, False, False], [True, True, False]]
    assert [sorted(row[real].tolist()) for row, real in zip(cells, drawn, strict=True)] == [[0, 2, 3], [1], [0, 3]]


def test_attending_is_drawing_where_there_are_cells_enough() -> None:
    attention, generator = seeded(4, 6).softmax(-1), torch.Generator().manual_seed(3)
    assert g.attend_top(attention, 2)[0].tolist() == top_k(attention, 2).tolist()
    draws = [tuple(g.attend(attention[:1], 2, generator)[0][0].tolist()) for _ in range(4000)]
    best = max(set(draws), key=draws.count)
    assert draws.count(best) / 4000 == pytest.approx(step_by_step(attention[0], best), abs=0.03)


def test_features_that_are_not_there_do_not_count() -> None:
    features, gate, weight = seeded(2, 5, 3), seeded(2, 3).sigmoid(), seeded(3, seed=2)
    real = torch.tensor([[True] * 3 + [False] * 2] * 2)
    pooled, share = g.weighted_feature(features, gate, weight, real)
    expected, kept = g.weighted_feature(features[:, :3], gate, weight)
    torch.testing.assert_close(pooled, expected)
    assert torch.equal(share[:, 3:], torch.zeros(2, 2, dtype=torch.float64))
    torch.testing.assert_close(share[:, :3], kept)


def test_a_slower_baseline() -> None:
    assert g.next_baseline(0.5, torch.ones(1), torch.ones(1, 4), 0.3, kept=0.98) == pytest.approx(0.51)
