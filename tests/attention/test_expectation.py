"""Estimators against the worked example of the methods page and against every possible draw."""

from __future__ import annotations

import math
from itertools import combinations
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from wsi_attention.attention.expectation import (
    coefficients_normalised_threshold,
    coefficients_sequential,
    coefficients_threshold,
    coefficients_with_replacement,
    expectation,
    expectation_as_ported,
    expectation_as_released,
    expectation_centred,
    inclusion,
    without_failed,
)
from wsi_attention.attention.sampling import draw_without_replacement

TOY_A, TOY_F = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
TOY_DRAWS = {
    (0, 1): (0.3, 1.25, (0.75, 0.25)),
    (0, 2): (0.2, 1.75, (0.75, 0.25)),
    (1, 0): (0.2142857, 1.65, (0.65, 0.35)),
    (1, 2): (0.0857143, 2.70, (0.65, 0.35)),
    (2, 0): (0.125, 2.80, (0.60, 0.40)),
    (2, 1): (0.075, 3.20, (0.60, 0.40)),
}
CASES = [(k, n) for k in (4, 5, 6) for n in range(1, 6) if n <= k]


def sequential(features: Tensor, attention: Tensor) -> Tensor:
    return expectation(features, attention, coefficients_sequential(attention))


def with_replacement(features: Tensor, attention: Tensor) -> Tensor:
    return expectation(features, attention, coefficients_with_replacement(attention))


