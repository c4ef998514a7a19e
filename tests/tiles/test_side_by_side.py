"""Slides side by side are one image: what is read, seen and known of it is what each slide says of its own places."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wsi_attention import registry
from wsi_attention.errors import NoTissueError
from wsi_attention.geometry import Grid
from wsi_attention.methods.method import build_model
from wsi_attention.protocols import TileSource, contract_of
from wsi_attention.structures import Output, TileSet
from wsi_attention.tiles.side_by_side import SideBySide
from wsi_attention.tiles.source import TensorSource

SIZES = ((50, 37), (24, 61), (33, 20))
CELL = 8.0
METHODS = tuple(name for name in registry.names(registry.MODELS) if not name.endswith("-mnist"))


def images(sizes: tuple[tuple[int, int], ...] = SIZES) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.rand((1, 3, h, w), generator=draw, dtype=torch.float64) + 0.1 for w, h in sizes]


def beside(given: list[Tensor], masks: list[Tensor] | None = None) -> SideBySide:
    masks = masks or [torch.ones((1, *image.shape[-2:]), dtype=torch.bool) for image in given]
    return SideBySide([TensorSource(*pair) for pair in zip(given, masks, strict=True)], 2.0, 4)


def one_image(canvas: SideBySide, given: list[Tensor]) -> TensorSource:
    """The same canvas as one plain image."""
    w, h = canvas.extent
    whole, mask = torch.zeros((1, 3, h, w), dtype=torch.float64), torch.zeros((1, h, w), dtype=torch.bool)
    for image, left in zip(given, canvas.layout.left.tolist(), strict=True):
        whole[..., : image.shape[-2], left : left + image.shape[-1]] = image
        mask[:, : image.shape[-2], left : left + image.shape[-1]] = True
    return TensorSource(whole, mask)


def test_slides_begin_at_cells_with_background_between() -> None:
    canvas = beside(images())
    assert canvas.layout.left.tolist() == [0, 120, 208] and canvas.extent == (241, 61)
    assert all(left % CELL == 0 for left in canvas.layout.left)


@pytest.mark.parametrize("downsample", [1.0, 2.0, 4.0, 8.0])
def test_everything_is_as_on_one_image(downsample: float) -> None:
    given = images()
    canvas = beside(given)
    whole = one_image(canvas, given)
    torch.testing.assert_close(canvas.overview(downsample), whole.overview(downsample))
    grid = Grid.covering(canvas.extent, (downsample, downsample))
    assert torch.equal(canvas.tissue(grid), whole.tissue(grid))
    places = np.random.default_rng(1).integers((-20, -20), (250, 70), (1, 60, 2))
    tiles = TileSet(places, (7, 5), downsample)
    assert canvas.layout.reach(tiles, 0).sum() + canvas.layout.reach(tiles, 1).sum() > 20
    got, wanted = canvas.read(tiles), whole.read(tiles)
    assert bool(got.valid.all())
    torch.testing.assert_close(got.pixels, wanted.pixels)


def test_a_tile_over_two_slides_is_put_together_and_fails_with_either() -> None:
    given = images()
    canvas = beside(given)
    tiles = TileSet(np.array([[[30, 0], [0, 0]]]), (100, 20), 1.0)
    torch.testing.assert_close(canvas.read(tiles).pixels, one_image(canvas, given).read(tiles).pixels)
    plain = canvas.sources[1].read

    def broken(asked: TileSet) -> object:
        return replace(plain(asked), valid=torch.zeros((1, len(asked)), dtype=torch.bool))

    canvas.sources[1].read = broken  # type: ignore[method-assign, assignment]
    assert canvas.read(tiles).valid.tolist() == [[False, True]]


def test_tissue_of_one_slide_is_enough_and_none_is_an_error() -> None:
    given = images()
    masks = [torch.zeros((1, *image.shape[-2:]), dtype=torch.bool) for image in given]
    grid = Grid.covering((241, 61), (CELL, CELL))
    with pytest.raises(NoTissueError):
        beside(given, masks).tissue(grid)
    masks[1][:, 10:20, 4:12] = True
    cells = beside(given, masks).tissue(grid)[0].nonzero().tolist()
    assert cells and all(120 <= col * CELL < 144 and 8 <= row * CELL < 24 for row, col in cells)


class Remembers(TensorSource):
    """Knows tiles by where they lie on its own image."""

    def __init__(self, image: Tensor, number: int) -> None:
        super().__init__(image)
        self.number, self.kept = number, dict[tuple[int, ...], Tensor]()

    def remembered(self, tiles: TileSet) -> tuple[Tensor, Tensor] | None:
        found = [self.kept.get(tuple(place)) for place in tiles.locations[0].tolist()]
        valid = torch.tensor([[one is not None for one in found]])
        features = [torch.zeros(2) if one is None else one for one in found]
        return (torch.stack(features)[None], valid) if bool(valid.any()) else None

    def remember(self, tiles: TileSet, features: Tensor, valid: Tensor) -> None:
        for place, feature, good in zip(tiles.locations[0].tolist(), features[0], valid[0].tolist(), strict=True):
            if good:
                self.kept[tuple(place)] = feature

    def turned(self, turn: int) -> Remembers | None:
        return self if turn == 3 else None


def test_each_slide_keeps_its_own_tiles_in_its_own_frame() -> None:
    sources = [Remembers(image, number) for number, image in enumerate(images())]
    canvas = SideBySide(sources, 2.0, 4)
    tiles = TileSet(np.array([[[208, 4], [3, 5], [122, 6], [40, 0]]]), (8, 8), 1.0)
    features = torch.arange(8.0).view(1, 4, 2)
    assert canvas.remembered(tiles) is None
    canvas.remember(tiles, features, torch.tensor([[True, True, True, False]]))
    assert [list(one.kept) for one in sources] == [[(3, 5)], [(2, 6)], [(0, 4)]]
    found = canvas.remembered(tiles)
    assert found is not None
    assert found[1].tolist() == [[True, True, True, False]]
    assert torch.equal(found[0][0, :3], features[0, :3])
    turned = canvas.turned(3)
    assert turned is not None and turned.remembered(tiles) is not None and canvas.turned(1) is None
    wide = TileSet(np.array([[[40, 0]]]), (100, 8), 1.0)  # meets two
    canvas.remember(wide, torch.ones(1, 1, 2), torch.tensor([[True]]))
    assert canvas.remembered(wide) is None and sum(len(one.kept) for one in sources) == 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_sees_the_canvas_as_one_image_and_one_slide_as_itself(
    method: str, small_arguments: dict[str, dict[str, Any]]
) -> None:
    torch.manual_seed(0)
    model = build_model(method, 2, **small_arguments[method]).eval()
    contract = contract_of(model)
    given = [image.float() for image in images(((256, 200), (512, 288)))]  # places fit overviews of any method
    masks = [torch.ones((1, *image.shape[-2:]), dtype=torch.bool) for image in given]
    sources = [TensorSource(image, mask, 0.5) for image, mask in zip(given, masks, strict=True)]
    canvas = SideBySide(sources, contract.overview_mpp, contract.map_stride)
    plain = one_image(canvas, given)
    whole = TensorSource(plain.images.float(), plain._tissue, 0.5)

    def seen(source: TileSource) -> Output:
        with torch.inference_mode():
            found: Output = model(source, torch.Generator().manual_seed(1))
        return found

    here, there = seen(canvas), seen(whole)
    torch.testing.assert_close(here.logits, there.logits)
    for one, other in zip(here.glimpses[0], there.glimpses[0], strict=True):
        assert np.array_equal(one.tiles.locations, other.tiles.locations)
    assert torch.equal(seen(SideBySide(sources[:1], contract.overview_mpp)).logits, seen(sources[0]).logits)
