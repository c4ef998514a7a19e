"""Exactly, or until certain: what predict and classify do with it, and what they refuse."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from wsi_attention.certainty.calibration import Calibration
from wsi_attention.certainty.conformal import Conformal
from wsi_attention.certainty.fitted import Certainty
from wsi_attention.checkpoint import Classifier, build_model, with_draws
from wsi_attention.errors import InputError, ModelError, ResultsError
from wsi_attention.export.table import interval
from wsi_attention.geometry import OVERVIEW_PIXELS
from wsi_attention.inference.batch.classify import classify as classify_apart
from wsi_attention.inference.batch.classify import run_key
from wsi_attention.inference.certify import NO_SET
from wsi_attention.inference.effort import Effort
from wsi_attention.inference.predict import OTHER_DRAWS, predict
from wsi_attention.inference.results.state import RunKey, stored_predictions
from wsi_attention.slide.slide import open_slide

classify = partial(classify_apart, in_process=True)
"""What is asked here is of results, however they come about: no process is needed."""


def rows(results: Path) -> list[dict[str, str]]:
    with (results / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_exact_reads_every_cell_of_tissue(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        prediction = predict(slide, tiny, exact=True)
        again = predict(slide, tiny, exact=True, batch=3)
    (glimpse,), (found,) = prediction.glimpses, prediction.maps
    cells = int((found.values > 0).sum())
    assert len(glimpse.tiles) == prediction.counters.tiles == cells > 100
    assert prediction.spread is None
    assert prediction.unread_mass == 0.0
    assert prediction.provenance["snap"] is False
    assert prediction.provenance["exact"] is True
    assert (prediction.probabilities == again.probabilities).all()


def test_more_tiles_for_a_smaller_error(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        usual, exact = predict(slide, tiny), predict(slide, tiny, exact=True)
        assert usual.spread is not None
        tolerance = usual.spread / 3
        closer = predict(slide, tiny, tolerance=tolerance, unread=1.0)
        bounded = predict(slide, tiny, tolerance=tolerance, budget=16)
        certain = predict(slide, tiny, tolerance=0.2)
    assert closer.spread is not None
    assert closer.spread <= tolerance
    assert certain.unread_mass is not None
    assert certain.unread_mass <= 0.2 < usual.unread_mass  # type: ignore[operator]
    assert certain.notes == closer.notes == ()
    (note,) = bounded.notes
    assert note.startswith("reading ended before the tolerance was met: standard error 0.")
    assert "of the attention unread, wanted at most" in note
    assert bounded.status == "done"
    assert 16 < closer.counters.tiles < exact.counters.tiles
    assert bounded.counters.tiles == 16
    assert bounded.spread is not None
    assert bounded.spread > tolerance
    assert closer.provenance["tolerance"] == tolerance
    assert (closer.provenance["unread"], certain.provenance["unread"]) == (1.0, 0.2)
    assert "budget" not in closer.provenance
    assert bounded.provenance["budget"] == 16
    assert not {"exact", "tolerance", "budget"} & usual.provenance.keys()
    assert (usual.glimpses[0].tiles.locations == closer.glimpses[0].tiles.locations[:, :8]).all()


@pytest.mark.parametrize(
    ("wishes", "text"),
    [
        ({"exact": True, "tolerance": 0.1}, "either exact, or a tolerance"),
        ({"exact": True, "budget": 100}, "either exact, or a tolerance"),
        ({"budget": 100}, "may cost: give one of them too"),
        ({"unread": 0.1}, "unread says when a tolerance may stop: give a tolerance too"),
        ({"exact": True, "unread": 0.1}, "either exact, or a tolerance"),
        ({"tolerance": 0.1, "unread": 2.0}, r"between 0 and 1; got 2\.0"),
        ({"tolerance": 0.0}, "above 0 and below 1; got 0.0"),
        ({"tolerance": float("nan")}, "above 0 and below 1"),
        ({"tolerance": 0.1, "budget": 7}, "budget 7 is less than the 8 tiles of one round"),
    ],
)
def test_wishes_that_make_no_sense(
    tmp_path: Path, write_slide, tiny: Classifier, wishes: dict[str, object], text: str
) -> None:
    with open_slide(write_slide(tmp_path / "x.tif")) as slide, pytest.raises(InputError, match=text):
        predict(slide, tiny, **wishes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=text):
        classify([tmp_path / "x.tif"], tmp_path / "out", tiny, **wishes)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_model_that_estimates_nothing_is_told_from_one_that_does(tiny: Classifier) -> None:
    other = replace(tiny, model=torch.nn.Linear(1, 1), config={"method": "oaa"})
    for wishes in (Effort(exact=True), Effort(tolerance=0.1)):
        wishes.check(tiny)
        with pytest.raises(InputError, match=r"method 'oaa' estimates no sum .* such as ats, grow and zoom-in"):
            wishes.check(other)
    Effort().check(other)


def test_a_model_of_another_quantity_gives_no_sum(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    top = replace(tiny, model=build_model("ats", 2, **{**tiny.config["options"], "inference": "top"}).eval())
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        usual = predict(slide, top)
        for wishes in ({"exact": True}, {"tolerance": 0.1}):
            with pytest.raises(
                InputError, match=r'^model .*: inference "top" is the mean feature of the 8 most attended'
            ):
                predict(slide, top, **wishes)  # type: ignore[arg-type]
    assert usual.spread is None
    assert usual.unread_mass is not None
    assert not any(glimpse.drawn for glimpse in usual.glimpses)
    with pytest.raises(InputError, match="are for models that predict from random draws"):
        classify([tmp_path / "x.tif"], tmp_path / "out", top, exact=True)
    assert not (tmp_path / "out").exists()


def test_weights_that_cannot_be_right_are_named_with_the_slide(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    class Broken(torch.nn.Module):
        tile_mpp, overview_mpp, overview_pixels = 0.5, tiny.model.overview_mpp, OVERVIEW_PIXELS
        map_stride, encoder, preprocess, draws, other_quantity = 1, None, torch.nn.Identity(), 1, ""

        def exact(self, source: object) -> object:
            output = tiny.model.exact(source)  # type: ignore[operator]
            return replace(output, logits=output.logits * torch.nan)

        def until(self, *given: object) -> object:
            return self.exact(given[0])

    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        for wishes in ({"exact": True}, {"tolerance": 0.1}):
            with pytest.raises(ModelError, match=r"x\.tif: the model's logits are not finite"):
                predict(slide, replace(tiny, model=Broken()), **wishes)  # type: ignore[arg-type]


def test_a_folder_holds_one_kind_of_result(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    slides = [write_slide(tmp_path / "in" / f"{name}.tif", seed) for seed, name in enumerate("abc")]
    out = tmp_path / "out"
    first = classify(slides[:2], out, tiny, exact=True, workers=2, what=["geojson"])
    assert first.statuses == {"done": 2}
    for wishes, text in (({}, "exact yes, asked for none"), ({"tolerance": 0.1}, "exact yes")):
        with pytest.raises(ResultsError, match=text):
            classify(slides, out, tiny, **wishes)  # type: ignore[arg-type]
    report = classify(slides, out, tiny, exact=True, what=["geojson"])
    assert (report.kept, report.statuses["done"]) == (2, 3)
    assert {row["spread"] for row in rows(out)} == {""}
    assert {row["unread_mass"] for row in rows(out)} == {"0.000000"}
    assert all(int(row["tiles_read"]) > 100 for row in rows(out))
    assert all(prediction.provenance["exact"] for _, prediction in stored_predictions(out))
    runs = [json.loads(path.read_text()) for path in sorted(out.glob("run_*.json"))]
    assert all(run["arguments"]["exact"] is True for run in runs)
    collection = json.loads((out / "geojson" / "a.geojson").read_text())
    assert collection["metadata"]["exact"] is True


def test_tiles_on_and_off_the_stored_grid_do_not_share_a_folder(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    write_slide(tmp_path / "slides" / "a.tif")
    out = tmp_path / "out"
    classify([tmp_path / "slides"], out, tiny, what=["geojson"])
    with pytest.raises(ResultsError, match="snap yes, asked for no"):
        classify([tmp_path / "slides"], out, tiny, snap=False, what=["geojson"])
    classify([tmp_path / "slides"], tmp_path / "off", tiny, snap=False, what=["geojson"])
    ((_, on),), ((_, off),) = stored_predictions(out), stored_predictions(tmp_path / "off")
    assert (on.provenance["snap"], off.provenance["snap"]) == (True, False)
    (run,) = (tmp_path / "off").glob("run_*.json")
    assert json.loads(run.read_text())["arguments"]["snap"] is False


def test_run_keys_of_ordinary_results_stay_as_they_were(tiny: Classifier) -> None:
    assert not {"exact", "tolerance", "budget"} & run_key(tiny, "32").settings.keys()
    keys = [run_key(tiny, "32", Effort(*wishes)) for wishes in ((False, 0.1), (False, 0.1, 64), (False, 0.2), (True,))]
    assert all(a.difference(b) for a in keys for b in keys if a is not b)


def test_run_keys_tell_bags_and_encoders_outside_the_folder(tiny: Classifier) -> None:
    plain = run_key(tiny, "32")
    assert not {"bag", "encoder_sha256"} & plain.settings.keys()

    def keyed(**said: object) -> RunKey:
        return run_key(replace(tiny, config={**tiny.config, **said}), "32")

    part = {"name": "uni", "repository": "MahmoodLab/UNI", "sha256": "ab", "contained": False}
    assert keyed(recipe={"bag": "slide"}, encoder_weights={**part, "contained": True}) == plain
    assert plain.difference(keyed(recipe={"bag": "patient"})) == 'bag none, asked for "patient"'
    outside = keyed(encoder_weights=part)
    assert outside.difference(keyed(encoder_weights={**part, "sha256": "cd"})) == 'encoder_sha256 "ab", asked for "cd"'


def test_the_interval_is_symmetric_in_log_odds() -> None:
    low, high = interval(0.5, 0.05)
    assert low == pytest.approx(1 - high)
    assert high == pytest.approx(1 / (1 + 2.718281828459045 ** (-1.96 * 0.05 / 0.25)))
    low, high = interval(0.98, 0.02)
    assert 0.98 - low > high - 0.98 > 0
    assert high < 1
    assert interval(0.7, 0.0) == (0.7, 0.7)
    assert interval(1.0, 0.1) == (1.0, 1.0)
    assert interval(1e-12, 0.5) == (pytest.approx(0.0), pytest.approx(1.0))


def test_sets_and_calibrated_errors_say_what_they_are_about(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    path = write_slide(tmp_path / "x.tif")
    usual = predict(path, tiny)
    assert usual.spread is not None
    level = (
        float(np.log(usual.probabilities[1] / usual.probabilities[0])) / 2
    )  # where the error of log-odds counts most
    fitted = Certainty(Calibration("platt", 1.0, (level, -level)), Conformal(0.1, (1.0,), (60,)))
    knowing = replace(tiny, certainty=fitted)
    assert predict(path, knowing).notes == ()
    met = predict(path, knowing, tolerance=usual.spread * 1.01, unread=1.0)
    assert met.spread is not None and met.spread > usual.spread * 1.01
    assert met.notes == (OTHER_DRAWS,)
    missed = predict(path, knowing, tolerance=usual.spread / 3, budget=8)
    assert f"standard error {usual.spread:.3f} of the probability before calibration" in missed.notes[0]
    (note, other) = predict(path, knowing, certify=True).notes
    assert note.endswith(NO_SET) and other == OTHER_DRAWS


def test_another_number_of_draws_is_read_and_said(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    path = write_slide(tmp_path / "x.tif")
    usual, more = predict(path, tiny), predict(path, with_draws(tiny, 7))
    assert more.counters.tiles == 7 != usual.counters.tiles
    assert predict(
        path, with_draws(with_draws(tiny, 7), tiny.config["options"]["draws"])
    ).probabilities == pytest.approx(usual.probabilities)
    fitted = Certainty(conformal=Conformal(0.1, (1.0,), (60,)))
    assert OTHER_DRAWS in predict(path, with_draws(replace(tiny, certainty=fitted), 7)).notes
    with pytest.raises(InputError, match="has no option draws; leave --draws out"):
        with_draws(replace(tiny, config={**tiny.config, "options": {}}), 7)
