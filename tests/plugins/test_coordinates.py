"""One lesion, every frame we write: QuPath, table, report, viewer, the HDF5 dialects, DICOM, napari, heatmap, to the
pixel.

Hosts that are not installed are left out; LazySlide, TIAToolbox and MONAI check theirs in their own tests.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
import zarr
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from wsi_attention import Classifier, Prediction, Slide, TissueMask, open_slide, predict
from wsi_attention.export.geojson import GeoJSONExporter
from wsi_attention.export.record import to_record
from wsi_attention.export.report import ReportExporter
from wsi_attention.export.report_part import read_part
from wsi_attention.export.table import TilesExporter, figures
from wsi_attention.export.zarr import HeatmapPyramidExporter
from wsi_attention.geometry import Box
from wsi_attention.inference.results.state import RunKey, SlideKey, State, to_text
from wsi_attention.slide.readers.array import ArrayLevels
from wsi_attention.testing.slide_levels import pyramid
from wsi_attention.viewer.content import Content
from wsi_attention.viewer.deepzoom import SIDE, DeepZoom
from wsi_attention.viewer.library import Library

CELL = 64
MPP = 0.5
TISSUE, LESION = (232, 200, 222), (95, 55, 140)
Frame = Callable[[Slide, Prediction, Path], Iterator[Box]]
"""Where a file or service says that the lesion is, each time it says so, put back into level-0 pixels."""


def qupath(slide: Slide, prediction: Prediction, folder: Path) -> Iterator[Box]:
    """QuPath's origin is the corner of the bounds; tile and annotation."""
    GeoJSONExporter(top=1)(prediction, folder / "a.geojson")
    offset = slide.facts.bounds[:2] if slide.facts.bounds else (0, 0)
    for feature in json.loads((folder / "a.geojson").read_bytes())["features"]:
        left, top, right, bottom = (int(value) for value in shapely.geometry.shape(feature["geometry"]).bounds)
        yield Box(left + offset[0], top + offset[1], right - left, bottom - top)


def table(slide: Slide, prediction: Prediction, folder: Path) -> Iterator[Box]:
    TilesExporter()(prediction, folder / "a.csv")
    for row in csv.DictReader((folder / "a.csv").read_text(encoding="utf-8").splitlines()):
        yield Box(*(int(row[name]) for name in ("minx", "miny", "width", "height")))


def report(slide: Slide, prediction: Prediction, folder: Path) -> Iterator[Box]:
    ReportExporter()(prediction, folder / "a.json")
    part = read_part(folder / "a.json")
    assert part is not None
    for one in part["boxes"]:
        yield Box(*(one[side] for side in "xywh"))


