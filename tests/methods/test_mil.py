"""Gated attention MIL: the shipped contract, the paper's equations in NumPy, bags, bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator, nn

from wsi_attention.bags import Bag
from wsi_attention.bags.source import BagSource, StoredTiles
from wsi_attention.methods import mil as module
from wsi_attention.methods.mil import AttentionPooling, GatedAttention, mil
from wsi_attention.structures import TileBatch, TileSet
from wsi_attention.testing.models import FailingSource, ModelContract
from wsi_attention.tiles.tensors import TensorSource

SMALL = {"tile_size": 32, "tile_mpp": 1.0, "overview_mpp": 4.0, "encoder_widths": (8, 8), "features": 8, "hidden": 8}


def small(**arguments: object) -> AttentionPooling:
    torch.manual_seed(0)
    return mil(2, **{**SMALL, **arguments}).eval()


class TestMil(ModelContract):
    def build(self) -> nn.Module:
        return mil(self.classes, **SMALL)


@pytest.mark.slow
class TestFrozenEncoder(ModelContract):
    def build(self) -> nn.Module:
        return mil(self.classes, **SMALL, encoder_frozen=True)


class TestDrawnInTraining(ModelContract):
    def build(self) -> nn.Module:
        return mil(self.classes, **SMALL, training_tiles=5)


def test_equation_9_by_hand() -> None:
    torch.manual_seed(1)
    network, features = GatedAttention(4, 3), torch.randn(6, 4)
    v, u, w = (
        one.detach().double().numpy() for one in (network.content.weight, network.gate.weight, network.score.weight)
    )
    bv, bu = (one.detach().double().numpy() for one in (network.content.bias, network.gate.bias))
    h = features.double().numpy()
    wanted = [w[0] @ (np.tanh(v @ one + bv) * (1 / (1 + np.exp(-(u @ one + bu))))) for one in h]
    np.testing.assert_allclose(network(features).detach().numpy(), wanted, atol=1e-6)


def test_the_slide_s_feature_is_the_attended_mean_of_all_tiles() -> None:
    output = small()(TensorSource(TestMil().images()))
    features, attention = (output.terms[name][0].detach().double() for name in ("features", "attention"))
    assert features.shape == (7 * 5, 8)
    assert float(attention.sum()) == pytest.approx(1)
    torch.testing.assert_close(output.terms["mean"][0].detach().double(), attention @ features, atol=1e-6, rtol=0)
    (glimpse,) = output.glimpses[0]
    assert len({tuple(place) for place in glimpse.tiles.locations[0].tolist()}) == 35
    assert float(output.unread_mass) == 0


class CountingSource(TensorSource):
    most = 0

    def read(self, tiles: TileSet) -> TileBatch:
        self.most = max(self.most, len(tiles))
        return super().read(tiles)


@pytest.mark.parametrize("part", [1, 4, 1000])
def test_parts_of_any_size_give_the_same(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = small(), TestMil().images()
    whole = model(TensorSource(images)).logits
    monkeypatch.setattr(module, "PART", part)
    source = CountingSource(images)
    torch.testing.assert_close(model(source).logits, whole, atol=1e-6, rtol=0)
    assert source.most == min(part, 35) and source.counters.tiles == 35


def test_images_with_fewer_tiles_are_not_disturbed_by_those_with_more() -> None:
    images, tissue = TestMil().images(2), torch.ones((2, 136, 200), dtype=torch.bool)
    tissue[0, :, 64:] = False
    model = small()
    both = model(TensorSource(images, tissue))
    alone = model(TensorSource(images[:1], tissue[:1]))
    torch.testing.assert_close(both.logits[:1], alone.logits, atol=1e-6, rtol=0)
    assert [len(found[0].tiles) for found in both.glimpses] == [10, 34]  # the last cell, of 8² pixels, has too little
    assert np.isnan(both.maps[0][0].values).sum() == 25
    assert float(both.unread_mass[0]) == 0


def test_a_failed_tile_counts_as_an_average_one_and_its_pixels_do_not_matter() -> None:
    images, model = TestMil().images(), small()
    output = model(FailingSource(images, (3, 4)))
    assert float(output.unread_mass) == pytest.approx(2 / 35)
    (glimpse,) = output.glimpses[0]
    assert glimpse.attention[3] == pytest.approx(1 / 35) and glimpse.weights[3] == 0
    whole = model(TensorSource(images)).terms
    kept = [i for i in range(35) if i not in (3, 4)]
    weights = whole["attention"][0, kept] / whole["attention"][0, kept].sum()
    torch.testing.assert_close(output.terms["mean"][0], weights @ whole["features"][0, kept], atol=1e-6, rtol=0)


def test_an_encoder_that_learns_sees_a_draw_and_prediction_all_tiles() -> None:
    images, model = TestMil().images(), small(training_tiles=6).train()
    draws = [model(TensorSource(images), Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    places = [output.glimpses[0][0].tiles.locations for output in draws]
    assert all(one.shape == (1, 6, 2) for one in places)
    assert (places[0] == places[1]).all() and (places[0] != places[2]).any()
    assert float(draws[0].unread_mass) == pytest.approx(1 - 6 / 35)
    assert len(model.eval()(TensorSource(images)).glimpses[0][0].tiles) == 35
    frozen = small(training_tiles=6, encoder_frozen=True).train()
    assert len(frozen(TensorSource(images)).glimpses[0][0].tiles) == 35


def bag_of_noise(n: int = 12, dim: int = 8) -> Bag:
    places = np.stack([np.arange(n) % 4 * 32 + 5, np.arange(n) // 4 * 32 + 7], axis=-1)
    features = np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)
    return Bag("a", places, 32, 32, (140, 120), 1.0, features)


def test_a_bag_is_pooled_whole_and_its_order_does_not_matter() -> None:
    model, bag = small(encoder_frozen=True), bag_of_noise()
    output = model(BagSource(bag, StoredTiles(bag, 32), 1.0))
    raw = torch.from_numpy(bag.features).double()
    features = raw / raw.norm(dim=-1, keepdim=True)
    logits = model.attention(features.float()).double()
    mean = logits.softmax(-1) @ features
    torch.testing.assert_close(output.terms["mean"][0].double(), mean, atol=1e-6, rtol=0)
    (glimpse,) = output.glimpses[0]
    assert glimpse.tiles.locations[0].tolist() == bag.locations.tolist()
    order = np.random.default_rng(1).permutation(12)
    other = Bag("a", bag.locations[order], 32, 32, (140, 120), 1.0, bag.features[order])
    again = model(BagSource(other, StoredTiles(other, 32), 1.0))
    torch.testing.assert_close(again.logits, output.logits, atol=1e-6, rtol=0)
    np.testing.assert_allclose(again.maps[0][0].values, output.maps[0][0].values, atol=1e-6)
    assert np.nansum(output.maps[0][0].values) == pytest.approx(1)
