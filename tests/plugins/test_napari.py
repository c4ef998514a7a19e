"""napari-wsi-attention in napari itself, without a screen: ViewerModel, npe2's manager, Qt offscreen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # napari and what it brings warn at import
    pytest.importorskip("napari", reason="napari is in tox's plugin-napari")
    pytest.importorskip("wsi_attention_napari.widget", reason="napari-wsi-attention is in tox's plugin-napari")

from napari.components import ViewerModel
from napari.layers import Image, Layer, Shapes
from npe2 import PluginManager, PluginManifest
from wsi_attention_napari import levels as levels_module
from wsi_attention_napari.heatmaps import heatmap_layers, heatmap_reader
from wsi_attention_napari.layers import MOST, prediction_layers, slide_layer
from wsi_attention_napari.levels import Level, levels_of
from wsi_attention_napari.readers import results_reader, slide_reader
from wsi_attention_napari.widget import Classify, classified, stored

from wsi_attention import Prediction, View, open_slide, predict
from wsi_attention.checkpoint import load_model
from wsi_attention.errors import InputError, ResultsError, SlideOpenError
from wsi_attention.export.zarr import HeatmapPyramidExporter
from wsi_attention.inference.batch.classify import classify
from wsi_attention.structures import Glimpse, TileSet
from wsi_attention.testing.exporters import EXAMPLES, example_prediction

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

LESION_COLOUR = np.array((95, 55, 140))


def shown(layers: list[Any]) -> list[Layer]:
    viewer = ViewerModel()
    for one in layers:
        viewer.add_layer(Layer.create(*one))
    return list(viewer.layers)


@pytest.fixture
def lesion(lesion_slide: Path, pointing: Callable[[int], Any]) -> Prediction:
    with open_slide(lesion_slide) as slide:
        return predict(slide, pointing(2))


@pytest.fixture(scope="session")
def results(sample_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("napari") / "results"
    slides = [sample_slide, sample_slide.with_name("sample_02.svs")]
    classify(slides, folder, load_model("demo"), what=("geojson",))
    return folder


@pytest.fixture(scope="session")
def qapp() -> Iterator[Any]:
    from qtpy.QtWidgets import QApplication

    yield QApplication.instance() or QApplication([])


INDICES = [
    np.s_[...], np.s_[10:200, 30:77], np.s_[10:200:3, ::-7], np.s_[5, 6], np.s_[-1], np.s_[..., 0], np.s_[4:9, ..., 1:],
    np.s_[:, 3, 2], np.s_[50:40], np.s_[900:2000, -20:], np.s_[np.int64(3), :5, ::-1], np.s_[2:3, 4:5, :],
    np.s_[7:90:5, 2:99:3],
]  # fmt: skip


def test_a_level_is_indexed_as_an_array_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (811, 1003, 3)).astype(np.uint8)
    with open_slide([pixels, pixels[::4, ::4]], mpp=0.5) as slide:
        for level in levels_of(slide):
            whole = View(slide, level.view.downsample).read_whole()
            assert (level.shape, level.dtype, level.ndim, level.size) == (whole.shape, whole.dtype, 3, whole.size)
            for index in INDICES:
                np.testing.assert_array_equal(level[index], whole[index])
            np.testing.assert_array_equal(np.asarray(level), whole)


@pytest.mark.parametrize("index", [np.s_[5000], np.s_[0, 0, 3], np.s_[0, 0, 0, 0], [1, 2], None, np.s_[..., ...]])
def test_what_cannot_be_indexed_is_refused(index: Any, lesion_slide: Path) -> None:
    with open_slide(lesion_slide) as slide, pytest.raises(IndexError):
        levels_of(slide)[0][index]


def test_more_than_fits_into_memory_is_refused(lesion_slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels_module, "LARGEST", 10_000)
    with open_slide(lesion_slide) as slide, pytest.raises(ValueError, match="1003 x 811 pixels were asked for at once"):
        np.asarray(levels_of(slide)[0])


def test_the_last_level_is_small(lesion_slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels_module, "COARSEST", 900)
    with open_slide(lesion_slide) as slide:
        made = levels_of(slide)
        assert len(made) > len(slide.level_downsamples)
        assert made[-1].shape[0] * made[-1].shape[1] < 1_500
        assert made[-1][...].std() > 0


def test_the_manifest_is_valid_and_known_to_napari() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", "napari-wsi-attention"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    manifest = PluginManifest.from_distribution("napari-wsi-attention")
    manifest.validate_imports()
    assert {one.command for one in manifest.contributions.readers} == {
        "napari-wsi-attention.slide",
        "napari-wsi-attention.results",
        "napari-wsi-attention.heatmap",
    }


def read_by_napari(path: Path) -> list[Layer]:
    """What npe2 reads of a path when this plugin is asked for."""
    from npe2 import io_utils

    PluginManager.instance().discover()
    data = io_utils.read([str(path)], stack=False, plugin_name="napari-wsi-attention")
    return shown(data)


def test_napari_reads_a_slide_lazily(sample_slide: Path) -> None:
    [layer] = read_by_napari(sample_slide)
    with open_slide(sample_slide) as slide:
        assert isinstance(layer, Image) and layer.multiscale and layer.rgb
        assert layer.name == sample_slide.name
        assert layer.data.shapes == tuple(level.shape for level in levels_of(slide))
        assert all(isinstance(level, Level) for level in layer.data)
        assert layer.metadata["wsi_attention"]["mpp"] == slide.mpp_xy


def test_the_lesion_lies_at_its_pixels_in_napari(
    lesion: Prediction, lesion_slide: Path, places: dict[str, Any]
) -> None:
    """World coordinates of every layer are level-0 pixels, counted from the centre of the first."""
    box = places["lesion"]
    with open_slide(lesion_slide) as slide:
        image, attention, tiles = shown([slide_layer(slide), *prediction_layers(lesion)])
        first, last = (box.y, box.x), (box.y + box.h - 1, box.x + box.w - 1)
        for corner in (first, last):
            y, x = np.round(image.world_to_data(corner)).astype(int)
            assert np.abs(image.data[0][y, x].astype(int) - LESION_COLOUR).max() < 25
            cell = np.round(attention.world_to_data(corner)).astype(int)
            assert tuple(cell) == np.unravel_index(np.nanargmax(attention.data), attention.data.shape)
    heaviest = int(np.argmax(tiles.features["weight"]))
    edges = tiles.data[heaviest]
    assert edges.min(0).tolist() == [box.y - 0.5, box.x - 0.5]
    assert edges.max(0).tolist() == [box.y + box.h - 0.5, box.x + box.w - 0.5]
    rows, columns = attention.data.shape
    assert attention.data_to_world((-0.5, -0.5)) == pytest.approx((-0.5, -0.5))
    far = rows * attention.scale[0] - 0.5, columns * attention.scale[1] - 0.5
    assert attention.data_to_world((rows - 0.5, columns - 0.5)) == pytest.approx(far)


@pytest.mark.parametrize("level", [0, 1])
def test_what_napari_shows_of_a_level_lies_right(level: int, lesion_slide: Path, places: dict[str, Any]) -> None:
    """The slice that napari would draw, mapped to the world by its own transform."""
    box = places["lesion"]
    with open_slide(lesion_slide) as slide:
        [layer] = shown([slide_layer(slide)])
        layer.data_level = level
        layer.corner_pixels = np.array([[0, 0], layer.level_shapes[level][:2]])
        layer.refresh()
        pixels = layer._slice.image.raw
        step = layer.downsample_factors[level]
        rows, columns = np.nonzero(np.abs(pixels.astype(int) - LESION_COLOUR).max(-1) < 25)
        edges = rows.min() * step[0], columns.min() * step[1], (rows.max() + 1) * step[0], (columns.max() + 1) * step[1]
        wanted = box.y, box.x, box.y + box.h, box.x + box.w
        assert np.abs(np.subtract(edges, wanted)).max() <= (0 if level == 0 else step[0])


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_kind_of_prediction_becomes_layers(kind: str) -> None:
    prediction = example_prediction(kind=kind)
    made = shown(prediction_layers(prediction))
    assert len(made) == len(prediction.maps) + len(prediction.glimpses)
    images = [one for one in made if isinstance(one, Image)]
    assert [one.visible for one in images] == [False] * (len(images) - 1) + [True] * bool(images)
    for one, glimpse in zip([one for one in made if isinstance(one, Shapes)], prediction.glimpses, strict=True):
        places = np.unique(glimpse.tiles.locations[0], axis=0)
        assert len(one.data) == len(places) == len(one.features)
        assert one.features["weight"].sum() == pytest.approx(glimpse.weights.sum())
        assert one.metadata["wsi_attention"]["label"] == prediction.shown_label


def test_only_the_heaviest_of_very_many_tiles_are_drawn() -> None:
    rng = np.random.default_rng(0)
    count = MOST + 500
    weights = rng.dirichlet(np.ones(count))
    tiles = TileSet(rng.integers(0, 9_000, (count, 2)), (64, 64), 1.0)
    glimpse = Glimpse(tiles, weights, weights, np.full(count, True))
    [(data, how, _)] = prediction_layers(replace(example_prediction(), maps=(), glimpses=(glimpse,)))
    assert len(data) == MOST and "2000 heaviest of" in how["name"]
    assert how["features"]["weight"].min() >= np.sort(weights)[-MOST]


def test_results_are_read_by_slide(results: Path, sample_slide: Path) -> None:
    layers = read_by_napari(results / "states" / "sample_01.json")
    assert {type(one) for one in layers} == {Image, Shapes}
    with pytest.raises(ValueError, match=r"results of 2 slides \(sample_01, sample_02\)"):
        results_reader(str(results))(str(results))
    assert slide_reader(str(results)) is None


def test_a_heatmap_lies_on_the_slide(lesion: Prediction, tmp_path: Path) -> None:
    """Its file counts in µm, the slide's layer in level-0 pixels; here both are the same place."""
    folder = tmp_path / "a.ome.zarr"
    HeatmapPyramidExporter()(lesion, folder)
    heatmap, inspected = read_by_napari(folder)
    [attention] = [one for one in shown(prediction_layers(lesion)) if isinstance(one, Image)]
    assert np.array_equal(heatmap.data[0], attention.data.astype(np.float32), equal_nan=True)
    assert heatmap.contrast_limits == pytest.approx(attention.contrast_limits)
    for corner in ((0.0, 0.0), (-0.5, -0.5), (3.0, 7.0)):
        assert heatmap.data_to_world(corner) == pytest.approx(attention.data_to_world(corner))
        assert inspected.data_to_world(corner) == pytest.approx(attention.data_to_world(corner))
    assert (heatmap.visible, inspected.visible) == (True, False)
    assert heatmap.metadata["wsi_attention"]["label"] == lesion.shown_label
    assert slide_reader(str(folder)) is None


