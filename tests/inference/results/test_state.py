"""What a results folder remembers of a slide."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from wsi_attention.errors import ResultsError
from wsi_attention.export.record import to_record
from wsi_attention.inference.results.state import (
    CERTAINTY,
    CERTAINTY_DIGEST,
    RunKey,
    SlideKey,
    State,
    read_state,
    read_states,
    stored_predictions,
    to_text,
)
from wsi_attention.testing.exporters import example_prediction

RUN = RunKey("demo", "ab" * 32, {"classes": ["benign", "lesion"], "precision": "32"})
STATE = State(
    "a/x",
    "/in/a/x.svs",
    "done",
    "",
    RUN,
    SlideKey("f1", 0.5, None),
    row={"label": "lesion"},
    seconds=1.5,
    exports=("tiles/a/x.csv",),
    record={"format": 1},
)


def store(results: Path, state: State, name: str | None = None) -> Path:
    path = results / "states" / f"{name or state.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_text(state))
    return path


def test_there_and_back(tmp_path: Path) -> None:
    assert read_state(store(tmp_path, STATE)) == STATE
    assert list(read_states(tmp_path)) == [STATE]


def test_failures_are_not_finished_everything_else_is() -> None:
    finished = {status: replace(STATE, status=status).finished for status in ("done", "partial", "no_tissue", "failed")}
    assert finished == {"done": True, "partial": True, "no_tissue": True, "failed": False}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', '{"format": 0}', "\xff"])
def test_damaged_states_count_as_none(tmp_path: Path, text: str) -> None:
    path = store(tmp_path, STATE)
    path.write_text(text, encoding="latin-1")
    assert read_state(path) is None


@pytest.mark.parametrize("export", ["../../etc/passwd", "/etc/passwd", ""])
def test_a_state_that_points_outside_the_folder_counts_as_none(tmp_path: Path, export: str) -> None:
    assert read_state(store(tmp_path, replace(STATE, exports=(export,)))) is None


def test_a_state_under_a_foreign_name_is_left_out(tmp_path: Path) -> None:
    store(tmp_path, replace(STATE, name="../b"), "a/x")
    assert list(read_states(tmp_path)) == []


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path, STATE)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 3}))
    with pytest.raises(ResultsError, match="format 3, this version knows 2; upgrade"):
        read_state(path)


def test_differences_name_both_sides() -> None:
    assert RUN.difference(replace(RUN, model="elsewhere")) is None
    other = replace(RUN, model="new", weights_sha256="cd" * 32)
    assert RUN.difference(other) == "model demo (weights abababababab), asked for new (weights cdcdcdcdcdcd)"
    bf16 = replace(RUN, settings={**RUN.settings, "precision": "bf16"})
    assert RUN.difference(bf16) == 'precision "32", asked for "bf16"'
    exact = replace(RUN, settings={**RUN.settings, "exact": True})
    assert RUN.difference(exact) == "exact none, asked for yes"
    assert RUN.difference(replace(RUN, settings={**RUN.settings, "classes": ("benign", "lesion")})) is None
    fitted = replace(RUN, settings={**RUN.settings, CERTAINTY: ["a sentence"], CERTAINTY_DIGEST: "ab"})
    assert fitted.difference(replace(fitted, settings={**fitted.settings, CERTAINTY: ["in other words"]})) is None
    again = replace(fitted, settings={**fitted.settings, CERTAINTY_DIGEST: "cd"})
    assert fitted.difference(again) == 'certainty_sha256 "ab", asked for "cd"'


def test_a_damaged_prediction_is_named(tmp_path: Path) -> None:
    path = store(tmp_path, STATE)
    with pytest.raises(ResultsError) as refused:
        list(stored_predictions(tmp_path))
    assert str(refused.value).startswith(f"{path}: record: field 'classes' is missing")


def test_a_slide_given_by_a_relative_path_is_found_from_elsewhere(tmp_path: Path) -> None:
    record, slide = to_record(example_prediction()), tmp_path / "x.svs"
    given = record["slide"]
    store(tmp_path, replace(STATE, path=str(slide), record=record))
    assert [found.slide for _, found in stored_predictions(tmp_path)] == [given]
    slide.touch()
    assert [found.slide for _, found in stored_predictions(tmp_path)] == [str(slide)]


def test_predictions_can_only_come_from_results(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no results here"):
        list(stored_predictions(tmp_path))
    store(tmp_path, replace(STATE, status="failed", record=None))
    assert list(stored_predictions(tmp_path)) == []
    with pytest.raises(ResultsError, match="no prediction for a/x"):
        list(stored_predictions(tmp_path, ["a/x"]))
