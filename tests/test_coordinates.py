"""A lesion planted at known level-0 pixels comes back at those pixels: every reader, scale, border, and export.

The model looks where the overview is darkest and has nothing to learn; its probabilities tell the mean colour of the
tiles it was given, so the pixels that were read are checked as well as the coordinates that were written.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pairs import some_pairs
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.checkpoint import Classifier
from wsi_attention.export.geojson import GeoJSONExporter
from wsi_attention.export.table import TilesExporter
from wsi_attention.export.zarr import HeatmapPyramidExporter
from wsi_attention.geometry import Box
from wsi_attention.inference.predict import predict
from wsi_attention.methods.ats import AttentionSampling, SamplingOptions
from wsi_attention.nn.blocks import Encoder, OverviewNet
from wsi_attention.slide.readers.array import ArrayLevels
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.tissue import load_mask
from wsi_attention.structures import Prediction, TissueMask
from wsi_attention.testing.slide_levels import encoded, pyramid, reduced
from wsi_attention.testing.slide_writers import TILED, write_ome_zarr

Pixels = NDArray[np.uint8]

WHITE, GLASS, TISSUE = (255, 255, 255), (246, 246, 246), (232, 200, 222)
LESION, PALER = (95, 55, 140), (130, 90, 165)
SIZE = (1003, 811)
"""Divisible by nothing: levels of 1/3 and 1/4 lose a border, the last cells are 43 × 43."""
CELL = 64
"""Level-0 pixels of a cell and of a tile, unless a test has another scale."""
MPP = 0.5
OFFSET = (96, 80)
"""Where the scanned area begins in slides with bounds; not on the grid in y."""


class Darkness(OverviewNet):
    """(b, 3, h, w) -> logits (b, h / stride, w / stride): how dark the overview is, on average over a cell."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        dark = functional.avg_pool2d(1 - view.mean(1, keepdim=True), self.stride)
        return 30 * dark[:, 0], dark


