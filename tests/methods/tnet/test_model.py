"""TNet as a model: the shipped contract, the page's numbers, gradients by enumeration, failed tiles, learning."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sources import AskedSource
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.checkpoint import load_model, save_model
from wsi_attention.errors import InputError, TileReadError
from wsi_attention.methods.tnet.crops import crop_grid
from wsi_attention.methods.tnet.model import TNet, tnet
from wsi_attention.methods.tnet.policy import largest_probability
from wsi_attention.model_card import ModelCard
from wsi_attention.structures import Output, TileBatch, TileSet
from wsi_attention.testing.models import ModelContract
from wsi_attention.tiles.tensors import TensorSource

SMALL = {
    "base": 32,
    "tile_mpp": 1.0,
    "overview_mpp": 4.0,
    "grid": 3,
    "overlap": 0.5,
    "attended": (2, 2),
    "encoder_widths": (8, 16),
    "features": 24,
    "location_width": 8,
}
RELEASED = {"selection": "as-released", "logits": "unit-norm", "pooling": "mean", "position": "joined"}


def small(**arguments: object) -> TNet:
    torch.manual_seed(0)
    model = tnet(2, **{**SMALL, **arguments}).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        model.location.score.weight.mul_(40.0)
    return model


class TestPractical(ModelContract):
    attends = "location"

    def build(self) -> nn.Module:
        return tnet(self.classes, **SMALL)  # type: ignore[arg-type]


class TestReleased(ModelContract):
    attends = "location"

    def build(self) -> nn.Module:
        return tnet(self.classes, **SMALL, **RELEASED)  # type: ignore[arg-type]


@pytest.mark.slow
class TestFrozen(ModelContract):
    attends = "location"

    def build(self) -> nn.Module:
        return tnet(self.classes, encoder_frozen=True, **SMALL)  # type: ignore[arg-type]


def images(b: int = 1) -> Tensor:
    return TestPractical().images(b)


def test_every_level_is_read_from_the_image_at_its_own_scale() -> None:
    """200 × 136 px in a square of 200: crops of 100, then 50, read as 32² tiles at box/r, one request a level."""
    source = AskedSource(images())
    (glimpses,) = small()(source).glimpses
    assert [one.name for one in glimpses] == ["level-1", "level-2"]
    assert [one.downsample for one in source.asked] == [100 / 32, 50 / 32]
    assert all(one.size == (32, 32) for one in source.asked)
    crop, deeper = crop_grid(200, 0.5, 3), crop_grid(100, 0.5, 3)
    starts = {(x * crop.stride, y * crop.stride - 31) for x in range(3) for y in range(3)}
    first = {(x, y) for x, y in source.asked[0].locations[0].tolist()}
    assert first <= starts
    below = {(x + i * deeper.stride, y + j * deeper.stride) for x, y in first for i in range(3) for j in range(3)}
    assert {(x, y) for x, y in source.asked[1].locations[0].tolist()} <= below


def test_nothing_is_read_finer_than_the_finest_scale() -> None:
    source = AskedSource(images())
    small(tile_mpp=2.5, attended=(2, 2, 2, 2))(source)
    assert [one.downsample for one in source.asked] == [100 / 32, 2.5]
    source = AskedSource(images())
    small(attended=(2, 1, 1, 1, 1))(source)
    assert [one.downsample for one in source.asked] == [100 / 32, 50 / 32, 1.0]


@pytest.mark.parametrize("size", [32, 20, 1])
def test_a_slide_smaller_than_one_tile_is_judged_by_its_overview(size: int) -> None:
    model, source = small().train(), AskedSource(images()[..., :size, :size])
    output = model(source)
    assert output.glimpses == ((),)
    assert source.asked == []
    assert float(np.nansum(output.maps[0][0].values)) == pytest.approx(1.0)
    model.loss(output, torch.tensor([1])).backward()
    assert float(model.baseline) == 0.5


@pytest.mark.parametrize("attended", [(1,), (3,), (4, 3), (2, 2, 1)])
def test_any_number_of_regions_and_levels_after_training(attended: tuple[int, ...]) -> None:
    model = small()
    model.attended = attended
    (glimpses,) = model(TensorSource(images())).glimpses
    assert [len(one.tiles) for one in glimpses] == np.cumprod(attended).tolist()
    assert sum(len(one.tiles) for one in glimpses) + 1 == 1 + sum(np.cumprod(attended))


class Choices(TNet):
    """Keeps which cells were taken."""

    def draw(self, attention: Tensor, k: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        self.taken = super().draw(attention, k, generator)
        return self.taken


@pytest.mark.parametrize("training", [False, True])
def test_exactly_k_true_per_row(training: bool) -> None:
    model = small(attended=(3, 2)).train(training)
    model.__class__ = Choices
    model(TensorSource(images(2)), Generator().manual_seed(0))
    cells, drawn = model.taken  # type: ignore[attr-defined]
    assert cells.shape == (6, 2)
    assert bool(drawn.all())
    mask = functional.one_hot(cells, 9).sum(dim=1)
    assert mask.sum(-1).tolist() == [2] * 6
    assert int(mask.max()) == 1


def test_ties_go_to_the_first_cells() -> None:
    model = small()
    nn.init.zeros_(model.location.score.weight)
    source = AskedSource(images())
    model(source)
    assert source.asked[0].locations[0].tolist() == [[0, -31], [50, -31]]


@pytest.mark.parametrize(("grid", "overlap", "most"), [(3, 0.5, 0.2653), (5, 0.35, 0.1036)])
def test_unit_norm_logits_cap_the_probability(grid: int, overlap: float, most: float) -> None:
    arguments = {"grid": grid, "overlap": overlap, "base": 48, "encoder_widths": (8, 16, 16)}
    released, plain = small(logits="unit-norm", **arguments), small(**arguments)
    for model in (released, plain):
        nn.init.normal_(model.location.score.weight, std=100.0)
    found = [
        max(one.attention.max() for one in model(TensorSource(images())).glimpses[0]) for model in (released, plain)
    ]
    assert found[0] <= largest_probability(grid**2) <= most + 5e-5
    assert found[1] > 0.5


def test_training_draws_and_eval_does_not() -> None:
    model, source = small(), TensorSource(images())
    assert _places(model(source, Generator().manual_seed(1))) == _places(model(source, Generator().manual_seed(2)))
    model.train()
    drawn = [_places(model(source, Generator().manual_seed(seed))) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_as_released_nothing_is_drawn_in_training_either() -> None:
    model, source = small(selection="as-released"), TensorSource(images())
    chosen = _places(model(source))
    model.train()
    assert {_places(model(source)) for _ in range(3)} == {chosen}


def _places(output: Output) -> tuple[bytes, ...]:
    return tuple(one.tiles.locations.tobytes() for one in output.glimpses[0])


def test_likelihood_of_the_image_and_of_each_region() -> None:
    source = TensorSource(images(2))
    output = small().train()(source, Generator().manual_seed(0))
    regions = output.terms["level"] > 0
    each = torch.where(regions, output.terms["log_probability"], 0.0)
    torch.testing.assert_close(each.sum(-1), output.terms["log_likelihood"])
    released = small(selection="as-released").train()(source)
    p = np.concatenate([one.attention for one in released.glimpses[0]])
    np.testing.assert_allclose(released.terms["log_probability"][0, 1:].detach(), np.log(p + 1e-10), rtol=1e-5)


class Told(TNet):
    """Takes the cells it is told, level by level."""

    def draw(self, attention: Tensor, k: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        cells = torch.tensor(self.told.pop(0))
        return cells, torch.ones_like(cells, dtype=torch.bool)


def _told(model: TNet, source: TensorSource, *cells: Sequence[Sequence[int]]) -> Output:
    model.__class__ = Told
    model.told = list(cells)  # type: ignore[assignment]
    output: Output = model(source)
    return output


@pytest.mark.parametrize(("attended", "ways"), [((2,), 12), ((1, 1), 16)])
def test_policy_gradient_is_that_of_the_expected_reward(attended: tuple[int, ...], ways: int) -> None:
    """Over all ways to draw two of four regions, or one and then one in it, REINFORCE gives the gradient of E[R]."""
    model, target = small(grid=2, attended=attended, reward_share=1.0), torch.tensor([0])
    source, parameters = TensorSource(images()[..., :66, :66]), [*model.location.parameters()]
    estimate, expected, rewards = [torch.zeros_like(p) for p in parameters], torch.zeros(()), []
    with torch.no_grad():
        model.classifier[1].weight.mul_(30.0)
        model.classifier[1].bias -= model.classifier[1](model(source).terms["pooled"])[0]
    for first in itertools.permutations(range(4), attended[0]):
        for second in range(4 ** (len(attended) - 1)):
            output = _told(model, source, [first], [[second]])
            chance, right = output.terms["log_likelihood"].exp().sum(), float(output.logits.argmax() == 0)
            found = torch.autograd.grad(model.policy_loss(output, target), parameters, retain_graph=True)
            estimate = [e + chance.detach() * f for e, f in zip(estimate, found, strict=True)]
            expected = expected + chance * right
            rewards.append((float(chance.detach()), right))
    assert sum(chance for chance, _ in rewards) == pytest.approx(1.0, abs=1e-5)
    assert len(rewards) == ways
    assert 0.1 < np.mean([right for _, right in rewards]) < 0.9
    exact = torch.autograd.grad(expected, parameters)
    assert max(float(one.abs().max()) for one in exact) > 1e-3
    for one, other in zip(estimate, exact, strict=True):
        torch.testing.assert_close(-one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("arguments", [{}, RELEASED])
def test_no_policy_gradient_reaches_the_backbone(arguments: dict[str, object]) -> None:
    model = small(**arguments).train()
    output = model(TensorSource(images(2)), Generator().manual_seed(0))
    model.policy_loss(output, torch.tensor([0, 1])).backward()
    reached = {
        name for name, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0
    }
    assert reached
    assert all(name.startswith("location.") for name in reached)


def _with_everything_right(model: TNet) -> tuple[Output, Tensor]:
    with torch.no_grad():
        model.classifier[1].weight.zero_()
        model.classifier[1].bias.copy_(torch.tensor([0.0, 5.0]))
    return model(TensorSource(images(2)), Generator().manual_seed(0)), torch.tensor([1, 1])


def test_reward_at_the_baseline_gives_no_gradient_and_above_it_some() -> None:
    model = small().train()
    output, target = _with_everything_right(model)
    model.baseline.fill_(1.0)
    weight = model.location.score.weight
    (none,) = torch.autograd.grad(model.policy_loss(output, target), weight, retain_graph=True)
    assert float(none.abs().max()) == 0.0
    model.baseline.fill_(0.5)
    (some,) = torch.autograd.grad(model.policy_loss(output, target), weight)
    assert float(some.abs().max()) > 0.0


def test_a_step_raises_what_was_chosen_when_all_was_right() -> None:
    model = small(attended=(2,)).train()
    output, target = _with_everything_right(model)
    before = output.terms["log_likelihood"].detach().sum().item()
    model.policy_loss(output, target).backward()
    with torch.no_grad():
        for parameter in model.location.parameters():
            parameter -= 1e-3 * parameter.grad
    after = model(TensorSource(images(2)), Generator().manual_seed(0)).terms["log_likelihood"].detach().sum().item()
    assert after > before


def test_baseline_by_hand() -> None:
    """0.5 → 0.55 → 0.595 where every reward is 1; a training step moves it, eval does not; it is saved."""
    model = small(baseline_kept=0.9).train()
    output, target = _with_everything_right(model)
    model.loss(output, target)
    assert float(model.baseline) == pytest.approx(0.55)
    model.loss(output, target)
    assert float(model.baseline) == pytest.approx(0.595)
    model.eval().loss(output, target)
    assert float(model.state_dict()["baseline"]) == pytest.approx(0.595)


def test_loss_by_hand() -> None:
    model = small(class_share=0.3, reward_share=0.2, policy_weight=0.1, contrast_weight=2.0)
    output, target = model(TensorSource(images(2))), torch.tensor([0, 1])
    each = output.terms["feature_logits"]
    assert each.shape == (2, 7, 2)
    own = functional.cross_entropy(each.flatten(0, 1), target.repeat_interleave(7))
    right = (output.logits.argmax(-1) == target).float(), (each[:, 1:].argmax(-1) == target[:, None]).float()
    whole = ((right[0] - 0.5) * -output.terms["log_likelihood"]).mean()
    alone = ((right[1] - 0.5) * -output.terms["log_probability"][:, 1:]).mean()
    contrast = (functional.cosine_similarity(*output.terms["pooled"], dim=0) - 0.4).clamp(min=0) / 2
    expected = 0.3 * functional.cross_entropy(output.logits, target) + 0.7 * own
    expected = expected + 0.1 * (0.2 * whole + 0.8 * alone) + 2.0 * contrast
    torch.testing.assert_close(model.loss(output, target), expected)


@pytest.mark.parametrize(("levels", "counted"), [(1, 1), (2, 3), (3, 7)])
def test_finer_levels_can_be_left_out_of_the_losses_of_their_own(levels: int, counted: int) -> None:
    model = small(regularised_levels=levels, class_share=0.0, policy_weight=0.0)
    output, target = model(TensorSource(images())), torch.tensor([1])
    own = functional.cross_entropy(output.terms["feature_logits"][0, :counted], target.expand(counted))
    torch.testing.assert_close(model.loss(output, target), own)
    assert bool(model.policy_loss(output, target).isfinite())


def test_pooled_feature_and_its_shares() -> None:
    model = small()
    nn.init.normal_(model.pooling.weight)
    output = model(TensorSource(images()))
    shares, features = output.terms["shares"], output.terms["features"]
    torch.testing.assert_close(output.terms["pooled"], (shares[..., None] * features).sum(1))
    torch.testing.assert_close(output.logits, model.classifier(output.terms["pooled"]))
    level = output.terms["level"][0].numpy()
    assert level.tolist() == [0, 1, 1, 2, 2, 2, 2]
    for number, glimpse in enumerate(output.glimpses[0], start=1):
        own = shares[0].detach().numpy()[level == number]
        np.testing.assert_allclose(glimpse.weights, own / own.sum(), rtol=1e-5)


def test_attention_is_the_share_of_every_region_over_its_box() -> None:
    model = small(pooling="mean", attended=(1,))
    output = model(TensorSource(images()))
    (glimpse,), (location, attention) = output.glimpses[0], output.maps[0]
    assert [location.name, attention.name] == ["location-1", "attention"]
    step = attention.grid.step[0]
    assert step == 50.0
    (x, y, side, _), values = glimpse.tiles.boxes[0, 0], np.full(attention.grid.shape, 0.5 / 12)
    columns = np.clip(np.minimum(step * np.arange(1, 5), x + side) - np.maximum(step * np.arange(4), x), 0, None) / step
    rows = np.clip(np.minimum(step * np.arange(1, 4), y + side) - np.maximum(step * np.arange(3), y), 0, None) / step
    values += 0.5 * np.outer(rows, columns) / np.outer(rows, columns).sum()
    np.testing.assert_allclose(attention.values, values, rtol=1e-5)
    assert float(location.values.max()) == pytest.approx(float(glimpse.attention[0]), rel=1e-5)


def test_a_batch_gives_what_its_images_give_alone() -> None:
    """Images with different tissue, one of which has too few cells for k."""
    tissue = torch.zeros(2, 136, 200, dtype=torch.bool)
    tissue[0] = True
    tissue[1, :30, :30] = True
    model = small(attended=(4, 3))
    source = AskedSource(images(2), tissue)
    both = model(source)
    for i in range(2):
        alone = AskedSource(images(2)[i : i + 1], tissue[i : i + 1])
        one = model(alone)
        torch.testing.assert_close(both.logits[i : i + 1], one.logits, rtol=1e-4, atol=1e-5)
        for mine, yours in zip(both.glimpses[i], one.glimpses[0], strict=True):
            assert (mine.tiles.locations == yours.tiles.locations).all()
            np.testing.assert_allclose(mine.weights, yours.weights, rtol=1e-4)
        for found, expected in zip(both.maps[i], one.maps[0], strict=True):
            np.testing.assert_allclose(found.values, expected.values, rtol=1e-3, atol=1e-7)
        assert alone.counters.tiles == sum(len(glimpse.tiles) for glimpse in one.glimpses[0])
    assert [len(one.tiles) for one in both.glimpses[0]] == [4, 12]
    assert len(both.glimpses[1][0].tiles) < 4
    loss = model.train().loss(model(source, Generator().manual_seed(0)), torch.tensor([0, 1]))
    loss.backward()
    assert all(value.grad is None or bool(value.grad.isfinite().all()) for value in model.parameters())


class FailingOnce(TensorSource):
    """One request goes wrong, for some of its tiles; they hold `rubbish`."""

    def __init__(self, pixels: Tensor, request: int, tiles: slice, rubbish: int = 7) -> None:
        super().__init__(pixels)
        self.left, self.failing, self.rubbish = request, tiles, rubbish

    def read(self, tiles: TileSet) -> TileBatch:
        batch = super().read(tiles)
        self.left -= 1
        if self.left == 0:
            batch.pixels[:, self.failing] = self.rubbish
            batch.valid[:, self.failing] = False
        return batch


def test_nothing_is_looked_for_in_a_region_that_failed() -> None:
    (whole,) = small()(TensorSource(images())).glimpses
    (glimpses,) = small()(FailingOnce(images(), 1, slice(0, 1))).glimpses
    assert glimpses[0].valid.tolist() == [False, True]
    assert glimpses[0].weights.tolist() == [0.0, 1.0]
    assert glimpses[1].tiles.locations.tolist() == whole[1].tiles.locations[:, 2:].tolist()


def test_a_whole_level_may_fail_but_the_first() -> None:
    model = small(attended=(2, 2, 1)).train()
    output = model(FailingOnce(images(), 2, slice(None)), Generator().manual_seed(0))
    assert [one.valid.any() for one in output.glimpses[0]] == [True, False]
    assert output.glimpses[0][1].weights.tolist() == [0.0] * 4
    assert output.terms["valid"].sum() == 3
    model.loss(output, torch.tensor([1])).backward()
    with pytest.raises(TileReadError, match="none of the 2 regions"):
        model(FailingOnce(images(2), 1, slice(None)))


def test_pixels_of_failed_tiles_do_not_matter() -> None:
    model = small()
    one, other = (model(FailingOnce(images(), 2, slice(1, 3), rubbish)) for rubbish in (0, 255))
    assert torch.equal(one.logits, other.logits)
    assert not torch.equal(one.logits, model(TensorSource(images())).logits)


def test_a_diverged_location_module_is_not_followed() -> None:
    model = small()
    nn.init.constant_(model.location.score.bias, float("nan"))
    with pytest.raises(ValueError, match="diverged"):
        model(TensorSource(images()))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"selection": "lottery"}, "selection is 'lottery'; possible: without-replacement, as-released"),
        ({"logits": "free"}, "logits is 'free'"),
        ({"position": "none"}, "position is 'none'"),
        ({"pooling": "max"}, "pooling is 'max'"),
        ({"encoder": "vgg"}, "encoder 'vgg'"),
        ({"map_layer": "stage7"}, "no layer 'stage7'"),
        ({"encoder_turns": 8}, "location module looks inside the encoder"),
        ({"overlap": 0.3}, "at least 1, not 3 · 0.3"),
        ({"grid": 1, "overlap": 1.0}, "grid is 1; it must lie between 2"),
        ({"attended": ()}, "attended is empty"),
        ({"attended": (2, 0)}, "attended is 0; it must lie between 1"),
        ({"tile_mpp": 0.0}, "tile_mpp is 0; it must lie between 0.02"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        small(**arguments)


def test_resnet_and_only_what_is_new_is_trained_with_a_frozen_encoder() -> None:
    model = small(encoder="resnet18", encoder_frozen=True, base=64, attended=(1,))
    assert model(TensorSource(images())).logits.shape == (1, 2)
    trained = {name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {"location", "position", "pooling", "classifier"}
    assert "position.project.weight" in dict(model.named_parameters())


@pytest.mark.parametrize("pooling", ["weighted", "mean"])
def test_half_precision(pooling: str) -> None:
    model = small(pooling=pooling).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(TensorSource(images()), Generator().manual_seed(0))
        loss = model.loss(output, torch.tensor([1]))
    loss.backward()
    assert bool(loss.isfinite())
    assert [one.weights.sum() for one in output.glimpses[0]] == pytest.approx([1.0, 1.0], abs=1e-9)
    assert np.nansum(output.maps[0][-1].values) == pytest.approx(1.0, abs=1e-6)


def test_from_a_folder_it_is_the_same_and_may_look_at_more(tmp_path: Path) -> None:
    model = small()
    model.baseline.fill_(0.625)
    card = ModelCard("tnet", dict(SMALL), ("a", "b"), {}, {}, "ab" * 32, "train")
    save_model(tmp_path / "model", model, card)
    loaded = load_model(tmp_path / "model").model
    source = TensorSource(images())
    assert torch.equal(loaded(source).logits, model(source).logits)
    assert float(loaded.baseline) == 0.625  # type: ignore[arg-type]
    loaded.attended = (3, 3, 1)  # type: ignore[assignment]
    assert [len(one.tiles) for one in loaded(source).glimpses[0]] == [3, 9, 9]


def test_forty_eight_regions_of_three_levels() -> None:
    """960² px with some tissue seen at 24 px: views at 10, 2.5 and 1 pixel a pixel, 3 + 9 + 36 and the overview."""
    tissue = torch.zeros(1, 960, 960, dtype=torch.bool)
    tissue[:, 120:840, 240:720] = True
    model = tnet(2, base=24, tile_mpp=1.0, attended=(3, 3, 4), encoder_widths=(8, 8, 8)).eval()
    source = AskedSource(torch.zeros(1, 3, 960, 960, dtype=torch.uint8), tissue)
    with torch.no_grad():
        output = model(source)
    assert [(len(one), one.downsample) for one in source.asked] == [(3, 10.0), (9, 2.5), (36, 1.0)]
    assert output.maps[0][-1].grid.shape == (80, 80)
    assert output.terms["features"].shape[:2] == (1, 49)


def blobs(n: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise of 192², with a bright checked blob of 40² on every second one, whose corner (x, y) is told."""
    pixels, target = torch.rand(n, 3, 192, 192, generator=generator) * 0.2 + 0.4, torch.arange(n) % 2
    corners = torch.randint(0, 152, (n, 2), generator=generator)
    for i in range(1, n, 2):
        x, y = corners[i].tolist()
        checks = (torch.rand(1, 10, 10, generator=generator) > 0.5).float()
        pixels[i, :, y : y + 40, x : x + 40] += 0.2 + 0.2 * checks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    return pixels, target, corners


def test_learns_where_to_look() -> None:
    """From labels of whole images alone, in fifty steps; the regions end up on the blob."""
    generator = Generator().manual_seed(0)
    (pixels, target, _), (fresh, truth, corners) = blobs(96, generator), blobs(60, generator)
    torch.manual_seed(0)
    colours = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    model = tnet(2, **{**SMALL, **colours, "base": 48, "attended": (2, 1), "location_width": 16, "policy_weight": 0.3})
    optimiser = torch.optim.Adam(model.train().parameters(), 4e-3)
    for _ in range(50):
        chosen = torch.randperm(96, generator=generator)[:8]
        loss = model.loss(model(TensorSource(pixels[chosen]), generator), target[chosen])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    with torch.no_grad():
        output = model.eval()(TensorSource(fresh))
    hits = []
    for i in range(1, 60, 2):
        x, y, w, h = output.glimpses[i][0].tiles.boxes[0][0]
        cx, cy = (corners[i] + 20).tolist()
        hits.append(x <= cx < x + w and y <= cy < y + h)
    assert float((output.logits.argmax(-1) == truth).float().mean()) > 0.95
    assert np.mean(hits) > 0.8
