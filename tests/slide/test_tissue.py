"""Tissue on pictures whose truth is known: painted by stain, with glass, noise, ink and shadows."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from wsi_attention.errors import UnsupportedSlideError
from wsi_attention.slide import tissue
from wsi_attention.slide.slide import open_slide
from wsi_attention.slide.strips import cut
from wsi_attention.slide.tissue import (
    check_brightfield,
    find_tissue,
    find_tissue_in_strips,
    staining,
    surroundings,
)
from wsi_attention.slide.view import View

HAEMATOXYLIN, EOSIN, DAB = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)
SIDE = 400
DOWNSAMPLE, MPP = 32.0, 0.5


def painted(truth: np.ndarray, stains: dict[tuple[float, ...], float], glass: tuple[int, ...] = (243, 242, 244)):
    """Tissue of the given mean densities, uneven by a random texture, on noisy glass, through JPEG."""
    rng = np.random.default_rng(3)
    density = np.zeros((*truth.shape, 3))
    for stain, mean in stains.items():
        texture = rng.gamma(4, mean / 4, (truth.shape[0] // 2, truth.shape[1] // 2)).repeat(2, 0).repeat(2, 1)
        density += texture[..., None] * np.array(stain)
    rgb = np.array(glass) * 10 ** -np.where(truth[..., None], density, 0)
    return compressed(rgb + rng.normal(0, 2, rgb.shape))


def compressed(rgb: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
    return np.array(Image.open(buffer))


def discs(*places: tuple[int, int, int]) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.any([(x - cx) ** 2 + (y - cy) ** 2 < r**2 for cx, cy, r in places], axis=0)


def pen(rgb: np.ndarray, colour: tuple[int, int, int], *points: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    picture, stroke = Image.fromarray(rgb), Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(picture).line(points, colour, 9)
    ImageDraw.Draw(stroke).line(points, 255, 9)
    return compressed(np.asarray(picture)), np.asarray(stroke) > 0


def found(rgb: np.ndarray) -> np.ndarray:
    return find_tissue(rgb, DOWNSAMPLE, MPP).mask


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


TWO = discs((110, 120, 70), (280, 290, 60))
STAINS = {
    "H&E": {HAEMATOXYLIN: 0.2, EOSIN: 0.25},
    "pale H&E": {HAEMATOXYLIN: 0.06, EOSIN: 0.07},
    "IHC, few positive": {HAEMATOXYLIN: 0.2, DAB: 0.03},
    "IHC, strong": {HAEMATOXYLIN: 0.15, DAB: 0.5},
}


@pytest.mark.parametrize("stains", STAINS.values(), ids=STAINS)
def test_stained_tissue_is_found(stains: dict[tuple[float, ...], float]) -> None:
    assert overlap(found(painted(TWO, stains)), TWO) > 0.93


@pytest.mark.parametrize("glass", [(255, 255, 255), (235, 228, 240), (240, 238, 225), (215, 213, 214)])
def test_tinted_and_dim_glass(glass: tuple[int, int, int]) -> None:
    assert overlap(found(painted(TWO, STAINS["H&E"], glass)), TWO) > 0.93


def test_tissue_at_the_border_and_all_over() -> None:
    corner = discs((0, 0, 120), (SIDE, 200, 80))
    assert overlap(found(painted(corner, STAINS["H&E"])), corner) > 0.93
    assert found(painted(np.ones((SIDE, SIDE), bool), STAINS["H&E"])).all()


def test_a_blank_slide_has_no_tissue() -> None:
    nothing = np.zeros((SIDE, SIDE), bool)
    assert not found(painted(nothing, {})).any()
    shaded = np.linspace(220, 250, SIDE)[None, :, None] + np.array([0, -6, 2]) + np.zeros((SIDE, 1, 1))
    assert not found(compressed(shaded + np.random.default_rng(0).normal(0, 3, shaded.shape))).any()


def test_a_nearly_empty_slide_gives_its_one_piece_and_no_dust() -> None:
    piece, dust = discs((300, 80, 8)), discs((100, 300, 1))
    mask = found(painted(piece | dust, STAINS["H&E"]))
    assert overlap(mask, piece) > 0.7
    assert not mask[dust].any()


def test_small_holes_are_filled_and_large_ones_stay() -> None:
    tissue = discs((200, 200, 150)) & ~discs((120, 200, 5)) & ~discs((260, 200, 40))
    mask = found(painted(tissue, STAINS["H&E"]))
    assert mask[200, 120]
    assert not mask[200, 260]


@pytest.mark.parametrize("colour", [(40, 60, 180), (30, 40, 140), (20, 130, 80), (20, 20, 24)])
def test_ink_is_no_tissue(colour: tuple[int, int, int]) -> None:
    small = discs((110, 120, 30))
    rgb, stroke = pen(painted(small, STAINS["H&E"]), colour, (20, 350), (200, 250), (380, 330))
    mask = found(rgb)
    assert (mask & stroke).sum() < 0.02 * stroke.sum()
    assert overlap(mask, small) > 0.88


def test_a_blue_stain_is_not_taken_for_ink() -> None:
    blue = (0.75, 0.5, 0.15)
    assert overlap(found(painted(TWO, {blue: 0.7})), TWO) > 0.9


def test_black_borders_and_shadows_are_neither_tissue_nor_a_reason_to_refuse() -> None:
    rgb = painted(TWO, STAINS["H&E"])
    rgb[:, -90:] = 6
    rgb[:25] = 10
    rgb[225:240] = (rgb[225:240] * 0.5).astype(np.uint8)
    rgb = compressed(rgb)
    check_brightfield(rgb, "slide")
    inside = np.zeros_like(TWO)
    inside[25:, :-90] = True
    assert overlap(found(rgb), TWO & inside) > 0.9


def test_the_mask_says_its_scale_and_a_tiny_picture_works() -> None:
    mask = find_tissue(painted(TWO, STAINS["H&E"])[:16, :20], 4.0, 0.5)
    assert mask.mask.shape == (16, 20)
    assert (mask.downsample, mask.source) == (4.0, "computed")
    assert find_tissue(np.full((1, 1, 3), 255, np.uint8), 32.0, 0.5).mask.shape == (1, 1)


@pytest.mark.parametrize("stains", STAINS.values(), ids=STAINS)
def test_brightfield_passes(stains: dict[tuple[float, ...], float]) -> None:
    check_brightfield(painted(TWO, stains), "slide")
    check_brightfield(painted(np.ones((SIDE, SIDE), bool), stains), "slide")


@pytest.mark.parametrize("colour", [(0, 0, 255), (40, 255, 40), (255, 90, 20), (230, 230, 230)])
def test_light_on_black_is_refused(colour: tuple[int, int, int]) -> None:
    rgb = np.zeros((SIDE, SIDE, 3))
    rgb[discs((110, 120, 30), (280, 290, 10))] = colour
    with pytest.raises(UnsupportedSlideError, match=r"^dapi\.ndpi: 9.% of the slide is black.*brightfield"):
        check_brightfield(compressed(rgb + 6), "dapi.ndpi")


def in_strips(rgb: np.ndarray, rows: int, coarse: int = 1) -> np.ndarray:
    known = staining(rgb[::coarse, ::coarse], DOWNSAMPLE * coarse, MPP)
    strips = cut(rgb, rows, surroundings(rgb.shape[:2], DOWNSAMPLE, MPP))
    return find_tissue_in_strips(strips, rgb.shape[:2], DOWNSAMPLE, MPP, known).mask


@pytest.mark.parametrize("rows", [1, 17, 128, 1000])
@pytest.mark.parametrize("colour", [None, (40, 60, 180), (20, 20, 24)])
def test_strips_find_exactly_what_the_whole_view_shows(rows: int, colour: tuple[int, int, int] | None) -> None:
    rgb = painted(discs((110, 120, 60), (300, 200, 40)), STAINS["pale H&E"])
    if colour:
        rgb, _ = pen(rgb, colour, (20, 350), (200, 250), (380, 330))
    np.testing.assert_array_equal(in_strips(rgb, rows), found(rgb))


@pytest.mark.parametrize("stains", STAINS.values(), ids=STAINS)
def test_what_a_coarser_view_tells_of_the_stain_will_do(stains: dict[tuple[float, ...], float]) -> None:
    rgb = painted(TWO, stains)
    assert overlap(in_strips(rgb, 64, coarse=4), found(rgb)) > 0.98


@pytest.mark.parametrize("stains", STAINS.values(), ids=STAINS)
@pytest.mark.parametrize("colour", [None, (40, 60, 180)])
def test_skipping_pale_places_changes_nothing(
    stains: dict[tuple[float, ...], float], colour: tuple[int, int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = painted(TWO, stains)
    if colour:
        rgb, _ = pen(rgb, colour, (20, 350), (200, 250), (380, 330))
    expected, width = found(rgb), rgb.shape[1]
    monkeypatch.setattr(tissue, "LARGE", 1)
    monkeypatch.setattr(tissue, "STRIP_PIXELS", 20 * width)
    monkeypatch.setattr(tissue, "STRETCH", 8)
    looked, look = [], tissue._look
    monkeypatch.setattr(tissue, "_look", lambda strip, *rest: looked.append(strip.pixels.size) or look(strip, *rest))
    np.testing.assert_array_equal(found(rgb), expected)
    if stains in (STAINS["H&E"], STAINS["IHC, strong"]):  # the threshold of paler ones depends on the glass
        assert sum(looked) < 0.8 * rgb.size


def test_one_megapixel_takes_less_than_a_second() -> None:
    rgb = np.tile(painted(TWO, STAINS["H&E"]), (3, 3, 1))[:1000, :1000]
    found(rgb)
    start = time.process_time()
    found(rgb)
    assert time.process_time() - start < 1.0


def test_real_slides(shared_data: Path) -> None:
    expected = {"CMU-1-Small-Region.svs": (0.3, 0.5), "TCGA-CR-7395-01A-01-TS1.svs": (0.55, 0.75)}
    for name, (least, most) in expected.items():
        with open_slide(str(shared_data / "slides" / "aperio" / name), mpp=0.5) as slide:
            rgb = View(slide, 16.0).read_whole()
        check_brightfield(rgb, name)
        mask = find_tissue(rgb, 16.0, 0.5).mask
        assert least < mask.mean() < most
        assert rgb[mask].mean() < rgb[~mask].mean() - 20


def test_the_real_fluorescence_slide_is_refused_by_its_pixels(shared_data: Path) -> None:
    import openslide

    path = next((shared_data / "slides" / "hamamatsu").glob("*.ndpi"))
    with openslide.OpenSlide(str(path)) as slide:
        level = slide.level_count - 1
        rgb = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))[..., :3]
    with pytest.raises(UnsupportedSlideError, match="fluorescence"):
        check_brightfield(rgb, str(path))
