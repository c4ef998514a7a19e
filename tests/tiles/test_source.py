"""A slide as a `TileSource`: scale, overview, tissue, tiles and counters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wsi_attention.errors import InputError, MissingMppError, NoTissueError, TileReadError, UnsupportedSlideError
from wsi_attention.geometry import Grid
from wsi_attention.protocols import InStrips, TileSource
from wsi_attention.slide.readers.array import ArrayLevels
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.structures import TileSet, TissueMask
from wsi_attention.tiles.source import SlideSource, TensorSource

PINK = (190, 110, 160)
EXTENT = (1301, 1003)


def tissue_slide(mpp: float | None = 2.0, name: str = "slide.svs", levels: int = 2) -> Slide:
    """White, with a pink rectangle over x 300-700, y 200-600; level 1 is every fourth pixel."""
    pixels = np.full((EXTENT[1], EXTENT[0], 3), 244, np.uint8)
    pixels[200:600, 300:700] = PINK
    return open_slide(ArrayLevels((pixels, pixels[::4, ::4])[:levels], name=name), mpp=mpp)


def full_mask(downsample: float = 1.0) -> TissueMask:
    shape = math.ceil(EXTENT[1] / downsample), math.ceil(EXTENT[0] / downsample)
    return TissueMask(np.ones(shape, bool), downsample, "mask.png")


def test_it_is_a_tile_source() -> None:
    source = SlideSource(tissue_slide())
    assert isinstance(source, TileSource)
    assert isinstance(TensorSource(torch.zeros(1, 1, 2, 2)), TileSource)
    assert (source.extent, source.batch, source.shortfalls) == (EXTENT, 1, ())


def test_scale_is_snapped_and_never_finer_than_the_slide() -> None:
    source = SlideSource(tissue_slide(mpp=0.252))
    stored = source.slide.level_downsamples[1]
    assert source.downsample(1.0) == stored
    assert source.downsample(0.25) == 1.0
    assert source.downsample(0.504) == 2.0
    assert source.shortfalls == ()
    assert SlideSource(tissue_slide(mpp=16.8)).downsample(0.5) == 1.0


def test_a_coarse_slide_is_read_as_it_is_and_says_so_once() -> None:
    source = SlideSource(tissue_slide(mpp=16.78))
    assert [source.downsample(0.5) for _ in range(3)] == [1.0] * 3
    assert source.shortfalls == ("the finest level is 16.8 µm/px, the model reads 0.5: read as it is",)


def test_no_mpp_is_an_error_with_the_way_out() -> None:
    with pytest.raises(MissingMppError, match="--mpp"):
        SlideSource(tissue_slide(mpp=None)).downsample(0.5)


@pytest.mark.parametrize("downsample", [1.0, 4.0, 3.3, 7.9])
def test_the_overview_covers_the_whole_extent_exactly(downsample: float) -> None:
    source = SlideSource(tissue_slide())
    view = source.overview(downsample)
    assert view.shape == (1, 3, math.ceil(EXTENT[1] / downsample), math.ceil(EXTENT[0] / downsample))
    assert view.dtype == torch.uint8
    np.testing.assert_array_equal(view[0].permute(1, 2, 0).numpy(), source.overview_rgb(downsample))
    middle = math.ceil(300 / downsample), math.ceil(200 / downsample)
    assert view[0, :, middle[1], middle[0]].tolist() == list(PINK)
    assert view[0, :, middle[1] - 2, middle[0]].tolist() == [244] * 3
    assert source.overview_pixels == view.shape[2] * view.shape[3]


def test_the_overview_is_read_once_and_callers_cannot_spoil_it() -> None:
    source = SlideSource(tissue_slide())
    source.overview(4.0).zero_()
    cost = source.counters
    assert source.overview(4.0)[0, 0, 0, 0] == 244
    assert source.counters == cost
    assert (cost.tiles, cost.pixels) == (0, 326 * 251)


def test_overviews_stay_within_their_most_pixels() -> None:
    source = SlideSource(tissue_slide(), max_overview=5000)
    downsample = source.overview_downsample(8.0)
    height, width = source.overview(downsample).shape[-2:]
    assert 4500 < height * width <= 5000
    assert len(source.shortfalls) == 1
    assert "would exceed 0.005 Mpx" in source.shortfalls[0]
    with pytest.raises(InputError, match=r"slide\.svs.*overview_downsample"):
        source.overview(4.0)
    roomy = SlideSource(tissue_slide())
    assert roomy.overview_downsample(8.0) == roomy.downsample(8.0)
    assert roomy.shortfalls == ()


@pytest.mark.parametrize("whole", [10**6, 5_000])
def test_strips_of_the_overview_are_the_overview(whole: int) -> None:
    source = SlideSource(tissue_slide(), whole=whole)
    strips = list(source.overview_strips(4.0, 40, 8))
    rows = torch.cat([strip.pixels[:, :, strip.own] for strip in strips], dim=2)
    assert torch.equal(rows, SlideSource(tissue_slide()).overview(4.0))
    assert [strip.top for strip in strips[:3]] == [0, 32, 72]
    assert strips[0].pixels.shape == (1, 3, 48, 326)
    assert source.overview_pixels == 326 * 251


def test_a_larger_overview_is_allowed_in_strips_and_no_reason_for_a_note() -> None:
    source = SlideSource(tissue_slide(), max_overview=100_000, whole=5_000)
    assert isinstance(source, InStrips)
    assert source.overview_downsample(8.0) == source.downsample(8.0) == pytest.approx(4.0, rel=0.01)
    with pytest.raises(InputError, match="in one piece"):
        source.overview(4.0)
    expected = SlideSource(tissue_slide()).tissue_mask
    assert source.tissue_mask.downsample == expected.downsample
    assert (source.tissue_mask.mask ^ expected.mask).mean() < 0.01
    coarse = source.whole_overview_downsample(8.0)
    assert 4_500 < source.overview_rgb(coarse).size / 3 <= 5_000
    assert source.shortfalls == ()


def test_tissue_cells_are_those_over_tissue() -> None:
    source = SlideSource(tissue_slide())
    cells = source.tissue(Grid.covering(EXTENT, (100.0, 100.0)))
    expected = torch.zeros(1, 11, 14, dtype=torch.bool)
    expected[0, 2:6, 3:7] = True
    assert torch.equal(cells, expected)
    assert source.tissue_mask.source == "computed"
    assert source.tissue_mask.area == pytest.approx(400 * 400, rel=0.15)
    assert source.overview_pixels > 0


def test_a_users_mask_replaces_the_computed_one() -> None:
    source = SlideSource(tissue_slide(), tissue=full_mask(2.0))
    assert source.tissue(Grid.covering(EXTENT, (100.0, 100.0)))[0, :10, :13].all()
    assert source.counters.pixels == 0


def test_tissue_too_small_for_any_cell_still_counts() -> None:
    mask = np.zeros((EXTENT[1], EXTENT[0]), bool)
    mask[950:953, 1250:1256] = True
    source = SlideSource(tissue_slide(), tissue=TissueMask(mask, 1.0))
    assert torch.nonzero(source.tissue(Grid.covering(EXTENT, (100.0, 100.0)))[0]).tolist() == [[9, 12]]


def test_no_tissue_is_an_error_that_names_the_file() -> None:
    blank = open_slide(ArrayLevels((np.full((500, 500, 3), 240, np.uint8),), name="blank.svs"), mpp=2.0)
    source = SlideSource(blank)
    assert not source.tissue_mask.mask.any()
    with pytest.raises(NoTissueError, match=r"^blank\.svs: no tissue"):
        source.tissue(Grid(5, 5, (100.0, 100.0)))


def test_a_slide_of_a_few_pixels_is_looked_at_closely() -> None:
    pixels = np.full((40, 40, 3), 244, np.uint8)
    pixels[10:30, 10:30] = PINK
    source = SlideSource(open_slide(pixels, mpp=0.5))
    assert source.overview(source.overview_downsample(16.0)).shape == (1, 3, 2, 2)
    assert source.tissue_mask.area == pytest.approx(400, rel=0.3)


def test_fluorescence_is_refused_at_the_first_look() -> None:
    pixels = np.zeros((400, 400, 3), np.uint8)
    pixels[100:150, 100:150, 2] = 255
    source = SlideSource(open_slide(ArrayLevels((pixels,), name="dapi.tif"), mpp=2.0))
    with pytest.raises(UnsupportedSlideError, match=r"^dapi\.tif"):
        source.overview(4.0)


def test_tiles_come_in_the_order_asked_white_beyond_the_slide() -> None:
    source = SlideSource(tissue_slide(), batch=2)
    tiles = TileSet(np.array([[[690, 590], [-8, -8], [400, 400], [1297, 999], [0, 0]]]), (16, 12), 1.0)
    batch = source.read(tiles)
    assert batch.pixels.shape == (1, 5, 3, 12, 16)
    assert batch.pixels.dtype == torch.uint8
    assert batch.valid.tolist() == [[True] * 5]
    first, hanging, inside, corner, _ = batch.pixels[0]
    assert first[:, 9, 9].tolist() == list(PINK)
    assert first[:, 10, 9].tolist() == [244] * 3
    assert hanging[0, :, 7].tolist() == [255] * 12
    assert (hanging[:, 8:, 8:] == 244).all()
    assert (inside == torch.tensor(PINK)[:, None, None]).all()
    assert (corner[:, :4, :4] == 244).all()
    assert (corner[:, 4:] == 255).all()


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_batches_do_not_change_pixels(batch: int) -> None:
    pixels = np.random.default_rng(0).integers(120, 256, (300, 300, 3)).astype(np.uint8)
    tiles = TileSet(np.random.default_rng(1).integers(-10, 290, (20, 2)), (9, 7), 2.7)
    expected = SlideSource(open_slide(pixels, mpp=1.0), batch=7).read(tiles).pixels
    assert torch.equal(SlideSource(open_slide(pixels, mpp=1.0), batch=batch).read(tiles).pixels, expected)


def test_counters_add_up() -> None:
    source = SlideSource(tissue_slide())
    tiles = TileSet(np.zeros((1, 6, 2)), (10, 20), 1.0)
    source.read(tiles)
    source.read(tiles)
    cost = source.counters
    assert (cost.tiles, cost.pixels, cost.failed) == (12, 12 * 200, 0)
    assert cost.seconds > 0


def test_unreadable_tiles_are_invalid_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Slide, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        if location[0] >= 100:
            raise TileReadError(f"slide.svs: no pixels at {location}")
        return np.full((size[1], size[0], 3), 7, np.uint8)

    monkeypatch.setattr(Slide, "read", failing)
    source = SlideSource(tissue_slide())
    batch = source.read(TileSet(np.array([[200, 0], [50, 0], [300, 0]]), (4, 4), 1.0))
    assert batch.valid.tolist() == [[False, True, False]]
    assert (batch.pixels[0, 1] == 7).all()
    assert not (batch.pixels[0, 0] == 255).any()
    assert (source.counters.tiles, source.counters.failed) == (1, 2)
    assert sorted(source.failures) == ["slide.svs: no pixels at (200, 0)", "slide.svs: no pixels at (300, 0)"]
    nothing = source.read(TileSet(np.array([[500, 0], [600, 0]]), (4, 4), 1.0))
    assert not nothing.valid.any()


def test_no_tiles_at_all_and_tiles_finer_than_the_slide() -> None:
    source = SlideSource(tissue_slide())
    batch = source.read(TileSet(np.zeros((1, 0, 2)), (8, 4), 2.0))
    assert batch.pixels.shape == (1, 0, 3, 4, 8)
    assert batch.valid.shape == (1, 0)
    with pytest.raises(ValueError, match="the finest is 1"):
        source.read(TileSet(np.zeros((1, 1, 2)), (8, 4), 0.5))


def test_a_tile_grid_over_the_overview_finds_the_same_place() -> None:
    """What the overview shows in a cell is what a tile of that cell shows, at an odd downsample too."""
    pixels = np.random.default_rng(4).integers(100, 256, (500, 700, 3)).astype(np.uint8)
    source = SlideSource(open_slide(pixels, mpp=1.0))
    view = source.overview(5.0)
    grid = Grid.covering(source.extent, (5.0, 5.0))
    cells = np.array([[0, 139, 7 * 140 + 33, 99 * 140 + 139]])
    tiles = TileSet(grid.locations(cells, (1, 1), 5.0), (1, 1), 5.0)
    expected = view[0].flatten(1)[:, cells[0]].T
    assert torch.equal(source.read(tiles).pixels[0, :, :, 0, 0], expected)


def test_tiles_that_stand_for_a_place_move_to_the_stored_tiles() -> None:
    pixels = np.full((1000, 1300, 3), 200, np.uint8)
    slide = open_slide(ArrayLevels((pixels,), tile_size=(256, 256)), mpp=1.0)
    tiles = TileSet(np.array([[100, 300], [256, 512]]), (200, 200), 1.0)
    found = SlideSource(slide).aligned(tiles)
    assert found.locations.tolist() == [[[56, 300], [256, 512]]]
    assert (found.size, found.downsample) == ((200, 200), 1.0)
    assert SlideSource(slide, snap=False).aligned(tiles) is tiles
    assert TensorSource(torch.zeros(1, 3, 500, 500)).aligned(tiles) is tiles
