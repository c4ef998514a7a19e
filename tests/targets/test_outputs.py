"""Every output of a prediction without classes: pictures, pages and files say its number, and no probability."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsi_attention import registry
from wsi_attention.export.report_part import read_part
from wsi_attention.export.report_rows import Row
from wsi_attention.export.report_section import Section
from wsi_attention.export.table import columns, figures
from wsi_attention.notebook import prediction_html
from wsi_attention.structures import Prediction
from wsi_attention.testing.exporters import example_prediction


def measured() -> Prediction:
    found = example_prediction()
    values = (("value_age", 53.21987), ("value_size", 2.5))
    nothing = np.empty(0)
    return replace(
        found, classes=(), probabilities=nothing, target="regression", values=values, called="age 53.22, size 2.5"
    )


def test_every_exporter_writes_it(tmp_path: Path) -> None:
    for name in registry.names(registry.EXPORTERS):
        registry.load(registry.EXPORTERS, name)()(measured(), tmp_path / name)
    assert json.loads((tmp_path / "geojson").read_text())["metadata"]["values"] == {
        "value_age": 53.21987,
        "value_size": 2.5,
    }
    part = read_part(tmp_path / "report")
    assert part is not None
    section = Section(Row(1, "s", "done"), part)
    assert (section.label, section.probability, section.classes) == ("age 53.22, size 2.5", None, [])
    assert section.values == [("value_age", 53.21987), ("value_size", 2.5)]


def test_its_row_its_line_and_its_card() -> None:
    prediction = measured()
    row = figures(prediction)
    assert (row["value_age"], row["value_size"], row["label"]) == ("53.219870", "2.500000", "age 53.22, size 2.5")
    assert columns((), ("value_age", "value_size"))[2:6] == ["label", "value_age", "value_size", "set"]
    assert prediction.verdict == "age 53.22, size 2.5 ± 0.021"
    assert "53.22" in prediction_html(prediction)