class Fractions(nn.Module):
    """Bytes as numbers from 0 to 1."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float() / 255


class MeanColour(Encoder):
    """(m, 3, h, w) -> (m, 3)."""

    def forward(self, tiles: Tensor) -> Tensor:
        return tiles.mean((2, 3))


class ColourScores(nn.Module):
    """Logits that are ten times the mean colour, so that probabilities tell it up to a constant."""

    def forward(self, colour: Tensor) -> Tensor:
        return 10 * colour


def darkest(
    draws: int = 1, tile: int = CELL, tile_mpp: float = MPP, overview_mpp: float = 8 * MPP, stride: int = 8
) -> Classifier:
    """A model whose first tile is the one on the darkest cell."""
    options = SamplingOptions(
        tile_size=tile, tile_mpp=tile_mpp, overview_mpp=overview_mpp, draws=draws, inference="top", gradient="unbiased"
    )
    model = AttentionSampling(Darkness(stride), MeanColour(), ColourScores(), Fractions(), options)
    return Classifier(model.eval(), ("red", "green", "blue"), {}, "0" * 64, "darkest")


def painted(*lesions: Box, size: tuple[int, int] = SIZE, colours: tuple[Any, ...] = (LESION, PALER)) -> Pixels:
    """Level 0: tissue with a margin of glass at the left and the top, lesions in it."""
    rgb = np.full((size[1], size[0], 3), GLASS, np.uint8)
    rgb[OFFSET[1] + 50 :, OFFSET[0] + 40 :] = TISSUE
    for box, colour in zip(lesions, colours, strict=False):
        rgb[box.y : box.y + box.h, box.x : box.x + box.w] = colour
    return rgb


Opened = Callable[[Path, Pixels, int, float], Slide]
"""Takes a folder to write to, level 0, how many times each level is coarser, and µm per level-0 pixel."""


def tiled(kind: str, suffix: str, reader: str) -> Opened:
    def opened(folder: Path, rgb: Pixels, factor: int, mpp: float) -> Slide:
        levels, path = pyramid(rgb, factor, 64), folder / f"slide{suffix}"
        TILED[kind](path, encoded(levels, 95), mpp, levels[-1])
        return open_slide(path, reader)

    return opened


def ome_zarr(version: Any, suffix: str) -> Opened:
    def opened(folder: Path, rgb: Pixels, factor: int, mpp: float) -> Slide:
        path = folder / f"slide{suffix}"
        write_ome_zarr(path, pyramid(rgb, factor, 64), mpp, version)
        return open_slide(path, "zarr")

    return opened


def array_with_bounds(folder: Path, rgb: Pixels, factor: int, mpp: float) -> Slide:
    bounds = Box(*OFFSET, rgb.shape[1] - OFFSET[0], rgb.shape[0] - OFFSET[1])
    return open_slide(ArrayLevels(tuple(pyramid(rgb, factor, 64)), bounds=bounds), mpp=mpp)


def array_as_stated(folder: Path, rgb: Pixels, factor: int, mpp: float) -> Slide:
    """Levels whose downsamples are odd and not those that the shapes give."""
    levels = ArrayLevels((rgb, reduced(rgb, 3), reduced(rgb, 4)), downsamples=(1.0, 3.0, 4.0003))
    return open_slide(levels, mpp=mpp)


def leica(folder: Path, rgb: Pixels, factor: int, mpp: float) -> Slide:
    """A Leica SCN whose scanned area begins at OFFSET: OpenSlide states it as bounds, what lies before is empty."""
    levels = pyramid(rgb[OFFSET[1] :, OFFSET[0] :], factor, 64)
    nm = round(1000 * mpp)
    x, y, extent_x, extent_y = (nm * length for length in (*OFFSET, rgb.shape[1], rgb.shape[0]))
    sizes = [(level.shape[1], level.shape[0]) for level in levels]
    dimensions = "".join(f'<dimension sizeX="{w}" sizeY="{h}" r="{k}" ifd="{k}"/>' for k, (w, h) in enumerate(sizes))
    text = f"""<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">
      <collection sizeX="{extent_x}" sizeY="{extent_y}"><image name="section">
        <creationDate>2000-01-01</creationDate><device model="none" version="1"/>
        <pixels sizeX="{sizes[0][0]}" sizeY="{sizes[0][1]}">{dimensions}</pixels>
        <view sizeX="{extent_x - x}" sizeY="{extent_y - y}" offsetX="{x}" offsetY="{y}"/>
        <scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>
          <illuminationSettings><numericalAperture>0.4</numericalAperture>
            <illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>
      </image></collection></scn>"""
    path = folder / "slide.scn"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in levels:
            described = {} if file.filehandle.tell() > 64 else {"description": text}
            file.write(level, tile=(128, 128), photometric="rgb", compression="zlib", metadata=None,
                       resolution=(1e7 / nm, 1e7 / nm), resolutionunit="CENTIMETER", **described)  # fmt: skip
    return open_slide(path, "openslide")


FORMATS: dict[str, Opened] = {
    "svs-openslide": tiled("svs", ".svs", "openslide"),
    "svs-tiff": tiled("svs", ".svs", "tiff"),
    "svs-tiffslide": tiled("svs", ".svs", "tiffslide"),
    "tiff-openslide": tiled("tiff", ".tiff", "openslide"),
    "tiff-tiff": tiled("tiff", ".tiff", "tiff"),
    "tiff-tiffslide": tiled("tiff", ".tiff", "tiffslide"),
    "ome-tiff-tiff": tiled("ome-tiff", ".ome.tiff", "tiff"),
    "ome-tiff-tiffslide": tiled("ome-tiff", ".ome.tiff", "tiffslide"),
    "zarr-0.4": ome_zarr("0.4", ".ome.zarr"),
    "zarr-0.4-zip": ome_zarr("0.4", ".ome.zarr.zip"),
    "zarr-0.5": ome_zarr("0.5", ".ome.zarr"),
    "zarr-0.5-zip": ome_zarr("0.5", ".ome.zarr.zip"),
    "array-as-stated": array_as_stated,
    "array-with-bounds": array_with_bounds,
    "leica-with-bounds": leica,
}

SOME = ["svs-openslide", "ome-tiff-tiffslide", "zarr-0.5", "array-as-stated", "leica-with-bounds"]
some_formats = pytest.mark.parametrize("name", SOME)


@dataclass(frozen=True)
class Shown:
    """What a GeoJSON file shows: annotations by rank, tiles in their order, and the offset it names."""

    regions: tuple[Any, ...]
    tiles: tuple[Any, ...]
    offset: tuple[int, int]


def exported(prediction: Prediction, folder: Path, bounds: Any = "auto", top: int = 1) -> Shown:
    """The prediction written as GeoJSON and read again."""
    path = folder / "shown.geojson"
    GeoJSONExporter(bounds, top)(prediction, path)
    collection = json.loads(path.read_bytes())
    kinds: dict[str, list[Any]] = {"annotation": [], "tile": []}
    for feature in collection["features"]:
        kinds[feature["properties"]["objectType"]].append(shapely.geometry.shape(feature["geometry"]))
    return Shown(tuple(kinds["annotation"]), tuple(kinds["tile"]), tuple(collection["metadata"]["offset"]))


def box_of(shape: Any, offset: tuple[int, int] = (0, 0)) -> Box:
    """A rectangle of a GeoJSON file in level-0 pixels."""
    left, top, right, bottom = (int(value) for value in shape.bounds)
    assert shape.equals(shapely.box(left, top, right, bottom)), "not a rectangle of whole pixels"
    return Box(left + offset[0], top + offset[1], right - left, bottom - top)


def assert_lesion_in(slide: Slide, box: Box, colour: tuple[int, ...] = LESION, within: float = 1.5) -> None:
    """The slide's pixels in the box are the lesion, and those of the box moved by its own size are not."""
    for dx, dy in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
        seen = Box(box.x + dx * box.w, box.y + dy * box.h, box.w, box.h).clipped(*slide.dimensions)
        if seen.w * seen.h:
            pixels = slide.read((seen.x, seen.y), 0, (seen.w, seen.h))
            away = np.abs(pixels.mean((0, 1)) - colour).max()
            assert away < within if (dx, dy) == (0, 0) else away > 50, (dx, dy)