def viewer(slide: Slide, prediction: Prediction, folder: Path) -> Iterator[Box]:
    """The box that the page draws, and where the lesion is in the tiles of the finest level that it shows."""
    key, run = SlideKey("f"), RunKey("darkest", "0" * 64, {})
    state = State("a", "a", "done", "", run, key, row=figures(prediction), record=to_record(prediction))
    (folder / "states").mkdir()
    (folder / "states" / "a.json").write_text(to_text(state), encoding="utf-8")
    library = Library(folder)
    for one in json.loads(Content(library).facts(0))["boxes"]:
        yield Box(*(one[side] for side in "xywh"))
    library.close()
    deep, (width, height) = DeepZoom(slide.dimensions), slide.dimensions
    shown = np.full((height, width), 255, np.uint8)
    for row in range(-(-height // SIDE)):
        for col in range(-(-width // SIDE)):
            grey = np.asarray(Image.open(io.BytesIO(deep.tile(slide, deep.last, col, row))).convert("L"))
            shown[row * SIDE :, col * SIDE :][: grey.shape[0], : grey.shape[1]] = grey
    dark = shown < 142
    rows, cols = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    yield Box(int(cols[0]), int(rows[0]), int(np.ptp(cols)) + 1, int(np.ptp(rows)) + 1)


def heatmap(slide: Slide, prediction: Prediction, folder: Path) -> Iterator[Box]:
    """The cell of the highest value, by the scale and translation in µm that OME-Zarr states for cell centres."""
    HeatmapPyramidExporter()(prediction, folder / "a.ome.zarr")
    group = zarr.open_group(folder / "a.ome.zarr", mode="r")
    level = group.attrs["ome"]["multiscales"][0]["datasets"][0]
    stated = {kind: one[kind] for one in level["coordinateTransformations"] for kind in one if kind != "type"}
    values = np.asarray(group[level["path"]][0])
    row, col = np.unravel_index(np.nanargmax(values), values.shape)
    (sy, sx), (ty, tx) = stated["scale"][-2:], stated["translation"][-2:]
    # a translation places the centre of the first cell, and (0, 0) is the centre of the first pixel
    x, y = (col * sx + tx - sx / 2) / MPP + 0.5, (row * sy + ty - sy / 2) / MPP + 0.5
    yield Box(*(round(value) for value in (x, y, sx / MPP, sy / MPP)))


def dialects(slide: Slide, prediction: Prediction, folder: Path) -> Iterator[Box]:
    import wsi_attention_files as files

    for dialect in ("trident", "clam", "wsinfer", "stamp"):
        bag = files.bag_of(prediction, "a")
        if dialect == "stamp":  # which has no file without features
            bag = replace(bag, features=np.ones((len(bag), 2), np.float16), encoder="net")
        path = files.write_bag(bag, folder / dialect, dialect)[0]
        again = files.read_bag(path, mpp=MPP)
        assert again.dialect == dialect
        for x, y in again.locations.tolist():
            yield Box(x, y, again.side, again.side)


def dicom(slide: Slide, prediction: Prediction, folder: Path) -> Iterator[Box]:
    from highdicom.ann import MicroscopyBulkSimpleAnnotations
    from pydicom import dcmread
    from wsi_attention_dicom.annotations import AnnotationExporter
    from wsi_attention_dicom.described import minimal_source

    AnnotationExporter(minimal_source)(prediction, folder / "a.dcm")
    ann = MicroscopyBulkSimpleAnnotations.from_dataset(dcmread(folder / "a.dcm"))
    for group in ann.get_annotation_groups():
        for ring in group.get_graphic_data(ann.AnnotationCoordinateType):
            yield Box(*(int(value) for value in (*np.min(ring, axis=0), *np.ptp(ring, axis=0))))


def napari(slide: Slide, prediction: Prediction, folder: Path) -> Iterator[Box]:
    """The boxes, by napari's own account of where they lie, and the cell of the map that is highest; its pixels are
    placed by their centres."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari and what it brings warn
        from napari.layers import Layer
        from wsi_attention_napari.layers import prediction_layers

    *maps, boxes = (Layer.create(*one) for one in prediction_layers(prediction))
    for corners in boxes.data:
        world = np.array([boxes.data_to_world(corner) for corner in corners]) + 0.5
        (y, x), (h, w) = world.min(axis=0), np.ptp(world, axis=0)
        yield Box(*(round(value) for value in (x, y, w, h)))
    for one in maps:
        cell = np.array(np.unravel_index(np.nanargmax(one.data), one.data.shape))
        (y, x), (bottom, right) = (np.array(one.data_to_world(cell + edge)) + 0.5 for edge in (-0.5, 0.5))
        yield Box(*(round(value) for value in (x, y, right - x, bottom - y)))


FRAMES: dict[str, tuple[Frame, tuple[str, ...]]] = {
    "qupath": (qupath, ()),
    "table": (table, ()),
    "report": (report, ()),
    "viewer": (viewer, ()),
    "heatmap": (heatmap, ()),
    "hdf5": (dialects, ("h5py", "wsi_attention_files")),
    "napari": (napari, ("napari", "wsi_attention_napari")),
    "dicom": (dicom, ("highdicom", "wsi_attention_dicom")),
}


@pytest.mark.parametrize("name", FRAMES)
@settings(
    max_examples=6,
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_the_lesion_is_where_every_frame_says(
    name: str,
    data: st.DataObject,
    pointing: Callable[[int], Classifier],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    frame, needed = FRAMES[name]
    for package in needed:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    cols, rows = (data.draw(st.integers(4, 9), side) for side in ("columns", "rows"))
    size = tuple(CELL * cells + data.draw(st.integers(0, CELL - 1)) for cells in (cols, rows))
    at = data.draw(st.integers(0, cols - 1), "column"), data.draw(st.integers(0, rows - 1), "row")
    lesion = Box(CELL * at[0], CELL * at[1], CELL, CELL)
    left, top = (
        data.draw(st.integers(0, min(place, 90)), side) for side, place in zip(("left", "top"), lesion[:2], strict=True)
    )
    bounds = Box(left, top, size[0] - left, size[1] - top) if left or top else None
    rgb = np.full((size[1], size[0], 3), TISSUE, np.uint8)
    rgb[lesion.y : lesion.y + CELL, lesion.x : lesion.x + CELL] = LESION
    everywhere = TissueMask(np.ones((1, 1), np.bool_), float(max(size)))
    levels = tuple(pyramid(rgb, 2, 40))
    stated = tuple(2.0**k for k in range(len(levels)))  # of shapes alone, levels that lost a border claim to be longer
    with open_slide(ArrayLevels(levels, stated, bounds), mpp=MPP) as slide:
        prediction = predict(slide, pointing(1), tissue=everywhere, device="cpu")
        said = list(frame(slide, prediction, tmp_path_factory.mktemp(name)))
    assert said
    assert set(said) == {lesion}
