"""A changed slide is one consistent slide: overview, tissue and tiles agree, and every pixel is where it should be."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from wsi_attention.config import Augmentation
from wsi_attention.geometry import Grid
from wsi_attention.slide.readers.array import ArrayLevels
from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import TileBatch, TileSet
from wsi_attention.tiles.source import SlideSource
from wsi_attention.training.augment import AugmentedSource, Change, ColourChange, Symmetry, draw_change

SYMMETRIES = [Symmetry(*flags) for flags in product((False, True), repeat=3)]


def canvas(height: int = 150, width: int = 203) -> torch.Tensor:
    return torch.randint(0, 255, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def id_of(symmetry: Symmetry) -> str:
    return f"{symmetry.swap:d}{symmetry.mirror_x:d}{symmetry.mirror_y:d}"


def test_the_eight_symmetries_differ() -> None:
    image = torch.arange(6).view(2, 3)
    assert len({str(symmetry.image(image).tolist()) for symmetry in SYMMETRIES}) == 8


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=id_of)
@pytest.mark.parametrize("downsample", [8, 16])
def test_the_overview_is_the_plain_one_turned(canvas_source: Any, symmetry: Symmetry, downsample: int) -> None:
    plain = canvas_source(canvas())
    source = AugmentedSource(plain, Change(symmetry, None), downsample)
    assert torch.equal(source.overview(downsample), symmetry.image(plain.overview(downsample)))
    w, h = source.extent
    assert source.overview(downsample).shape[-2:] == (-(-h // downsample), -(-w // downsample))


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=id_of)
@pytest.mark.parametrize("downsample", [1, 2])
def test_tiles_show_what_the_overview_shows(canvas_source: Any, symmetry: Symmetry, downsample: int) -> None:
    """The whole changed slide at level 0, cut at a place, is the tile that is read there; outside it is white."""
    plain = canvas_source(canvas())
    source = AugmentedSource(plain, Change(symmetry, None), 16.0)
    padded = torch.full((1, 3, 160, 208), 255, dtype=torch.uint8)
    padded[..., :150, :203] = plain.canvas
    whole = torch.full((1, 3, 400, 400), 255, dtype=torch.uint8)
    turned = symmetry.image(padded)
    whole[..., 50 : 50 + turned.shape[-2], 50 : 50 + turned.shape[-1]] = turned
    places = np.array([[0, 0], [33, 57], [-20, 40], [140, 120], [100, -9]])
    tiles = TileSet(places, (24, 10), float(downsample))
    got = source.read(tiles).pixels
    for i, (x, y) in enumerate(places + 50):
        wanted = whole[0, :, y : y + 10 * downsample, x : x + 24 * downsample]
        if downsample == 1:
            assert torch.equal(got[0, i], wanted)
        else:
            options = [wanted[:, a::2, b::2] for a, b in product((0, 1), repeat=2)]
            assert any(torch.equal(got[0, i], option) for option in options)


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=id_of)
def test_tissue_follows_the_pixels(canvas_source: Any, symmetry: Symmetry) -> None:
    mask = torch.zeros(150, 203, dtype=torch.bool)
    mask[100:130, 20:60] = True
    pixels = torch.full((1, 3, 150, 203), 255, dtype=torch.uint8)
    pixels[..., mask] = 7
    source = AugmentedSource(canvas_source(pixels, mask), Change(symmetry, None), 8.0)
    grid = Grid.covering(source.extent, (16, 16))
    tissue = source.tissue(grid)[0]
    assert 0 < int(tissue.sum()) < tissue.numel()
    centres = grid.centres(np.arange(grid.rows * grid.cols)).astype(int)
    seen = source.read(TileSet(centres, (1, 1), 1.0)).pixels[0, :, 0, 0, 0] == 7
    off_centre = source.read(TileSet(centres - 1, (1, 1), 1.0)).pixels[0, :, 0, 0, 0] == 7
    sure = seen == off_centre
    assert torch.equal(tissue.flatten()[sure], seen[sure])


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=id_of)
def test_another_overview_is_aligned_to_its_pixel(canvas_source: Any, symmetry: Symmetry) -> None:
    pixels = torch.full((1, 3, 150, 203), 255, dtype=torch.uint8)
    pixels[..., 60:90, 80:110] = 0
    source = AugmentedSource(canvas_source(pixels), Change(symmetry, None), 16.0)
    fine, coarse = source.overview(4.0), source.overview(16.0)
    assert fine.shape[-2:] == (-(-source.extent[1] // 4), -(-source.extent[0] // 4))

    def middle(view: torch.Tensor, downsample: int) -> torch.Tensor:
        dark = (255 - view[0, 0].double()).nonzero().double()
        weight = (255 - view[0, 0].double())[view[0, 0] < 255]
        return ((dark + 0.5) * weight[:, None]).sum(0) / weight.sum() * downsample

    assert torch.allclose(middle(fine, 4), middle(coarse, 16), atol=2.5)


def test_no_strength_changes_no_pixel() -> None:
    change = draw_change(Augmentation(symmetry="none", stain=0.0, brightness=0.0), torch.Generator().manual_seed(0))
    assert change.symmetry == Symmetry()
    assert change.colour is None
    assert torch.equal(ColourChange(torch.eye(3), 1.0)(canvas()), canvas())


def test_colours_change_the_same_in_overview_and_tiles_and_white_stays_white(canvas_source: Any) -> None:
    pixels = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    pixels[:, :, :32] = torch.tensor([180, 90, 150], dtype=torch.uint8).view(3, 1, 1)
    change = draw_change(Augmentation(symmetry="none", stain=0.3, brightness=0.0), torch.Generator().manual_seed(1))
    source = AugmentedSource(canvas_source(pixels), change, 8.0)
    tile = source.read(TileSet(np.array([[0, 0], [0, 48]]), (8, 8), 1.0)).pixels
    assert torch.equal(tile[0, 0, :, 0, 0], source.overview(8.0)[0, :, 0, 0])
    assert (tile[0, 1] == 255).all()
    assert not torch.equal(tile[0, 0, :, 0, 0], pixels[0, :, 0, 0])
    assert pixels[0, 0, 0, 0] == 180


def test_the_overview_alone_may_change_and_tiles_stay_known(canvas_source: Any) -> None:
    """Nothing else is drawn by it: symmetry and colours of everything are as without it."""
    before = Augmentation(stain=0.2, brightness=0.1)
    both = replace(before, overview_stain=0.3)
    plain, more = (draw_change(one, torch.Generator().manual_seed(1)) for one in (before, both))
    assert plain.colour is not None and more.colour is not None and plain.overview is None
    assert plain.symmetry == more.symmetry and torch.equal(plain.colour.matrix, more.colour.matrix)
    strengths = Augmentation(symmetry="none", stain=0.0, brightness=0.0, overview_stain=0.3)
    change = draw_change(strengths, torch.Generator().manual_seed(1))
    assert change.colour is None and change.overview is not None
    source = canvas_source(canvas())
    changed = AugmentedSource(source, change, 8.0)
    assert torch.equal(changed.overview(8.0), change.overview(source.overview(8.0)))
    assert not torch.equal(changed.overview(8.0), source.overview(8.0))
    tiles = TileSet(np.array([[10, 20], [60, 40]]), (32, 32), 1.0)
    assert torch.equal(changed.read(tiles).pixels, source.read(tiles).pixels)


def test_tiles_are_known_where_the_overview_alone_changes() -> None:
    class Knowing:
        def __init__(self) -> None:
            self.asked: list[TileSet] = []

        def remembered(self, tiles: TileSet) -> None:
            self.asked.append(tiles)

        def remember(self, tiles: TileSet, features: torch.Tensor, valid: torch.Tensor) -> None: ...

    source, knowing = SlideSource(open_slide(ArrayLevels([np.zeros((64, 64, 3), np.uint8)]), mpp=1.0)), Knowing()
    source.memory = knowing  # type: ignore[assignment]
    tiles, change = TileSet(np.array([[0, 0]]), (8, 8), 1.0), ColourChange(torch.eye(3), 1.0)
    AugmentedSource(source, Change(Symmetry(), change), 8.0).remembered(tiles)
    assert not knowing.asked
    AugmentedSource(source, Change(Symmetry(), None, change), 8.0).remembered(tiles)
    assert len(knowing.asked) == 1


def test_stain_change_keeps_a_pure_stain_pure() -> None:
    """Pixels of haematoxylin alone only grow darker or lighter along their own direction of optical density."""
    from skimage.color import rgb_from_hed

    direction = torch.tensor(rgb_from_hed[0], dtype=torch.float64)
    pixel = (256 * torch.exp(-direction) - 1).round().to(torch.uint8).view(1, 3, 1, 1)
    change = draw_change(Augmentation(symmetry="none", stain=0.3, brightness=0.0), torch.Generator().manual_seed(3))
    assert change.colour is not None
    density = -torch.log((change.colour(pixel).double().flatten() + 1) / 256)
    assert torch.allclose(density / density.norm(), direction / direction.norm(), atol=0.02)
    assert 0.7 <= float(density.norm() / direction.norm()) <= 1.3


def test_floats_keep_their_colours(canvas_source: Any) -> None:
    image = torch.rand(1, 3, 32, 32)
    change = draw_change(Augmentation(symmetry="none", stain=0.3, brightness=0.1), torch.Generator().manual_seed(1))
    source = AugmentedSource(canvas_source(image), change, 8.0)
    assert torch.equal(source.read(TileSet(np.array([[0, 0]]), (8, 8), 1.0)).pixels[0, 0], image[0, :, :8, :8])


def test_the_generator_decides() -> None:
    first, second, other = (draw_change(Augmentation(), torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert first.symmetry == second.symmetry
    assert first.colour is not None and second.colour is not None and other.colour is not None
    assert torch.equal(first.colour.matrix, second.colour.matrix)
    assert not torch.equal(first.colour.matrix, other.colour.matrix)


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=id_of)
def test_tiles_move_as_on_the_plain_slide(symmetry: Symmetry) -> None:
    slide = open_slide(ArrayLevels((np.zeros((1000, 1300, 3), np.uint8),), tile_size=(256, 200)), mpp=1.0)
    asked: list[TileSet] = []

    class Remembering(SlideSource):
        def read(self, tiles: TileSet) -> TileBatch:
            asked.append(tiles)
            return super().read(tiles)

    source = Remembering(slide)
    changed = AugmentedSource(source, Change(symmetry, None), 16.0)
    tiles = TileSet(np.random.default_rng(0).integers(0, 900, (30, 2)), (100, 60), 1.0)
    changed.read(tiles)
    changed.read(changed.aligned(tiles))
    assert (asked[1].locations == source.aligned(asked[0]).locations).all()
    assert (asked[1].locations != asked[0].locations).any()
