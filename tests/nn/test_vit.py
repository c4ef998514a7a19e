"""The transformer with and without its attention, and the two passes of RAMS-Trans."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from wsi_attention.methods.rams_trans.regions import above_mean, enlarged, propose
from wsi_attention.methods.rams_trans.rollout import class_row, importance, rollout
from wsi_attention.methods.trt.reattention import masked_attention
from wsi_attention.nn.vit import Block, SelfAttention, VisionTransformer


def images(batch: int = 2, height: int = 24, width: int = 32) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def small(scales: int = 1, grid: tuple[int, int] = (3, 4)) -> VisionTransformer:
    torch.manual_seed(1)
    return VisionTransformer(patch=8, grid=grid, dim=24, depth=3, heads=3, scales=scales)


def tokens(batch: int = 2, count: int = 7) -> Tensor:
    return torch.randn(batch, count, 24, generator=torch.Generator().manual_seed(2))


def test_fused_and_explicit_attention_agree() -> None:
    model = small()
    found, layers = model.with_attention(images())
    torch.testing.assert_close(model(images()), found[:, 0], atol=1e-5, rtol=1e-5)
    assert [tuple(layer.shape) for layer in layers] == [(2, 3, 13, 13)] * 3
    for layer in layers:
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, 3, 13))


def test_explicit_attention_equals_torchs_own_module() -> None:
    torch.manual_seed(0)
    ours, theirs = SelfAttention(24, 3), torch.nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.mix.weight.data, ours.mix.bias.data
    theirs.out_proj.load_state_dict(ours.project.state_dict())
    x = tokens()
    expected, matrix = theirs(x, x, x, average_attn_weights=False)
    found, attention = ours.through(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(attention, matrix)


def test_plain_forward_uses_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fused = functional.scaled_dot_product_attention

    def counted(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        calls.append(1)
        return fused(query, key, value)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    model = small()
    model.with_attention(images())
    assert not calls
    model(images())
    assert len(calls) == 3


def test_class_row_is_the_first_row_of_the_matrix() -> None:
    block = Block(24, 3)
    plain, matrix = block.through(tokens())
    cheap, row = block.with_class_row(tokens())
    torch.testing.assert_close(cheap, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(row[..., 1:], class_row(matrix), atol=1e-6, rtol=1e-5)


def test_tokens_that_are_not_seen_do_not_matter() -> None:
    block = Block(24, 3)
    seen = torch.tensor([[True, True, False, True, False, True, True]] * 2)
    plain, matrix = block.through(tokens()[:, seen[0]])
    fused, row = block.with_class_row(tokens(), seen)
    torch.testing.assert_close(fused[:, seen[0]], plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(block(tokens(), seen), fused)
    torch.testing.assert_close(row[..., seen[0]], matrix[:, :, 0], atol=1e-6, rtol=1e-5)
    assert not row[..., ~seen[0]].any()


def test_mean_matrices_are_the_heads_means_and_carry_no_gradient() -> None:
    model = small(scales=2)
    plain, layers = model.with_attention(images(), (0, 1))
    fused, means = model.with_mean_attention(images(), (0, 1))
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.tokens(images(), (0, 1)), plain, atol=1e-5, rtol=1e-5)
    assert fused.requires_grad
    for mean, layer in zip(means, layers, strict=True):
        assert not mean.requires_grad
        torch.testing.assert_close(mean, layer.mean(dim=1, keepdim=True), atol=1e-6, rtol=1e-5)


def test_patches_that_are_not_seen_change_nothing_and_get_nothing() -> None:
    model, seen = small(scales=2), torch.zeros(2, 3, 4, dtype=torch.bool)
    seen[0, 1, 1:], seen[1, :, 0] = True, True
    changed = images() + (~seen).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    before, layers = model.with_mean_attention(images(), (0, 1), seen)
    after = model.tokens(changed, (0, 1), seen)
    kept = torch.cat([torch.ones(2, 2, dtype=torch.bool), seen.flatten(1)], 1)
    torch.testing.assert_close(before[kept], after[kept], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model.tokens(changed, (0, 1))[kept], after[kept], atol=1e-3)
    for layer in layers:
        assert not layer.transpose(-1, -2)[:, 0][~kept].any()
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, 1, 14))


def test_a_block_takes_a_rule_of_ones_own() -> None:
    block = Block(24, 3)
    chosen = torch.tensor([[True, False, True, True, False, False, True]] * 2)
    changed = tokens()
    changed[:, ~chosen[0]] += 1.0
    rule = partial(masked_attention, chosen=chosen)
    before, after = block.through(tokens(), rule)[0], block.through(changed, rule)[0]
    torch.testing.assert_close(before[:, chosen[0]], after[:, chosen[0]], atol=1e-4, rtol=0)
    everything = partial(masked_attention, chosen=torch.ones_like(chosen))
    torch.testing.assert_close(block.through(tokens(), everything)[0], block(tokens()), atol=1e-5, rtol=1e-5)


def test_scales_start_equal_and_stand_in_front() -> None:
    model = small(scales=2)
    assert torch.equal(model.class_tokens[0], model.class_tokens[1])
    assert torch.equal(model(images(), scale=0), model(images(), scale=1))
    both = model.embed(images(), scales=(0, 1))
    assert both.shape == (2, 14, 24)
    assert torch.equal(both[:, 2:], model.embed(images())[:, 1:])
    model.class_tokens.data[1] += 1.0
    assert not torch.equal(model(images(), scale=0), model(images(), scale=1))


def test_patches_are_tokens_row_by_row() -> None:
    model = small()
    embedded = model.embed(images())
    patch = images()[:, :, 8:16, 16:24].flatten(1)
    weight = model.embed_patches.weight.flatten(1)
    bias = model.embed_patches.bias
    assert bias is not None
    expected = patch @ weight.T + bias + model.positions[0, :, 1, 2]
    torch.testing.assert_close(embedded[:, 1 + 1 * 4 + 2], expected, atol=1e-5, rtol=1e-5)


def test_positions_interpolate_to_other_grids() -> None:
    model = small(grid=(6, 6))
    model.positions.data = torch.linspace(-1, 1, 6).reshape(1, 1, 6, 1).expand(1, 24, 6, 6).clone()
    model.embed_patches.weight.data.zero_()
    torch.nn.init.zeros_(model.embed_patches.bias)  # type: ignore[arg-type]
    assert torch.equal(model.embed(images(1, 48, 48))[0, 1:, 0].reshape(6, 6), model.positions[0, 0])
    found = model.embed(images(1, 96, 32))[0, 1:, 0].reshape(12, 4)
    torch.testing.assert_close(found, found[:, :1].expand(-1, 4))
    torch.testing.assert_close(found[3:9, 0], torch.linspace(-1.1, 1.1, 12)[3:9], atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [(20, 32), (24, 0)])
def test_sides_that_are_no_multiple_of_the_patch_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="8-pixel patch"):
        small()(torch.zeros(1, 3, *size))


def test_dim_must_be_a_multiple_of_heads() -> None:
    with pytest.raises(ValueError, match="dim=24, heads=5"):
        SelfAttention(24, 5)


def test_the_second_pass_trains_shared_weights_but_not_the_first_token() -> None:
    model = small(scales=2)
    pixels = images()
    _, layers = model.with_attention(pixels, scales=(0,))
    boxes = propose(above_mean(importance(rollout(layers), model.grid(pixels))))
    assert not boxes.requires_grad
    second = model(enlarged(pixels, boxes * model.patch, (24, 32)), scale=1)
    second.square().sum().backward()
    grad = model.class_tokens.grad
    assert grad is not None
    assert not grad[0].any()
    assert grad[1].any()
    shared = dict(model.named_parameters())["blocks.0.attention.mix.weight"].grad
    assert shared is not None
    assert shared.any()


def test_with_both_tokens_in_a_pass_the_first_is_trained_too() -> None:
    model = small(scales=2)
    model.with_attention(images(), scales=(0, 1))[0][:, 1].square().sum().backward()  # type: ignore[no-untyped-call]
    assert model.class_tokens.grad is not None
    assert model.class_tokens.grad[0].any()


def test_bfloat16_keeps_rows_normalised() -> None:
    model = small().to(torch.bfloat16)
    _, layers = model.with_attention(images().to(torch.bfloat16))
    torch.testing.assert_close(layers[0].float().sum(-1), torch.ones(2, 3, 13), atol=2e-2, rtol=0)
