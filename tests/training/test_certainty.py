"""A trained folder knows how far to believe its labels; prediction applies it, and every output copes with no label."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from wsi_attention import classify, load_model, train
from wsi_attention.certainty.fitted import NOTHING, Certainty
from wsi_attention.cli.app import app
from wsi_attention.config import Recipe
from wsi_attention.errors import ModelError, ResultsError
from wsi_attention.export.report import ReportExporter
from wsi_attention.inference.alone import predict_alone
from wsi_attention.inference.results.page import part_of, write_page
from wsi_attention.inference.results.state import stored_predictions
from wsi_attention.training.certainty import fitted

h5py = pytest.importorskip("h5py")
from bag_files import write_features  # noqa: E402

from wsi_attention.bags import Bag  # noqa: E402

RECIPE: dict[str, Any] = {"method": "mil", "epochs": 1, "batch": 4, "precision": "32", "seed": 1}
MODEL = {"tile_size": 32, "tile_mpp": 1.0, "hidden": 8}
FRESH = 8
QUIET: dict[str, Any] = {"precision": "32", "device": "cpu", "in_process": True}


def bag(name: str, label: int, seed: int) -> Bag:
    """Nine tiles whose features say little about the label, so that a model is often unsure and sometimes wrong."""
    random = np.random.default_rng(seed)
    features = random.normal(0, 1, (9, 8)).astype(np.float32)
    features[:, 0] += (0.8 if label else -0.8) + random.normal(0, 0.8)
    places = np.stack(np.meshgrid(np.arange(3), np.arange(3)), -1).reshape(-1, 2) * 64
    return Bag(name, places, 64, 32, (192, 192), 0.5, features, encoder="planted")


def write_set(folder: Path, first: int, count: int) -> None:
    for seed in range(first, first + count):
        write_features(bag(f"s{seed}", seed % 2, seed), folder, "trident")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bags/ with 12 slides to train and 24 of 20 patients to validate; fresh/ with 12 others; model/ of the first."""
    folder = tmp_path_factory.mktemp("certainty")
    write_set(folder / "bags", 0, 36)
    write_set(folder / "fresh", 1_000, FRESH)
    parts = ["train"] * 12 + ["val"] * 24
    rows = [f"s{n},{('benign', 'lesion')[n % 2]},p{n - 20 if n >= 32 else n},{parts[n]}" for n in range(36)]
    (folder / "labels.csv").write_text("\n".join(["slide,label,patient,split", *rows]) + "\n")
    trained(folder, "model")
    return folder


def trained(place: Path, name: str, **changes: Any) -> Path:
    recipe = Recipe(**{**RECIPE, "model": MODEL, **changes})
    train(place / "labels.csv", None, place / name, recipe, features=place / "bags", device="cpu")
    return place / name


