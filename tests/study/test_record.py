"""The record of a study: facts from its files, the same each time, nothing of others' text taken for markup."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_attention.checkpoint import build_model, save_model
from wsi_attention.cli.app import app
from wsi_attention.errors import InputError
from wsi_attention.inference.results.folder import open_results
from wsi_attention.inference.results.state import RunKey, SlideKey, State
from wsi_attention.model_card import ModelCard
from wsi_attention.study.guidelines import AUTHORS, ITEMS, filled
from wsi_attention.study.record import facts_of, guideline_facts, write_record

BEST = {"epoch": 2, "val_auroc": 0.75}
EVIL = "<b>tumour|x</b>"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A finished study of four slides in two folds, as its files would be; one slide failed, one is mislabelled."""
    folder = tmp_path / "study"
    arguments = {"overview_mpp": 4.0, "trunk_widths": (8, 8), "context": 3, "head_widths": (8,)}
    recipe = {"method": "oaa", "seed": 7, "validation_share": 0.2, "start": "", "encoder_start": "", "best": "loss"}
    recipe |= {"epochs": 3, "patience": 1, "batch": 2, "class_weights": "none", "optimiser": {}, "augmentation": {}}
    card = ModelCard(
        "oaa", arguments, ("benign", EVIL), recipe, {"out-of-fold AUROC": 0.625, "AUROC, 95 %": [0.1, 0.9]}
    )
    save_model(folder, build_model("oaa", 2, **arguments), card)
    for fold in ("1-1", "1-2"):
        own = folder / "folds" / fold
        save_model(own, build_model("oaa", 2, **arguments), card)
        parts = ("train", "val", "test", "test") if fold == "1-1" else ("test", "test", "train", "val")
        rows = (f"a/s{i}.svs,{EVIL if i % 2 else 'benign'},P{i},{parts[i]}" for i in range(4))
        (own / "labels.csv").write_text("\n".join(["slide,label,patient,split", *rows]))
        failed = {"a/s0.svs": "no scale"} if fold == "1-1" else {}
        (own / "training").mkdir()
        (own / "training/finished.json").write_text(json.dumps({"best": BEST, "epochs": 3, "failed": failed}))
    run = RunKey("m", "00", {"classes": ["benign", EVIL]})
    with open_results(folder / "out_of_fold", run) as results:
        for i, label in enumerate(["", "benign", "benign", EVIL]):
            status, reason = ("done", "") if label else ("failed", "no scale")
            results.add(State(f"a/s{i}", f"/a/s{i}.svs", status, reason, run, SlideKey(), {"label": label}))
    about = {
        "command": "wsi-attention crossvalidate -l labels.csv",
        "labels": "labels.csv",
        "left_out": ["s9"],
        "related": ["s8"],
    }
    about |= {"wanted": {"folds": 2, "repeats": 1, "seed": 7, "site": "hospital"}, "folds": ["1-1", "1-2"]}
    about |= {"patients_given": True, "versions": {"torch": "2.0", "Python": "3.11"}}
    (folder / "study.json").write_text(json.dumps(about))
    return folder


def test_the_record_says_what_the_files_say(study: Path) -> None:
    ran = CliRunner().invoke(app, ["study", "report", str(study)], catch_exceptions=False)
    assert ran.exit_code == 0 and ran.output.strip() == str(study / "record.html")
    text = (study / "record.md").read_text()
    for said in (
        "| 6 in the labels |  |  |\n| 1 left out, as their split is test |  |  |\n",
        "| 1 left out, as other slides of their patients are kept for the test |  |  |\n",
        "| 4 take part | 4 | 2 benign, 2 ",
        "| s9 | the study | split is test |\n",
        "| s8 | the study | as other slides of their patients are kept for the test |\n",
        "| a/s0.svs | training or validation of fold 1-1 | no scale |",
        "| a/s0 | prediction | failed: no scale |",
        "| 1-2 | 1 slides of 1 patients (1 benign) | 1 slides of 1 patients (1 <b>",
        "Slides of a patient or a value of hospital are never in two folds",
        "| fold 1-1 | 2 of 3 | 0.750 |",
        "| out-of-fold AUROC | 0.625 |\n| AUROC, 95 % | 0.100 to 0.900 |",
        "| torch | 2.0 |\n| Python | 3.11 |",
        "The seed of the recipe is 7.",
        "1 of 3 have another label than the one given: a/s1.",
        "wsi-attention crossvalidate -l labels.csv",
    ):
        assert said in text, said


