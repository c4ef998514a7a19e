"""TNet's trunk for coarse views: glass takes no part, sums by hand, levels that start alike, the model contract."""

from __future__ import annotations

import pytest
import torch
from sources import AskedSource
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.errors import InputError
from wsi_attention.methods.tnet.crops import crop_grid
from wsi_attention.methods.tnet.model import TNet, tnet
from wsi_attention.methods.tnet.networks import LevelWeighting
from wsi_attention.methods.tnet.regions import RegionCanvas, Regions
from wsi_attention.methods.tnet.trunk import CoarseTrunk
from wsi_attention.nn.attention_nets import TissueAttentionNet
from wsi_attention.protocols import InParts
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
    "trunk": "tissue",
    "trunk_widths": (8, 8),
    "trunk_context": 3,
    "overview_weight": 1.0,
    "pooling": "by-level",
    "answer": "levels",
}


def small(**arguments: object) -> TNet:
    torch.manual_seed(0)
    return tnet(2, **{**SMALL, **arguments}).eval()  # type: ignore[arg-type,return-value]


class TestTrunk(ModelContract):
    attends = "network.score"

    def build(self) -> nn.Module:
        return tnet(self.classes, **SMALL)  # type: ignore[arg-type]


class TestCoarseToTheEnd(ModelContract):
    """Regions that stay coarser than tiles are all for the trunk; the encoder sees none."""

    attends = "network.score"
    unreached = ("encoder.*",)

    def build(self) -> nn.Module:
        return tnet(self.classes, **{**SMALL, "base": 16, "attended": (2,)})  # type: ignore[arg-type]


def images(b: int = 1) -> Tensor:
    return TestTrunk().images(b)


def trunk(size: int = 16) -> CoarseTrunk:
    torch.manual_seed(0)
    return CoarseTrunk(TissueAttentionNet(3, (8, 8), 3), size, 12, 2)


def a_map(v: int = 2) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(1)
    tissue = (torch.rand(v, 4, 4, generator=generator) > 0.4).float() * 0.5
    return torch.randn(v, 8, 4, 4, generator=generator), tissue


def test_a_view_is_flattened_and_back() -> None:
    network = trunk()
    views = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(network.maps(network(views)), network.network(views)[1])
    assert network.nothing(torch.zeros(2, 5)).shape == (2, 5, 128)


def test_glass_takes_no_part_in_the_feature() -> None:
    network, (maps, tissue) = trunk(), a_map()
    other = torch.where((tissue > 0)[:, None], maps, 100.0)
    torch.testing.assert_close(network.pool(maps, tissue), network.pool(other, tissue))
    assert network.pool(maps, tissue * 0).isfinite().all()
    torch.testing.assert_close(network.pool(maps, tissue * 0), network.pool(maps, torch.ones_like(tissue)))


def test_own_logits_are_the_attended_mean_over_all_views_of_an_image() -> None:
    network, (maps, tissue) = trunk(), a_map(3)
    found = network.own_logits(maps, tissue, torch.tensor([0, 0, 2]), 3)
    scores, evidence = network.scores(maps), network.evidence(maps)
    for image, own in ((0, [0, 1]), (2, [2])):
        logits = torch.cat([(scores[i] + tissue[i].log()).flatten() for i in own])
        values = torch.cat([evidence[i].flatten(1) for i in own], dim=1)
        torch.testing.assert_close(found[image], (logits.softmax(0) * values).sum(1))
    assert bool(found[1].isnan().all())


def test_a_crop_counts_the_exponentials_of_its_tissue() -> None:
    """Crops of two cells in a region of four: the cells of each, weighed with their tissue."""
    network, (maps, tissue) = trunk(), a_map(1)
    maps.requires_grad_()
    crop = crop_grid(64, 0.5, 3)
    found = network.crop_logits(maps, tissue, crop, 64, 3)
    weights = network.scores(maps.detach())[0].exp() * tissue[0]
    expected = torch.stack([weights[y : y + 2, x : x + 2].sum() for y in range(3) for x in range(3)])
    there = expected > 0
    torch.testing.assert_close(found[0][there], expected[there].log())
    found.sum().backward()
    assert maps.grad is None
    assert network.network.score.weight.grad is not None


