"""A results folder against the truth: names as people write them, tiles against outlines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsi_attention.errors import InputError
from wsi_attention.training.evaluation import evaluate


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
