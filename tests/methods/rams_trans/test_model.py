"""RAMS-Trans as a model: the shipped contract, the page's figures, the chain of boxes, gradients, learning."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sources import AskedSource, EmptySource
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.errors import InputError, NoTissueError, TileReadError
from wsi_attention.methods.overview import square_view
from wsi_attention.methods.rams_trans.model import RamsTrans, rams_trans
from wsi_attention.methods.rams_trans.regions import Region, above_mean, grown, propose, square_size
from wsi_attention.methods.rams_trans.rollout import importance, importance_as_released, rollout
from wsi_attention.testing.models import FailingSource, ModelContract
from wsi_attention.tiles.tensors import TensorSource

SMALL = {
    "size": 64,
    "patch": 8,
    "dim": 24,
    "depth": 3,
    "heads": 3,
    "tile_mpp": 1.0,
    "overview_mpp": 4.0,
}


def small(**arguments: object) -> RamsTrans:
    torch.manual_seed(0)
    return rams_trans(2, **{**SMALL, **arguments}).eval()  # type: ignore[arg-type]


class OneRegion(ModelContract):
    """A glimpse of one tile: where that one fails nothing is left."""

    def test_a_failed_tile_leaves_the_bag(self) -> None:
        with pytest.raises(TileReadError, match="none of the 1 regions of scale-2"):
            self.model()(FailingSource(self.images(), (0,)))


class TestPaper(OneRegion):
    def build(self) -> nn.Module:
        return rams_trans(self.classes, **SMALL)  # type: ignore[arg-type]


@pytest.mark.slow
class TestAsReleased(OneRegion):
    def build(self) -> nn.Module:
        released = {"tokens": "as-released", "rows": "as-released", "shape": "as-released"}
        return rams_trans(self.classes, alpha=1.2, later_weight=0.0, background="seen", **released, **SMALL)  # type: ignore[arg-type]


@pytest.mark.slow
class TestFirstScaleOnly(ModelContract):
    def build(self) -> nn.Module:
        return rams_trans(self.classes, inference="first", stem="conv", **SMALL)  # type: ignore[arg-type]


class TestSeveralRegions(ModelContract):
    def build(self) -> nn.Module:
        return rams_trans(self.classes, boxes=4, scales=3, alpha=1.02, shape="padded", **SMALL)  # type: ignore[arg-type]


def images(b: int = 1) -> Tensor:
    return TestPaper().images(b)


def test_box_is_that_of_the_map() -> None:
    """What was read is the square around the largest component of the map that the output holds."""
    source = TensorSource(images())
    output = small(alpha=1.02)(source)
    found, second = output.maps[0]
    (glimpse,) = output.glimpses[0]
    values = torch.from_numpy(found.values)[None]
    box = propose(above_mean(values, 1.02))
    x, y, w, h = grown(box, square_size(box), (8, 8))[0].tolist()
    assert w < 8
    step, (left, top) = found.grid.step[0], found.grid.origin
    expected = [round(left + x * step), round(top + y * step), w * step, h * step]
    assert glimpse.tiles.boxes[0, 0].tolist() == pytest.approx(expected, abs=1)
    assert glimpse.tiles.downsample == pytest.approx(w * step / 64)
    assert glimpse.tiles.size == (64, 64)
    assert second.name == "scale-2"
    assert second.grid.origin == pytest.approx((left + x * step, top + y * step))
    assert second.grid.cols * second.grid.step[0] == pytest.approx(w * step)
    assert np.nansum(second.values) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("tokens", ["own", "as-released"])
@pytest.mark.parametrize("rows", ["class", "as-released"])
def test_the_map_is_the_rollout_of_whole_matrices(tokens: str, rows: str) -> None:
    model, source = small(tokens=tokens, rows=rows, scales=3, background="seen"), TensorSource(images(2))
    with torch.no_grad():
        model.transformer.class_tokens += torch.randn(3, 24, generator=Generator().manual_seed(0))
    output, own = model(source), (0,) if tokens == "own" else (0, 1, 2)
    view = square_view(source, 64)
    product = rollout(model.transformer.with_attention(model.preprocess(view.pixels), own)[1])
    make = importance if rows == "class" else importance_as_released
    expected = make(product, (8, 8), len(own)).detach().masked_fill(~source.tissue(view.grid(8)), torch.nan)
    expected = expected / expected.nansum((1, 2), keepdim=True)
    for i in range(2):
        found = torch.from_numpy(output.maps[i][0].values)
        torch.testing.assert_close(found, expected[i], atol=1e-6, rtol=1e-4, equal_nan=True)


def test_masked_background_has_no_say() -> None:
    tissue = torch.zeros(1, 136, 200, dtype=torch.bool)
    tissue[:, 68:102, 100:150] = True
    other = images().clone()
    other[..., :34] = 255 - other[..., :34]
    for background, same in (("masked", True), ("seen", False)):
        model = small(background=background)
        first, second = (model(TensorSource(picture, tissue)).terms["scales"][:, 0] for picture in (images(), other))
        assert torch.allclose(first, second, atol=1e-5) == same


def test_second_pass_trains_shared_weights_but_neither_the_box_nor_the_first_token() -> None:
    """Page §7: no gradient from y² to the box, some to shared weights, none to class token 1."""
    picture = images().float().div(255).requires_grad_()
    tissue = torch.zeros(1, 136, 200, dtype=torch.bool)
    tissue[:, 40:100, 30:90] = True
    model = small().train()
    output = model(TensorSource(picture, tissue))
    output.terms["scales"][:, 1].square().sum().backward()
    tokens = model.transformer.class_tokens.grad
    assert not tokens[0].any()
    assert tokens[1].any()
    assert dict(model.named_parameters())["transformer.blocks.0.attention.mix.weight"].grad.any()
    x, y, w, h = output.glimpses[0][0].tiles.boxes[0, 0].tolist()
    outside = torch.ones(136, 200, dtype=torch.bool)
    outside[max(0, y - 1) : y + h + 1, max(0, x - 1) : x + w + 1] = False
    assert outside.any()
    assert not picture.grad[0, :, outside].any()
    assert picture.grad[0, :, ~outside].any()


def test_with_all_tokens_in_a_pass_the_first_one_is_trained_too() -> None:
    model = small(tokens="as-released").train()
    model(TensorSource(images())).terms["scales"][:, 1].square().sum().backward()
    assert model.transformer.class_tokens.grad[0].any()


def test_second_token_starts_as_a_copy() -> None:
    assert torch.equal(*small().transformer.class_tokens)


def test_loss_by_hand() -> None:
    model, target = small(scales=3, first_weight=0.5, later_weight=0.25), torch.tensor([0, 1])
    output = model(TensorSource(images(2)))
    parts = [functional.cross_entropy(one, target) for one in output.terms["scales"].unbind(1)]
    torch.testing.assert_close(model.loss(output, target), 0.5 * parts[0] + 0.25 * (parts[1] + parts[2]))


def test_released_loss_trains_the_first_scale_alone() -> None:
    model = small(later_weight=0.0).train()
    output, target = model(TensorSource(images())), torch.tensor([1])
    loss = model.loss(output, target)
    torch.testing.assert_close(loss, functional.cross_entropy(output.terms["scales"][:, 0], target))
    loss.backward()
    assert not model.transformer.class_tokens.grad[1].any()


def test_first_reads_nothing_and_gives_the_first_scales_logits() -> None:
    whole, first = small()(TensorSource(images())), TensorSource(images())
    output = small(inference="first")(first)
    assert torch.equal(output.logits, whole.terms["scales"][:, 0])
    torch.testing.assert_close(whole.logits, whole.terms["scales"].mean(1))
    assert output.glimpses == ((),)
    assert first.counters.tiles == 0
    assert small(inference="first").train()(TensorSource(images())).terms["scales"].shape == (1, 2, 2)


@pytest.mark.parametrize("inference", ["all", "first"])
def test_each_scale_answers_by_itself(inference: str) -> None:
    model = small(scales=3, inference=inference)
    output = model(TensorSource(images(2)))
    there = 3 if inference == "all" else 1
    assert model.part_names == ("scale-1", "scale-2", "scale-3")
    assert output.parts is not None
    assert torch.equal(output.parts[:, :there], output.terms["scales"])
    assert bool(output.parts[:, there:].isnan().all())


def test_scales_are_read_one_by_one_inside_one_another() -> None:
    source = AskedSource(
        torch.randint(0, 256, (1, 3, 900, 700), dtype=torch.uint8, generator=Generator().manual_seed(0))
    )
    output = small(scales=4, alpha=1.02)(source)
    assert [glimpse.name for glimpse in output.glimpses[0]] == ["scale-2", "scale-3", "scale-4"]
    assert [found.name for found in output.maps[0]] == ["attention", "scale-2", "scale-3", "scale-4"]
    assert len(source.asked) == 3
    boxes = [glimpse.tiles.boxes[0, 0] for glimpse in output.glimpses[0]]
    for (x, y, w, h), (inner_x, inner_y, inner_w, inner_h) in itertools.pairwise(boxes):
        assert x - 1 <= inner_x and inner_x + inner_w <= x + w + 1
        assert y - 1 <= inner_y and inner_y + inner_h <= y + h + 1
    assert boxes[0][2] > boxes[-1][2]
    assert all(tiles.downsample >= 1 for tiles in source.asked)


def test_no_view_is_finer_than_the_tiles_scale() -> None:
    big = torch.zeros(1, 3, 512, 512, dtype=torch.uint8)
    tissue = torch.zeros(1, 512, 512, dtype=torch.bool)
    tissue[:, 200:210, 200:210] = True
    for mpp, downsample in ((1.0, 1.0), (4.0, 4.0), (40.0, 8.0)):
        source = AskedSource(big, tissue)
        small(tile_mpp=mpp)(source)
        assert source.asked[0].downsample == pytest.approx(downsample)
        assert ((source.asked[0].boxes[0, 0, :2] <= 200) & (source.asked[0].boxes[0, 0, :2] > 200 - 512)).all()


def flat(model: RamsTrans) -> RamsTrans:
    """Queries and keys of 0: every token looks at all of them alike."""
    with torch.no_grad():
        for block in model.transformer.blocks:
            block.attention.mix.weight[: 2 * model.transformer.dim] = 0
            block.attention.mix.bias[: 2 * model.transformer.dim] = 0
    return model


@pytest.mark.parametrize("rows", ["class", "as-released"])
def test_a_flat_map_reads_the_whole_image(rows: str) -> None:
    square = TensorSource(images()[..., :136, :136])
    output = flat(small(rows=rows))(square)
    np.testing.assert_allclose(output.maps[0][0].values, 1 / 64, rtol=1e-4)
    assert output.glimpses[0][0].tiles.boxes.tolist() == [[[0, 0, 136, 136]]]
    assert bool(output.logits.isfinite().all())


def test_with_a_most_side_even_a_flat_map_is_read_closely() -> None:
    output = flat(small(most_side=3))(TensorSource(images()[..., :128, :128]))
    assert output.glimpses[0][0].tiles.downsample == 1.0
    assert output.glimpses[0][0].tiles.boxes[0, 0, 2] == 64


def test_a_slide_smaller_than_a_view_is_read_at_level_0() -> None:
    source = AskedSource(images()[..., :30, :40])
    output = small()(source)
    assert source.asked[0].downsample == 1.0
    assert bool(output.logits.isfinite().all())


def test_no_tissue_is_an_error() -> None:
    with pytest.raises(NoTissueError, match="8 × 8 patches"):
        small()(EmptySource(images()))


def test_training_gives_no_map_for_the_last_scale() -> None:
    names = [found.name for found in small(scales=3).train()(TensorSource(images())).maps[0]]
    assert names == ["attention", "scale-2"]


def test_training_and_prediction_give_the_same_logits() -> None:
    source = TensorSource(images(2))
    for options in ({}, {"tokens": "as-released", "rows": "as-released"}, {"boxes": 3, "alpha": 1.02}):
        model = small(**options)
        looking, training = model(source), model.train()(source)
        torch.testing.assert_close(looking.terms["scales"], training.terms["scales"], atol=1e-5, rtol=1e-5)


def test_several_regions_share_in_the_logits_and_each_has_its_chain() -> None:
    model, source = small(boxes=4, scales=3, alpha=1.02, background="seen"), AskedSource(images())
    output = model(source)
    second, third = output.glimpses[0]
    n = len(second.tiles)
    assert 2 <= n <= 4
    assert len(third.tiles) == n
    np.testing.assert_allclose(second.weights, 1 / n)
    names = [found.name for found in output.maps[0]]
    assert names[: n + 1] == ["attention", "scale-2", *(f"scale-2 region {k}" for k in range(2, n + 1))]
    pixels = TensorSource(images()).read(source.asked[0]).pixels[0]
    alone = model.classifier(model.transformer(model.preprocess(pixels), 1))
    torch.testing.assert_close(output.terms["scales"][0, 1], alone.mean(0), atol=1e-5, rtol=1e-5)


def test_padded_views_hide_what_surrounds_a_box() -> None:
    """Only pixels of the box itself have a say in the second scale."""
    tissue = torch.zeros(1, 128, 128, dtype=torch.bool)
    tissue[:, 32:64] = True
    one, other = torch.rand(2, 1, 3, 128, 128, generator=Generator().manual_seed(0))
    other[..., 32:64, :] = one[..., 32:64, :]
    results = [flat(small(shape=shape, background="seen")) for shape in ("padded", "square")]
    for model, same in zip(results, (True, False), strict=True):
        seen = [model(TensorSource(picture, tissue)).terms["scales"][0, 1] for picture in (one, other)]
        assert torch.allclose(*seen, atol=1e-6) == same


@pytest.mark.parametrize("background", ["masked", "seen"])
def test_padded_views_attend_to_their_box_alone(background: str) -> None:
    """Patches that show background, because they lie outside the box, count neither in the map nor in its mean."""
    tissue = torch.zeros(1, 128, 128, dtype=torch.bool)
    tissue[:, 64:96] = True
    tissue[:, 32:40, :16] = True
    model = flat(small(shape="padded", background=background, most_side=8))
    region = Region(0, (0, 4, 8, 2), 1.0, (0, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsi_attention.methods.rams_trans.model.find_regions", lambda *_: (region,))
        first, second = model(TensorSource(images()[..., :128, :128], tissue)).maps[0]
    assert np.isfinite(first.values).sum() == 17
    assert np.argwhere(np.isfinite(second.values).any(axis=1)).ravel().tolist() == [4, 5]


def test_released_box_has_a_row_and_a_column_too_many() -> None:
    """docs/methods/rams_trans.md §7: rows 3..6, columns 2..9 at P = 32 are rows 95..223, columns 63..319."""
    model = small(size=448, patch=32, shape="as-released")
    found = [Region(0, (2, 3, 8, 4), 1.0, (2, 3))]
    assert model._boxes(found).tolist() == [[63, 31, 257, 257]]
    assert small(size=448, patch=32, shape="padded")._boxes(found).tolist() == [[64, 96, 256, 128]]
    assert small(size=448, patch=32)._boxes(found).tolist() == [[64, 32, 256, 256]]
    assert small(size=448, patch=32, shape="padded", least_side=6)._boxes(found).tolist() == [[64, 64, 256, 192]]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"tokens": "none"}, "tokens is 'none'; possible: own, as-released"),
        ({"rows": "last"}, "rows is 'last'"),
        ({"shape": "round"}, "shape is 'round'"),
        ({"background": "blue"}, "background is 'blue'"),
        ({"inference": "guess"}, "inference is 'guess'"),
        ({"stem": "deep"}, "stem is 'deep'"),
        ({"size": 60}, "size must be a multiple of patch, got 60 and 8"),
        ({"heads": 5}, "dim must be a multiple of heads, got 24 and 5"),
        ({"scales": 0}, "scales is 0; it must lie between 1"),
        ({"patch": 1, "stem": "conv"}, "2 pixels at least"),
        ({"alpha": 0.0}, "alpha is 0; it must lie between"),
        ({"boxes": 0}, "boxes is 0; it must lie between 1"),
        ({"most_side": 2, "least_side": 3}, "got 2 and 3"),
        ({"tile_mpp": 0.0}, "tile_mpp is 0; it must lie between 0.02"),
        ({"later_weight": -1.0}, "later_weight is -1; it must lie between 0"),
        ({"first_weight": 0.0, "later_weight": 0.0}, "both 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        small(**arguments)


def canvases(n: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise of 96² with a red or a green square of 24² somewhere; classes; (x, y) of the squares' centres."""
    pictures, target = torch.rand(n, 3, 96, 96, generator=generator) * 0.2 + 0.4, torch.arange(n) % 2
    corners = torch.randint(0, 72, (n, 2), generator=generator)
    for picture, colour, (x, y) in zip(pictures, target.tolist(), corners.tolist(), strict=True):
        picture[colour, y : y + 24, x : x + 24] += 0.35
    return pictures, target, corners + 12


