from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsi_attention.export import legend as canvas
from wsi_attention.export.heatmap import HeatmapExporter, draw
from wsi_attention.export.legend import Frame
from wsi_attention.geometry import Grid
from wsi_attention.structures import AttentionMap, Glimpse, TileSet, TissueMask
from wsi_attention.testing.exporters import EXAMPLES, ExporterContract, example_prediction

EXTENT = (10_000, 8_000)


class TestHeatmapExporter(ExporterContract):
    exporter = HeatmapExporter()


def scene(values=None, locations=((2_000, 3_000),), weights=(1.0,), valid=None, tissue=True):
    """A 10,000 x 8,000 slide, tissue everywhere or nowhere, a 10 x 8 map and the given 512-px tiles."""
    values = np.ones((8, 10)) if values is None else values
    found = AttentionMap(np.array(values, np.float32), Grid(8, 10, (1000.0, 1000.0)))
    count = len(locations)
    valid = np.full(count, True) if valid is None else np.array(valid)
    tiles = TileSet(np.array(locations).reshape(-1, 2), (512, 512), 1.0)
    glimpse = Glimpse(tiles, np.array(weights, np.float64), np.full(count, 0.01), valid)
    mask = TissueMask(np.full((80, 100), tissue), 100.0)
    return replace(example_prediction(), extent=EXTENT, maps=(found,), glimpses=(glimpse,), tissue=mask)


def slide_part(image: Image.Image, extent=EXTENT) -> np.ndarray:
    frame = Frame.around(extent)
    (x, y), (w, h) = frame.origin, frame.slide
    return np.asarray(image)[y : y + h, x : x + w].astype(int)


def at(part: np.ndarray, x: float, y: float) -> np.ndarray:
    """The picture's colour at a level-0 place."""
    return part[int(y / EXTENT[1] * part.shape[0]), int(x / EXTENT[0] * part.shape[1])]


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_shape_of_slide_gives_a_picture_of_sane_size(kind: str) -> None:
    prediction = example_prediction(kind=kind)
    image = draw(prediction)
    assert image.mode == "RGB"
    assert max(image.size) <= 1600 and min(image.size) >= 300
    w, h = Frame.around(prediction.extent).slide
    assert w / h == pytest.approx(prediction.extent[0] / prediction.extent[1], rel=0.02)


def test_attention_is_coloured_only_above_the_average_and_at_its_place() -> None:
    values = np.ones((8, 10))
    values[6, 8] = 50
    grey = np.full((80, 100, 3), 200, np.uint8)
    part = slide_part(draw(scene(values, tissue=False), grey))
    assert at(part, 8_500, 6_500).tolist() != [200, 200, 200]
    inside = [at(part, x, y).tolist() for x, y in ((8_050, 6_050), (8_950, 6_950))]
    assert inside[0] == inside[1] == at(part, 8_500, 6_500).tolist()
    for x, y in ((7_950, 6_500), (9_050, 6_500), (8_500, 5_950), (8_500, 7_050)):
        assert at(part, x, y).tolist() == [200, 200, 200]


def test_a_flat_map_stays_blank() -> None:
    grey = np.full((80, 100, 3), 200, np.uint8)
    part = slide_part(draw(scene(locations=(), weights=(), tissue=False), grey))
    assert (part == 200).all()


def test_higher_attention_is_lighter_and_stronger() -> None:
    values = np.full((8, 10), 0.01)
    values[2, 2], values[2, 5], values[2, 8] = 4, 20, 100
    dark = np.full((80, 100, 3), 20, np.uint8)
    part = slide_part(draw(scene(values, locations=(), weights=(), tissue=False), dark))
    lightness = [at(part, x, 2_500) @ np.array([0.3, 0.6, 0.1]) for x in (2_500, 5_500, 8_500)]
    assert 20 < lightness[0] < lightness[1] < lightness[2]


def test_tissue_is_hatched_where_no_tile_was_read() -> None:
    white = np.full((80, 100, 3), 255, np.uint8)
    part = slide_part(
        draw(scene(locations=((2_000, 3_000), (6_000, 3_000)), weights=(0.5, 0), valid=(True, False)), white)
    )

    def inner(x: int) -> np.ndarray:
        scale = part.shape[1] / EXTENT[0]
        return part[int(3_100 * scale) : int(3_400 * scale), int((x + 100) * scale) : int((x + 400) * scale)]

    assert (inner(2_000) == 255).all()
    assert 0.05 < (inner(6_000) < 255).any(axis=-1).mean() < 0.5
    bare = slide_part(draw(scene(locations=(), weights=(), tissue=False), white))
    assert (bare == 255).all()


