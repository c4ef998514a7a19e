"""Tiles as data frames: the columns and values of the table of tiles, and boxes in level-0 pixels."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsi_attention.errors import MissingExtraError
from wsi_attention.export import TilesExporter
from wsi_attention.export.table import TILE_COLUMNS
from wsi_attention.testing import example_prediction
from wsi_attention.testing.exporters import EXAMPLES


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_row_for_each_tile_with_the_columns_of_the_table(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    prediction = example_prediction(kind=kind)
    frame: Any = prediction.to_dataframe()
    TilesExporter()(prediction, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(frame.columns) == TILE_COLUMNS
    assert len(frame) == len(rows) == sum(len(glimpse.tiles) for glimpse in prediction.glimpses)
    for name in TILE_COLUMNS:
        written = [row[name] for row in rows]
        if name == "glimpse":
            assert frame[name].tolist() == written
        else:
            numbers = np.array([float(cell or "nan") for cell in written])
            np.testing.assert_allclose(frame[name].to_numpy(float), numbers, rtol=1e-5)
    assert [str(frame[name].dtype) for name in (*TILE_COLUMNS[:4], "read")] == ["int64"] * 4 + ["bool"]
    assert [str(frame[name].dtype) for name in TILE_COLUMNS[4:7]] == ["float64"] * 3


@pytest.mark.parametrize("kind", ["usual", "no_glimpses"])
def test_boxes_in_level_0_pixels(kind: str) -> None:
    pytest.importorskip("geopandas")
    prediction = example_prediction(kind=kind)
    frame: Any = prediction.to_geodataframe()
    boxes = [box for glimpse in prediction.glimpses for box in glimpse.tiles.boxes[0].tolist()]
    assert frame.crs is None
    assert [shape.bounds for shape in frame.geometry] == [(x, y, x + w, y + h) for x, y, w, h in boxes]
    assert tuple(frame.columns) == (*TILE_COLUMNS, "geometry")


@pytest.mark.parametrize(("method", "package"), [("to_dataframe", "pandas"), ("to_geodataframe", "geopandas")])
def test_without_the_package_the_line_that_installs_it_is_named(
    method: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{method} needs .* pip install .*'{package}>="):
        getattr(example_prediction(), method)()
