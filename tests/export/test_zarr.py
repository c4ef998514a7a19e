from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from wsi_attention.errors import SlideError
from wsi_attention.export.measures import covered, read_boxes
from wsi_attention.export.zarr import HeatmapPyramidExporter, levels, metadata
from wsi_attention.geometry import Grid
from wsi_attention.structures import AttentionMap
from wsi_attention.testing.exporters import EXAMPLES, ExporterContract, example_prediction


class TestHeatmapPyramidExporter(ExporterContract):
    exporter = HeatmapPyramidExporter()


def large() -> tuple:
    """A 150 x 333 map with an origin and steps that are not whole."""
    values = np.random.default_rng(0).random((150, 333)).astype(np.float32)
    values[:40] = np.nan
    found = AttentionMap(values, Grid(150, 333, (63.5, 63.25), (-10.0, 4.5)))
    return found, replace(example_prediction(), maps=(found,))


def test_values_and_coverage_come_back(tmp_path: Path) -> None:
    import zarr

    prediction = example_prediction()
    HeatmapPyramidExporter()(prediction, tmp_path / "a.ome.zarr")
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    found = prediction.maps[0]
    values = np.asarray(group["0"][:])
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[0], found.values)
    read = covered(read_boxes(prediction), found.grid)
    np.testing.assert_array_equal(values[1], np.where(np.isfinite(found.values), read, np.nan))
    assert np.nansum(values[1]) > 0