def test_other_pyramids_and_heatmaps_without_a_scale_are_left_to_others(lesion: Prediction, tmp_path: Path) -> None:
    folder = tmp_path / "a.ome.zarr"
    HeatmapPyramidExporter()(lesion, folder)
    about = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    del about["attributes"]["wsi_attention"]["mpp"]
    (folder / "zarr.json").write_text(json.dumps(about), encoding="utf-8")
    assert heatmap_reader(str(folder)) is None
    with pytest.raises(ValueError, match="no heatmap with the slide's µm per pixel; write it with: export"):
        heatmap_layers(folder)
    assert heatmap_reader(str(tmp_path)) is None


def test_all_maps_of_a_model_are_layers(tmp_path: Path) -> None:
    [kind] = [one for one in EXAMPLES if len(example_prediction(kind=one).maps) > 1][:1]
    prediction = example_prediction(kind=kind)
    HeatmapPyramidExporter()(prediction, tmp_path / "a.ome.zarr")
    made = shown(heatmap_layers(tmp_path / "a.ome.zarr"))
    assert len(made) == len(prediction.maps) + 1
    assert [one.visible for one in made] == [True, *[False] * len(prediction.maps)]


def test_what_is_not_ours_is_left_to_others(tmp_path: Path, results: Path) -> None:
    picture = tmp_path / "a.tif"
    picture.write_bytes(b"II*\0" + b"\0" * 20)
    (tmp_path / "a.json").write_text("{}")
    for path in (picture, tmp_path, tmp_path / "a.json", results / "predictions.csv"):
        assert slide_reader(str(path)) is None and results_reader(str(path)) is None
    assert slide_reader([str(picture), str(picture)]) is None