def test_the_heaviest_tile_has_the_strong_outline() -> None:
    white = np.full((80, 100, 3), 255, np.uint8)
    locations = [(500 + 1_500 * k, 4_000) for k in range(6)]
    part = slide_part(draw(scene(locations=locations, weights=[0.3, 0.25, 0.2, 0.15, 0.07, 0.03], tissue=False), white))
    marked = [tuple(at(part, x - 8, 4_250)) == canvas.MARK for x, _ in locations]
    assert marked == [True] * 5 + [False]
    edge = part[int(4_250 / 8_000 * part.shape[0]), int(8_000 / 10_000 * part.shape[1])]
    assert tuple(edge) == canvas.INK


def test_tiles_too_small_to_see_are_drawn_large_enough() -> None:
    prediction = scene(locations=((5_000, 4_000),))
    tiny = replace(prediction.glimpses[0], tiles=TileSet(np.array([[5_000, 4_000]]), (4, 4), 1.0))
    white = np.full((80, 100, 3), 255, np.uint8)
    part = slide_part(draw(replace(prediction, glimpses=(tiny,), tissue=scene(tissue=False).tissue), white))
    assert 40 < (part == canvas.MARK).all(axis=-1).sum() < 1_000


def test_the_overview_is_placed_exactly_though_it_ends_beyond_the_slide() -> None:
    overview = np.full((3, 4, 3), 255, np.uint8)
    overview[:, 2:] = (10, 20, 30)
    prediction = replace(
        example_prediction(),
        extent=(100, 70),
        glimpses=(),
        maps=(),
        tissue=TissueMask(np.zeros((3, 4), bool), 32.0),
    )
    part = slide_part(draw(prediction, overview), (100, 70))
    edge = np.flatnonzero((part[50] == (10, 20, 30)).all(axis=-1))[0] / part.shape[1] * 100
    assert edge == pytest.approx(64, abs=0.5)


def test_the_picture_is_quick() -> None:
    overview = np.random.default_rng(0).integers(0, 255, (2_000, 2_000, 3), np.uint8)
    prediction = example_prediction(tiles=300)
    draw(prediction, overview)
    start = time.process_time()
    draw(prediction, overview)
    assert time.process_time() - start < 1.5  # about 0.2 s where nothing else runs


def test_the_file_is_the_picture(tmp_path: Path) -> None:
    prediction = example_prediction()
    overview = np.linspace([250, 200, 220], [180, 90, 150], 330 * 420).reshape(330, 420, 3).astype(np.uint8)
    HeatmapExporter()(prediction, tmp_path / "a.unfinished", overview=overview)
    with Image.open(tmp_path / "a.unfinished") as image:
        assert image.format == "JPEG"
        shown, drawn = np.asarray(image, np.int16), np.asarray(draw(prediction, overview), np.int16)
        assert np.abs(shown - drawn).mean() < 2


def test_without_tiles_nothing_is_hatched() -> None:
    prediction = scene()
    read = slide_part(draw(prediction))
    alone = slide_part(draw(replace(prediction, glimpses=())))
    colours = [part[50:-50, 50:-50].astype(int) @ (1, 256, 65536) for part in (alone, read)]
    assert len(np.unique(colours[0])) == 1
    assert len(np.unique(colours[1])) > 2


def test_outlines_of_very_many_tiles_do_not_hide_the_slide() -> None:
    y, x = np.mgrid[0:40, 0:40]
    corners = np.stack([x.ravel() * 250, y.ravel() * 200], axis=-1)
    weights = np.full(1600, 1 / 1600)
    few, many = (slide_part(draw(scene(locations=corners[:n], weights=weights[:n]))) for n in (900, 1600))
    ink = [(np.abs(part - np.array(canvas.INK)).sum(-1) < 10).mean() for part in (few, many)]
    assert ink[0] > 0.02
    assert ink[1] == pytest.approx(0, abs=1e-3)


def test_the_map_over_the_whole_slide_is_shown() -> None:
    prediction = example_prediction(kind="levels")
    alone = replace(prediction, maps=prediction.maps[-1:])
    assert np.array_equal(np.asarray(draw(prediction)), np.asarray(draw(alone)))
