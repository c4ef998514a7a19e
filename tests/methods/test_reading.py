"""Tiles become features in one place: what the source knows is not read, the rest in one request, and is handed on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wsi_attention.methods import reading
from wsi_attention.methods.reading import encoded, repeatable
from wsi_attention.nn.bags import encode
from wsi_attention.structures import TileBatch, TileSet
from wsi_attention.tiles.tensors import TensorSource

PLACES = np.array([[[0, 0], [4, 4], [8, 8], [2, 6]], [[0, 8], [8, 0], [4, 4], [1, 1]]])
TILES = TileSet(PLACES, (4, 4), 1.0)
PIXELS = nn.Identity()
Key = tuple[int, int, int]


class Knowing:
    """Two images whose tiles it remembers; `failing` places cannot be read."""

    def __init__(self, failing: set[Key] | None = None) -> None:
        self.inner = TensorSource(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
        self.known: dict[Key, torch.Tensor] = {}
        self.failing, self.requests = failing or set(), list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def keys(self, tiles: TileSet) -> list[list[Key]]:
        return [[(b, x, y) for x, y in row] for b, row in enumerate(tiles.locations.tolist())]

    def read(self, tiles: TileSet) -> TileBatch:
        self.requests.append(len(tiles))
        batch = self.inner.read(tiles)
        return TileBatch(batch.pixels, torch.tensor([[key not in self.failing for key in r] for r in self.keys(tiles)]))

    def remembered(self, tiles: TileSet) -> tuple[torch.Tensor, torch.Tensor] | None:
        known = torch.tensor([[key in self.known for key in row] for row in self.keys(tiles)])
        rows = [[self.known.get(key, torch.zeros(48)) for key in row] for row in self.keys(tiles)]
        return torch.stack([torch.stack(row) for row in rows]), known

    def remember(self, tiles: TileSet, features: torch.Tensor, valid: torch.Tensor) -> None:
        for row, values, good in zip(self.keys(tiles), features, valid, strict=True):
            for key, value, real in zip(row, values, good.tolist(), strict=True):
                if real:
                    self.known[key] = value


def whole(source: Knowing) -> torch.Tensor:
    return encode(source.inner.read(TILES), PIXELS, nn.Flatten().eval())


def test_a_source_that_remembers_nothing_is_read_as_ever() -> None:
    source = Knowing()
    features, valid = encoded(source.inner, TILES, PIXELS, nn.Flatten().eval())
    assert features is not None and torch.equal(features, whole(source)) and bool(valid.all())


def test_only_what_is_not_known_is_read_in_one_request() -> None:
    source = Knowing()
    expected = whole(source)
    source.remember(TILES, expected, torch.tensor([[True, False, True, False], [False, False, True, False]]))
    features, valid = encoded(source, TILES, PIXELS, nn.Flatten().eval())
    assert features is not None and torch.equal(features, expected) and bool(valid.all())
    assert source.requests == [3]
    again, _ = encoded(source, TILES, PIXELS, nn.Flatten().eval())
    assert again is not None and torch.equal(again, expected)
    assert source.requests == [3]


def test_tiles_that_fail_are_neither_valid_nor_kept() -> None:
    source = Knowing({(0, 4, 4), (1, 0, 8)})
    source.remember(TILES, whole(source), torch.tensor([[True, False, False, False], [False] * 4]))
    features, valid = encoded(source, TILES, PIXELS, nn.Flatten().eval())
    assert features is not None
    assert valid.tolist() == [[True, False, True, True], [False, True, True, True]]
    assert not bool(features[~valid].any()) and torch.equal(features[valid], whole(source)[valid])
    assert source.failing.isdisjoint(source.known)


def test_padding_is_not_asked_for_twice_and_is_not_valid() -> None:
    source = Knowing()
    real = torch.tensor([[True, True, False, False], [True, True, True, True]])
    features, valid = encoded(source, TILES, PIXELS, nn.Flatten().eval(), real)
    assert features is not None and torch.equal(valid, real)
    assert not bool(features[~real].any())
    known, valid = encoded(source, TILES, PIXELS, nn.Flatten().eval(), real)
    assert known is not None and torch.equal(known, features) and torch.equal(valid, real)
    assert source.requests == [4]


def test_nothing_valid_is_no_features() -> None:
    source = Knowing({key for row in Knowing().keys(TILES) for key in row})
    features, valid = encoded(source, TILES, PIXELS, nn.Flatten().eval())
    assert features is None and not bool(valid.any()) and not source.known


@pytest.mark.parametrize("failing", [set(), {(0, 1), (0, 2), (0, 3)}, {(0, 4)}])
def test_a_gpu_computes_while_the_next_part_is_read(
    failing: set[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of parts are those of all tiles; a part of which no tile can be read is zeros."""
    places = np.array([[(0, k) for k in range(8)]])
    tiles, source = TileSet(places, (4, 4), 1.0), Knowing({(0, x, y) for x, y in failing})
    source.inner = TensorSource(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    features, valid = encoded(source, tiles, PIXELS, nn.Flatten().eval())
    assert source.requests == [8]
    monkeypatch.setattr(reading, "computes_aside", lambda *_: True)
    monkeypatch.setattr(reading, "MOST", 3)
    source.known.clear()
    in_parts, valid_in_parts = encoded(source, tiles, PIXELS, nn.Flatten().eval())
    assert source.requests == [8, 3, 3, 2] and torch.equal(valid, valid_in_parts)
    assert features is not None and in_parts is not None and torch.equal(features, in_parts)
    learning = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    encoded(source, tiles, PIXELS, learning)
    assert source.requests[4:] == [8]


@pytest.mark.parametrize("frozen", [True, False])
def test_an_encoder_that_learns_is_never_answered_for(frozen: bool) -> None:
    source = Knowing()
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, 48)).eval().requires_grad_(not frozen)
    encoded(source, TILES, PIXELS, encoder)
    assert bool(source.known) == frozen
    assert not repeatable(encoder.train())
    with torch.no_grad():
        assert repeatable(encoder.eval())
