from __future__ import annotations

from dataclasses import replace

import numpy as np

from wsi_attention.export.measures import deciding, heaviest, main_map, map_of, percentiles, shown_name
from wsi_attention.geometry import Grid
from wsi_attention.structures import AttentionMap, Glimpse, TileSet
from wsi_attention.testing.exporters import example_prediction

NAN = float("nan")


def a_map(values) -> AttentionMap:
    values = np.array(values, np.float32)
    return AttentionMap(values, Grid(*values.shape, (1.0, 1.0)))


def a_glimpse(locations, weights, valid=None) -> Glimpse:
    count = len(weights)
    valid = np.full(count, True) if valid is None else np.array(valid)
    return Glimpse(TileSet(np.array(locations), (10, 10), 1.0), np.array(weights), np.full(count, 0.1), valid)


def test_percentile_counts_tissue_cells_that_are_no_higher() -> None:
    found = a_map([[0.1, 0.2, NAN], [0.3, 0.4, NAN]])
    assert percentiles(np.array([0.1, 0.3, 0.4, 0.05, 9.0, NAN]), found).tolist()[:5] == [25, 75, 100, 0, 100]
    assert np.isnan(percentiles(np.array([NAN, np.inf]), found)).all()
    assert np.isnan(percentiles(np.array([0.1]), None)).all()
    assert np.isnan(percentiles(np.array([0.1]), a_map([[NAN]]))).all()


def test_the_highest_cell_is_100_percent_despite_rounding_to_float32() -> None:
    found = example_prediction().maps[0]
    highest = np.array([float(np.nanmax(found.values)), np.nextafter(float(np.nanmax(found.values)), 0)])
    assert percentiles(highest, found).tolist() == [100.0, 100.0]


def test_heaviest_adds_repeats_and_skips_failed_and_weightless() -> None:
    glimpse = a_glimpse(
        [(0, 0), (5, 5), (0, 0), (9, 9), (7, 7), (8, 8)],
        [0.2, 0.3, 0.2, 0.9, 0.0, 0.1],
        [True, True, True, False, True, True],
    )
    assert heaviest(glimpse, 5).tolist() == [0, 1, 5]
    assert heaviest(glimpse, 1).tolist() == [0]
    assert heaviest(a_glimpse([(1, 1), (0, 0)], [0.5, 0.5]), 2).tolist() == [0, 1]


def test_deciding_is_the_last_glimpse_that_read_something() -> None:
    first, second = a_glimpse([(0, 0)], [1.0]), a_glimpse([(0, 0)], [0.0], [False])
    assert deciding(replace(example_prediction(), glimpses=(first, second))) is first
    assert deciding(replace(example_prediction(), glimpses=())) is None


def test_each_glimpse_has_its_map() -> None:
    one, two = a_map([[1]]), a_map([[2]])
    prediction = replace(example_prediction(), maps=(one, two))
    assert [map_of(prediction, k) for k in range(3)] == [one, two, two]
    assert map_of(replace(prediction, maps=()), 0) is None


def test_the_main_map_is_attention_else_the_last() -> None:
    whole, part, other = a_map([[1]]), replace(a_map([[2]]), name="scale-2"), replace(a_map([[3]]), name="class-0")
    prediction = replace(example_prediction(), maps=(whole, part))
    assert main_map(prediction) is whole
    assert main_map(replace(prediction, maps=(part, whole, other))) is whole
    assert main_map(replace(prediction, maps=(part, other))) is other
    assert main_map(replace(prediction, maps=())) is None


def test_maps_of_classes_bear_their_names() -> None:
    prediction = example_prediction(kind="overview_alone")
    assert [shown_name(prediction, found) for found in prediction.maps] == ["class normal", "class tumour", "attention"]
    for name in ("class-2", "class-", "class-x", "zoom", "scale-2"):
        assert shown_name(prediction, replace(prediction.maps[0], name=name)) == name