@pytest.mark.parametrize("kind", EXAMPLES)
def test_metadata_keep_the_rules_of_ome_ngff_0_5(kind: str, tmp_path: Path) -> None:
    prediction = example_prediction(kind=kind)
    HeatmapPyramidExporter()(prediction, tmp_path / "a.ome.zarr")
    group = json.loads((tmp_path / "a.ome.zarr/zarr.json").read_text())
    assert (group["zarr_format"], group["node_type"]) == (3, "group")
    ome = group["attributes"]["ome"]
    assert ome["version"] == "0.5"
    [multiscale] = ome["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "y", "x"]
    assert [axis["type"] for axis in multiscale["axes"]] == ["channel", "space", "space"]
    assert [axis.get("unit") for axis in multiscale["axes"]] == [None, "micrometer", "micrometer"]
    shapes = []
    for dataset in multiscale["datasets"]:
        array = json.loads((tmp_path / "a.ome.zarr" / dataset["path"] / "zarr.json").read_text())
        assert (array["node_type"], array["data_type"], array["fill_value"]) == ("array", "float32", "NaN")
        assert array["dimension_names"] == ["c", "y", "x"]
        assert array["chunk_key_encoding"]["configuration"]["separator"] == "/"
        scale, translation = dataset["coordinateTransformations"]
        assert (scale["type"], translation["type"]) == ("scale", "translation")
        assert len(scale["scale"]) == len(translation["translation"]) == 3
        shapes.append(array["shape"])
    assert all(a[1] > b[1] or a[2] > b[2] for a, b in pairwise(shapes))
    for channel in ome["omero"]["channels"]:
        assert len(channel["color"]) == 6
        assert set(channel["window"]) == {"start", "end", "min", "max"}
    files = [path for path in (tmp_path / "a.ome.zarr").rglob("*") if path.is_file() and "maps" not in path.parts]
    assert len(files) == 1 + 2 * len(shapes)


def test_a_cells_edges_lie_where_the_grid_says_at_every_level() -> None:
    found, prediction = large()
    datasets = metadata(found, prediction, 4)["ome"]["multiscales"][0]["datasets"]
    for level, dataset in enumerate(datasets):
        scale, translation = (list(one.values())[1] for one in dataset["coordinateTransformations"])
        for axis, (step, origin) in enumerate(
            [(found.grid.step[1], found.grid.origin[1]), (found.grid.step[0], found.grid.origin[0])], start=1
        ):
            size = scale[axis] / prediction.mpp
            assert size == pytest.approx(step * 2**level)
            for cell in (0, 3):
                left_edge = (translation[axis] + (cell - 0.5) * scale[axis]) / prediction.mpp + 0.5
                assert left_edge == pytest.approx(origin + cell * step * 2**level)


def test_coarser_levels_are_means_of_tissue_cells() -> None:
    found, prediction = large()
    pyramid = levels(found, prediction)
    assert [one.shape for one in pyramid] == [(2, 150, 333), (2, 75, 167), (2, 38, 84), (2, 19, 42)]
    fine, coarse = pyramid[0][0], pyramid[1][0]
    assert np.isnan(coarse[:20]).all()
    assert coarse[30, 40] == pytest.approx(fine[60:62, 80:82].mean(), rel=1e-6)
    assert coarse[50, 166] == pytest.approx(np.mean(fine[100:102, 332]), rel=1e-6)
    values = np.array([[1.0, np.nan], [3.0, np.nan]] * 80, np.float32)
    mixed = AttentionMap(values, Grid(160, 2, (50.0, 50.0)))
    assert levels(mixed, prediction)[1][0][0, 0] == 2.0


def test_a_large_map_is_in_few_small_chunks(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((1100, 600)).astype(np.float32)
    found = AttentionMap(values, Grid(1100, 600, (50.0, 50.0)))
    HeatmapPyramidExporter()(replace(example_prediction(), maps=(found,)), tmp_path / "a")
    chunks = [path for path in (tmp_path / "a").rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert len(chunks) == 6 + 2 + 1 + 1 + 1 + 1
    assert max(path.stat().st_size for path in chunks) <= 2 * 512 * 512 * 4


def test_without_a_map_there_is_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="holds no attention map"):
        HeatmapPyramidExporter()(replace(example_prediction(), maps=()), tmp_path / "a.ome.zarr")
    assert not list(tmp_path.iterdir())


def test_further_maps_lie_beside_the_main_one_under_their_class(tmp_path: Path) -> None:
    import zarr

    prediction = example_prediction(kind="overview_alone")
    HeatmapPyramidExporter()(prediction, tmp_path / "a.ome.zarr")
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    assert sorted(group["maps"].group_keys()) == ["0-class-0", "1-class-1"]
    shown = [group[path].attrs["ome"]["multiscales"][0]["name"] for path in ("/", "maps/0-class-0", "maps/1-class-1")]
    assert shown == ["attention", "class normal", "class tumour"]
    for number, found in enumerate(prediction.maps[:2]):
        np.testing.assert_array_equal(group[f"maps/{number}-class-{number}/0"][0], found.values)


def test_a_finer_map_of_a_part_lies_where_it_belongs(tmp_path: Path) -> None:
    prediction = example_prediction(kind="zoomed")
    HeatmapPyramidExporter()(prediction, tmp_path / "a.ome.zarr")
    group = json.loads((tmp_path / "a.ome.zarr/maps/0-zoom/zarr.json").read_text())
    scale, translation = group["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    grid = prediction.maps[1].grid
    assert scale["scale"][1:] == [grid.step[1] * prediction.mpp, grid.step[0] * prediction.mpp]
    expected = [(grid.origin[k] + (grid.step[k] - 1) / 2) * prediction.mpp for k in (1, 0)]
    assert translation["translation"][1:] == pytest.approx(expected)


def test_a_demonstration_says_so_in_the_metadata() -> None:
    prediction = example_prediction(kind="demonstration")
    found = metadata(prediction.maps[0], prediction, 1)
    assert found["ome"]["multiscales"][0]["name"] == "attention (demonstration model)"
    assert found["ome"]["omero"]["channels"][0]["label"] == "attention (demonstration model)"
    assert found["wsi_attention"]["label"] == "tumour (demonstration model)"
    assert found["wsi_attention"]["remarks"][0].startswith("demonstration model: ")
    assert (
        metadata(example_prediction().maps[0], example_prediction(), 1)["ome"]["multiscales"][0]["name"] == "attention"
    )
