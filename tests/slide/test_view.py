"""View: which level it reads, where its pixels lie, and how much it holds at once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wsi_attention.errors import InputError, MissingMppError, TileReadError
from wsi_attention.slide import view as view_module
from wsi_attention.slide.levels import best_level, snapped
from wsi_attention.slide.readers.array import ArrayLevels
from wsi_attention.slide.resample import area_mean
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.view import View

LEVELS = (1.0, 4.00036, 16.0087, 32.06)


class CountingSlide:
    """A white slide that only remembers what was asked of it."""

    path = "counting"
    seen = None

    def __init__(self, dimensions: tuple[int, int], downsamples: tuple[float, ...]) -> None:
        self.dimensions, self.level_downsamples = dimensions, downsamples
        self.levels = tuple(range(len(downsamples)))
        self.asked: list[tuple[tuple[int, int], int, tuple[int, int]]] = []

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        self.asked.append((location, level, size))
        return np.broadcast_to(np.uint8(255), (size[1], size[0], 3))

    def best_level(self, downsample: float) -> int:
        return best_level(self.level_downsamples, downsample)

    def holes(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> tuple[()]:
        return ()

    def bytes_read(self, level: int, location: tuple[int, int], size: tuple[int, int]) -> int:
        return size[0] * size[1]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def slide_of(*levels: np.ndarray, downsamples: tuple[float, ...] | None = None) -> Slide:
    return open_slide(ArrayLevels(levels, downsamples))


@pytest.mark.parametrize(
    ("wanted", "level"),
    [(1, 0), (1.5, 0), (3.7, 0), (3.9, 1), (4, 1), (4.2, 1), (5, 1), (15, 1), (16, 2), (31, 3), (500, 3), (0.5, 0)],
)
def test_the_nearest_level_at_least_as_fine(wanted: float, level: int) -> None:
    assert best_level(LEVELS, wanted) == level


def test_snapping_within_five_percent_and_never_below_one() -> None:
    assert snapped(LEVELS, 4.0) == 4.00036
    assert snapped(LEVELS, 16.7) == 16.0087
    assert snapped(LEVELS, 17.0) == 17.0
    assert snapped(LEVELS, 0.97) == 1.0
    assert snapped(LEVELS, 0.25) == 1.0


def test_a_stored_level_comes_as_it_is_stored() -> None:
    coarse = noise(60, 80)
    slide = slide_of(noise(240, 320), coarse, downsamples=(1.0, 4.00036))
    for downsample in (4.0, 4.00036):
        view = View(slide, downsample)
        assert view.size == (80, 60)
        np.testing.assert_array_equal(view.read_whole(), coarse)
        np.testing.assert_array_equal(view.read((40, 80), (16, 12)), coarse[20:32, 10:26])


def test_a_view_at_micrometres_per_pixel() -> None:
    coarse = noise(60, 80)
    slide = open_slide([noise(240, 320), coarse], mpp=0.499)
    np.testing.assert_array_equal(View.at_mpp(slide, 2.0).read_whole(), coarse)
    assert View.at_mpp(slide, 4.99).downsample == pytest.approx(10)
    assert View.at_mpp(slide, 0.25).downsample == 1
    with pytest.raises(MissingMppError, match="--mpp"):
        View.at_mpp(slide_of(coarse), 2.0)
    with pytest.raises(InputError, match="-1 µm per pixel"):
        View.at_mpp(slide, -1)


def test_locations_between_stored_pixels_take_the_nearest_pixel() -> None:
    coarse = noise(60, 80)
    view = View(slide_of(noise(240, 320), coarse), 4.0)
    np.testing.assert_array_equal(view.read((41, 81), (8, 8)), coarse[20:28, 10:18])
    np.testing.assert_array_equal(view.read((43, 83), (8, 8)), coarse[21:29, 11:19])


@pytest.mark.parametrize("downsample", [1.7, 2.0, 3.0, 5.3])
def test_between_levels_the_finer_one_is_averaged_over_exact_squares(downsample: float) -> None:
    pixels = noise(200, 230)
    view = View(slide_of(pixels), downsample)
    assert view.size == (math.ceil(230 / downsample), math.ceil(200 / downsample))
    canvas = np.full((220, 250, 3), 255, np.uint8)
    canvas[:200, :230] = pixels
    np.testing.assert_array_equal(view.read_whole(), area_mean(canvas, (0, 0), downsample, view.size))
    np.testing.assert_array_equal(view.read((17, 31), (20, 10)), area_mean(canvas, (17, 31), downsample, (20, 10)))


@pytest.mark.parametrize("downsample", [2.0, 3.0, 20.0])
def test_regions_whose_cells_end_with_pixels_are_averaged_as_one(
    downsample: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once where all begin at whole pixels, and one after the other where one does not; pixels are the same."""
    calls = []
    monkeypatch.setattr(view_module, "area_mean", lambda *given: calls.append(given[3]) or area_mean(*given))
    view, size = View(slide_of(noise(300, 320)), downsample), (7, 5)
    places = np.array([(0, 0), (33, 41), (-9, 280), (310, 8)])
    out = np.empty((4, 5, 7, 3), np.uint8)
    assert view.read_many(places, size, out) == [None] * 4
    assert calls == [(7, 20)]
    for pixels, (x, y) in zip(out, places.tolist(), strict=True):
        np.testing.assert_array_equal(pixels, view.read((x, y), size))