def dark_box(slide: Slide) -> Box:
    """The rectangle around every dark pixel of level 0."""
    dark = slide.read((0, 0), 0, slide.dimensions).max(-1) < 190
    rows, cols = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    return Box(int(cols[0]), int(rows[0]), int(cols[-1] - cols[0] + 1), int(rows[-1] - rows[0] + 1))


def assert_tile_read(
    prediction: Prediction, share: float = 1.0, colour: tuple[int, ...] = LESION, within: float = 1.5
) -> None:
    """The pixels the model was given: the lesion in that share of them, and white beyond the slide."""
    expected = share * np.array(colour) + (1 - share) * np.array(WHITE)
    read = np.log(prediction.probabilities) * 255 / 10
    assert np.abs((read - read.mean()) - (expected - expected.mean())).max() < within


PLACES = {
    "inside": Box(7 * CELL, 5 * CELL, CELL, CELL),
    "right edge": Box(15 * CELL, 4 * CELL, SIZE[0] - 15 * CELL, CELL),
    "bottom edge": Box(9 * CELL, 12 * CELL, CELL, SIZE[1] - 12 * CELL),
    "last cell": Box(15 * CELL, 12 * CELL, SIZE[0] - 15 * CELL, SIZE[1] - 12 * CELL),
}
FACTORS = {"inside": 3, "right edge": 4, "bottom edge": 3, "last cell": 4}
"""How many times each level is coarser in the test of a place."""


@pytest.mark.parametrize(("place", "name"), some_pairs(list(FACTORS), list(FORMATS)))
def test_lesion_comes_back_to_the_pixel(name: str, place: str, tmp_path: Path) -> None:
    lesion, factor = PLACES[place], FACTORS[place]
    with FORMATS[name](tmp_path, painted(lesion), factor, MPP) as slide:
        assert slide.dimensions == SIZE
        assert len(slide.level_dimensions) > 2
        assert dark_box(slide) == lesion
        prediction = predict(slide, darkest())
        shown = exported(prediction, tmp_path)
        assert shown.offset == (OFFSET if "bounds" in name else (0, 0))
        assert box_of(shown.regions[0], shown.offset) == lesion
        assert box_of(shown.tiles[0], shown.offset) == lesion
        assert_lesion_in(slide, lesion)
    assert_tile_read(prediction, lesion.w * lesion.h / CELL**2)


@dataclass(frozen=True)
class Scale:
    """A slide's and a model's numbers.

    `drift` is by how many pixels a level that lost its border, and so claims to be longer than it is, may lead astray
    in the middle of the slide; 1 where only numbers are rounded.
    """

    mpp: float
    tile: int
    tile_mpp: float
    overview_mpp: float
    stride: int = 8
    factor: int = 4
    drift: int = 0

    def lesion(self, col: int = 9, row: int = 6) -> Box:
        """The square that a tile in the middle of a cell covers, worked out in µm."""
        cell, side = self.stride * self.overview_mpp, self.tile * self.tile_mpp
        left, top = (((index + 0.5) * cell - side / 2) / self.mpp for index in (col, row))
        return Box(round(left), round(top), round(side / self.mpp), round(side / self.mpp))

    def in_last_cell(self) -> Box:
        """The lesion in the last column and row of which half or more lies on the slide."""
        cell = self.stride * self.overview_mpp / self.mpp
        return self.lesion(round(SIZE[0] / cell) - 1, round(SIZE[1] / cell) - 1)

    def model(self, draws: int = 1) -> Classifier:
        return darkest(draws, self.tile, self.tile_mpp, self.overview_mpp, self.stride)


