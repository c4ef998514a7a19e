"""Tiles with known features: the nearest one within half a tile, beside a slide and without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from wsi_attention.bags import Bag
from wsi_attention.bags.source import BagSource, StoredTiles, featured
from wsi_attention.geometry import Grid
from wsi_attention.protocols import InStrips, Listed, Remembering
from wsi_attention.structures import TileSet
from wsi_attention.tiles.tensors import TensorSource

PLACES = np.array([[0, 0], [40, 3], [3, 40], [100, 100]], np.int64)
FEATURES = np.array([[3, 4], [0, 2], [-5, 0], [1, 1]], np.float32)
BAG = Bag("a", PLACES, 32, 32, (150, 140), 1.0, FEATURES)


def tiles(*places: tuple[int, int], size: int = 32, downsample: float = 1.0) -> TileSet:
    return TileSet(np.array(places, np.int64), (size, size), downsample)


def test_nearest_is_what_a_search_of_all_tiles_finds() -> None:
    noise = np.random.default_rng(0)
    places = noise.integers(-50, 900, (300, 2))
    asked = noise.integers(-80, 930, (500, 2))
    stored = StoredTiles(Bag("a", places, 32, 32, None, 1.0, np.ones((300, 2), np.float32)), 32)
    found = stored.nearest(asked)
    away = asked[:, None] - places
    near = (np.abs(away) <= 16).all(-1)
    distance = np.where(near, (away**2).sum(-1), 10**9)
    assert ((found >= 0) == near.any(-1)).all() and 0 < (found >= 0).sum() < 500
    has = found >= 0
    assert (distance[has, found[has]] == distance.min(1)[has]).all()


def test_features_have_length_one_and_those_of_other_sizes_are_not_known() -> None:
    source = BagSource(BAG, StoredTiles(BAG, 32), 1.0)
    features, known = source.remembered(tiles((16, -16), (17, 0), (3, 41), (110, 90)))
    assert known.tolist() == [[True, False, True, True]]
    torch.testing.assert_close(features[0], torch.tensor([[0.6, 0.8], [0, 0], [-1, 0], [0.5**0.5, 0.5**0.5]]))
    assert source.remembered(tiles((0, 0), size=16)) is None
    assert source.remembered(tiles((0, 0), downsample=2.0)) is None
    assert source.remembered(tiles((0, 0), downsample=1.04)) is not None
    assert source.taken == {0, 2, 3}


def test_beside_a_slide_tiles_move_to_the_stored_ones_and_others_are_read() -> None:
    images = torch.randint(0, 255, (1, 3, 140, 150), dtype=torch.uint8)
    source = featured(TensorSource(images), StoredTiles(BAG, 32))
    asked = tiles((5, 5), (60, 60))
    assert source.aligned(asked).locations.tolist() == [[[0, 0], [60, 60]]]
    assert source.aligned(tiles((5, 5), size=8)).locations.tolist() == [[[5, 5]]]
    assert bool(source.read(asked).valid.all())
    assert isinstance(source, Remembering) and isinstance(source, Listed) and isinstance(source, InStrips)
    assert source.listed((32, 32), 1.0).locations[0].tolist() == PLACES.tolist()
    assert source.listed((16, 16), 2.0) is None
    blind = featured(TensorSource(images), StoredTiles(BAG, 32), readable=False)
    batch = blind.read(asked)
    assert batch.pixels.shape == (1, 2, 3, 32, 32) and not bool(batch.valid.any())
    assert blind.failures[1].endswith("no feature is stored near the tile at (60, 60)")
    assert bool(blind.read(tiles((5, 5), size=8)).valid.all()), "views of other sizes are no tiles to encode"


class Knowing(TensorSource):
    """Knows one tile, as a feature store would, and keeps what it is told."""

    told: TileSet | None = None

    def remembered(self, asked: TileSet) -> tuple[torch.Tensor, torch.Tensor]:
        known = torch.from_numpy((asked.locations == (60, 60)).all(-1))
        return known[..., None] * torch.tensor([7.0, 7.0]), known

    def remember(self, asked: TileSet, features: torch.Tensor, valid: torch.Tensor) -> None:
        self.told = asked


def test_what_the_slide_s_own_source_knows_is_known_too() -> None:
    inner = Knowing(torch.zeros(1, 3, 140, 150))
    source = featured(inner, StoredTiles(BAG, 32))
    features, known = source.remembered(tiles((0, 0), (60, 60), (70, 20)))
    assert known.tolist() == [[True, True, False]]
    torch.testing.assert_close(features[0, :2], torch.tensor([[0.6, 0.8], [7.0, 7.0]]))
    source.remember(asked := tiles((70, 20)), torch.ones(1, 1, 2), torch.ones(1, 1, dtype=torch.bool))
    assert inner.told is asked


def test_without_a_slide_the_overview_is_a_grid_of_mean_features() -> None:
    source = BagSource(BAG, StoredTiles(BAG, 32), 0.5)
    assert source.extent == (150, 140)
    assert source.downsample(0.5) == 1.0 and source.downsample(2.0) == 4.0
    assert source.overview_downsample(1.0) == 8.0 and source.overview_downsample(16.0) == 32.0
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    image, covered = np.zeros((2, 140, 150)), np.zeros((140, 150))
    for (x, y), feature in zip(PLACES, unit, strict=True):
        image[:, y : y + 32, x : x + 32] += feature[:, None, None]
        covered[y : y + 32, x : x + 32] += 1
    for downsample in (8, 16, 64, 50):
        view = source.overview(float(downsample))[0].numpy()
        assert view.shape == (2, -(-140 // downsample), -(-150 // downsample))
        for row, col in np.ndindex(view.shape[1:]):
            own = np.s_[row * downsample : (row + 1) * downsample, col * downsample : (col + 1) * downsample]
            area = covered[own].sum()
            wanted = image[(slice(None), *own)].sum((1, 2)) / area if area else 0
            np.testing.assert_allclose(view[:, row, col], wanted, atol=1e-6)
    tissue = source.tissue(Grid.covering(source.extent, (64.0, 64.0)))
    assert tissue[0].nonzero().tolist() == [[0, 0], [1, 1]]
    batch = source.read(tiles((60, 60)))
    assert not bool(batch.valid.any()) and source.failures == ["no feature is stored near the tile at (60, 60)"]
    unknown = BagSource(replace(BAG, extent=None), StoredTiles(BAG, 32), 1.0)
    assert unknown.extent == (132, 132)


def test_a_view_is_a_part_of_the_overview() -> None:
    random = np.random.default_rng(3)
    places = np.unique(random.integers(0, 40, (60, 2)), axis=0) * 16
    bag = Bag("a", places, 32, 32, (700, 690), 0.5, random.normal(size=(len(places), 5)).astype(np.float32))
    source = BagSource(bag, StoredTiles(bag, 32), 0.5)
    whole = source.overview(16.0)[0]
    corners = np.array([[0, 0], [64, 128], [640, 608]])
    found = source.read(TileSet(corners[None], (8, 6), 16.0))
    assert found.valid.all() and found.pixels.shape == (1, 3, 5, 6, 8)
    padded = torch.nn.functional.pad(whole, (0, 8, 0, 8))
    for view, (x, y) in zip(found.pixels[0], corners // 16, strict=True):
        torch.testing.assert_close(view, padded[:, y : y + 6, x : x + 8])
    tile = source.read(TileSet(corners[None], (32, 32), 1.0))
    assert not tile.valid.any() and "no feature is stored near the tile at (0, 0)" in source.failures


@pytest.mark.parametrize("n", [1, 4])
def test_all_tiles_of_a_bag_find_themselves(n: int) -> None:
    bag = replace(BAG, locations=PLACES[:n], features=FEATURES[:n])
    stored = StoredTiles(bag, 32)
    assert stored.nearest(PLACES[:n]).tolist() == list(range(n))
