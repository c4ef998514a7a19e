"""Rollout against the closed forms of the RAMS-Trans page."""

from __future__ import annotations

import pytest
import torch

from wsi_attention.methods.rams_trans import rollout as r


def random_layers(count: int, tokens: int = 6, heads: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    shape = (2, heads, tokens, tokens)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).softmax(-1) for _ in range(count)]


def test_rows_sum_to_one_and_nothing_is_negative() -> None:
    layers = random_layers(4)
    for matrix in [r.residual_attention(layers[0]), r.rollout(layers)]:
        torch.testing.assert_close(matrix.sum(-1), torch.ones(2, 6, dtype=torch.float64))
        assert (matrix >= 0).all()


def test_identity_attention_stays_identity() -> None:
    identity = torch.eye(5, dtype=torch.float64).expand(1, 2, 5, 5)
    assert torch.equal(r.rollout([identity] * 3)[0], identity[0, 0])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_uniform_attention_has_the_closed_form(count: int) -> None:
    tokens = 7
    uniform = torch.full((1, 2, tokens, tokens), 1 / tokens, dtype=torch.float64)
    off = (1 - 2.0**-count) / tokens
    expected = torch.full((tokens, tokens), off, dtype=torch.float64) + 2.0**-count * torch.eye(tokens)
    torch.testing.assert_close(r.rollout([uniform] * count)[0], expected)


def test_the_new_layer_stands_on_the_left() -> None:
    first, second = random_layers(2)
    left, right = r.residual_attention(second), r.residual_attention(first)
    torch.testing.assert_close(r.rollout([first, second]), left @ right)
    assert not torch.allclose(r.rollout([first, second]), right @ left)


def test_layers_may_come_from_a_generator() -> None:
    layers = random_layers(3)
    assert torch.equal(r.rollout(iter(layers)), r.rollout(layers))


def test_rows_equal_those_of_the_matrix() -> None:
    layers = random_layers(4)
    product, one = r.rollout(layers), torch.eye(6, dtype=torch.float64)[None, :1]
    torch.testing.assert_close(r.rollout_rows(layers, one), product[:, :1])
    torch.testing.assert_close(
        r.importance(r.rollout_rows(layers, one), (1, 5)), r.importance(product, (1, 5)), atol=1e-12, rtol=0
    )
    mean = r.rollout_rows(layers, torch.full((1, 1, 6), 1 / 6, dtype=torch.float64))
    torch.testing.assert_close(r.importance_as_released(mean, (2, 2)), r.importance_as_released(product, (2, 2)))


def test_the_mean_over_heads_is_enough() -> None:
    layers, one = random_layers(3), torch.eye(6, dtype=torch.float64)[None, :1]
    means = [layer.mean(dim=1, keepdim=True) for layer in layers]
    torch.testing.assert_close(r.rollout_rows(means, one), r.rollout_rows(layers, one))


def test_no_layer_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        r.rollout([])
    with pytest.raises(ValueError, match="at least one layer"):
        r.rollout_rows([], torch.ones(1, 1, 1))


def test_importance_reads_the_class_tokens_row_in_scan_order() -> None:
    product = torch.arange(64, dtype=torch.float64).reshape(1, 8, 8)
    expected = torch.tensor([[[2.0, 3, 4], [5, 6, 7]]], dtype=torch.float64)
    assert torch.equal(r.importance(product, (2, 3), class_tokens=2), expected)
    assert torch.equal(r.importance(product, (2, 3), class_tokens=2, token=1), expected + 8)


def test_importance_as_released_is_the_mean_of_all_rows_over_its_maximum() -> None:
    product = r.rollout(random_layers(3))
    found = r.importance_as_released(product, (2, 2), class_tokens=2)
    columns = product[:, :, 2:].sum(1).reshape(2, 2, 2)
    torch.testing.assert_close(found, columns / columns.amax((1, 2), keepdim=True))
    assert found.amax() == 1