SCALES = {
    "0.499 seen as 0.5": Scale(0.499, 64, 0.5, 4.0, drift=1),
    "downsample 2": Scale(0.5, 32, 1.0, 4.0),
    "stored downsample 3.003": Scale(0.5, 24, 1.5, 4.5, factor=3, drift=3),
    "downsample 1.3": Scale(0.5, 64, 0.65, 5.2),
    "downsample 2.6 below a level of 3": Scale(0.25, 32, 0.65, 2.6, factor=3),
    "downsample 6 above a level of 3 or 4": Scale(0.5, 10, 3.0, 3.0, stride=10, factor=3, drift=2),
    "overview on a stored level": Scale(0.5, 64, 0.5, 2.0, stride=16, drift=2),
    "overview on a stored odd level": Scale(0.5, 48, 0.5, 1.5, stride=16, factor=3, drift=1),
    "tiles larger than cells": Scale(0.5, 96, 0.5, 4.0),
}


@pytest.mark.parametrize(("name", "label"), some_pairs(SOME, list(SCALES)))
def test_lesion_comes_back_at_any_scale(name: str, label: str, tmp_path: Path) -> None:
    scale = SCALES[label]
    lesion = scale.lesion()
    # The levels of arrays as stated begin where they claim.
    drift = min(scale.drift, 1) if name == "array-as-stated" else scale.drift
    borders = 2 * drift / lesion.w  # at most this share of a tile is tissue instead; that is 145 grey levels lighter
    with FORMATS[name](tmp_path, painted(lesion), scale.factor, scale.mpp) as slide:
        prediction = predict(slide, scale.model(), snap=False)
        shown = exported(prediction, tmp_path)
        found = box_of(shown.regions[0], shown.offset)
        assert np.abs(np.subtract(found, lesion)).max() <= drift
        assert_lesion_in(slide, found, within=1.5 + 145 * borders)
    assert_tile_read(prediction, within=1.5 + 45 * borders)  # and differs in hue by 45


@pytest.mark.parametrize(
    ("name", "label"), some_pairs(SOME, [label for label, scale in SCALES.items() if not scale.drift])
)
def test_lesion_at_the_corner_comes_back_at_any_scale(name: str, label: str, tmp_path: Path) -> None:
    scale = SCALES[label]
    tile = scale.in_last_cell()
    lesion = tile.clipped(*SIZE)
    assert lesion != tile
    with FORMATS[name](tmp_path, painted(lesion), scale.factor, scale.mpp) as slide:
        prediction = predict(slide, scale.model(), snap=False)
        shown = exported(prediction, tmp_path)
        assert box_of(shown.regions[0], shown.offset) == lesion
        assert_lesion_in(slide, lesion)
    assert_tile_read(prediction, lesion.w * lesion.h / (tile.w * tile.h))