def test_tissue_of_regions_by_area() -> None:
    tissue = torch.zeros(1, 64, 64, dtype=torch.bool)
    tissue[:, :32, :16] = True
    canvas = RegionCanvas(TensorSource(torch.zeros(1, 3, 64, 64), tissue), 16)
    one = torch.zeros(2)
    regions = Regions(torch.zeros(2).long(), torch.tensor([[0, 0], [-32, 0]]), torch.zeros(2, 3), one, one, 64)
    share = canvas.share(regions, 4)
    expected = torch.zeros(4, 4)
    expected[:2, 0] = 1.0
    torch.testing.assert_close(share[0], expected)
    torch.testing.assert_close(share[1], expected.roll(2, 1))


def test_levels_start_alike_however_many_regions_they_have() -> None:
    pooling = LevelWeighting(24)
    level = torch.tensor([[0, 1, 1, 2, 2, 2, 2]])
    real = torch.tensor([[True] * 6 + [False]])
    _, share = pooling(torch.randn(1, 7, 24), real, level)
    torch.testing.assert_close(share[0], torch.tensor([1 / 3, 1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9, 0.0]))


def test_each_coarse_level_answers_by_itself() -> None:
    model, source = small(), AskedSource(images(2))
    output = model(source)
    assert isinstance(model, InParts)
    assert model.part_names == ("pooled", "overview", "level-1", "level-2")
    assert output.terms["level_logits"].shape == (2, 2, 2)
    assert output.parts is not None
    assert output.parts[:, 0].equal(output.terms["pooled_logits"])
    assert output.parts[:, 1:3].equal(output.terms["level_logits"])
    assert bool(output.parts[:, 3].isnan().all())
    torch.testing.assert_close(output.logits, output.parts[:, :3].mean(1))
    pooled = small(answer="pooled")(TensorSource(images(2)))
    assert pooled.logits.equal(output.terms["pooled_logits"])
    assert small(trunk="encoder", overview_weight=0.0, answer="pooled").part_names == ()


def test_the_loss_adds_what_levels_say() -> None:
    model, target = small(overview_weight=2.0), torch.tensor([0, 1])
    plain = small(overview_weight=0.0, answer="pooled")
    output = model(TensorSource(images(2)))
    own = functional.cross_entropy(output.terms["level_logits"].flatten(0, 1), target.repeat_interleave(2))
    torch.testing.assert_close(model.loss(output, target), plain.loss(output, target) + 2.0 * own)


def test_no_policy_gradient_reaches_the_trunk_but_its_score() -> None:
    model = small().train()
    output = model(TensorSource(images(2)), Generator().manual_seed(0))
    model.policy_loss(output, torch.tensor([0, 1])).backward()
    reached = {
        name for name, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0
    }
    assert "trunk.network.score.weight" in reached
    assert all(name.startswith("trunk.network.score.") for name in reached)


@pytest.mark.parametrize("size", [32, 20])
def test_a_slide_as_small_as_a_tile_is_for_the_encoder(size: int) -> None:
    model = small().train()
    output = model(TensorSource(images()[..., :size, :size]))
    assert output.terms["level_logits"].shape == (1, 0, 2)
    loss = model.loss(output, torch.tensor([1]))
    loss.backward()
    assert bool(loss.isfinite())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"trunk": "encoder"}, 'overview_weight needs trunk = "tissue"'),
        ({"overview_weight": 0.0}, 'answer "levels" needs overview_weight above 0'),
        ({"base": 34}, "base to be a multiple of 4"),
        ({"trunk_context": 4}, "an odd trunk_context; got 32 and 4"),
        ({"trunk": "vgg"}, "trunk is 'vgg'; possible: encoder, tissue"),
    ],
)
def test_options_that_do_not_go_together(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        small(**arguments)