def test_a_region_that_fails_stays_as_it_was_beside_those_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    slide = slide_of(noise(64, 64))
    read = Slide.read_regions

    def failing(self: Slide, locations: np.ndarray, *rest: object) -> list[str | None]:
        return ["torn", *read(self, locations, *rest)[1:]]  # type: ignore[arg-type]

    monkeypatch.setattr(Slide, "read_regions", failing)
    out = np.full((2, 8, 8, 3), 7, np.uint8)
    assert View(slide, 2.0).read_many(np.array([(0, 0), (16, 0)]), (8, 8), out) == ["torn", None]
    assert (out[0] == 7).all()
    np.testing.assert_array_equal(out[1], View(slide, 2.0).read((16, 0), (8, 8)))


def test_sub_pixel_places_on_a_coarse_level_are_weighed() -> None:
    ramp = np.broadcast_to((np.arange(100) * 2).astype(np.uint8)[None, :, None], (100, 100, 3)).copy()
    view = View(slide_of(np.zeros((400, 400, 3), np.uint8), ramp), 10.0)
    at = np.array([int(view.read((x, 100), (1, 1))[0, 0, 0]) for x in range(100, 120)])
    # 2 per stored pixel of 4: the mean over [x, x + 10) of a staircase of 0.5 a pixel, minus half a step
    np.testing.assert_allclose(at, 0.5 * (np.arange(100, 120) + 5) - 1, atol=0.8)
    assert len(set(at.tolist())) > 8


def test_white_beyond_the_slide_on_every_side() -> None:
    view = View(slide_of(np.zeros((64, 64, 3), np.uint8)), 2.0)
    pixels = view.read((-20, -20), (52, 52))
    assert (pixels[10:42, 10:42] == 0).all()
    outside = np.ones((52, 52), bool)
    outside[10:42, 10:42] = False
    assert (pixels[outside] == 255).all()
    assert (view.read((5000, -700), (8, 8)) == 255).all()


def test_read_whole_in_blocks_equals_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    slide = slide_of(noise(311, 413))
    for downsample in (1.0, 2.0, 2.6):
        view = View(slide, downsample)
        once = view.read_whole()
        monkeypatch.setattr(view_module, "MAX_SOURCE_PIXELS", 3000)
        blocks = view.read_whole()
        monkeypatch.undo()
        assert np.abs(once.astype(int) - blocks).max() <= (0 if downsample != 2.6 else 1)


def test_a_single_level_slide_of_40000_squared_is_read_once_and_never_more_than_16_mpx_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slide = CountingSlide((40_000, 40_000), (1.0,))
    monkeypatch.setattr(view_module, "area_mean", lambda pixels, start, step, size: np.zeros((*size[::-1], 3)))
    assert View(slide, 33.3).read_whole().shape == (1202, 1202, 3)  # type: ignore[arg-type]
    assert max(w * h for _, _, (w, h) in slide.asked) <= 16_000_000
    asked = sum(w * h for _, _, (w, h) in slide.asked)
    assert 40_000**2 <= asked < 1.02 * 40_027**2


def test_reads_are_bounded_where_pixels_really_flow() -> None:
    slide = CountingSlide((12_000, 5_000), (1.0, 2.0))
    assert (View(slide, 17.3).read_whole() == 255).all()  # type: ignore[arg-type]
    assert {level for _, level, _ in slide.asked} == {1}
    assert max(w * h for _, _, (w, h) in slide.asked) <= 16_000_000


@pytest.mark.parametrize("downsample", [1.0, 2.7, 4.0, 6.31])
def test_a_part_shows_what_the_whole_view_shows(downsample: float) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (401, 303, 3)).astype(np.uint8)
    with open_slide([pixels, pixels[::4, ::4]], mpp=1.0) as slide:
        view = View(slide, downsample)
        whole = view.read_whole()
        width, height = view.size
        for x, y, w, h in ((0, 0, width, height), (5, 7, 1, 1), (11, 13, 20, 17), (width - 3, height - 2, 3, 2)):
            np.testing.assert_array_equal(view.read_part((x, y), (w, h)), whole[y : y + h, x : x + w])


def test_a_damaged_level_is_replaced_by_the_next_finer_one() -> None:
    pixels = noise(64, 64)

    class Damaged(CountingSlide):
        def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
            self.asked.append((location, level, size))
            if level > 0:
                raise TileReadError("level is damaged")
            return slide_of(pixels).read(location, 0, size)

    slide = Damaged((64, 64), (1.0, 2.0, 4.0))
    whole = View(slide, 4.0).read_whole()  # type: ignore[arg-type]
    np.testing.assert_array_equal(whole, area_mean(pixels, (0, 0), 4, (16, 16)))
    assert [level for _, level, _ in slide.asked] == [2, 1, 0]
    view = View(slide, 4.0)  # type: ignore[arg-type]
    before = dict(vars(view))
    shown = view.whole()
    np.testing.assert_array_equal(shown.pixels, whole)
    assert shown.view.bytes_read((0, 0), (16, 16)) == 64 * 64
    assert vars(view) == before and view.bytes_read((0, 0), (16, 16)) == 16 * 16
    assert view.or_finer(lambda one: one.read((0, 0), (16, 16))).tolist() == whole.tolist()
    with pytest.raises(TileReadError):
        View(slide, 4.0).read((0, 0), (4, 4))  # type: ignore[arg-type]


def test_a_view_is_never_finer_than_level_0() -> None:
    slide = slide_of(noise(20, 30))
    assert View(slide, 0.25).downsample == 1.0
    assert View(slide, 0.25).size == (30, 20)
    for nonsense in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="must be positive"):
            View(slide, nonsense)


def test_bytes_are_asked_for_the_same_regions_as_pixels() -> None:
    slide = CountingSlide((4000, 4000), (1.0, 4.0))
    assert View(slide, 8.0).bytes_read((0, 0), (100, 100)) == 200 * 200  # type: ignore[arg-type]
