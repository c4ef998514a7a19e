"""What predict and classify do with a certificate: columns, notes, provenance, and what they refuse."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wsi_attention import cli
from wsi_attention.certainty.calibration import Calibration
from wsi_attention.certainty.fitted import Certainty
from wsi_attention.checkpoint import Classifier, build_model
from wsi_attention.devices import Precision
from wsi_attention.errors import InputError, ResultsError
from wsi_attention.export.geojson import GeoJSONExporter
from wsi_attention.export.record import from_record, to_record
from wsi_attention.export.table import figures
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.certify import level_of
from wsi_attention.inference.effort import Effort
from wsi_attention.inference.predict import predict
from wsi_attention.structures import Certificate

SAMPLES = Path(__file__).resolve().parents[2] / "sample_slides"


def rows(results: Path) -> dict[str, dict[str, str]]:
    with (results / "predictions.csv").open(newline="") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("precision", "source"),
    [("32", "the classifier within the encoder's range"), ("bf16", "the classifier's norm")],
)
def test_a_certified_prediction_says_what_is_settled(
    precision: Precision, source: str, tmp_path: Path, write_slide, tiny: Classifier
) -> None:
    slide = write_slide(tmp_path / "x.tif")
    exact, usual = (predict(slide, tiny, exact=every, precision=precision) for every in (True, False))
    for certify in ("proof", 0.99):
        prediction = predict(slide, tiny, certify=certify, precision=precision)
        facts = prediction.provenance["certificate"]
        assert isinstance(facts, dict)
        assert prediction.certified == facts["certified"] in ("proof", "0.99")
        assert prediction.label == facts["label"] == exact.label != facts["against"]
        assert prediction.counters.tiles == facts["tiles"] <= exact.counters.tiles
        assert prediction.provenance["certify"] == (0.99 if certify == 0.99 else "proof")
        assert prediction.provenance["snap"] is False
        low, high = facts["lead"]
        assert 0 <= low <= high and high > 0
        assert low > 0 or prediction.certified == "0.99"  # the interval is of all pairs, more cautious than the label
        assert facts["score_of_a_tile"][0] < facts["score_of_a_tile"][1]
        assert facts["score_from"] == source
        (note,) = prediction.notes
        assert note.startswith(f"certified {'by proof' if prediction.certified == 'proof' else 'with confidence 0.99'}")
        assert f"after {facts['tiles']} tile" in note
        assert f"{facts['label']} leads {facts['against']} by {low:.3g} to {high:.3g}" in note
        again = predict(slide, tiny, certify=certify, batch=3, precision=precision)
        assert (again.probabilities == prediction.probabilities).all()
        assert again.provenance["certificate"] == facts
        assert figures(prediction)["certified"] == prediction.certified
        assert from_record(json.loads(json.dumps(to_record(prediction)))).certified == prediction.certified
        GeoJSONExporter()(prediction, tmp_path / "x.geojson")
        told = json.loads((tmp_path / "x.geojson").read_text())["metadata"]
        assert (told["certified"], told["certificate"]) == (prediction.certified, facts)
    assert (usual.certified, exact.certified) == ("", "")
    assert figures(usual)["certified"] == ""
    assert "certified" not in to_record(usual)
    assert not {"certify", "certificate"} & usual.provenance.keys()


def test_a_budget_that_is_too_small_leaves_the_label_open(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    prediction = predict(write_slide(tmp_path / "x.tif"), tiny, certify=0.99, budget=2)
    assert (prediction.certified, prediction.counters.tiles, prediction.status) == ("no", 2, "done")
    (note,) = prediction.notes
    assert note.startswith("not certified after 2 tiles, ")
    facts = prediction.provenance["certificate"]
    assert isinstance(facts, dict)
    assert facts["lead"][0] < 0 < facts["lead"][1]


def test_the_command_certifies_the_label_that_exact_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for name, wishes in {"exact": ["--exact"], "proof": ["--certify"], "likely": ["--certify", "0.99"]}.items():
        slides = ["-i", str(SAMPLES / "sample_03.tiff"), str(SAMPLES / "sample_06.ome.zarr.zip")]
        rest = ["-o", str(tmp_path / name), "-m", "demo", "--in-process", "--what", "tiles"]
        monkeypatch.setattr(sys, "argv", ["wsi-attention", "classify", *wishes, *slides, *rest])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code in (0, None)
        found[name] = rows(tmp_path / name)
    assert {row["certified"] for row in found["exact"].values()} == {""}
    assert {row["certified"] for row in found["proof"].values()} == {"proof"}
    assert {name: row["certified"] for name, row in found["likely"].items()} == {
        "sample_03": "proof",
        "sample_06": "0.99",
    }
    for name, exact in found["exact"].items():
        for kind in ("proof", "likely"):
            row = found[kind][name]
            assert row["label"] == exact["label"]
            assert int(row["tiles_read"]) < int(exact["tiles_read"]) / 3
            assert row["unread_mass"] != ""
    assert int(found["likely"]["sample_06"]["tiles_read"]) < int(found["proof"]["sample_06"]["tiles_read"])


@pytest.mark.parametrize(
    ("wishes", "text"),
    [
        ({"certify": 0.99, "exact": True}, "give either certify, or exact or a tolerance"),
        ({"certify": True, "tolerance": 0.1}, "give either certify, or exact or a tolerance"),
        ({"certify": "proof", "unread": 0.1}, "give either certify, or exact or a tolerance"),
        ({"certify": 0.3}, r"above 0\.5 and below 1 such as 0\.99; got 0\.3"),
        ({"certify": float("nan")}, r"got nan"),
        ({"certify": "surely"}, r"certify is proof, or a confidence such as 0\.99; got 'surely'"),
        ({"certify": True, "budget": 0}, "a budget of 0 tiles certifies nothing; give at least 1"),
        ({"budget": 3}, "a budget is what a tolerance or a certificate may cost: give one of them too"),
    ],
)
def test_wishes_that_make_no_sense(
    tmp_path: Path, write_slide, tiny: Classifier, wishes: dict[str, object], text: str
) -> None:
    with pytest.raises(InputError, match=text):
        predict(tmp_path / "not there.tif", tiny, **wishes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=text):
        classify([tmp_path / "not there.tif"], tmp_path / "out", tiny, **wishes)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["oaa", "tnet", "rams-trans", "trt"])
def test_methods_without_a_sum_say_so_before_a_slide_is_opened(method: str, tiny: Classifier) -> None:
    other = replace(tiny, model=build_model(method, 2).eval(), config={"method": method})
    with pytest.raises(
        InputError, match=f"method '{method}' predicts from the regions that it chose, and not a sum over"
    ):
        predict("not there.tif", other, certify=True)


def test_models_whose_sum_cannot_be_certified_say_why(tiny: Classifier) -> None:
    top = replace(tiny, model=build_model("ats", 2, **{**tiny.config["options"], "inference": "top"}).eval())
    with pytest.raises(
        InputError, match=r"^model .*the 8 most attended tiles, weighted by attention, not of all: no label"
    ):
        predict("not there.tif", top, certify=True)
    pooled = replace(tiny, model=build_model("mil", 2).eval(), config={"method": "mil"})
    Effort(certify=1.0).check(pooled)
    with pytest.raises(InputError, match="method 'mil' reads every tile, whatever the budget: leave the budget out"):
        Effort(certify=1.0, budget=100).check(pooled)


def test_the_label_is_that_after_calibration(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    slide = write_slide(tmp_path / "x.tif")
    exact = predict(slide, tiny, exact=True)
    first, second = (float(one) for one in np.log(exact.probabilities))
    odds = second - first
    for turned, lead in (  # the other class leads after each
        (Calibration("platt", 0.5, (odds, -odds)), 1.5 * abs(odds)),
        (Calibration("isotonic", curves=(((2 * odds - 1, 2 * odds + 1), (0.2, 0.8)),)), abs(odds)),
    ):
        calibrated = replace(tiny, certainty=Certainty(calibration=turned))
        prediction = predict(slide, calibrated, certify=True)
        assert prediction.certified == "proof"
        facts = prediction.provenance["certificate"]
        assert isinstance(facts, dict)
        assert prediction.label == facts["label"] == predict(slide, calibrated, exact=True).label != exact.label
        assert facts["lead"][0] - 1e-4 <= lead <= facts["lead"][1] + 1e-4


def test_labels_that_are_of_no_sum_say_so(tiny: Classifier) -> None:
    curves = (((-1.0, 1.0), (0.2, 0.4)),)
    isotonic = replace(tiny, certainty=Certainty(calibration=Calibration("isotonic", 1.0, (), curves)))
    survival = replace(tiny, config={**tiny.config, "target": {"kind": "survival"}})
    for model, text in (
        (isotonic, "isotonic"),
        (survival, "something else than one label"),
    ):
        with pytest.raises(InputError, match=f"model tiny .*{text}.*no sum over all tiles has its label"):
            predict("not there.tif", model, certify=True)


def test_results_with_and_without_certificates_do_not_lie_in_one_folder(
    tmp_path: Path, write_slide, tiny: Classifier
) -> None:
    slide = write_slide(tmp_path / "x.tif")
    first = classify([slide], tmp_path / "out", tiny, certify=True, what="tiles", in_process=True)
    assert first.statuses == {"done": 1}
    assert classify([slide], tmp_path / "out", tiny, certify="proof", what="tiles", in_process=True).kept == 1
    for other in (None, 0.99):
        with pytest.raises(ResultsError, match='holds results of certify "proof", asked for '):
            classify([slide], tmp_path / "out", tiny, certify=other, what="tiles", in_process=True)


def test_levels_by_every_name() -> None:
    assert [level_of(one) for one in (None, False, True, "proof", "0.99", 0.95)] == [None, None, 1.0, 1.0, 0.99, 0.95]
    kinds = {level: Certificate(level, (0, 1), (0, 1), (0, 1), "", 1, 0, 0).kind for level in (None, 1.0, 0.99)}
    assert kinds == {None: "no", 1.0: "proof", 0.99: "0.99"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["classify", "--certify", "-i", "x"], ["classify", "--certify", "proof", "-i", "x"]),
        (["classify", "--certify", "0.99", "x"], ["classify", "--certify", "0.99", "x"]),
        (["classify", "--certify", "proof"], ["classify", "--certify", "proof"]),
        (["classify", "--certify", "slides/a.svs"], ["classify", "--certify", "proof", "slides/a.svs"]),
        (["classify", "x", "--certify"], ["classify", "x", "--certify", "proof"]),
        (["classify", "--certify=0.9", "x"], ["classify", "--certify=0.9", "x"]),
        (["train"], ["train"]),
    ],
)
def test_a_bare_certify_asks_for_a_proof(given: list[str], expected: list[str]) -> None:
    assert cli.certify_named(given) == expected
