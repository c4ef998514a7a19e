"""TRT as a model: the shipped contract, its page's exact tests, phases, the finer look, learning."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sources import AskedSource, EmptySource, blobs
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.errors import InputError, NoTissueError, TileReadError
from wsi_attention.methods.trt.model import SECOND, ReAttentionTransformer, trt
from wsi_attention.methods.trt.reattention import ReAttention, coarse_look, kept, kept_as_released, kept_by_each
from wsi_attention.nn.vit import Block, VisionTransformer
from wsi_attention.protocols import contract_of
from wsi_attention.structures import Output, TileBatch, TileSet
from wsi_attention.testing.models import FailingSource, ModelContract
from wsi_attention.tiles.tensors import TensorSource

SMALL = {
    "size": 48,
    "patch": 8,
    "dim": 24,
    "depth": 4,
    "stem": "linear",
    "budget": 8,
    "tile_size": 32,
    "tile_mpp": 1.0,
    "overview_mpp": 4.0,
    "encoder_widths": (8, 16),
    "features": 16,
}


def small(**arguments: object) -> ReAttentionTransformer:
    torch.manual_seed(0)
    return trt(2, **{**SMALL, **arguments}).eval()


def images(b: int = 1) -> Tensor:
    return TestPractical().images(b)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


class TestPractical(ModelContract):
    def build(self) -> nn.Module:
        return trt(self.classes, **{**SMALL, "stem": "conv"})


class TestPublished(ModelContract):
    def build(self) -> nn.Module:
        return trt(self.classes, **{**SMALL, "finer": False, "overview_weight": 0.0})


@pytest.mark.slow
class TestFirstPhase(ModelContract):
    def build(self) -> nn.Module:
        return trt(self.classes, objective="two-phase", scored_by="coarse", **SMALL)


class TestSecondPhase(ModelContract):
    def build(self) -> nn.Module:
        model = trt(self.classes, objective="two-phase", **SMALL)
        model.start_epoch(2, 2, [0.5, 0.5])
        return model


def test_it_is_what_the_protocols_ask_for() -> None:
    assert contract_of(small()).tile_mpp > 0


# The paper's equations, in the model


def test_preliminary_attention_is_that_of_whole_matrices() -> None:
    torch.manual_seed(0)
    vit = VisionTransformer(patch=8, grid=(3, 3), dim=24, depth=4, heads=3)
    pixels = seeded(2, 3, 24, 24)
    look = coarse_look(vit, pixels, torch.ones(2, 3, 3, dtype=torch.bool))
    x, rows = vit.embed(pixels), []
    for block in vit.blocks[:-1]:
        earlier = x
        x, matrix = block.through(x)
        rows.append(matrix[:, :, 0, 1:].mean(1))
    total = torch.stack(rows).sum(0)
    torch.testing.assert_close(look.attention, total / total.sum(-1, keepdim=True), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(look.patches, x[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(look.earlier, earlier, atol=1e-5, rtol=1e-5)


def test_patches_without_tissue_do_not_matter() -> None:
    """Whatever they show, nothing changes; and m of a batch is that of its images alone."""
    model, tissue = small(finer=False), torch.zeros(2, 48, 48, dtype=torch.bool)
    tissue[0, :24], tissue[1, 8:16, :32] = True, True
    shown = seeded(2, 3, 48, 48)
    hidden = shown.where(tissue[:, None], 100.0)
    both = model(TensorSource(shown, tissue))
    changed = model(TensorSource(hidden, tissue))
    torch.testing.assert_close(both.logits, changed.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both.terms["class_maps"], changed.terms["class_maps"], atol=1e-5, rtol=1e-5)
    for i in range(2):
        alone = model(TensorSource(shown[i : i + 1], tissue[i : i + 1]))
        torch.testing.assert_close(alone.logits[0], both.logits[i], atol=1e-5, rtol=1e-5)
        for name in ("attention", "weights", "refined", "class_map_logits"):
            torch.testing.assert_close(alone.terms[name][0], both.terms[name][i], atol=1e-5, rtol=1e-5)


def test_kept_patches_alone_score_as_in_the_masked_block() -> None:
    """Taking them out before the block leaves out the mask's leak, and nothing else."""
    torch.manual_seed(0)
    part, tokens = ReAttention(Block(24, 3), 24), seeded(1, 9, 24)
    chosen = torch.tensor([[True, False, True, True, False, False, True, False, True]])
    whole = part(tokens, chosen)
    alone = part(tokens[:, chosen[0]], torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(whole[:, chosen[0]], alone, atol=1e-5, rtol=0)
    assert not whole[:, ~chosen[0]].any()
    torch.testing.assert_close(alone.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("masked", [True, False])
def test_content_of_a_dropped_patch_reaches_neither_weights_nor_token(masked: bool) -> None:
    """As long as b is unchanged: exactly as the model does it, to ε by the released mask."""
    torch.manual_seed(0)
    part, tokens = ReAttention(Block(24, 3), 24), seeded(1, 9, 24)
    chosen = torch.arange(9)[None] % 2 == 0
    changed = tokens + 5 * seeded(1, 9, 24, seed=1) * ~chosen[..., None]

    def outcome(x: Tensor) -> tuple[Tensor, Tensor]:
        x, b = (x, chosen) if masked else (x[:, chosen[0]], chosen[:, chosen[0]])
        weights = part(x, b)
        return weights, torch.einsum("bn,bnd->bd", weights, x)

    for before, after in zip(outcome(tokens), outcome(changed), strict=True):
        torch.testing.assert_close(before, after, atol=1e-5 if masked else 0.0, rtol=0)


def test_dropped_patches_do_not_reach_the_models_second_look() -> None:
    model = small(finer=False, mass=0.4)
    source, tissue = TensorSource(seeded(1, 3, 48, 48)), torch.ones(1, 36, dtype=torch.bool)
    look = coarse_look(model.transformer, source.images, tissue.reshape(1, 6, 6))
    before = model.look_again(source, None, look, tissue)  # type: ignore[arg-type]
    assert 1 < int(before.chosen.sum()) < 36
    noisy = look.patches + 9 * seeded(1, 36, 24, seed=2) * ~before.chosen[..., None]
    after = model.look_again(source, None, look._replace(patches=noisy), tissue)  # type: ignore[arg-type]
    assert torch.equal(before.weights, after.weights)
    assert torch.equal(before.logits, after.logits)


def test_token_and_logits_by_hand() -> None:
    model = small(finer=False)
    source, tissue = TensorSource(seeded(2, 3, 48, 48)), torch.ones(2, 36, dtype=torch.bool)
    look = coarse_look(model.transformer, source.images, tissue.reshape(2, 6, 6))
    scored = model.look_again(source, None, look, tissue)  # type: ignore[arg-type]
    token = (scored.weights[..., None] * look.patches).sum(1)
    last, _ = model.transformer.blocks[-1].through(torch.stack([look.class_token, token], 1))
    expected = model.classifier(model.transformer.norm(last)[:, 0])
    torch.testing.assert_close(scored.logits, expected, atol=1e-5, rtol=1e-5)


def test_pooled_class_maps_are_the_branchs_logits() -> None:
    """GAP(CAM): over all patches where all are tissue, else over the tissue."""
    output = small(finer=False)(TensorSource(seeded(2, 3, 48, 48)))
    maps, logits = output.terms["class_maps"], output.terms["class_map_logits"]
    torch.testing.assert_close(maps.flatten(2).mean(-1), logits)
    tissue = torch.zeros(1, 48, 48, dtype=torch.bool)
    tissue[:, :16] = True
    output = small(finer=False)(TensorSource(seeded(1, 3, 48, 48), tissue))
    inside = output.terms["class_maps"][:, :, :2].flatten(2).mean(-1)
    torch.testing.assert_close(inside, output.terms["class_map_logits"])


def test_class_maps_come_from_the_block_before_the_last_but_one() -> None:
    model = small(finer=False)
    source = TensorSource(seeded(1, 3, 48, 48))
    before = model(source)
    with torch.no_grad():
        for part in (model.transformer.blocks[-1], model.transformer.blocks[-2], model.reattention):
            for value in part.parameters():
                value.add_(0.3)
    after = model(source)
    assert torch.equal(before.terms["class_maps"], after.terms["class_maps"])
    assert not torch.equal(before.logits, after.logits)


def test_added_blocks_start_as_copies_of_the_last() -> None:
    model = small()
    for added in (model.reattention.block, model.class_maps.block):
        for mine, last in zip(added.parameters(), model.transformer.blocks[-1].parameters(), strict=True):
            assert torch.equal(mine, last) and mine is not last


def test_localisation_is_the_refined_attention_times_the_class_maps() -> None:
    output = small()(TensorSource(images()))
    refined, maps = output.terms["refined"], output.terms["class_maps"]
    assert torch.equal(output.terms["localisation"], refined.reshape(1, 1, 6, 6) * maps)
    found = {one.name: one.values for one in output.maps[0]}
    assert list(found) == ["attention", "reattention", "localisation"]
    best = int(output.logits.argmax())
    expected = (refined.reshape(6, 6) * maps[0, best].relu()).detach().numpy()
    inside = ~np.isnan(found["localisation"])
    np.testing.assert_allclose(found["localisation"][inside], expected[inside], rtol=1e-6)
    assert (found["localisation"][inside] >= 0).all()
    assert np.nansum(found["reattention"]) == pytest.approx(1.0, abs=1e-5)


def test_refined_attention_of_the_model() -> None:
    terms = small()(TensorSource(images())).terms
    m, b, weights, refined = (terms[name] for name in ("attention", "chosen", "weights", "refined"))
    share = (m * b).sum()
    torch.testing.assert_close(refined[b], share * weights[b])
    assert torch.equal(refined[~b], m[~b])
    torch.testing.assert_close(refined.sum(), torch.tensor(1.0))
    torch.testing.assert_close(terms["unread"], 1 - share[None])


# Selection


def attending(model: ReAttentionTransformer, *m: float) -> Tensor:
    return model.keep(torch.tensor([m]), torch.ones(1, len(m), dtype=torch.bool))[0]


def test_selection_by_the_pages_figures() -> None:
    for mass, count in ((0.6, 1), (0.75, 2), (0.95, 3), (1.5, 4)):
        assert int(attending(small(mass=mass), 0.4, 0.3, 0.2, 0.1).sum()) == count
    assert attending(small(), 0.2, 0.7, 0.1).tolist() == [False, True, False]
    released = small(selection="as-released", finer=False)
    assert not attending(released, 0.2, 0.7, 0.1).any()
    assert attending(small(mass=1.5, budget=2), 0.1, 0.2, 0.3, 0.4).tolist() == [False, False, True, True]


def test_mass_above_one_keeps_the_tissue_only() -> None:
    tissue = torch.zeros(1, 48, 48, dtype=torch.bool)
    tissue[:, :16, :16] = True
    output = small(mass=2.0, finer=False)(TensorSource(seeded(1, 3, 48, 48), tissue))
    assert int(output.terms["chosen"].sum()) == 4
    torch.testing.assert_close(output.terms["unread"], torch.zeros(1), atol=1e-6, rtol=0)


def test_released_rule_may_keep_nothing() -> None:
    """One patch of tissue holds all attention: λ = 0, m' = m, and no number breaks."""
    tissue = torch.zeros(1, 48, 48, dtype=torch.bool)
    tissue[:, :8, :8] = True
    source = TensorSource(seeded(1, 3, 48, 48), tissue)
    output = small(selection="as-released", finer=False)(source)
    assert not output.terms["chosen"].any() and not output.terms["weights"].any()
    assert torch.equal(output.terms["refined"], output.terms["attention"])
    assert bool(output.logits.isfinite().all())
    assert not kept_as_released(output.terms["attention"], 0.6).any()
    mended = small(finer=False)(source)
    assert mended.terms["chosen"][0].nonzero().tolist() == [[0]]
    assert float(mended.terms["weights"][0, 0].detach()) == 1.0


def test_a_flat_attention_map_keeps_a_share_of_the_patches() -> None:
    model = small(finer=False, mass=0.5)
    with torch.no_grad():
        for value in (model.transformer.embed_patches.weight, model.transformer.positions):
            value.zero_()
    output = model(TensorSource(seeded(1, 3, 48, 48)))
    torch.testing.assert_close(output.terms["attention"], torch.full((1, 36), 1 / 36))
    assert int(output.terms["chosen"].sum()) == pytest.approx(18, abs=1)


def test_each_head_keeps_patches_of_its_own() -> None:
    """Heads that hold a patch each: their mean keeps all four only with much mass, each by itself keeps its own."""
    heads = torch.full((1, 4, 8), 0.01)
    heads[0, range(4), range(4)], heads[0, :, 4] = 0.92, 0.02
    assert kept_by_each(heads, 0.6, 4)[0].tolist() == [True] * 4 + [False] * 4
    assert kept_by_each(heads, 0.95, 8)[0].tolist() == [True] * 5 + [False] * 3
    assert kept_by_each(heads, 0.6)[0].sum() == 4
    assert kept_by_each(heads[:, :1], 0.6, 4).equal(kept(heads[:, 0], 0.6, 4))
    assert kept_by_each(heads, 0.6, 1)[0].sum() == 4


def test_heads_select_and_learn_by_themselves() -> None:
    model, source, target = small(selected_by="heads", budget=9), TensorSource(images(2)), torch.tensor([0, 1])
    output, plain = model(source), small(budget=9)(source)
    torch.testing.assert_close(output.terms["attention"], plain.terms["attention"])
    assert output.terms["overview_logits"].shape == (2, model.options.heads, 2)
    assert all(1 <= len(own[0].tiles) <= 9 for own in output.glimpses)
    each = [functional.cross_entropy(one, target) for one in output.terms["overview_logits"].unbind(1)]
    rest = functional.cross_entropy(output.logits, target)
    rest = rest + functional.cross_entropy(output.terms["class_map_logits"], target)
    torch.testing.assert_close(model.loss(output, target), rest + torch.stack(each).mean())
    with pytest.raises(InputError, match='selected_by "heads" keeps a patch of each head'):
        small(selected_by="heads", selection="as-released", finer=False)


# The finer look


def test_one_tile_on_the_centre_of_each_kept_patch_largest_mass_first() -> None:
    source = AskedSource(images())
    output = small()(source)
    (glimpse,), m = output.glimpses[0], output.terms["attention"][0].detach()
    order = m.argsort(descending=True)[:8]
    grid = output.maps[0][0].grid
    assert (glimpse.tiles.locations[0] == grid.locations(order.numpy(), (32, 32), 1.0)).all()
    np.testing.assert_allclose(glimpse.attention, m[order].numpy(), rtol=1e-6)
    np.testing.assert_allclose(glimpse.weights, output.terms["weights"][0, order].detach().numpy(), rtol=1e-5)
    torch.testing.assert_close(output.terms["unread"][0], 1 - m[order].sum())
    assert (glimpse.name, source.counters.tiles) == ("tiles", 8)


def test_without_it_nothing_is_read() -> None:
    source = TensorSource(images())
    output = small(finer=False)(source)
    assert output.glimpses == ((),)
    assert source.counters.tiles == 0


def test_fewer_kept_patches_than_in_another_image_of_the_batch() -> None:
    tissue = torch.zeros(2, 136, 200, dtype=torch.bool)
    tissue[0], tissue[1, :20, :80] = True, True
    model, source = small(), AskedSource(images(2), tissue)
    output = model(source)
    (first,), (second,) = output.glimpses
    assert len(source.asked[-1]) == len(first.tiles) == 8
    assert 1 <= len(second.tiles) < 8
    padding = source.asked[-1].locations[1, len(second.tiles) :]
    assert (padding == source.asked[-1].locations[1, 0]).all()
    assert second.weights.sum() == pytest.approx(1.0)
    alone = model(TensorSource(images(2)[1:], tissue[1:]))
    torch.testing.assert_close(alone.logits[0], output.logits[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone.terms["weights"][0], output.terms["weights"][1], atol=1e-5, rtol=1e-5)


def test_a_failed_tile_is_as_if_its_patch_had_not_been_kept() -> None:
    model = small()
    whole, failing = model(TensorSource(images())), model(FailingSource(images(), (2,)))
    lost = whole.terms["chosen"] & ~failing.terms["chosen"]
    assert lost.sum() == 1
    assert float(failing.terms["weights"][lost].detach()) == 0.0
    torch.testing.assert_close(failing.terms["weights"].sum(), torch.tensor(1.0))
    assert torch.equal(failing.terms["refined"][lost], failing.terms["attention"][lost])
    torch.testing.assert_close(failing.terms["unread"], whole.terms["unread"] + whole.terms["attention"][lost])


def test_all_failed() -> None:
    with pytest.raises(TileReadError, match="none of the 8 tiles"):
        small()(FailingSource(images(), None))


@pytest.mark.parametrize(("scored_by", "moves"), [("both", True), ("coarse", False)])
def test_who_decides_the_weights(scored_by: str, moves: bool) -> None:
    """The tiles' content reaches λ only with "both"; it reaches the logits either way."""
    model = small(scored_by=scored_by)

    class Swapped(TensorSource):
        def read(self, tiles: TileSet) -> TileBatch:
            batch = super().read(tiles)
            return TileBatch(255 - batch.pixels, batch.valid)

    one, other = model(TensorSource(images())), model(Swapped(images()))
    assert torch.equal(one.terms["attention"], other.terms["attention"])
    assert torch.equal(one.terms["weights"], other.terms["weights"]) != moves
    assert not torch.equal(one.logits, other.logits)


def test_a_slide_smaller_than_a_tile_or_than_the_square() -> None:
    source = TensorSource(images()[..., :20, :10])
    output = small()(source)
    assert bool(output.logits.isfinite().all())
    assert output.glimpses[0][0].weights.sum() == pytest.approx(1.0)
    tissue = ~np.isnan(output.maps[0][0].values)
    assert tissue.sum() == 4 * 2


def test_no_tissue_is_an_error() -> None:
    with pytest.raises(NoTissueError, match="nothing to look at"):
        small()(EmptySource(images()))


# Training


def test_loss_by_hand() -> None:
    model, target = small(overview_weight=0.5), torch.tensor([0, 1])
    output = model(TensorSource(images(2)))
    terms = output.terms
    scores = (output.logits, terms["class_map_logits"], terms["overview_logits"])
    parts = [nn.functional.cross_entropy(logits, target) for logits in scores]
    torch.testing.assert_close(model.loss(output, target), parts[0] + parts[1] + 0.5 * parts[2])
    model = small(overview_weight=0.0, finer=False)
    output = model(TensorSource(images(2)))
    scores = (output.logits, output.terms["class_map_logits"])
    expected = sum(nn.functional.cross_entropy(logits, target) for logits in scores)
    torch.testing.assert_close(model.loss(output, target), expected)
    assert output.terms["overview_logits"] is None


def test_selection_is_a_constant_and_the_evidence_trains_the_attention() -> None:
    model = small().train()
    output: Output = model(TensorSource(images(2)))
    assert not output.terms["chosen"].requires_grad
    (gradient,) = torch.autograd.grad(output.terms["overview_logits"][:, 0].sum(), output.terms["attention"])
    assert bool(gradient.any())


def test_the_switch_is_a_share_of_the_epochs() -> None:
    model = small(objective="two-phase", switch=0.6)

    def phases(epochs: int) -> list[int]:
        found = []
        for epoch in range(1, epochs + 1):
            model.start_epoch(epoch, epochs, [0.5, 0.5])
            found.append(int(model.phase))
        return found

    assert phases(10) == [1] * 6 + [2] * 4
    assert (phases(1), phases(2)) == ([1], [1, 2])
    summed = small()
    summed.start_epoch(10, 10, [0.5, 0.5])
    assert int(summed.phase) == 0


def step(model: ReAttentionTransformer, optimiser: torch.optim.Optimizer, seed: int) -> None:
    pixels = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8, generator=Generator().manual_seed(seed))
    loss = model.loss(model(TensorSource(pixels)), torch.tensor([0, 1]))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("encoder", ["small", "resnet18"])
def test_second_phase_leaves_all_but_the_class_maps_bit_identical(encoder: str) -> None:
    """Decay, momentum of the first phase and running statistics of the encoder's normalisation included."""
    model = small(objective="two-phase", encoder=encoder, tile_size=48).train()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.5)
    model.start_epoch(1, 2, [0.5, 0.5])
    fresh = state(model)
    step(model, optimiser, 1)
    middle = state(model)
    moved = changed(fresh, middle)
    assert not any(name.startswith("class_maps.") for name in moved)
    assert {"classifier.weight", "reattention.score.weight", "evidence.0.weight"} <= moved
    assert any("running_mean" in name for name in moved) == (encoder == "resnet18")
    model.start_epoch(2, 2, [0.5, 0.5])
    for seed in (2, 3):
        step(model, optimiser, seed)
    moved = changed(middle, state(model)) - {"phase"}
    assert moved == {f"class_maps.{name}" for name, _ in model.class_maps.named_parameters()}
    others = [value.grad for name, value in model.named_parameters() if not name.startswith("class_maps.")]
    assert all(gradient is None for gradient in others)


def test_second_phase_after_a_restart() -> None:
    """The phase is in the state; modes and frozen parts come back with `start_epoch`."""
    model = small(objective="two-phase").train()
    model.start_epoch(2, 2, [0.5, 0.5])
    again = small(objective="two-phase")
    again.load_state_dict(model.state_dict())
    assert int(again.phase) == SECOND
    again.train()
    again.start_epoch(2, 2, [0.5, 0.5])
    for one, other in zip(model.modules(), again.modules(), strict=True):
        assert one.training == other.training
    for mine, yours in zip(model.parameters(), again.parameters(), strict=True):
        assert mine.requires_grad == yours.requires_grad
    assert model.class_maps.training and not model.transformer.training
    assert not model.eval().class_maps.training


def test_a_frozen_encoder_stays_frozen_in_every_phase() -> None:
    model = small(objective="two-phase", encoder_frozen=True).train()
    for epoch in (1, 2, 1):
        model.start_epoch(epoch, 2, [0.5, 0.5])
        assert model.finer is not None
        assert not any(value.requires_grad for value in model.finer.encoder.parameters())
        assert all(value.requires_grad == (epoch == 1) for value in model.classifier.parameters())


def test_the_encoder_is_where_weights_from_elsewhere_go() -> None:
    model = small()
    assert model.finer is not None and model.encoder is model.finer.encoder
    assert small(finer=False).encoder is None


def test_a_copy_is_independent() -> None:
    model = small(objective="two-phase")
    other = copy.deepcopy(model)
    other.start_epoch(2, 2, [0.5, 0.5])
    assert all(value.requires_grad for value in model.classifier.parameters())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"selection": "some"}, "selection is 'some'; possible: at-least-one, as-released"),
        ({"stem": "steam"}, "stem is 'steam'"),
        ({"scored_by": "me"}, "scored_by is 'me'"),
        ({"objective": "win"}, "objective is 'win'"),
        ({"encoder": "vgg"}, "encoder 'vgg'"),
        ({"selection": "as-released"}, "may keep no patch"),
        ({"size": 50}, "size 50, patch 8"),
        ({"size": 0}, "size is 0; it must lie between 2 and"),
        ({"patch": 1}, "patch is 1; it must lie between 2 and"),
        ({"heads": 5}, "dim 24, heads 5"),
        ({"depth": 1}, "depth is 1; it must lie between 2 and"),
        ({"budget": 0}, "budget is 0; it must lie between 1 and"),
        ({"mass": 0.0}, "mass is 0; it must lie between 1e-06 and"),
        ({"switch": 1.0}, "switch is 1; it must lie between 0.001 and 0.999"),
        ({"tile_size": 0}, "tile_size is 0; it must lie between 1 and"),
        ({"tile_mpp": -1.0}, "tile_mpp is -1; it must lie between 0.02 and"),
        ({"overview_mpp": 0.0}, "overview_mpp is 0; it must lie between 0.02 and"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        small(**arguments)


def test_half_precision_keeps_the_sums() -> None:
    model, source = small(), TensorSource(images())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(source)
    for name in ("attention", "weights", "refined"):
        torch.testing.assert_close(output.terms[name].sum(-1), torch.ones(1), atol=1e-5, rtol=0)
    assert bool(output.logits.isfinite().all())


def test_learns_where_to_look() -> None:
    """From labels of whole images alone, in fifty steps; attention and tiles end up on the blob."""
    generator = Generator().manual_seed(0)
    (pixels, target), (fresh, truth) = blobs(48, 192, 40, generator), blobs(40, 192, 40, generator)
    model = small(stem="conv", depth=3, budget=4, mean=(0.5,) * 3, std=(0.2,) * 3).train()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(50):
        chosen = torch.randperm(48, generator=generator)[:8]
        loss = model.loss(model(TensorSource(pixels[chosen])), target[chosen])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    with torch.no_grad():
        output = model.eval()(TensorSource(fresh))
    assert float((output.logits.argmax(-1) == truth).float().mean()) > 0.95
    assert float(output.terms["attention"][truth == 1].amax(-1).mean()) > 4 / 36
    blob = [fresh[i].mean(0) > 0.65 for i in range(1, 40, 2)]
    tops = [output.glimpses[i][0] for i in range(1, 40, 2)]
    corners = [glimpse.tiles.locations[0, glimpse.weights.argmax()].clip(0) for glimpse in tops]
    hits = [bool(one[y : y + 32, x : x + 32].any()) for one, (x, y) in zip(blob, corners, strict=True)]
    assert sum(hits) >= 18


def test_a_tile_lies_where_its_patch_has_tissue() -> None:
    """Patches of 50 pixels, tiles of 16: three places along a side, the middle one where it has tissue."""
    tissue = torch.zeros(1, 300, 300, dtype=torch.bool)
    tissue[:, 100:116], tissue[:, 200:250, 200:] = True, True
    source = TensorSource(torch.rand(1, 3, 300, 300, generator=torch.Generator().manual_seed(0)), tissue)
    (glimpse,) = small(mass=2.0, budget=64, tile_size=16)(source).glimpses[0]
    corners = [(x, y) for x, y, *_ in glimpse.tiles.boxes[0].tolist()]
    assert sorted(corners) == sorted([(17 + 50 * i, 100) for i in range(6)] + [(217, 217), (267, 217)])
    assert all(tissue[0, y : y + 16, x : x + 16].any() for x, y in corners)