def test_the_page_holds_the_same_and_runs_nothing(study: Path) -> None:
    page = write_record(study).read_text()
    assert "&lt;b&gt;tumour|x&lt;/b&gt;" in page and "<b>" not in page
    assert "tumour\\|x" in (study / "record.md").read_text()
    assert not re.search(r"<script|https?://|src=|href=", page)
    before = (study / "record.md").read_bytes(), page
    write_record(study)
    assert ((study / "record.md").read_bytes(), (study / "record.html").read_text()) == before


def test_every_fact_answers_an_item_and_the_rest_is_the_authors(study: Path) -> None:
    facts = guideline_facts(facts_of(study))
    assert facts.keys() == {item.fact for item in ITEMS} - {""}
    assert all(facts.values())
    assert {row[3] for item, row in zip(ITEMS, filled(facts), strict=True) if not item.fact} == {AUTHORS}


def test_items_are_those_of_the_guidelines() -> None:
    def numbers(texts: list[str]) -> set[int]:
        parts = [part.split("-") for text in texts for part in text.split(", ") if part]
        ends = [[int(found[0]) for end in part if (found := re.match(r"\d+", end))] for part in parts]
        return {one for own in ends for one in range(own[0], own[-1] + 1)}

    assert numbers([item.tripod for item in ITEMS]) == set(range(1, 28))
    assert numbers([item.claim for item in ITEMS]) == set(range(1, 45))


def test_every_part_of_an_item_of_tripod_is_there() -> None:
    letters = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab"}
    wanted = {f"{number}{letter}" for number, own in (letters | {27: "abc"}).items() for letter in own}

    def parts(text: str) -> set[str]:
        found = re.fullmatch(r"(\d+)([a-g]?)-?([a-g]?)", text)
        assert found is not None
        number, first, last = found.groups()
        return {f"{number}{chr(one)}" for one in range(ord(first), ord(last or first) + 1)} if first else set()

    assert {part for item in ITEMS for text in item.tripod.split(", ") if text for part in parts(text)} == wanted


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("study.json", r"holds no study \(no study\.json\)"),
        ("config.json", "the study is not finished; give its crossvalidate command again"),
        ("folds/1-2/training/finished.json", "its record cannot be made"),
    ],
)
def test_what_is_no_finished_study(study: Path, gone: str, said: str) -> None:
    (study / gone).unlink()
    with pytest.raises(InputError, match=said):
        write_record(study)


def test_an_undecided_label_is_not_a_wrong_one_and_letters_may_be_composed_or_not(study: Path) -> None:
    for file in study.glob("folds/*/labels.csv"):
        file.write_text(file.read_text().replace("benign", "be\u0301nigne"))
    run = RunKey("m", "00", {})
    with open_results(study / "out_of_fold", run, "overwrite") as results:
        for i, label in enumerate(["undecided", EVIL, "b\u00e9nigne", "b\u00e9nigne"]):
            results.add(State(f"a/s{i}", f"/a/s{i}.svs", "done", "", run, SlideKey(), {"label": label}))
    failures = guideline_facts(facts_of(study))["failures"]
    assert failures.endswith("1 of 3 have another label than the one given: a/s3; 1 of 4 are undecided.")


def test_slides_that_a_model_had_seen_are_told_beside_the_results(study: Path) -> None:
    run = {"model": {}, "seen_in_training": ["1 of these 3 slides trained this model: a/s1"]}
    (study / "out_of_fold/run_out_of_fold.json").write_text(json.dumps(run))
    write_record(study)
    assert "\n\n1 of these 3 slides trained this model: a/s1\n\n| measure |" in (study / "record.md").read_text()


def test_no_secret_of_a_url_stands_in_the_record(study: Path) -> None:
    about = json.loads((study / "study.json").read_text())
    about["command"] = "wsi-attention crossvalidate -i https://me:pw@host/a 'https://host/b?sv=1&sig=SECRET'"
    (study / "study.json").write_text(json.dumps(about))
    write_record(study)
    text = (study / "record.md").read_text() + (study / "record.html").read_text()
    assert "https://***@host/a" in text and "SECRET" not in text and "me:pw" not in text