def test_learns_where_to_look() -> None:
    """From labels of whole images alone, in 60 steps; the map's peak and the box lie on the square."""
    generator = Generator().manual_seed(0)
    (pictures, target, _), (fresh, truth, centres) = canvases(96, generator), canvases(40, generator)
    model = small(size=24, patch=4, dim=48, depth=2, heads=4, mean=(0.5,) * 3, std=(0.2,) * 3).train()
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(60):
        chosen = torch.randperm(96, generator=generator)[:12]
        loss = model.loss(model(TensorSource(pictures[chosen])), target[chosen])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    with torch.no_grad():
        output = model.eval()(TensorSource(fresh))
    for scores in (*output.terms["scales"].unbind(1), output.logits):
        assert float((scores.argmax(-1) == truth).float().mean()) > 0.95
    on_square, in_box, sides = [], [], []
    for (found, _), (glimpse,), centre in zip(output.maps, output.glimpses, centres.numpy(), strict=True):
        peak = found.grid.centres(np.nanargmax(found.values))
        on_square.append((abs(peak - centre) <= 12 + 8).all())
        start, side = glimpse.tiles.boxes[0, 0, :2], glimpse.tiles.boxes[0, 0, 2]
        in_box.append(((start <= centre) & (centre < start + side)).all())
        sides.append(side)
    assert np.mean(on_square) > 0.95
    assert np.mean(in_box) > 0.95
    assert np.mean(sides) < 72
