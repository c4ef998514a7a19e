"""Zoom-In's nested estimator: every outcome enumerated, value and gradients compared exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from wsi_attention.attention.expectation import coefficients_sequential, coefficients_threshold, expectation
from wsi_attention.attention.sampling import Draw, draw_without_replacement
from wsi_attention.methods.zoom_in import estimator as n
from wsi_attention.methods.zoom_in.estimator import draw_counts, highest

ALPHA = torch.tensor([[0.7, 0.3]], dtype=torch.float64)
BETA = torch.tensor([[0.6, 0.4, 0.0], [0.5, 0.3, 0.2]], dtype=torch.float64)
FEATURES = torch.tensor([[1.0, 3.0, 99.0], [2.0, 0.0, 5.0]], dtype=torch.float64)


def multinomials(p: Tensor, draws: int) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Every vector of counts with its probability."""
    for counts in itertools.product(range(draws + 1), repeat=len(p)):
        if sum(counts) == draws:
            ways = math.factorial(draws) / math.prod(math.factorial(c) for c in counts)
            yield ways * math.prod(float(q) ** c for q, c in zip(p, counts, strict=True)), counts


def successions(p: Tensor, draws: int) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Every ordered draw without replacement with its probability, of as many cells as there are at most."""
    cells = [i for i in range(len(p)) if p[i] > 0]
    for order in itertools.permutations(cells, min(draws, len(cells))):
        chance, left = 1.0, 1.0
        for cell in order:
            chance *= float(p[cell]) / left
            left -= float(p[cell])
        yield chance, order


def scripted(rows: Tensor, orders: Sequence[tuple[int, ...]]) -> n.SubtileDraw:
    """A draw that gives each row of attention its own order."""

    def draw(attention: Tensor, count: int) -> Draw:
        cells = [orders[int((rows == one).all(-1).nonzero()[0])] for one in attention]
        assert {len(order) for order in cells} == {count}
        return Draw(torch.tensor(cells), attention, attention.new_zeros(len(attention)))

    return draw


def joint(options: Sequence[Iterator[tuple[float, tuple[int, ...]]]]) -> Iterator[tuple[float, list[tuple[int, ...]]]]:
    for chosen in itertools.product(*[list(option) for option in options]):
        yield math.prod(chance for chance, _ in chosen), [order for _, order in chosen]


def two_stages(alpha: Tensor, beta: Tensor, draws: int) -> Iterator[tuple[float, list[n.Stage], Tensor]]:
    """Every outcome: its probability, its stages, and the flat indices of its leaves in (tiles, sub-tiles)."""
    for chance, counts in multinomials(alpha[0].detach(), draws):
        first = n.tile_stage(alpha, torch.tensor([counts]))
        tiles = first.cells[first.drawn]
        rows = beta[tiles]
        options = [successions(row, v) for row, v in zip(rows.detach(), first.visits.tolist(), strict=True)]
        for inner, orders in joint(options):
            last = n.subtile_stage(rows, first.visits, scripted(rows.detach(), orders))
            leaves = (tiles.unsqueeze(-1) * beta.shape[1] + last.cells)[last.drawn]
            yield chance * inner, [first, last], leaves


def expected(draws: int, estimate: str = "nested_expectation") -> tuple[float, Tensor, list[Tensor]]:
    """Total probability, mean estimate and mean gradients for α, β and f over every outcome."""
    inputs = [ALPHA.clone().requires_grad_(), BETA.clone().requires_grad_(), FEATURES.clone().requires_grad_()]
    total, value, grads = 0.0, torch.zeros(1, 1).double(), [torch.zeros_like(one) for one in inputs]
    for chance, stages, leaves in two_stages(inputs[0], inputs[1], draws):
        found = getattr(n, estimate)(inputs[2].flatten()[leaves].unsqueeze(-1), stages)
        value += chance * found.detach()
        total += chance
        for grad, one in zip(grads, torch.autograd.grad(found.sum(), inputs, retain_graph=True), strict=True):
            grad += chance * one
    return total, value, grads


@pytest.mark.parametrize("draws", [1, 2, 3, 4])
def test_value_and_gradients_are_unbiased_by_enumeration(draws: int) -> None:
    total, value, (alpha, beta, features) = expected(draws)
    assert total == pytest.approx(1.0, abs=1e-12)
    assert float(value) == pytest.approx(1.86, abs=1e-10)
    torch.testing.assert_close(alpha, torch.tensor([[1.8, 2.0]], dtype=torch.float64), atol=1e-10, rtol=0)
    weights = torch.tensor([[0.7], [0.3]], dtype=torch.float64)
    exact = weights * FEATURES * (BETA > 0)
    torch.testing.assert_close(beta, exact, atol=1e-10, rtol=0)
    torch.testing.assert_close(features, weights * BETA, atol=1e-10, rtol=0)


def test_three_draws_ask_a_tile_for_more_than_it_has() -> None:
    asked = [chance for chance, counts in multinomials(ALPHA[0], 3) if counts == (3, 0)]
    assert sum(asked) == pytest.approx(0.343)
    stage = n.subtile_stage(BETA[:1], torch.tensor([3]), highest)
    assert stage.drawn.sum() == 2
    assert float(stage.coefficients.sum()) == pytest.approx(1.0)


def test_three_stages_are_unbiased_by_enumeration() -> None:
    generator = torch.Generator().manual_seed(5)
    shapes = [(1, 2), (2, 2), (4, 3)]
    maps = [torch.randn(shape, generator=generator).double().softmax(-1).requires_grad_() for shape in shapes]
    f = torch.randn(4, 3, generator=generator).double()
    leaves_exact = maps[0].reshape(2, 1, 1) * maps[1].reshape(2, 2, 1) * maps[2].reshape(2, 2, 3)
    exact = (leaves_exact.reshape(4, 3) * f).sum()
    value, total = torch.zeros(()).double(), 0.0
    grads = [torch.zeros_like(one) for one in maps]
    for outer, counts in multinomials(maps[0][0].detach(), 2):
        first = n.tile_stage(maps[0], torch.tensor([counts]))
        tiles = first.cells[first.drawn]
        rows = maps[1][tiles]
        inside = [multinomials(row, v) for row, v in zip(rows.detach(), first.visits.tolist(), strict=True)]
        for middle, drawn in joint(inside):
            second = n.tile_stage(rows, torch.tensor(drawn))
            parents = (tiles.unsqueeze(-1) * 2 + second.cells)[second.drawn]
            last_rows = maps[2][parents]
            visits = second.visits.tolist()
            last_options = [successions(row, v) for row, v in zip(last_rows.detach(), visits, strict=True)]
            for inner, orders in joint(last_options):
                last = n.subtile_stage(last_rows, second.visits, scripted(last_rows.detach(), orders))
                leaves = (parents.unsqueeze(-1) * 3 + last.cells)[last.drawn]
                found = n.nested_expectation(f.flatten()[leaves].unsqueeze(-1), [first, second, last]).sum()
                chance = outer * middle * inner
                total, value = total + chance, value + chance * found.detach()
                for grad, one in zip(grads, torch.autograd.grad(found, maps, retain_graph=True), strict=True):
                    grad += chance * one
    assert total == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(value, exact.detach(), atol=1e-10, rtol=0)
    for grad, wanted in zip(grads, torch.autograd.grad(exact, maps), strict=True):
        torch.testing.assert_close(grad, wanted, atol=1e-10, rtol=0)


def test_identity_of_the_second_draw() -> None:
    beta = torch.rand(6, generator=torch.Generator().manual_seed(0)).double().softmax(0)
    f = torch.randn(6, generator=torch.Generator().manual_seed(1)).double()
    mean = torch.zeros(()).double()
    for chance, order in successions(beta, 2):
        drawn, index = beta[list(order)][None], list(order)
        both = expectation(f[index][None, :, None], drawn, coefficients_sequential(drawn)).squeeze()
        mean += chance * (2 * both - f[order[0]])
    assert float(mean) == pytest.approx(float((beta * f).sum()), abs=1e-12)


def test_released_gradient_is_biased_and_ours_is_not() -> None:
    beta = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64, requires_grad=True)
    f = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    means = {"nested_expectation": torch.zeros(1, 3).double(), "nested_expectation_as_released": torch.zeros(1, 3)}
    for chance, stages, leaves in two_stages(torch.ones(1, 1).double(), beta, 2):
        values = []
        for name in means:
            found = getattr(n, name)(f[leaves].unsqueeze(-1), stages)
            means[name] = means[name] + chance * torch.autograd.grad(found.sum(), beta, retain_graph=True)[0]
            values.append(found.detach())
        torch.testing.assert_close(*values)
    torch.testing.assert_close(means["nested_expectation"], torch.tensor([[1.0, 2.0, 4.0]]).double())
    torch.testing.assert_close(means["nested_expectation_as_released"], torch.tensor([[1.08, 1.6, 2.925]]).double())


def test_released_value_equals_ours_for_ragged_tiles() -> None:
    for draws in [1, 2, 3]:
        _, value, grads = expected(draws, "nested_expectation_as_released")
        assert float(value) == pytest.approx(1.86, abs=1e-10)
        torch.testing.assert_close(grads[0], torch.tensor([[1.8, 2.0]]).double())


@pytest.mark.parametrize("draws", [2, 3])
def test_centred_gradient_ignores_what_all_share_and_is_short_by_one_in_n(draws: int) -> None:
    _, value, (_, _, features) = expected(draws, "nested_expectation_centred")
    assert float(value) == pytest.approx(1.86, abs=1e-10)
    torch.testing.assert_close(features, torch.tensor([[0.7], [0.3]], dtype=torch.float64) * BETA, atol=1e-10, rtol=0)
    for _, stages, leaves in two_stages(ALPHA.clone().requires_grad_(), BETA.clone().requires_grad_(), draws):
        flat = n.nested_expectation_centred(torch.ones(len(leaves), 1).double(), stages)
        assert float(flat.detach()) == pytest.approx(1.0)
        for stage in stages:
            assert float(torch.autograd.grad(flat.sum(), stage.attention, retain_graph=True)[0].abs().max()) < 1e-12
    weights = torch.tensor([0.7, 0.3], dtype=torch.float64)
    means = torch.tensor([1.8, 2.0], dtype=torch.float64)
    logits = torch.zeros(2).double()
    for chance, counts in multinomials(ALPHA[0], draws):
        attention = ALPHA.clone().requires_grad_()
        first = n.tile_stage(attention, torch.tensor([counts]))
        last = n.subtile_stage(torch.ones(len(first.visits), 1).double(), first.visits, highest)
        found = n.nested_expectation_centred(means[first.cells[first.drawn]].unsqueeze(-1), [first, last])
        (gradient,) = torch.autograd.grad(found.sum(), attention)
        logits += chance * weights * (gradient[0] - (weights * gradient[0]).sum())
    exact = weights * (means - (weights * means).sum())
    torch.testing.assert_close(logits, (1 - 1 / draws) * exact, atol=1e-12, rtol=0)


def test_all_cells_with_their_own_attention_are_the_exact_sum() -> None:
    first = n.whole_stage(ALPHA)
    last = n.whole_stage(BETA[first.cells[first.drawn]])
    found = n.nested_expectation(FEATURES[BETA > 0].unsqueeze(-1), [first, last])
    assert float(found) == pytest.approx(1.86, abs=1e-12)


def test_steps_of_the_draws_are_uncorrelated_and_average_to_the_estimate() -> None:
    covariance, mean = torch.zeros(2, 2).double(), torch.zeros(2).double()
    for chance, stages, leaves in two_stages(ALPHA, BETA, 2):
        features = FEATURES.flatten()[leaves].unsqueeze(-1)
        steps, weights = n.leaf_steps(features, stages)
        torch.testing.assert_close((weights @ steps), n.nested_expectation(features, stages)[0])
        x = steps[:, 0]
        for one in (x, x.flip(0)):  # which of two tiles stands first says nothing about which was drawn first
            mean, covariance = mean + chance / 2 * one, covariance + chance / 2 * torch.outer(one, one)
    torch.testing.assert_close(mean, torch.full((2,), 1.86, dtype=torch.float64))
    assert float(covariance[0, 1] - mean[0] * mean[1]) == pytest.approx(0.0, abs=1e-10)
    assert float(covariance[0, 0] - mean[0] ** 2) > 1.0


def test_what_failed_is_no_row_of_the_next_stage() -> None:
    first = n.tile_stage(ALPHA, torch.tensor([[1, 3]]))
    (left,) = n.without_failed_entries([first], torch.tensor([False, True]))
    assert left.drawn.tolist() == [[False, True]]
    assert left.visits.tolist() == [3]
    assert left.coefficients.tolist() == [[0.0, 1.0]]


def test_weights_of_all_leaves_sum_to_one() -> None:
    full = n.Stage(torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.int64), ALPHA, ALPHA)
    last = n.subtile_stage(BETA, torch.tensor([3, 3]), highest)
    assert float(n.leaf_attention([full, last]).sum()) == pytest.approx(1.0, abs=1e-12)
    expected_path = torch.tensor([0.42, 0.28, 0.15, 0.09, 0.06]).double()
    torch.testing.assert_close(n.leaf_attention([full, last]), expected_path)
    for _, stages, _ in two_stages(ALPHA, BETA, 3):
        assert float(n.leaf_weights(stages).sum()) == pytest.approx(1.0, abs=1e-12)


def test_weights_reproduce_the_estimate() -> None:
    for _, stages, leaves in two_stages(ALPHA, BETA, 3):
        f = FEATURES.flatten()[leaves]
        direct = (n.leaf_weights(stages) * f).sum()
        torch.testing.assert_close(n.nested_expectation(f.unsqueeze(-1), stages).squeeze(), direct)


def test_only_drawn_tiles_are_visited() -> None:
    counts = torch.tensor([[0, 2, 0, 1, 4], [3, 0, 0, 0, 4]])
    stage = n.tile_stage(torch.full((2, 5), 0.2), counts)
    assert stage.cells.tolist() == [[1, 3, 4], [0, 4, 0]]
    assert stage.counts.tolist() == [[2, 1, 4], [3, 4, 0]]
    assert int(stage.drawn.sum()) == int((counts > 0).sum()) == len(stage.visits)
    torch.testing.assert_close(stage.coefficients.sum(-1), torch.ones(2))


def test_a_batch_is_its_images_one_by_one() -> None:
    generator = torch.Generator().manual_seed(3)
    alpha = torch.randn(2, 6, generator=generator).softmax(-1)
    counts = draw_counts(alpha, torch.tensor([5, 5]), generator)
    beta = torch.randn(2, 6, 4, generator=generator).softmax(-1)
    features = torch.randn(2, 6, 4, 3, generator=generator)

    def run(images: list[int]) -> tuple[Tensor, Tensor]:
        first = n.tile_stage(alpha[images], counts[images])
        image = torch.arange(len(images)).unsqueeze(-1).expand(first.counts.shape)[first.drawn]
        tiles = first.cells[first.drawn]
        last = n.subtile_stage(beta[images][image, tiles], first.visits, highest)
        own = features[images][image, tiles].gather(1, last.cells.unsqueeze(-1).expand(-1, -1, 3))
        assert torch.equal(n.leaf_images([first, last]), image.unsqueeze(-1).expand(last.counts.shape)[last.drawn])
        return n.nested_expectation(own[last.drawn], [first, last]), n.leaf_weights([first, last])

    both, weights = run([0, 1])
    alone = [run([0]), run([1])]
    torch.testing.assert_close(both, torch.cat([value for value, _ in alone]))
    torch.testing.assert_close(weights, torch.cat([weight for _, weight in alone]))


def test_one_certain_subtile_is_the_plain_classifier() -> None:
    first = n.tile_stage(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[0, 4, 0]]))
    last = n.subtile_stage(torch.ones(1, 1), first.visits, highest)
    feature = torch.randn(1, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(n.nested_expectation(feature, [first, last]), feature)


def test_threshold_rule_is_exact_where_every_subtile_is_drawn() -> None:
    draw = draw_without_replacement(BETA[1:], 3, torch.Generator().manual_seed(0))
    stage = n.subtile_stage(BETA[1:], torch.tensor([7]), lambda a, k: draw, rule=coefficients_threshold)
    torch.testing.assert_close(stage.coefficients, BETA[1:].gather(1, draw.cells))
    partial = draw_without_replacement(BETA[1:], 2, torch.Generator().manual_seed(0))
    stage = n.subtile_stage(BETA[1:], torch.tensor([2]), lambda a, k: partial, rule=coefficients_threshold)
    wanted = coefficients_threshold(BETA[1:].gather(1, partial.cells), partial.threshold)
    torch.testing.assert_close(stage.coefficients, wanted)


def test_unreadable_leaves_leave_their_weight_to_siblings_then_to_other_tiles() -> None:
    first = n.tile_stage(ALPHA, torch.tensor([[1, 3]]))
    last = n.subtile_stage(BETA, first.visits, highest)
    one_gone = n.without_failed_leaves([first, last], torch.tensor([True, False, True, True]))
    assert float(n.leaf_weights(one_gone).sum()) == pytest.approx(1.0)
    assert n.leaf_weights(one_gone)[:2].tolist() == [0.25, 0.0]
    tile_gone = n.without_failed_leaves([first, last], torch.tensor([False, True, True, True]))
    torch.testing.assert_close(n.leaf_weights(tile_gone)[1:], n.leaf_weights([first, last])[1:] / 0.75)
    assert float(n.leaf_weights(tile_gone)[0]) == 0.0


def test_feature_gradient_by_gradcheck() -> None:
    _, stages, leaves = next(two_stages(ALPHA, BETA, 3))
    f = FEATURES.flatten()[leaves].unsqueeze(-1).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: n.nested_expectation(x, stages), f)


def test_features_of_other_leaves_are_refused() -> None:
    _, stages, leaves = next(two_stages(ALPHA, BETA, 3))
    with pytest.raises(ValueError, match="one a region"):
        n.nested_expectation(torch.zeros(len(leaves) + 1, 2), stages)
