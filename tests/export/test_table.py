from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wsi_attention.export import table
from wsi_attention.export.measures import area_read
from wsi_attention.export.table import TILE_COLUMNS, TilesExporter, columns, figures, tile_rows
from wsi_attention.structures import Prediction, warning_in
from wsi_attention.testing.exporters import ExporterContract, example_prediction


class TestTilesExporter(ExporterContract):
    exporter = TilesExporter()


def prediction_row(prediction: Prediction) -> dict[str, str]:
    reason = "; ".join(prediction.shortfalls)
    return table.row("a", prediction.status, prediction.counters.seconds, reason, figures(prediction))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_row_a_tile_in_the_order_of_drawing(tmp_path: Path) -> None:
    prediction = example_prediction()
    TilesExporter()(prediction, tmp_path / "a.csv")
    rows, glimpse = read(tmp_path / "a.csv"), prediction.glimpses[0]
    assert tuple(rows[0]) == TILE_COLUMNS
    boxes = [[int(row[name]) for name in ("minx", "miny", "width", "height")] for row in rows]
    assert boxes == glimpse.tiles.boxes[0].tolist()
    assert [bool(int(row["read"])) for row in rows] == glimpse.valid.tolist()
    for name, values in (("attention", glimpse.attention), ("weight", glimpse.weights)):
        assert [float(row[name]) for row in rows] == pytest.approx(values.tolist(), rel=1e-5)
    assert max(float(row["attention_percentile"]) for row in rows) == 100
    assert {row["glimpse"] for row in rows} == {"tiles"}


def test_unknown_numbers_are_empty() -> None:
    prediction = example_prediction()
    glimpse = replace(prediction.glimpses[0], attention=np.full(32, np.nan), name='=cmd|x!A1, "quoted"')
    row = next(tile_rows(replace(prediction, glimpses=(glimpse,))))
    assert (row["attention"], row["attention_percentile"]) == ("", "")


def test_odd_names_survive_csv(tmp_path: Path) -> None:
    prediction = example_prediction()
    glimpse = replace(prediction.glimpses[0], name='a, "b"\nc; é')
    TilesExporter()(replace(prediction, glimpses=(glimpse,)), tmp_path / "a.csv")
    assert {row["glimpse"] for row in read(tmp_path / "a.csv")} == {'a, "b"\nc; é'}


def test_a_row_has_exactly_the_columns_of_the_table() -> None:
    prediction = example_prediction()
    row = prediction_row(prediction)
    assert set(row) == set(columns(prediction.classes))
    assert columns(prediction.classes)[2:] == [*list(figures(prediction))[:-1], "seconds", "reason", "notes"]
    assert row["label"] == "tumour"
    assert (row["prob_normal"], row["prob_tumour"]) == ("0.062500", "0.937500")
    assert (row["status"], row["spread"], row["tiles_read"], row["seconds"]) == ("partial", "0.021300", "31", "0.250")
    assert 0 < float(row["area_read"]) < 0.1
    assert (row["reason"], row["notes"]) == ("1 of 32 tiles could not be read: made up", "")


def test_what_the_run_knows_wins_over_what_an_earlier_version_stored() -> None:
    stored = {**figures(example_prediction()), "slide": "/in/a.svs", "status": "done", "seconds": "9.000", "reason": ""}
    found = table.row("a", "failed", 1.25, "broken", stored)
    assert (found["slide"], found["status"], found["seconds"], found["reason"]) == ("a", "failed", "1.250", "broken")
    assert found["label"] == "tumour"


def test_where_nothing_was_drawn_there_is_no_error() -> None:
    row = prediction_row(example_prediction(kind="overview_alone"))
    assert (row["spread"], row["unread_mass"]) == ("", "")
    assert prediction_row(example_prediction())["unread_mass"] == "0.625000"


def test_every_row_of_a_demonstration_says_so() -> None:
    row = prediction_row(replace(example_prediction(kind="demonstration"), notes=("mpp was given",)))
    assert row["notes"] == "demonstration model: the label means nothing on real tissue; mpp was given"
    assert warning_in(row["notes"]) == row["notes"].partition("; ")[0]
    assert warning_in("mpp was given; demonstration model: the label") == ""
    other = replace(example_prediction(), purpose="teaching")
    assert warning_in(prediction_row(other)["notes"]) == "the model says that its purpose is teaching"
    assert other.shown_label == "tumour (teaching model)"


def test_a_prediction_shows_what_it_is_on_one_line() -> None:
    shown = repr(example_prediction(kind="demonstration"))
    assert "tumour (demonstration model) 0.938 ± 0.021, 31 tiles read, 62.5% of the attention unread" in shown
    bare = repr(example_prediction(kind="overview_alone"))
    assert "tumour 0.938, 0 tiles read, done" in bare


def test_notes_leave_a_result_done() -> None:
    row = prediction_row(replace(example_prediction(), shortfalls=(), notes=("a level was left out", "mpp was given")))
    assert (row["status"], row["reason"], row["notes"]) == ("done", "", "a level was left out; mpp was given")


def test_a_slide_where_nothing_was_read_has_a_row_too() -> None:
    row = prediction_row(example_prediction(kind="no_glimpses"))
    assert (row["tiles_read"], row["area_read"], row["reason"]) == ("0", "0.000000", "")


def test_every_glimpse_has_its_rows_and_counts() -> None:
    prediction = example_prediction(kind="zoomed")
    names = [row["glimpse"] for row in tile_rows(prediction)]
    assert names == ["views"] * 8 + ["tiles"] * 32
    assert prediction_row(prediction)["tiles_read"] == str(8 + 31)
    alone = replace(prediction, glimpses=prediction.glimpses[1:])
    assert area_read(prediction) > 2 * area_read(alone) > 0


def test_a_model_that_reads_no_tiles_has_an_empty_table() -> None:
    prediction = example_prediction(kind="overview_alone")
    assert list(tile_rows(prediction)) == []
    row = prediction_row(prediction)
    assert (row["tiles_read"], row["area_read"], row["label"]) == ("0", "0.000000", "tumour")