def test_a_broken_slide_says_why(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(b"nothing")
    with pytest.raises(SlideOpenError, match=r"a\.svs"):
        slide_reader(str(path))(str(path))


def waited(worker: Any, qapp: Any, seconds: float = 60) -> None:
    """Lets Qt deliver what the worker's thread said."""
    ended = []
    worker.finished.connect(lambda: ended.append(True))
    stop = time.monotonic() + seconds
    while not ended and time.monotonic() < stop:
        qapp.processEvents()
        time.sleep(0.01)
    qapp.processEvents()
    assert ended


def test_the_widget_runs_a_model_in_a_thread(sample_slide: Path, qapp: Any) -> None:
    viewer = ViewerModel()
    widget = Classify(viewer)
    assert widget.start() is None and "no slide is open" in widget.said.value
    with open_slide(sample_slide) as slide:
        viewer.add_layer(Layer.create(*slide_layer(slide)))
        assert widget.start() is None and "no model was given" in widget.said.value
        widget.model.value = "demo"
        waited(widget.start(), qapp)
        assert "demonstration model: the label means nothing on real tissue" in widget.said.value
        expected = predict(slide, load_model("demo"))
    assert widget.said.value.startswith(f"{expected.shown_label} ")
    assert len(viewer.layers) == 1 + len(prediction_layers(expected))
    waited(widget.start(), qapp)
    assert len(viewer.layers) == 1 + len(prediction_layers(expected))
    assert widget.run.enabled


def test_the_widget_tells_what_went_wrong(sample_slide: Path, qapp: Any) -> None:
    viewer = ViewerModel()
    widget = Classify(viewer)
    with open_slide(sample_slide) as slide:
        viewer.add_layer(Layer.create(*slide_layer(slide)))
    widget.model.value = "no-such-model"
    waited(widget.start(), qapp)
    assert "no-such-model" in widget.said.value and widget.run.enabled
    widget.show_result()
    assert "give the one that classify wrote" in widget.said.value


def test_a_stored_result_is_found_by_content(
    results: Path, sample_slide: Path, lesion_slide: Path, tmp_path: Path, qapp: Any
) -> None:
    renamed = tmp_path / "renamed.svs"
    renamed.write_bytes(sample_slide.read_bytes())
    assert stored(str(results), str(renamed)).slide == str(sample_slide)
    with pytest.raises(InputError, match="no result of"):
        stored(str(results), str(lesion_slide))
    with pytest.raises(ResultsError, match="no results here"):
        stored(str(tmp_path), str(renamed))


def test_a_prediction_is_the_same_with_and_without_napari(sample_slide: Path) -> None:
    with open_slide(sample_slide) as slide:
        expected = predict(slide, load_model("demo"))
    found = classified(str(sample_slide), "demo")
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
