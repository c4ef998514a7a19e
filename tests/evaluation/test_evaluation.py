"""A results folder against the truth: names as people write them, tiles against outlines."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from wsi_attention.errors import InputError, ModelError
from wsi_attention.evaluation.evaluation import evaluate
from wsi_attention.inference.results.state import RunKey, SlideKey, State, to_text
from wsi_attention.learnt_from import LearntFrom


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    (folder / "tiles" / "sub").mkdir(parents=True)
    (folder / "predictions.csv").write_text(
        "slide,status,label,prob_benign,prob_Lesion,spread,tiles_read,area_read,seconds,reason\n"
        "sub/a,done,Lesion,0.1,0.9,0,1,1,1,\n"
        "b,partial,benign,0.8,0.2,0,1,1,1,few\n"
        "c,done,benign,0.6,0.4,0,1,1,1,\n"
        "d,failed,,,,,,,1,broken\n"
        "e,done,Lesion,0.3,0.7,0,1,1,1,\n"
    )
    tiles = "minx,miny,width,height,attention,attention_percentile,weight,glimpse,read\n"
    (folder / "tiles" / "sub" / "a.csv").write_text(tiles + "0,0,10,10,0,0,0.1,tiles,1\n90,90,20,20,0,0,0.9,tiles,1\n")
    (folder / "tiles" / "c.csv").write_text(tiles + "0,0,10,10,0,0,0.9,tiles,1\n90,90,20,20,0,0,,tiles,0\n")
    (tmp_path / "truth").mkdir()
    square = {"type": "Polygon", "coordinates": [[[105, 105], [150, 105], [150, 150], [105, 150], [105, 105]]]}
    feature = {"type": "Feature", "geometry": square, "properties": {}}
    (tmp_path / "truth" / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    (tmp_path / "truth" / "b.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    (tmp_path / "truth" / "c.geojson").write_text(json.dumps([feature]))
    return folder


def labels_csv(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_table_and_tiles(results: Path, tmp_path: Path) -> None:
    labels = labels_csv(tmp_path, "slide;label\na.svs;lesion\nb.ome.tiff;benign\nc;Lesion\nd;benign\nz;benign\n")
    found = evaluate(results / "predictions.csv", labels, tmp_path / "truth")
    assert found.classes == ("benign", "Lesion")
    assert found.scores.n == 3
    assert found.scores.auroc == 1.0
    assert found.scores.accuracy == pytest.approx(2 / 3)
    assert found.scores.confusion == ((1, 0), (1, 1))
    assert found.unpredicted == ("d", "z")
    assert found.unlabelled == ("e",)
    assert found.localisation is not None
    assert (found.localisation.positives, found.localisation.hits, found.localisation.missed) == (2, 1, ("c",))
    assert found.localisation.share == 0.5
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["auroc"] == 1.0
    assert evaluate(results, labels).localisation is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,label\na,grade 3\n", r"label 'grade 3' is no class of the predictions \(benign, Lesion\)"),
        ("slide,label\nx,benign\n", "no slide has both"),
        ("slide\na\n", "column 'label' is missing"),
    ],
)
def test_labels_that_do_not_fit(results: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(results, labels_csv(tmp_path, text))


def test_the_exact_name_wins_over_the_same_name_elsewhere(results: Path, tmp_path: Path) -> None:
    table = results / "predictions.csv"
    table.write_text(table.read_text() + "a,done,benign,0.9,0.1,0,1,1,1,\n")
    labels = labels_csv(tmp_path, "slide,label\na,benign\nsub/a,lesion\n")
    assert evaluate(results, labels).scores.confusion == ((1, 0), (0, 1))
    with pytest.raises(InputError, match=r"slide 'x/a.svs' could be sub/a, a"):
        evaluate(results, labels_csv(tmp_path, "slide,label\nx/a.svs,benign\n"))


def test_two_labels_of_one_slide_are_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two rows give slide b different labels"):
        evaluate(results, labels_csv(tmp_path, "slide,label\nb,benign\nb.svs,lesion\n"))


def test_lesions_without_tables_of_tiles(results: Path, tmp_path: Path) -> None:
    for table in (results / "tiles").rglob("*.csv"):
        table.unlink()
    with pytest.raises(InputError, match="no table of tiles for any of 2 slides with lesions"):
        evaluate(results, labels_csv(tmp_path, "slide,label\na,lesion\nb,benign\nc,lesion\n"), tmp_path / "truth")


HEADER = "minx,miny,width,height,attention,attention_percentile,weight,glimpse,read\n"


def test_the_last_glimpse_is_what_counts(results: Path, tmp_path: Path) -> None:
    """A heavy view does not stand in for the tile found in it, nor does a later glimpse that read nothing."""
    labels = labels_csv(tmp_path, "slide,label\na,lesion\nb,benign\nc,lesion\n")
    view, miss = "0,0,200,200,0,0,0.9,views,1\n", "0,0,10,10,0,0,0.4,tiles,1\n"
    hit = "100,100,10,10,0,0,0.6,tiles,1\n"
    (results / "tiles" / "sub" / "a.csv").write_text(HEADER + view + miss + hit)
    (results / "tiles" / "c.csv").write_text(HEADER + view + miss + "100,100,10,10,0,0,,finer,0\n")
    found = evaluate(results, labels, tmp_path / "truth").localisation
    assert found is not None
    assert (found.positives, found.hits, found.missed) == (2, 1, ("c",))


def test_a_method_that_reads_no_tiles_is_not_judged_by_them(results: Path, tmp_path: Path) -> None:
    for table in (results / "tiles").rglob("*.csv"):
        table.write_text(HEADER)
    labels = labels_csv(tmp_path, "slide,label\na,lesion\nb,benign\nc,lesion\n")
    found = evaluate(results, labels, tmp_path / "truth").localisation
    assert found is not None
    assert (found.positives, found.hits, found.missed) == (0, 0, ())


def test_files_that_are_not_what_they_should_be(results: Path, tmp_path: Path) -> None:
    labels = labels_csv(tmp_path, "slide,label\na,lesion\nb,benign\n")
    with pytest.raises(InputError, match="nowhere is no folder"):
        evaluate(results, labels, tmp_path / "nowhere")
    (tmp_path / "truth" / "a.geojson").write_text("{")
    with pytest.raises(InputError, match=r"a.geojson cannot be read as GeoJSON"):
        evaluate(results, labels, tmp_path / "truth")
    with pytest.raises(InputError, match="two columns prob_<class>; found: slide, label"):
        evaluate(labels, labels)
    with pytest.raises(InputError, match=r"none.csv does not exist"):
        evaluate(tmp_path / "none.csv", labels)


def test_a_name_that_only_begins_alike_is_another_slide(tmp_path: Path) -> None:
    table, labels = tmp_path / "predictions.csv", tmp_path / "labels.csv"
    names = ("2021-11-11_09.59.30", "2021-11-11_10.15.02", "S12")
    table.write_text("slide,status,prob_a,prob_b\n" + "".join(f"{name},done,0.1,0.9\n" for name in names))
    labels.write_text("slide,label\n2021-11-11_09.59.06,a\n2021-11-11_10.15.02,a\nS12.2,b\n")
    found = evaluate(table, labels)
    assert found.scores.n == 1
    assert found.unpredicted == ("2021-11-11_09.59.06", "S12.2")
    assert found.unlabelled == ("2021-11-11_09.59.30", "S12")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,done,0.9,0.9", "line 3: 0.9, 0.9 are no probabilities"),
        ("a,done,nan,0.1", "are no probabilities"),
        ("a,done,1.5,-0.5", "are no probabilities"),
        ("x,done,0.5,0.5", "line 3: slide 'x' stands there twice"),
        ("a,done,0.5", "line 3: could not convert"),
    ],
)
def test_a_table_that_cannot_be_believed(tmp_path: Path, row: str, message: str) -> None:
    table, labels = tmp_path / "predictions.csv", tmp_path / "labels.csv"
    table.write_text(f"slide,status,prob_a,prob_b\nx,done,0.1,0.9\n{row}\n")
    labels.write_text("slide,label\na,a\nx,b\n")
    with pytest.raises(InputError, match=message):
        evaluate(table, labels)


def test_a_table_saved_again_by_a_spreadsheet(tmp_path: Path) -> None:
    table, labels = tmp_path / "predictions.csv", tmp_path / "labels.csv"
    table.write_text("\ufeffSlide;status;prob_a;prob_B\r\na;done;0,9;0,1\r\nb;done;5,0E-07;1\r\n")
    labels.write_text("slide,label\na,A\nb,b\n")
    assert evaluate(table, labels).scores.confusion == ((1, 0), (0, 1))


def test_outlines_of_two_slides_are_not_shared(results: Path, tmp_path: Path) -> None:
    table = results / "predictions.csv"
    table.write_text(table.read_text() + "other/a,done,benign,0.9,0.1,0,1,1,1,\n")
    labels = labels_csv(tmp_path, "slide,label\nsub/a,lesion\nother/a,benign\n")
    with pytest.raises(InputError, match=r"a.geojson could be about other/a and about sub/a"):
        evaluate(results, labels, tmp_path / "truth")


def split_table(folder: Path) -> tuple[Path, Path]:
    table, labels = folder / "predictions.csv", folder / "labels.csv"
    names = [f"s{i}" for i in range(8)]
    table.write_text("slide,prob_normal,prob_tumour\n" + "".join(f"{name},0.4,0.6\n" for name in names))
    parts = ["train"] * 3 + ["val"] * 2 + ["test"] * 3
    rows = [f"{name},{('normal', 'tumour')[i % 2]},{parts[i]}" for i, name in enumerate(names)]
    labels.write_text("slide,label,split\n" + "\n".join(rows))
    return table, labels


@pytest.mark.parametrize(("split", "n"), [(None, 5), ("test", 3), ("val", 2), ("train", 3), ("all", 8)])
def test_slides_to_train_on_do_not_judge_unless_asked(tmp_path: Path, split: str | None, n: int) -> None:
    found = evaluate(*split_table(tmp_path), split=split)
    assert found.scores.n == n
    assert found.unlabelled == ()
    assert f"{8 - n} slides of other parts are left out" in found.split


def test_parts_that_are_not_there(tmp_path: Path) -> None:
    table, labels = split_table(tmp_path)
    with pytest.raises(InputError, match="split is 'dev'; possible: all, train, val, test"):
        evaluate(table, labels, split="dev")
    labels.write_text("slide,label,split\ns0,normal,train\n")
    with pytest.raises(InputError, match=r"no slide has both .*; column split: 0 val, 0 test slides judge, 1 slides"):
        evaluate(table, labels)
    labels.write_text("slide,label\ns0,normal\n")
    with pytest.raises(InputError, match="has no column split, so there are no test slides in it"):
        evaluate(table, labels, split="test")


@pytest.mark.parametrize(
    ("classes", "positive", "negative"),
    [(("benign", "lesion"), "lesion", "benign"), (("lesion", "normal"), "lesion", "normal"), (("a", "b"), "b", None)],
)
def test_the_finding_is_the_positive_class(
    tmp_path: Path, classes: tuple[str, str], positive: str, negative: str | None
) -> None:
    (tmp_path / "predictions.csv").write_text(f"slide,prob_{classes[0]},prob_{classes[1]}\nx,0.9,0.1\ny,0.2,0.8\n")
    labels = labels_csv(tmp_path, f"slide,label\nx,{classes[0]}\ny,{classes[1]}\n")
    found = evaluate(tmp_path, labels)
    assert (found.positive, found.negative) == (positive, negative)


def test_patients_with_several_slides_widen_the_intervals(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    means = [draw.normal() + 0.8 * (i % 2) for i in range(12)]
    rows = [(i, k, 1 / (1 + math.exp(-means[i] - 0.2 * draw.normal()))) for i in range(12) for k in range(20)]
    table = "".join(f"s{i}_{k},{1 - p:.6f},{p:.6f}\n" for i, k, p in rows)
    (tmp_path / "predictions.csv").write_text("slide,prob_normal,prob_tumour\n" + table)
    names = [f"s{i}_{k}.tiff,{('normal', 'tumour')[i % 2]}" for i, k, _ in rows]
    alone = evaluate(tmp_path, labels_csv(tmp_path, "slide,label\n" + "\n".join(names)))
    whose = [f"{name},P{i}" for name, (i, _, _) in zip(names, rows, strict=True)]
    together = evaluate(tmp_path, labels_csv(tmp_path, "slide,label,patient\n" + "\n".join(whose)))
    assert (alone.scores.patients, together.scores.patients) == (240, 12)
    assert np.ptp(together.interval) > 2.5 * np.ptp(alone.interval)
    assert np.ptp(together.scores.accuracy_interval) > 2.5 * np.ptp(alone.scores.accuracy_interval)


def model_folder(folder: Path, **seen: dict[str, list[str]]) -> Path:
    folder.mkdir()
    config = {"format": 2, "method": "ats", "options": {}, "classes": ["benign", "Lesion"], "mpp": 0.5}
    record = LearntFrom.of(seen).as_dict()
    (folder / "config.json").write_text(json.dumps({**config, "weights_sha256": "a" * 64, "learnt_from": record}))
    return folder


def test_slides_that_the_model_knows_are_named(results: Path, tmp_path: Path) -> None:
    text = (results / "predictions.csv").read_text().replace(",reason\n", ",reason,notes\n")
    text = text.replace(
        "e,done,Lesion,0.3,0.7,0,1,1,1,", "e,done,Lesion,0.3,0.7,0,1,1,1,,odd; this slide trained the model"
    )
    (results / "predictions.csv").write_text(text)
    rows = "slide,label,patient\na.svs,lesion,p1\nb,benign,p2\nc,lesion,p3\ne,lesion,p4\n"
    labels = labels_csv(tmp_path, rows)
    assert evaluate(results, labels).overlap.trained == ("e",)
    model = model_folder(tmp_path / "model", names={"train": ["b"]}, patients={"val": ["p3"]})
    run = {"model": {"name": "model", "weights_sha256": "a" * 64, "folder": str(model)}}
    (results / "run_20260101T000000.000000Z.json").write_text(json.dumps(run))
    for found in (evaluate(results, labels).overlap, evaluate(results, labels, model=model).overlap):
        assert (found.trained, found.named, found.related) == (("e",), ("b",), ("c",))
        assert found.lines[0] == "1 of these 4 slides trained this model: e"
        assert found.lines[-1].startswith("the figures are too kind")
    with pytest.raises(ModelError, match=r"the predictions in .*results are of aaaaaaaaaaaa"):
        evaluate(results, labels, model="demo")


@pytest.mark.parametrize("kind", ["hashed_names", "names"])
def test_a_name_counts_where_contents_tell_nothing(results: Path, tmp_path: Path, kind: str) -> None:
    """e: trained under another name; b: another content of a name that was used; c: a name, its content not known."""
    model = model_folder(tmp_path / "model", slides={"train": ["1" * 64, "2" * 64]}, **{kind: {"train": ["b", "c"]}})
    (results / "states").mkdir(exist_ok=True)
    for name, digit in (("e", "1"), ("b", "3")):
        state = State(name, f"/{name}.svs", "done", "", RunKey("m", "", {}), SlideKey(fingerprint=digit * 64))
        (results / "states" / f"{name}.json").write_text(to_text(state))
    found = evaluate(results, labels_csv(tmp_path, "slide,label\ne,lesion\nb,benign\nc,lesion\n"), model=model).overlap
    assert (found.trained, found.named) == (("e",), ("c",) if kind == "hashed_names" else ("b", "c"))


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"patients_given": True, "earlier_weights": False}, "models that had seen neither it nor its patient"),
        ({"patients_given": False, "earlier_weights": False}, "had not seen it; other slides of its patient they may"),
        ({"patients_given": True, "earlier_weights": True}, "nor its patient; which slides trained the weights"),
        ({"patients_given": False, "earlier_weights": True}, "a slide that it predicted; which slides trained"),
        ({}, "which slides trained the weights that they began with is not known"),
    ],
)
def test_out_of_fold_says_no_more_than_is_known(
    results: Path, tmp_path: Path, known: dict[str, bool], said: str
) -> None:
    run = {"model": {"name": "study", "weights_sha256": "", "out_of_fold": True, **known}}
    (results / "run_out_of_fold.json").write_text(json.dumps(run))
    found = evaluate(results, labels_csv(tmp_path, "slide,label\na,lesion\nb,benign\n")).overlap
    assert len(found.lines) == 1 and said in found.lines[0]
    assert found.remarks == (() if said.startswith("models") else found.lines)


def test_what_is_not_known_is_said(results: Path, tmp_path: Path) -> None:
    labels = labels_csv(tmp_path, "slide,label\na,lesion\nb,benign\n")
    assert "is not known; -m names its folder" in evaluate(results, labels).overlap.lines[0]
    model = model_folder(tmp_path / "model", names={"train": ["x"]})
    assert evaluate(results, labels, model=model).overlap.lines == (
        "none of these slides is known to have trained this model",
    )


@pytest.mark.parametrize("name", ["case 1.2", "case 1.2/1.2.3.dcm", "1.2.4.dcm", "1.2.3"])
def test_a_dicom_series_by_its_folder_and_by_a_file_inside(tmp_path: Path, name: str) -> None:
    (tmp_path / "slides" / "case 1.2").mkdir(parents=True)
    for file in ("1.2.3.dcm", "1.2.4.dcm"):
        (tmp_path / "slides" / "case 1.2" / file).touch()
    (tmp_path / "results" / "states").mkdir(parents=True)
    state = State("case 1.2", str(tmp_path / "slides" / "case 1.2"), "done", "", RunKey("m", "", {}), SlideKey())
    (tmp_path / "results" / "states" / "case 1.2.json").write_text(to_text(state))
    (tmp_path / "results" / "predictions.csv").write_text("slide,prob_a,prob_b\ncase 1.2,0.1,0.9\ncase 1,0.9,0.1\n")
    found = evaluate(tmp_path / "results", labels_csv(tmp_path, f"slide,label\n{name},b\n"))
    assert (found.scores.n, found.unpredicted, found.unlabelled) == (1, (), ("case 1",))
