"""Tissue on every glass, under every stain, lamp, pen and artefact that `testing.glass` paints: how much is found."""

from __future__ import annotations

import re

import numpy as np
import pytest
from glass import GLASSES, MPP, GlassScene, scenes, view_of
from pairs import thinned

from wsi_attention.errors import UnsupportedSlideError
from wsi_attention.slide.glass import find_glass
from wsi_attention.slide.strips import cut
from wsi_attention.slide.tissue import check_brightfield, find_tissue, find_tissue_in_strips, staining, surroundings

FLOORS = {"haematoxylin": 0.72, "pale eosin": 0.80}
"""Least intersection over union, by stain; fat lies within the truth, not within the mask."""
SCENES = {str(scene): scene for scene in scenes()}


@pytest.mark.parametrize("scene", thinned(SCENES, 3))
def test_tissue_is_found_and_nothing_else(scene: GlassScene) -> None:
    view = view_of(scene)
    check_brightfield(view.rgb, "slide")
    found = find_tissue(view.rgb, 1.0, MPP)
    if not scene.stain:
        assert not found.mask.any()
    assert view.overlap(found.mask) >= FLOORS.get(scene.stain, 0.80)
    assert not any("may be wrong" in note for note in found.notes)


@pytest.mark.parametrize("glass", GLASSES)
def test_glass_has_the_lamp_s_tint(glass: str) -> None:
    for stain in ("H&E", "DAB, strong", ""):
        [colour] = find_glass(view_of(GlassScene(stain, glass)).rgb).colours
        assert np.abs(colour - GLASSES[glass]).max() <= 3


@pytest.mark.parametrize("artefact", ["black border", "mostly black", "white border", "mostly white"])
def test_what_was_never_scanned_is_known_by_its_straight_edges(artefact: str) -> None:
    glass = find_glass(view_of(GlassScene("H&E", "yellowed", artefact=artefact)).rgb)
    assert (glass.black, glass.white) == ("black" in artefact, "white" in artefact)


def test_clipped_glass_was_scanned() -> None:
    assert not find_glass(view_of(GlassScene("H&E", "clipped")).rgb).white


@pytest.mark.parametrize("artefact", ["", "pen purple", "black border", "white border", "yellow medium"])
@pytest.mark.parametrize("stain", ["pale H&E", "silver"])
def test_strips_find_exactly_what_the_whole_view_shows(stain: str, artefact: str) -> None:
    rgb = view_of(GlassScene(stain, "yellowed", artefact=artefact)).rgb
    known, shape = staining(rgb, 1.0, MPP), (rgb.shape[0], rgb.shape[1])
    assert known.grey == (stain == "silver")
    for rows in (1, 50):
        strips = cut(rgb, rows, surroundings(shape, 1.0, MPP))
        found = find_tissue_in_strips(strips, shape, 1.0, MPP, known)
        np.testing.assert_array_equal(found.mask, find_tissue(rgb, 1.0, MPP).mask)


def test_a_mask_of_nearly_everything_says_that_it_may_be_wrong() -> None:
    view = view_of(GlassScene("H&E", "yellowed", artefact="mostly black"))
    rows, columns = np.flatnonzero(view.tissue.any(1)), np.flatnonzero(view.tissue.any(0))
    part = view.rgb[rows[0] + 4 : rows[-1] - 4, columns[0] + 4 : columns[0] + 40]
    note = find_tissue(part, 1.0, MPP).notes[0]
    assert re.match(r"tissue is (9[5-9]|100)% of the slide: the mask may be wrong", note)


@pytest.mark.parametrize(
    ("glass", "told"), [("white", 0), ("pinkish", 0), ("lilac", 0), ("yellowed", 1), ("bluish", 1)]
)
def test_a_strong_tint_is_a_note(glass: str, told: int) -> None:
    notes = find_tissue(view_of(GlassScene("H&E", glass)).rgb, 1.0, MPP).notes
    assert [note.startswith("the glass is tinted (red ") for note in notes] == [True] * told


def test_fluorescence_on_exact_black_is_still_refused() -> None:
    rgb = view_of(GlassScene("H&E")).rgb
    dapi = np.zeros_like(rgb)
    dapi[..., 2] = 255 - rgb[..., 1]
    dapi[..., 2][dapi[..., 2] < 30] = 0
    with pytest.raises(UnsupportedSlideError, match="fluorescence"):
        check_brightfield(dapi, "slide")
    field = np.zeros_like(rgb)
    field[60:200, 60:200] = np.maximum(dapi, 4)[60:200, 60:200]
    with pytest.raises(UnsupportedSlideError, match="fluorescence"):
        check_brightfield(field, "slide")