def problem(k: int, d: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = Generator().manual_seed(seed + k)
    a = (2 * torch.randn(k, generator=generator, dtype=torch.float64)).softmax(0)
    f = torch.randn(k, d, generator=generator, dtype=torch.float64) + 1.0
    return a, f, torch.randn(d, generator=generator, dtype=torch.float64)


def expected(rule, draws, a: Tensor, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """Probability-weighted mean of F, of ∂(g·F)/∂a and of ∂(g·F)/∂f over every draw."""
    listed = list(draws)
    cells = torch.tensor([draw for draw, _ in listed])
    p = torch.tensor([probability for _, probability in listed], dtype=torch.float64)
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-12)
    a, f = a.clone().requires_grad_(), f.clone().requires_grad_()
    estimate = rule(f[cells], a[cells])
    mean = (p[:, None] * estimate).sum(0)
    on_a, on_f = torch.autograd.grad(mean @ g, (a, f))
    return mean.detach(), on_a, on_f


def test_toy_draw_by_draw(ats_numpy: ModuleType) -> None:
    seen = dict(ats_numpy.ordered_draws(TOY_A.numpy(), 2))
    for draw, (probability, value, coefficients) in TOY_DRAWS.items():
        attention = TOY_A[list(draw)][None]
        assert seen[draw] == pytest.approx(probability, abs=1e-7)
        torch.testing.assert_close(
            coefficients_sequential(attention)[0], torch.tensor(coefficients, dtype=torch.float64)
        )
        assert float(sequential(TOY_F[list(draw)][None, :, None], attention)) == pytest.approx(value, abs=1e-12)
        reference = ats_numpy.sequential(TOY_A.numpy(), TOY_F[:, None].numpy(), draw)
        assert float(reference[0]) == pytest.approx(value, abs=1e-12)


def test_toy_mean_variance_and_steps(ats_numpy: ModuleType) -> None:
    for rule, draws, variance in (
        (sequential, ats_numpy.ordered_draws(TOY_A.numpy(), 2), 0.4275),
        (with_replacement, ats_numpy.independent_draws(TOY_A.numpy(), 2), 0.645),
    ):
        found = [(p, float(rule(TOY_F[list(draw)][:, None], TOY_A[list(draw)]))) for draw, p in draws]
        assert sum(p * value for p, value in found) == pytest.approx(1.9, abs=1e-12)
        assert sum(p * (value - 1.9) ** 2 for p, value in found) == pytest.approx(variance, abs=1e-10)
    for step in range(2):
        mean = sum(
            p * ats_numpy.steps(TOY_A.numpy(), TOY_F[:, None].numpy(), draw)[step][0]
            for draw, p in ats_numpy.ordered_draws(TOY_A.numpy(), 2)
        )
        assert mean == pytest.approx(1.9, abs=1e-12)


def test_toy_inclusion_probabilities(ats_numpy: ModuleType) -> None:
    draws = list(ats_numpy.ordered_draws(TOY_A.numpy(), 2))
    drawn = [sum(p for draw, p in draws if i in draw) for i in range(3)]
    np.testing.assert_allclose(drawn, (0.8392857, 0.675, 0.4857143), atol=5e-8)


@pytest.mark.parametrize(
    ("rule", "gradient"),
    [
        (sequential, (1.0, 2.0, 4.0)),
        (expectation_as_released, (1.14964, 1.54, 2.74929)),
        (expectation_as_ported, (1.08, 1.6, 2.925)),
    ],
)
def test_toy_tells_the_three_gradients_apart(rule, gradient, ats_numpy: ModuleType) -> None:  # type: ignore[no-untyped-def]
    g = torch.ones(1, dtype=torch.float64)
    mean, on_a, _ = expected(rule, ats_numpy.ordered_draws(TOY_A.numpy(), 2), TOY_A, TOY_F[:, None], g)
    assert float(mean) == pytest.approx(1.9, abs=1e-12)
    torch.testing.assert_close(on_a, torch.tensor(gradient, dtype=torch.float64), atol=5e-6, rtol=0)


def test_toy_gradient_through_the_softmax(ats_numpy: ModuleType) -> None:
    g = torch.ones(1, dtype=torch.float64)
    _, on_a, _ = expected(sequential, ats_numpy.ordered_draws(TOY_A.numpy(), 2), TOY_A, TOY_F[:, None], g)
    np.testing.assert_allclose(ats_numpy.through_softmax(TOY_A.numpy(), on_a.numpy()), (-0.45, 0.03, 0.42), atol=1e-12)


@pytest.mark.parametrize(("k", "n"), CASES)
def test_sequential_is_exact_over_every_draw(k: int, n: int, ats_numpy: ModuleType) -> None:
    a, f, g = problem(k)
    mean, on_a, on_f = expected(sequential, ats_numpy.ordered_draws(a.numpy(), n), a, f, g)
    torch.testing.assert_close(mean, a @ f, atol=1e-10, rtol=0)
    torch.testing.assert_close(on_a, f @ g, atol=1e-10, rtol=0)
    torch.testing.assert_close(on_f, torch.outer(a, g), atol=1e-10, rtol=0)


@pytest.mark.parametrize(("k", "n"), [(4, 1), (4, 3), (5, 4), (6, 2), (6, 5)])
def test_with_replacement_is_exact_over_every_draw(k: int, n: int, ats_numpy: ModuleType) -> None:
    a, f, g = problem(k)
    mean, on_a, on_f = expected(with_replacement, ats_numpy.independent_draws(a.numpy(), n), a, f, g)
    torch.testing.assert_close(mean, a @ f, atol=1e-10, rtol=0)
    torch.testing.assert_close(on_a, f @ g, atol=1e-10, rtol=0)
    torch.testing.assert_close(on_f, torch.outer(a, g), atol=1e-10, rtol=0)


def threshold_draws(a: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every set of n drawn cells with a fine grid of thresholds κ, and the probability weight of each pair.

    Keys are independent Gumbel(log a): P(key_i < κ) = exp(−a_i exp(−κ)); κ is the largest key of the cells left.
    """
    kappa = torch.linspace(-11.0, 29.0, 5001, dtype=torch.float64)
    below = torch.exp(-a[:, None] * torch.exp(-kappa))
    cells, weights = [], []
    for drawn in combinations(range(len(a)), n):
        left = [i for i in range(len(a)) if i not in drawn]
        density = sum(a[j] for j in left) * torch.exp(-kappa)
        for i in range(len(a)):
            density = density * ((1 - below[i]) if i in drawn else below[i])
        cells.append(torch.tensor(drawn).expand(len(kappa), n))
        weights.append(density * (kappa[1] - kappa[0]))
    return torch.cat(cells), kappa.repeat(len(cells)), torch.cat(weights)


@pytest.mark.parametrize(("k", "n"), [(4, 1), (4, 2), (4, 3), (5, 2), (6, 3)])
def test_threshold_is_exact_over_every_draw(k: int, n: int) -> None:
    a, f, g = problem(k)
    cells, kappa, weights = threshold_draws(a, n)
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-10)
    leaf, features = a.clone().requires_grad_(), f.clone().requires_grad_()
    estimate = expectation(features[cells], leaf[cells], coefficients_threshold(leaf[cells], kappa))
    mean = (weights[:, None] * estimate).sum(0)
    on_a, on_f = torch.autograd.grad(mean @ g, (leaf, features))
    torch.testing.assert_close(mean.detach(), a @ f, atol=1e-10, rtol=0)
    torch.testing.assert_close(on_a, f @ g, atol=1e-10, rtol=0)
    torch.testing.assert_close(on_f, torch.outer(a, g), atol=1e-10, rtol=0)


@pytest.mark.parametrize(("k", "n"), [(5, 2), (6, 3)])
def test_normalised_threshold_has_a_smaller_error(k: int, n: int, ats_numpy: ModuleType) -> None:
    a, f, _ = problem(k)
    cells, kappa, weights = threshold_draws(a, n)
    errors, sequential_error = [], 0.0
    for rule in (coefficients_threshold, coefficients_normalised_threshold):
        estimate = expectation(f[cells], a[cells], rule(a[cells], kappa))
        errors.append(float((weights * (estimate - a @ f).square().sum(-1)).sum()))
    for draw, p in ats_numpy.ordered_draws(a.numpy(), n):
        sequential_error += p * np.sum((ats_numpy.sequential(a.numpy(), f.numpy(), draw) - (a @ f).numpy()) ** 2)
    assert errors[1] < min(errors[0], sequential_error)


def test_threshold_is_unbiased_by_sampling() -> None:
    a, f, g = problem(6)
    runs, n = 60_000, 3
    leaf = a.clone().requires_grad_()
    draw = draw_without_replacement(a.expand(runs, 6), n, Generator().manual_seed(0))
    at_cells = leaf[draw.cells]
    estimate = expectation(f[draw.cells], at_cells, coefficients_threshold(at_cells, draw.threshold))
    error = estimate.detach().std(0) / math.sqrt(runs)
    assert bool(((estimate.mean(0) - a @ f).abs() < 4 * error).all())
    (on_a,) = torch.autograd.grad(estimate.mean(0) @ g, leaf)
    torch.testing.assert_close(on_a, f @ g, atol=0.06, rtol=0.03)


@pytest.mark.parametrize("rule", [expectation, expectation_centred])
def test_threshold_with_every_cell_gives_phi(rule) -> None:  # type: ignore[no-untyped-def]
    a, f, g = problem(5)
    z = a.log().requires_grad_()
    draw = draw_without_replacement(a[None], 5, Generator().manual_seed(0))
    at_cells = z.softmax(0)[draw.cells]
    for coefficients in (coefficients_threshold, coefficients_normalised_threshold):
        estimate = rule(f[draw.cells], at_cells, coefficients(at_cells, draw.threshold))
        torch.testing.assert_close(estimate[0], a @ f)
        (on_z,) = torch.autograd.grad(estimate[0] @ g, z, retain_graph=True)
        torch.testing.assert_close(on_z, a * ((f - a @ f) @ g))


def test_threshold_coefficients_by_hand() -> None:
    a, kappa = torch.tensor([[0.4, 0.1]], dtype=torch.float64), torch.tensor([math.log(0.2)], dtype=torch.float64)
    q = [1 - math.exp(-2.0), 1 - math.exp(-0.5)]
    c = [0.4 / q[0], 0.1 / q[1]]
    torch.testing.assert_close(inclusion(a, kappa)[0], torch.tensor(q, dtype=torch.float64))
    torch.testing.assert_close(coefficients_threshold(a, kappa)[0], torch.tensor(c, dtype=torch.float64))
    normalised = coefficients_normalised_threshold(a, kappa)[0]
    torch.testing.assert_close(normalised, torch.tensor([one / sum(c) for one in c], dtype=torch.float64))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_constant_features_come_back_and_coefficients_sum_to_one(n: int) -> None:
    a = (3 * torch.randn(8, 6, generator=Generator().manual_seed(0), dtype=torch.float64)).softmax(-1)
    draw = draw_without_replacement(a, n, Generator().manual_seed(1))
    at_cells = a.gather(-1, draw.cells)
    v = torch.tensor([1.5, -2.0], dtype=torch.float64)
    for c in (
        coefficients_with_replacement(at_cells),
        coefficients_sequential(at_cells),
        coefficients_normalised_threshold(at_cells, draw.threshold),
    ):
        torch.testing.assert_close(c.sum(-1), torch.ones(8, dtype=torch.float64))
        torch.testing.assert_close(expectation(v.expand(8, n, 2), at_cells, c), v.expand(8, 2))


def test_one_draw_makes_all_rules_equal(ats_numpy: ModuleType) -> None:
    a, f, g = problem(4)
    draws = list(ats_numpy.ordered_draws(a.numpy(), 1))
    gradients = [expected(rule, draws, a, f, g)[1] for rule in (sequential, with_replacement, expectation_as_released)]
    for gradient in gradients:
        torch.testing.assert_close(gradient, f @ g)
    ported = expected(expectation_as_ported, draws, a, f, g)[1]
    np.testing.assert_allclose(
        ats_numpy.through_softmax(a.numpy(), ported.numpy()),
        ats_numpy.through_softmax(a.numpy(), (f @ g).numpy()),
        atol=1e-12,
    )


def test_ported_feature_gradient_lacks_a_share() -> None:
    a, f, g = problem(4)
    features = f[None, :3].clone().requires_grad_()
    (found,) = torch.autograd.grad(expectation_as_ported(features, a[None, :3])[0] @ g, features)
    torch.testing.assert_close(found[0], torch.outer(coefficients_sequential(a[None, :3])[0] - a[:3] / 3, g))


@pytest.mark.parametrize(("k", "n"), [(4, 2), (4, 3), (6, 3), (6, 5)])
def test_released_gradient_equals_the_reference_and_is_biased(k: int, n: int, ats_numpy: ModuleType) -> None:
    a, f, g = problem(k)
    total = torch.zeros(k, dtype=torch.float64)
    for draw, probability in ats_numpy.ordered_draws(a.numpy(), n):
        leaf = a.clone().requires_grad_()
        estimate = expectation_as_released(f[list(draw)][None], leaf[list(draw)][None])
        (gradient,) = torch.autograd.grad(estimate[0] @ g, leaf)
        reference = ats_numpy.released_gradient(a.numpy(), f.numpy(), draw, g.numpy())
        np.testing.assert_allclose(gradient.numpy(), reference, atol=1e-10)
        total += probability * gradient
    true = ats_numpy.through_softmax(a.numpy(), (f @ g).numpy())
    found = ats_numpy.through_softmax(a.numpy(), total.numpy())
    assert np.linalg.norm(found - true) > 0.05 * np.linalg.norm(true)


@pytest.mark.parametrize("n", [1, 3, 4])
def test_surrogate_has_the_plain_value_and_the_gradient_of_the_rule(n: int) -> None:
    a, f, g = problem(6)
    leaf = a[:n].clone().requires_grad_()
    features = f[:n].clone().requires_grad_()
    c = coefficients_sequential(leaf[None])
    estimate = sequential(features[None], leaf[None])[0]
    torch.testing.assert_close(estimate, c[0] @ f[:n], atol=1e-15, rtol=0)
    on_a, on_f = torch.autograd.grad(estimate @ g, (leaf, features))
    torch.testing.assert_close(on_a, c[0] * (f[:n] @ g) / a[:n])
    torch.testing.assert_close(on_f, torch.outer(c[0], g))


def test_gradcheck() -> None:
    a, f, _ = problem(5)
    features = f[None, :3].clone().requires_grad_()
    attention = a[None, :3].clone().requires_grad_()
    c = coefficients_sequential(attention)
    assert torch.autograd.gradcheck(lambda x: expectation(x, attention, c), (features,))
    assert torch.autograd.gradcheck(lambda x: expectation_as_released(x, attention.detach()), (features,))

    def ratio(x: Tensor, y: Tensor) -> Tensor:
        weights = c * y / a[:3]
        return (weights[..., None] * x).sum(1) / weights.sum(-1, keepdim=True)

    assert torch.autograd.gradcheck(ratio, (features, attention))
    centred = torch.autograd.grad(expectation_centred(features, attention, c).sum(), (features, attention))
    for one, other in zip(
        centred, torch.autograd.grad(ratio(features, attention).sum(), (features, attention)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_centred_gradient_does_not_see_a_common_part() -> None:
    a, f, g = problem(6)
    leaf = a[None, :4].clone().requires_grad_()
    gradients = []
    for shift in (0.0, 100.0):
        estimate = expectation_centred(f[None, :4] + shift, leaf, coefficients_sequential(leaf))
        gradients.append(torch.autograd.grad(estimate[0] @ g, leaf)[0])
    torch.testing.assert_close(gradients[0], gradients[1])


def softmax_gradients(rule, shift: float) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Relative bias and mean squared error of the gradient on 200 even logits, 10 draws, features shift ± 0.3."""
    k, n, runs = 200, 10, 3000
    z = torch.zeros(runs, k, dtype=torch.float64, requires_grad=True)
    f = shift + 0.3 * torch.randn(k, 1, generator=Generator().manual_seed(0), dtype=torch.float64)
    a = z.softmax(-1)
    draw = draw_without_replacement(a, n, Generator().manual_seed(1))
    at_cells = a.gather(-1, draw.cells)
    estimate = rule(f[draw.cells], at_cells, coefficients_normalised_threshold(at_cells, draw.threshold))
    (found,) = torch.autograd.grad(estimate.sum(), z)
    true = (f[:, 0] - f.mean()) / k
    length = true @ true
    along = found.mean(0) @ true / length
    return float(along - 1), float((found - true).square().sum(-1).mean() / length)


def test_centred_gradient_is_a_tenth_too_short_with_ten_draws_and_far_less_noisy() -> None:
    bias, noise = softmax_gradients(expectation_centred, 1.0)
    _, plain = softmax_gradients(expectation, 1.0)
    assert bias == pytest.approx(-0.1, abs=0.04)
    assert noise < plain / 8
    assert softmax_gradients(expectation_centred, 0.0)[1] > 0.7 * softmax_gradients(expectation, 0.0)[1]


def test_centred_gradient_of_one_draw_is_zero() -> None:
    a, f, g = problem(4)
    leaf = a[None, :1].clone().requires_grad_()
    estimate = expectation_centred(f[None, :1], leaf, coefficients_sequential(leaf))
    torch.testing.assert_close(torch.autograd.grad(estimate[0] @ g, leaf)[0], torch.zeros(1, 1, dtype=torch.float64))


def test_failed_tiles_leave_the_bag() -> None:
    c = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.4, 0.1], [0.2, 0.3, 0.5]], dtype=torch.float64)
    valid = torch.tensor([[True, False, True], [True, True, True], [False, False, False]])
    kept = without_failed(c, valid)
    torch.testing.assert_close(kept[0], torch.tensor([5 / 7, 0.0, 2 / 7], dtype=torch.float64))
    torch.testing.assert_close(kept[1], c[1])
    assert kept[2].tolist() == [0.0, 0.0, 0.0]
