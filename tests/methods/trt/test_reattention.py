"""Selection, masked attention and refined maps, by the figures of the TRT page."""

from __future__ import annotations

import pytest
import torch

from wsi_attention.attention.cam import class_scores
from wsi_attention.methods.trt import reattention as re

M = torch.tensor([[0.4, 0.3, 0.2, 0.1]])


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def count(mass: float, m: torch.Tensor = M) -> int:
    return int(re.kept(m, mass).sum())


def test_priority_is_the_normalised_sum_of_class_rows() -> None:
    rows = [seeded(2, 3, 5, seed=i).exp() for i in range(4)]
    found = re.preliminary_attention(rows)
    expected = sum(row.mean(1) for row in rows)
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(found, expected / expected.sum(-1, keepdim=True))
    torch.testing.assert_close(found.sum(-1), torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="at least one layer"):
        re.preliminary_attention([])


@pytest.mark.parametrize(("mass", "expected"), [(0.6, 1), (0.75, 2), (0.95, 3), (1.1, 4)])
def test_kept_by_mass(mass: float, expected: int) -> None:
    for rule in [re.kept, re.kept_as_released]:
        assert rule(M, mass)[0].tolist() == [i < expected for i in range(4)]


def test_the_patch_that_reaches_the_mass_is_not_kept() -> None:
    halves = torch.tensor([[0.5, 0.25, 0.25]])
    assert count(0.75, halves) == 1
    assert not re.kept_as_released(halves, 0.5).any()


def test_one_patch_with_all_the_mass_stays_though_released_code_drops_it() -> None:
    m = torch.tensor([[0.2, 0.7, 0.1]])
    assert not re.kept_as_released(m, 0.6).any()
    assert re.kept(m, 0.6)[0].tolist() == [False, True, False]


def test_count_grows_with_mass_and_does_not_hang_on_the_order() -> None:
    m = seeded(1, 20).softmax(-1)
    counts = [count(mass, m) for mass in torch.linspace(0, 1.01, 40).tolist()]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, 20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert torch.equal(re.kept(m[:, order], 0.7), re.kept(m, 0.7)[:, order])


def test_budget_bounds_the_count() -> None:
    assert re.kept(M, 1.1, budget=2)[0].tolist() == [True, True, False, False]
    assert re.kept(M.flip(-1), 0.6, budget=3)[0].tolist() == [False, False, False, True]


def test_mask_has_its_diagonal_and_whole_columns_of_kept_patches() -> None:
    chosen = torch.tensor([[True, False, True, False]])
    mask = re.visible(chosen)[0]
    assert mask.diagonal().all()
    assert torch.equal(mask.all(0), chosen[0])


def test_masked_attention_of_all_is_a_softmax() -> None:
    scores = seeded(2, 3, 6, 6)
    everything = torch.ones(2, 6, dtype=torch.bool)
    torch.testing.assert_close(re.masked_attention(scores, everything), scores.softmax(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_rows_sum_to_one_and_dropped_patches_get_only_the_leak(scale: float) -> None:
    chosen = torch.tensor([[True, False, True, False, True, False]])
    attention = re.masked_attention(seeded(1, 2, 6, 6) * scale, chosen)
    torch.testing.assert_close(attention.sum(-1), torch.ones(1, 2, 6).double(), atol=1e-12, rtol=0)
    hidden = ~re.visible(chosen).unsqueeze(1).expand_as(attention)
    assert attention[hidden].max() <= re.LEAK / 6
    assert attention[~hidden].min() >= 0


def test_masked_attention_equals_the_released_formula() -> None:
    scores, chosen = seeded(1, 2, 5, 5), torch.tensor([[True, True, False, True, False]])
    mask = re.visible(chosen).unsqueeze(1)
    shifted = scores.masked_fill(~mask, -torch.inf).amax(-1, keepdim=True)
    e = (scores - shifted).exp() * mask
    torch.testing.assert_close(re.masked_attention(scores, chosen), (e + 1e-6 / 5) / (e.sum(-1, keepdim=True) + 1e-6))


def test_dropped_content_does_not_reach_the_token() -> None:
    chosen = torch.tensor([[True, False, True, False, True]])
    query, key, value, score = (seeded(4, 4, seed=i) for i in range(4))

    def outcome(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = (tokens @ query) @ (tokens @ key).mT / 2
        mixed = tokens + re.masked_attention(scores[:, None], chosen)[:, 0] @ (tokens @ value)
        weights = re.reattention_weights((mixed @ score)[..., 0], chosen)
        return weights, re.weighted_token(weights, tokens)

    tokens = seeded(1, 5, 4, seed=9)
    changed = tokens.clone()
    changed[:, ~chosen[0]] = seeded(1, 2, 4, seed=10)
    for before, after in zip(outcome(tokens), outcome(changed), strict=True):
        torch.testing.assert_close(before, after, atol=1e-5, rtol=0)


def test_weights_live_on_the_kept_set() -> None:
    chosen = re.kept(M, 0.95)
    weights = re.reattention_weights(seeded(1, 4), chosen)
    assert (weights >= 0).all()
    assert torch.equal(weights[~chosen], torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, dtype=torch.float64))
    equal = re.reattention_weights(torch.full((1, 4), 3.0), chosen)
    torch.testing.assert_close(equal[chosen], torch.full((3,), 1 / 3))


def test_weights_survive_half_precision_and_an_empty_set() -> None:
    chosen = torch.tensor([[True, True, False], [False, False, False]])
    scores = torch.tensor([[20.0, 19.0, 60000.0], [1.0, 2.0, 3.0]], dtype=torch.float16, requires_grad=True)
    weights = re.reattention_weights(scores, chosen)
    torch.testing.assert_close(weights[0, :2].float(), torch.tensor([20.0, 19.0]).softmax(0), atol=1e-3, rtol=0)
    assert torch.equal(weights[1], torch.zeros(3, dtype=torch.float16))
    weights[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_gradients_of_masked_attention_and_weights() -> None:
    chosen = torch.tensor([[True, False, True]])
    scores = seeded(1, 2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: re.masked_attention(s, chosen), scores)
    assert torch.autograd.gradcheck(lambda s: re.reattention_weights(s, chosen), seeded(1, 3).requires_grad_())


def test_refined_attention_moves_mass_only_inside_the_kept_set() -> None:
    m = seeded(2, 9).softmax(-1)
    chosen = re.kept(m, 0.7)
    weights = re.reattention_weights(seeded(2, 9, seed=1), chosen)
    refined = re.refined_attention(m, chosen, weights)
    torch.testing.assert_close(refined.sum(-1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close((refined * chosen).sum(-1), (m * chosen).sum(-1))
    assert torch.equal(refined[~chosen], m[~chosen])
    proportional = m * chosen / (m * chosen).sum(-1, keepdim=True)
    torch.testing.assert_close(re.refined_attention(m, chosen, proportional), m)


def test_localisation_is_the_product_with_the_class_maps() -> None:
    refined, maps = seeded(2, 6).softmax(-1), seeded(2, 3, 2, 3)
    found = re.localisation_maps(refined, maps)
    for c in range(3):
        torch.testing.assert_close(found[:, c].flatten(1), refined * maps[:, c].flatten(1))
    ones = torch.ones(2, 3, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(re.localisation_maps(refined, ones)[:, 0].flatten(1), refined)
    torch.testing.assert_close(class_scores(maps), maps.flatten(2).mean(-1))