def rows(results: Path) -> list[dict[str, str]]:
    with (results / "predictions.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def some_bag(place: Path) -> Path:
    return next(path for path in (place / "fresh").rglob("s1000.h5") if path.parent.name != "patches")


def with_entries(place: Path, folder: Path, **entries: object) -> Path:
    """A copy of the model with some entries of config.json changed; None takes one out."""
    folder.mkdir(exist_ok=True)
    for file in (place / "model").glob("*.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | entries
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def test_training_fits_and_prediction_applies(place: Path, tmp_path: Path) -> None:
    model = load_model(place / "model")
    known = model.certainty
    assert known.calibration and known.calibration.kind == "platt" and known.calibration.patients == 20
    assert known.conformal and known.conformal.alpha == 0.1 and known.conformal.patients == (20,)
    assert known.familiar and set(known.familiar.groups) == {"features"} and known.familiar.slides == 36
    plain = load_model(with_entries(place, tmp_path / "plain", calibration=None, conformal=None, familiar=None))
    assert plain.certainty == NOTHING
    before, after = (predict_alone(some_bag(place), one, device="cpu", precision="32") for one in (plain, model))
    assert not before.calibrated and before.among is None and before.label in before.classes
    assert after.calibrated and after.provenance["uncalibrated"] == {
        "probabilities": before.probabilities.tolist(),
        "spread": before.spread,
    }
    logits = np.log(before.probabilities)
    np.testing.assert_allclose(after.probabilities, known.calibration.probabilities(logits), atol=1e-12)
    assert abs(after.probabilities[1] - before.probabilities[1]) > 1e-3
    assert before.unlike is None and after.unlike is not None and 0 < after.unlike < 3


def test_the_folder_says_so(place: Path) -> None:
    card = (place / "model" / "README.md").read_text()
    told = CliRunner().invoke(app, ["info", str(place / "model")]).output
    for text in (card, told):
        assert "calibrated by Platt scaling on 20 patients (24 slides)" in text
        assert "the label is undecided where the set does not hold one class alone" in text


def test_undecided_goes_through_every_output(place: Path, tmp_path: Path) -> None:
    """A model with far too careful thresholds leaves each label undecided; one with the trained ones some of them."""
    config = json.loads((place / "model" / "config.json").read_text())
    careful = config["conformal"] | {"thresholds": [50.0]}
    none = config["conformal"] | {"thresholds": [1e-9]}
    model = with_entries(place, tmp_path / "careful", conformal=careful)
    out = tmp_path / "out"
    what = ("geojson", "tiles", "heatmap", "heatmap-zarr")
    report = classify(None, out, model, features=place / "fresh", what=what, **QUIET)
    assert report.statuses == {"done": FRESH}, report.failures
    found = rows(out)
    assert {row["label"] for row in found} == {"undecided"} and {row["set"] for row in found} == {"benign|lesion"}
    collection = json.loads((out / "geojson" / "s1000.geojson").read_text())
    assert collection["metadata"]["label"] == "undecided" and collection["metadata"]["set"] == ["benign", "lesion"]
    kinds = [one["properties"] for one in collection["features"] if one["properties"]["objectType"] == "annotation"]
    assert kinds and all(one["classification"] == {"name": "undecided", "color": [128, 128, 128]} for one in kinds)
    for name, prediction in stored_predictions(out, ["s1000"]):
        assert prediction.among == ("benign", "lesion") and prediction.calibrated
        part_of(out, name).parent.mkdir()
        ReportExporter()(prediction, part_of(out, name))
    page = write_page(out).read_text(encoding="utf-8")
    assert "undecided, most probable" in page and "Set of classes" in page and "calibrated by Platt" in page
    assert "not calibrated" not in page
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "slide,label\n" + "".join(f"s{s},{('benign', 'lesion')[s % 2]}\n" for s in range(1_000, 1_000 + FRESH))
    )
    ran = CliRunner().invoke(app, ["evaluate", "-p", str(out), "-l", str(labels)])
    assert ran.exit_code == 0 and "AUROC" in ran.output
    with pytest.raises(ResultsError, match="certainty"):
        classify(None, out, place / "model", features=place / "fresh", **QUIET)
    empty = predict_alone(some_bag(place), with_entries(place, tmp_path / "none", conformal=none), device="cpu")
    assert empty.among == () and empty.label == "undecided" and "most probable" in empty.verdict


def test_the_trained_thresholds_leave_some_labels_open(place: Path) -> None:
    model = load_model(place / "model")
    files = sorted(path for path in (place / "fresh").rglob("s1*.h5") if path.parent.name != "patches")
    found = [predict_alone(file, model, device="cpu", precision="32") for file in files]
    assert len(found) == FRESH and 0 < sum(one.decided for one in found) < FRESH
    for one in found:
        assert one.decided is (one.label != "undecided") is (one.among == (one.highest,))


def test_the_same_again_after_a_kill(place: Path) -> None:
    """What is fitted depends on the run alone, so that a training that is repeated ends with the same bytes."""
    again = trained(place, "again")
    ours = [json.loads((one / "config.json").read_text()) for one in (place / "model", again)]
    assert [one["calibration"] for one in ours] == [ours[0]["calibration"]] * 2
    assert (again / "config.json").read_bytes() == (place / "model" / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("calibration", 3),
        ("calibration", {"kind": "platt", "scale": -1.0, "bias": [0.0, 0.0], "patients": 20, "slides": 20}),
        ("conformal", {"alpha": 0.1, "thresholds": [], "patients": []}),
        ("familiar", {"groups": {"stain": {}}, "patients": 20, "slides": 20}),
        ("conformal", {"alpha": 2, "thresholds": [0.1], "patients": [20]}),
    ],
)
def test_damaged_entries_are_one_sentence(place: Path, tmp_path: Path, name: str, broken: object) -> None:
    folder = with_entries(place, tmp_path / "m", **{name: broken})
    with pytest.raises(ModelError, match=rf"config.json: '{name}' is damaged: .*; copy the whole folder again"):
        load_model(folder)
    ran = CliRunner().invoke(app, ["info", str(folder)])
    assert ran.exit_code != 0


def test_too_few_patients_are_said() -> None:
    random = np.random.default_rng(0)
    found = fitted(random.normal(size=(19, 2)), [0, 1] * 9 + [0], [str(n) for n in range(19)], Recipe(), ("a", "b"))
    told = "19 patients with a label were kept for it, at least 20 are needed"
    assert found.calibration is found.conformal is None and found.digest == ""
    assert "not calibrated" in found.sentences[0] and all(told in sentence for sentence in found.sentences)


def test_a_class_of_that_name_gets_no_sets() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(40, 2)), random.integers(0, 2, 40).tolist()
    found = fitted(logits, labels, [str(n) for n in range(40)], Recipe(), ("undecided", "lesion"))
    assert found.conformal is None and "a class is called 'undecided'" in " ".join(found.sentences)
    several = fitted(logits, labels, [str(n) for n in range(40)], Recipe(), ("ER", "ER|PR"))
    assert several.conformal is None and several.calibration
    assert "a class is called 'ER|PR', and | stands between the classes of a set" in " ".join(several.sentences)
    strict = fitted(logits, labels, [str(n) for n in range(40)], Recipe(conformal=0.01), ("a", "b"))
    told = "No label is withheld: 40 patients were kept for it, at least 99 are needed for 0.01."
    assert strict.calibration and told in strict.sentences
    off = fitted(logits, labels, [str(n) for n in range(40)], Recipe(calibration="none", conformal=0.0), ("a", "b"))
    assert off.calibration is off.conformal is None and off.digest == ""
    assert Certainty.from_config(off.as_config(), 2) == off