@some_formats
@pytest.mark.parametrize("label", ["downsample 2", "downsample 1.3", "tiles larger than cells"])
def test_a_tile_moved_to_the_stored_grid_is_shown_where_it_was_read(name: str, label: str, tmp_path: Path) -> None:
    """Its box covers a part of the lesion now, and the model was given what the slide has in that box."""
    scale = SCALES[label]
    lesion = scale.lesion()
    with FORMATS[name](tmp_path, painted(lesion), scale.factor, scale.mpp) as slide:
        prediction = predict(slide, scale.model())
        shown = exported(prediction, tmp_path)
        found = box_of(shown.tiles[0], shown.offset)
        colour = slide.read((found.x, found.y), 0, (found.w, found.h)).mean((0, 1))
        assert (found == lesion) == (slide.facts.tile_sizes[0] is None or label != "downsample 1.3")
    assert np.abs(np.subtract(found, lesion)).max() <= lesion.w // 2
    assert_tile_read(prediction, colour=tuple(colour))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_lesions_anywhere_lie_in_the_region_shown(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A lesion no larger than a cell darkens most the cell that its centre lies in, wherever it is."""
    size = data.draw(st.integers(200, 420), "width"), data.draw(st.integers(200, 420), "height")
    w, h = data.draw(st.integers(24, CELL), "w"), data.draw(st.integers(24, CELL), "h")
    lesion = Box(data.draw(st.integers(0, size[0] - w), "x"), data.draw(st.integers(0, size[1] - h), "y"), w, h)
    rgb = np.full((size[1], size[0], 3), WHITE, np.uint8)
    rgb[lesion.y : lesion.y + h, lesion.x : lesion.x + w] = LESION
    factor = data.draw(st.sampled_from([2, 3, 5]), "factor")
    levels = ArrayLevels(tuple(pyramid(rgb, factor, 40)), bounds=Box(*OFFSET, 100, 100))
    everywhere = TissueMask(np.ones((1, 1), np.bool_), float(max(size)))
    with open_slide(levels, mpp=MPP) as slide:
        prediction = predict(slide, darkest(), tissue=everywhere)
    shown = exported(prediction, tmp_path_factory.getbasetemp(), bounds="none").regions[0]
    drift = factor - 1  # a level of 1/factor may have lost as many columns, and then claims to be that much longer
    centre = shapely.Point(lesion.x + w / 2, lesion.y + h / 2)
    assert shown.distance(centre) <= drift
    assert shown.within(shapely.box(0, 0, *size))


@some_formats
def test_touching_tiles_come_back_as_one_region(name: str, tmp_path: Path) -> None:
    lesion = Box(5 * CELL, 6 * CELL, 3 * CELL, 2 * CELL)
    with FORMATS[name](tmp_path, painted(lesion), 3, MPP) as slide:
        shown = exported(predict(slide, darkest(draws=6)), tmp_path, top=6)
        assert len(shown.tiles) == 6
        [region] = shown.regions
        assert box_of(region, shown.offset) == lesion
        assert_lesion_in(slide, lesion)


def test_a_round_lesion_off_the_grid_is_where_the_regions_are(tmp_path: Path) -> None:
    centre, radius = (487, 391), 90
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    rgb = painted()
    rgb[np.hypot(x - centre[0], y - centre[1]) <= radius] = LESION
    with FORMATS["svs-openslide"](tmp_path, rgb, 4, MPP) as slide:
        shown = exported(predict(slide, darkest(draws=5)), tmp_path, top=5)
    disc = shapely.Point(centre).buffer(radius)
    assert shown.regions[0].contains(shapely.Point(centre))
    assert all(tile.intersection(disc).area > 0.5 * CELL**2 for tile in shown.tiles)


@pytest.mark.parametrize("name", ["array-with-bounds", "leica-with-bounds"])
def test_bounds_move_the_geojson_and_nothing_else(name: str, tmp_path: Path) -> None:
    lesion = PLACES["right edge"]
    with FORMATS[name](tmp_path, painted(lesion), 4, MPP) as slide:
        assert slide.facts.bounds == Box(*OFFSET, SIZE[0] - OFFSET[0], SIZE[1] - OFFSET[1])
        prediction = predict(slide, darkest())
    in_qupath, in_level_0 = (exported(prediction, tmp_path, bounds) for bounds in ("auto", "none"))
    assert box_of(in_level_0.regions[0]) == lesion
    assert box_of(in_qupath.regions[0]) == Box(lesion.x - OFFSET[0], lesion.y - OFFSET[1], lesion.w, lesion.h)
    assert (prediction.glimpses[0].tiles.locations[0, 0] == lesion[:2]).all()


@pytest.mark.parametrize(
    ("name", "place"), [("svs-tiffslide", "inside"), ("zarr-0.5", "last cell"), ("leica-with-bounds", "last cell")]
)
def test_table_and_heatmap_have_their_highest_value_there(name: str, place: str, tmp_path: Path) -> None:
    lesion = PLACES[place]
    with FORMATS[name](tmp_path, painted(lesion), 4, MPP) as slide:
        prediction = predict(slide, darkest(draws=8))
    TilesExporter()(prediction, tmp_path / "tiles.csv")
    with (tmp_path / "tiles.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    top = max(rows, key=lambda row: float(row["attention"]))
    assert len(rows) == 8
    assert [int(top[key]) for key in ("minx", "miny", "width", "height")] == [lesion.x, lesion.y, CELL, CELL]

    HeatmapPyramidExporter()(prediction, tmp_path / "heatmap.ome.zarr")
    [(x, y), *_] = highest_places(tmp_path / "heatmap.ome.zarr")
    assert x == pytest.approx((lesion.x + (CELL - 1) / 2) * MPP)
    assert y == pytest.approx((lesion.y + (CELL - 1) / 2) * MPP)


def highest_places(path: Path) -> list[tuple[float, float]]:
    """(x, y) in µm of the highest attention of each level, by the scale and translation that the metadata give."""
    group = zarr.open_group(path, mode="r")
    found = []
    for dataset in group.attrs["ome"]["multiscales"][0]["datasets"]:
        values = np.asarray(group[dataset["path"]][0])
        scale, translation = (
            next(one[kind] for one in dataset["coordinateTransformations"] if one["type"] == kind)
            for kind in ("scale", "translation")
        )
        row, col = np.unravel_index(np.nanargmax(values), values.shape)
        found.append((col * scale[2] + translation[2], row * scale[1] + translation[1]))
    return found


def test_every_level_of_the_heatmap_has_its_highest_value_there(tmp_path: Path) -> None:
    """Cells of 8 pixels: the map is 126 cells wide and has a second level."""
    lesion = Box(808, 608, 8, 8)
    everywhere = TissueMask(np.ones((1, 1), np.bool_), float(max(SIZE)))
    with FORMATS["array-as-stated"](tmp_path, painted(lesion), 4, MPP) as slide:
        prediction = predict(slide, darkest(tile=8, stride=1), tissue=everywhere)
    HeatmapPyramidExporter()(prediction, tmp_path / "heatmap.ome.zarr")
    places = highest_places(tmp_path / "heatmap.ome.zarr")
    assert len(places) == 2
    for level, (x, y) in enumerate(places):
        half = 8 * 2**level * MPP / 2
        assert abs(x - (lesion.x + 3.5) * MPP) <= half
        assert abs(y - (lesion.y + 3.5) * MPP) <= half


def mask_from_polygon(path: Path, box: Box) -> TissueMask:
    ring = [[box.x, box.y], [box.x + box.w, box.y], [box.x + box.w, box.y + box.h], [box.x, box.y + box.h]]
    geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    file = path / "mask.geojson"
    file.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {}}), encoding="utf-8")
    return load_mask(file, SIZE)


def mask_from_picture(path: Path, box: Box) -> TissueMask:
    """A picture at a quarter of the slide's size, stretched over it."""
    marked = np.zeros(SIZE[::-1], np.uint8)
    marked[box.y : box.y + box.h, box.x : box.x + box.w] = 255
    Image.fromarray(marked).resize((SIZE[0] // 4, SIZE[1] // 4), Image.Resampling.NEAREST).save(path / "mask.png")
    return load_mask(path / "mask.png", SIZE)


def mask_in_memory(path: Path, box: Box) -> TissueMask:
    mask = np.zeros((SIZE[1] // 16 + 1, SIZE[0] // 16 + 1), np.bool_)
    mask[box.y // 16 : (box.y + box.h) // 16, box.x // 16 : (box.x + box.w) // 16] = True
    return TissueMask(mask, 16.0)


@pytest.mark.parametrize("name", ["zarr-0.4", "array-with-bounds", "leica-with-bounds"])
@pytest.mark.parametrize("masked", [mask_from_polygon, mask_from_picture, mask_in_memory])
def test_a_mask_in_level_0_pixels_confines_attention(
    name: str, masked: Callable[[Path, Box], TissueMask], tmp_path: Path
) -> None:
    """The darker lesion wins until a mask leaves only the cells of the paler one, bounds or not."""
    darker, paler = Box(4 * CELL, 9 * CELL, CELL, CELL), Box(10 * CELL, 4 * CELL, CELL, CELL)
    with FORMATS[name](tmp_path, painted(darker, paler), 4, MPP) as slide:
        shown = exported(predict(slide, darkest()), tmp_path)
        assert box_of(shown.regions[0], shown.offset) == darker
        allowed = Box(9 * CELL, 4 * CELL, 3 * CELL, 3 * CELL)
        prediction = predict(slide, darkest(draws=20), tissue=masked(tmp_path, allowed))
        shown = exported(prediction, tmp_path)
        assert box_of(shown.regions[0], shown.offset) == paler
        assert_lesion_in(slide, paler, PALER)
    assert_tile_read(prediction, colour=PALER)  # the first of the tiles outweighs all others
    cells = {box_of(tile, shown.offset)[:2] for tile in shown.tiles}
    assert cells == {(x * CELL, y * CELL) for x in range(9, 12) for y in range(4, 7)}
