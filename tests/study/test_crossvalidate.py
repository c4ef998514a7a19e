"""The whole way on generated slides: folds, predictions of unseen slides, an ensemble; killed, the same bytes."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from wsi_attention import classify, evaluate, load_model, predict
from wsi_attention.checkpoint import CONFIG
from wsi_attention.cli.app import app
from wsi_attention.config import Recipe, load_recipe
from wsi_attention.errors import InputError, ResultsError, WsiAttentionError
from wsi_attention.inference.results.state import stored_predictions
from wsi_attention.study import crossvalidate as module
from wsi_attention.study.certainty import Sight, known_before, look_again
from wsi_attention.study.crossvalidate import crossvalidate
from wsi_attention.study.ensemble import joined
from wsi_attention.study.folds import Division
from wsi_attention.study.out_of_fold import gather, judged, mean_prediction
from wsi_attention.study.plan import make_plan
from wsi_attention.testing.slides import SlideSpec, write_slide
from wsi_attention.training.listener import Silent

RECIPE = """
method = "ats"
epochs = 1
batch = 2
validation_share = 0.34
[model]
draws = 4
tile_size = 64
tile_mpp = 1.0
overview_mpp = 8.0
encoder_widths = [8, 8]
features = 8
attention_widths = [8, 8]
context = 3
"""
PATIENTS = 8


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides and labels of eight patients, the first of them with two slides, and a study of them."""
    folder = tmp_path_factory.mktemp("study")
    names = [(f"p{i}_{k}", ("benign", "lesion")[i % 2], f"P{i}") for i in range(PATIENTS) for k in range(1 + (i == 0))]
    for seed, (name, label, _) in enumerate(names):
        write_slide(folder / f"slides/{name}.svs", SlideSpec(size=(512, 480), seed=seed, label=label, lesion_scale=8))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("slide", "label", "patient"), *names])
    (folder / "recipe.toml").write_text(RECIPE)
    ran = CliRunner().invoke(app, arguments(folder, folder / "study"), catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    (folder / "said.txt").write_text(ran.output)
    return folder


def arguments(folder: Path, output: Path, *more: str) -> list[str]:
    given = {"-l": folder / "labels.csv", "-i": folder / "slides", "-o": output, "--config": folder / "recipe.toml"}
    fixed = ["--folds", "2", "--device", "cpu"]
    return ["crossvalidate", *(str(part) for pair in given.items() for part in pair), *fixed, *more]


def done(folder: Path, output: Path, **more: Any) -> module.StudyResult:
    recipe = load_recipe(folder / "recipe.toml")
    return crossvalidate(
        folder / "labels.csv", folder / "slides", output, recipe, **{"folds": 2, "device": "cpu", **more}
    )


def copied(study: Path, place: Path) -> Path:
    shutil.copytree(study, place)
    return place


def without_model(fold: Path) -> None:
    """Make a fold one that was killed before its training ended."""
    shutil.rmtree(fold / "held_out")
    for name in ("README.md", "config.json", "model.safetensors", "training/finished.json"):
        (fold / name).unlink()


def contents(folder: Path) -> dict[str, bytes]:
    """All files that do not tell when and by which process they were written."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    kept = [path for path in files if "held_out" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


def test_every_slide_is_predicted_by_a_model_that_has_not_seen_its_patient(place: Path) -> None:
    with (place / "study/folds.csv").open(newline="") as file:
        folds = {row["slide"]: row["fold"] for row in csv.DictReader(file)}
    assert folds["p0_0"] == folds["p0_1"] and len(folds) == 9
    predictions = dict(stored_predictions(place / "study/out_of_fold"))
    assert predictions.keys() == folds.keys()
    for name, found in predictions.items():
        model = load_model(place / f"study/folds/1-{folds[name]}")
        assert found.provenance["weights_sha256"] == model.weights_sha256
        assert model.seen is not None and model.seen.part_of("patients", f"P{name[1]}") is None
        assert model.seen.part_of("slides", str(found.provenance["fingerprint"])) is None
        again = predict(place / f"slides/{name}.svs", model, device="cpu")
        np.testing.assert_array_equal(again.probabilities, found.probabilities)


def test_what_is_said_is_what_evaluate_says_and_what_to_type_next(place: Path) -> None:
    said = (place / "said.txt").read_text()
    found = evaluate(place / "study/out_of_fold", place / "labels.csv")
    assert f"AUROC      {found.scores.auroc:.3f}" in said and "9 slides of 8 patients, 2 models" in said
    assert f"next: wsi-attention evaluate -p {place}/study/out_of_fold -l {place}/labels.csv" in said
    assert found.overlap.lines == (
        "out of fold: each slide was predicted by models that had seen neither it nor its patient",
    )
    assert json.loads((place / "study" / CONFIG).read_text())["metrics"]["out-of-fold slides"] == 9


def test_the_study_is_a_model_of_all_folds(place: Path, tmp_path: Path) -> None:
    ensemble = load_model(place / "study")
    members = [load_model(place / f"study/folds/1-{fold}") for fold in (1, 2)]
    assert [one["weights_sha256"] for one in ensemble.config["members"]] == [one.weights_sha256 for one in members]
    for name, value in members[1].model.state_dict().items():
        assert torch.equal(ensemble.model.state_dict()[f"members.1.{name}"], value)
    assert ensemble.seen is not None and ensemble.seen.part_of("patients", "P3")
    classify(place / "slides", tmp_path / "results", ensemble, device="cpu", in_process=True, what="tiles")
    for name, found in stored_predictions(tmp_path / "results"):
        assert found.provenance["members"]["count"] == 2, name  # type: ignore[index]
        assert sum(len(look.tiles) for look in found.glimpses) == 8
    assert (
        classify(place / "slides", tmp_path / "results", ensemble, device="cpu", in_process=True, what="tiles").kept
        == 9
    )


def test_no_label_of_an_ensemble_is_certified(place: Path) -> None:
    with pytest.raises(InputError, match=r"model study is an ensemble: .*certify one of its members"):
        predict(place / "slides/p0_0.svs", place / "study", device="cpu", certify=True)


def test_started_again_it_has_nothing_to_do_and_after_a_loss_the_same_bytes(place: Path, tmp_path: Path) -> None:
    study = copied(place / "study", tmp_path / "study")
    before = contents(study)
    (study / "config.json").unlink()
    (study / "model.safetensors").unlink()
    shutil.rmtree(study / "out_of_fold")
    without_model(study / "folds/1-2")
    assert (study / "labels.csv").read_text() == (place / "labels.csv").read_text()
    ran = CliRunner().invoke(app, arguments(place, study), catch_exceptions=False)
    assert ran.exit_code == 0
    after = contents(study)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert all(name.endswith("README.md") or name == "out_of_fold/run_out_of_fold.json" for name in changed), changed


@pytest.mark.slow
def test_side_by_side_gives_the_same_models(place: Path, tmp_path: Path, warm_processes: None) -> None:
    said: list[str] = []

    class Heard:
        def line(self, text: str) -> None:
            said.append(text)

        def progress(self, stage: str, done: int, total: int) -> None:
            said.append(f"{stage} {done} of {total}")

    study = copied(place / "study", tmp_path / "study")
    without_model(study / "folds/1-2")
    done(place, study, processes=2, listener=Heard())
    assert load_model(study).weights_sha256 == load_model(place / "study").weights_sha256
    assert (
        "fold 1-1 begins" in said[:3]
        and "fold 1-1: its model was trained before" in said
        and "fold 1-2: held-out slides 4 of 4" in said
    )


def test_a_fold_that_fails_in_its_process_is_named(place: Path, tmp_path: Path, warm_processes: None) -> None:
    study = copied(place / "study", tmp_path / "study")
    (study / "folds/1-2/training/finished.json").write_text("{}")
    with pytest.raises(WsiAttentionError, match=r"^fold 1-2: .*finished\.json cannot be read"):
        done(place, study, processes=2)


def test_predictions_of_several_models_are_averaged(place: Path) -> None:
    own = [predict(place / "slides/p0_0.svs", place / f"study/folds/1-{fold}", device="cpu") for fold in (1, 2)]
    found = mean_prediction(own)
    np.testing.assert_allclose(found.probabilities, np.mean([one.probabilities for one in own], 0), atol=1e-12)
    assert own[0].spread is not None and own[1].spread is not None and found.spread is not None
    assert found.spread == pytest.approx((own[0].spread ** 2 + own[1].spread ** 2) ** 0.5 / 2)
    assert found.provenance["model"] == "1-1+1-2" and len(found.glimpses[0].tiles) == 8
    sets = [replace(own[0], among=("lesion",)), replace(own[1], among=("benign",)), replace(own[1], among=None)]
    assert mean_prediction(sets[:2]).among == ("benign", "lesion") and mean_prediction(sets).among is None
    told = {**own[0].provenance, "uncalibrated": {"probabilities": [0.5, 0.5], "spread": 0.1}}
    mean = mean_prediction([replace(own[0], provenance=told), own[1]]).provenance["uncalibrated"]
    np.testing.assert_allclose(mean["probabilities"], (own[1].probabilities + 0.5) / 2)  # type: ignore[index]


def test_repeats_are_averaged(place: Path, tmp_path: Path) -> None:
    study = copied(place / "study", tmp_path / "study")
    for fold in (1, 2):
        shutil.copytree(study / f"folds/1-{fold}", study / f"folds/2-{fold}")
    plan = make_plan(place / "labels.csv", load_recipe(place / "recipe.toml"), Division(2))
    twice = replace(plan, folds=(*plan.folds, *(replace(fold, repeat=2) for fold in plan.folds)))
    before = dict(stored_predictions(study / "out_of_fold"))
    assert len(gather(study, twice)) == 9
    for name, found in stored_predictions(study / "out_of_fold"):
        np.testing.assert_allclose(found.probabilities, before[name].probabilities, atol=1e-12)
        assert len(found.glimpses[0].tiles) == 2 * len(before[name].glimpses[0].tiles)
    shutil.rmtree(study / "folds/2-2/held_out")
    with pytest.raises(ResultsError, match=r"2-2/held_out has 0 of \d slides; crossvalidate again"):
        gather(study, twice)


def test_predictions_beside_the_truth(place: Path) -> None:
    plan = make_plan(place / "labels.csv", load_recipe(place / "recipe.toml"), Division(2))
    found = judged(place / "study", plan)
    assert found.slides == tuple(sorted(found.slides)) and len(found.slides) == 9
    assert found.patients[:2] == ("P0", "P0") and found.classes == ("benign", "lesion")
    assert found.labels.tolist() == [int(patient[1]) % 2 for patient in found.patients]
    np.testing.assert_allclose(np.exp(found.logits), found.probabilities)


def test_the_slides_are_seen_once_more_by_all_folds(place: Path) -> None:
    plan = make_plan(place / "labels.csv", load_recipe(place / "recipe.toml"), Division(2))
    ensemble = joined([place / f"study/folds/1-{fold}" for fold in (1, 2)])
    looks = look_again(ensemble.model, plan, Sight((str(place / "slides"),), "cpu"), Silent())
    assert [one.name for one in looks.examples] == [row.slide for row in plan.rows]
    assert looks.logits.shape == (9, 2) and all({"stain", "structure"} <= one.keys() for one in looks.traits)


def test_what_was_fitted_is_fitted_once(place: Path, tmp_path: Path) -> None:
    ensemble = joined([place / f"study/folds/1-{fold}" for fold in (1, 2)])
    plan = make_plan(place / "labels.csv", load_recipe(place / "recipe.toml"), Division(2))
    found = judged(place / "study", plan)
    known = known_before(place / "study", ensemble.weights, found.sha256)
    assert known is not None and "8 patients" in known.missing["calibration"]
    assert known_before(place / "study", ensemble.weights[::-1], found.sha256) is None
    assert known_before(tmp_path, ensemble.weights, found.sha256) is None


def test_what_was_fitted_to_other_predictions_is_fitted_again(place: Path) -> None:
    ensemble = joined([place / f"study/folds/1-{fold}" for fold in (1, 2)])
    found = judged(place / "study", make_plan(place / "labels.csv", load_recipe(place / "recipe.toml"), Division(2)))
    fewer = replace(
        found,
        slides=found.slides[1:],
        patients=found.patients[1:],
        labels=found.labels[1:],
        probabilities=found.probabilities[1:],
    )
    for other in (
        fewer,
        replace(found, labels=1 - found.labels),
        replace(found, probabilities=found.probabilities / 2),
    ):
        assert known_before(place / "study", ensemble.weights, other.sha256) is None


def test_a_row_a_patient(place: Path) -> None:
    with (place / "study/out_of_fold/patients.csv").open(newline="") as file:
        rows = {row["patient"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {f"P{i}" for i in range(PATIENTS)} and rows["P0"]["slides"] == "2"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"folds": 3}, "different folds"),
        ({"recipe": Recipe(method="ats", epochs=2)}, "different folds and recipe|recipe"),
    ],
)
def test_another_study_does_not_lie_in_the_same_folder(place: Path, change: dict[str, Any], said: str) -> None:
    recipe = change.get("recipe", load_recipe(place / "recipe.toml"))
    with pytest.raises(InputError, match=f"holds a study with .*{said}"):
        crossvalidate(place / "labels.csv", place / "slides", place / "study", recipe, folds=change.get("folds", 2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "cpu,warp:1"}, "warp:1"),
        (
            {"recipe": Recipe(method="ats", model={"drawz": 3})},
            r"recipe \[model\] of method ats: .*did you mean 'draws'",
        ),
        ({"slides": "labels.csv"}, r"labels\.csv"),
        ({"folds": 5}, "class 'benign' has 4 patients, fewer than 5 folds; --folds 4 is possible"),
        ({"site": "hospital"}, "column 'hospital' is missing; found: slide, label, patient"),
        ({"slides": None}, "no slides are given"),
        ({"recipe": Recipe(method="ats", bag="patient"), "features": "x"}, "reads slides, and --features were given"),
    ],
)
def test_what_can_be_no_study_is_refused_before_anything_is_written(
    place: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    given = {"slides": place / "slides", "recipe": load_recipe(place / "recipe.toml"), "folds": 2} | change
    slides, recipe = given.pop("slides"), given.pop("recipe")
    slides = place / slides if isinstance(slides, str) else slides
    with pytest.raises(InputError, match=said):
        crossvalidate(place / "labels.csv", slides, tmp_path / "study", recipe, **{"device": "cpu", **given})
    assert not (tmp_path / "study").exists()


def test_labels_of_others_in_the_folder_stay(place: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("mine")
    with pytest.raises(InputError, match="holds something that is no study"):
        done(place, tmp_path)
    assert (tmp_path / "labels.csv").read_text() == "mine"


def test_labels_edited_in_between_change_nothing(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, study = tmp_path / "labels.csv", copied(place / "study", tmp_path / "study")
    shutil.copy(place / "labels.csv", labels)
    monkeypatch.setattr(module, "do_folds", lambda *_: labels.write_text("slide,label\np0_0,lesion\np1_0,benign\n"))
    recipe = load_recipe(place / "recipe.toml")
    found = crossvalidate(labels, place / "slides", study, recipe, folds=2, device="cpu").evaluation
    assert found.scores.n == 9 and found.scores.patients == 8


def test_something_else_in_the_folder_stays(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "study/folds/1-1", tmp_path / "model")
    with pytest.raises(InputError, match="holds something that is no study"):
        done(place, tmp_path / "model")
    with pytest.raises(InputError, match="holds something that is no study"):
        done(place, tmp_path / "model", earlier="replace")


def test_a_slide_that_cannot_be_read_is_told_and_the_rest_stands(place: Path, tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    shutil.copytree(place / "slides", slides)
    (slides / "p0_1.svs").write_bytes(b"II*\0 no slide")
    study = tmp_path / "study"
    recipe = load_recipe(place / "recipe.toml")
    result = crossvalidate(place / "labels.csv", slides, study, recipe, folds=2, device="cpu")
    assert result.evaluation.scores.n == 8
    with (study / "out_of_fold/predictions.csv").open(newline="") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    assert rows["p0_1"]["status"] == "failed" and rows["p0_1"]["reason"] and not rows["p0_1"]["label"]
