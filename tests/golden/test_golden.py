"""Nothing that is not meant to changes a prediction: values stored before the code was moved, for every method."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("golden_record", Path(__file__).with_name("record.py"))
assert _spec is not None and _spec.loader is not None
record = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(record)
STORED = json.loads(record.STORED.read_text())


@pytest.mark.parametrize("model", ["demo", *record.METHODS])
def test_predictions_are_those_stored(model: str) -> None:
    slides = record.SLIDES if model == "demo" else record.SLIDES[:1]
    for name, values in record.found((model,), slides):
        wanted = STORED[name]
        assert values["tiles"] == wanted["tiles"], name
        assert values["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-4), name
        assert values["spread"] == pytest.approx(wanted["spread"], abs=1e-4), name
