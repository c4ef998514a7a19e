"""report.html of a results folder: every slide in the table, pictures within a limit, made again from what there is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import ResultsError
from wsi_attention.export.record import to_record
from wsi_attention.export.table import figures
from wsi_attention.inference.batch.classify import classify as classify_apart
from wsi_attention.inference.results.export_again import export_again
from wsi_attention.inference.results.page import link_further, write_page
from wsi_attention.inference.results.state import RunKey, SlideKey, State, to_text
from wsi_attention.testing.exporters import example_prediction

classify = partial(classify_apart, in_process=True)
"""What is asked here is of results, however they come about: no process is needed."""

RUN = RunKey("demo", "ab" * 32, {"classes": ["benign", "lesion"], "precision": "32"})


def write_state(results: Path, state: State) -> None:
    path = results / "states" / f"{state.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_text(state))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Four slides with predictions, one without tissue, one that failed; no slide file exists."""
    for seed in range(4):
        made = replace(example_prediction(seed), slide=f"/gone/s{seed}.svs")
        row, record = figures(made), to_record(made)
        write_state(tmp_path, State(f"s{seed}", made.slide, "done", "", RUN, SlideKey("x"), row=row, record=record))
    write_state(tmp_path, State("empty", "/gone/e.svs", "no_tissue", "no tissue found", RUN, SlideKey()))
    write_state(tmp_path, State("sub/bad", "/gone/b.svs", "failed", "truncated <b>file</b>", RUN, SlideKey()))
    list(export_again(tmp_path, "report"))
    return tmp_path


def test_all_slides_in_the_table_and_those_with_a_label_below(results: Path) -> None:
    text = write_page(results).read_text()
    assert text.count("<tr data-status=") == 6 and text.count("<article") == 4
    assert "truncated &lt;b&gt;file&lt;/b&gt;" in text and "no tissue found" in text
    assert "sha256 " + "ab" * 32 in text and "Left out" not in text
    assert "could not be opened again" in text
    assert not list(results.glob(".tmp-*"))


def test_beyond_the_limit_every_slide_opens_from_its_own_page(results: Path) -> None:
    one = write_page(results).read_text()
    needed = sum(path.stat().st_size for path in (results / "report").rglob("*.html"))
    assert write_page(results, limit=needed).read_text() == one == write_page(results, few=4).read_text()
    for many in (write_page(results, limit=needed - 1).read_text(), write_page(results, few=3).read_text()):
        assert many.count("<article") == 0 and many.count("<tr data-status=") == 6
        assert many.count('class="card-of"') == 4 and 'href="report/s1.html"' in many
        assert "4 slides have pages of their own in report/" in many
    assert not list(results.rglob(".tmp-*"))


def test_many_slides_are_sorted_by_the_class_to_look_for(results: Path) -> None:
    for number, share in enumerate((0.2, 0.9, 0.4, 0.7)):
        path = results / f"states/s{number}.json"
        values = json.loads(path.read_text())
        values["row"] |= {"prob_benign": f"{1 - share:.6f}", "prob_lesion": f"{share:.6f}"}
        path.write_text(json.dumps(values))
    many = write_page(results, few=3).read_text()
    assert re.findall(r'href="report/(s\d)\.html"', many) == ["s1", "s3", "s2", "s0"]
    assert '<option value="1" selected>lesion</option>' in many and 'data-shares="0.1 0.9"' in many
    assert many == write_page(results, few=3).read_text()


def test_hundreds_of_slides_make_a_small_page(results: Path) -> None:
    made = (results / "report/s0.html").read_bytes()
    state = (results / "states/s0.json").read_text()
    for number in range(400):
        (results / f"report/many{number:04d}.html").write_bytes(made)
        (results / f"states/many{number:04d}.json").write_text(state.replace('"s0"', f'"many{number:04d}"'))
    page = write_page(results)
    assert page.stat().st_size < 406 * 1500
    text = page.read_text()
    assert text.count("<tr data-status=") == 406
    assert text.index("many0010") < text.index('<template id="rest">') < text.index("many0399")


def test_addresses_are_safe_and_the_evaluation_is_linked(results: Path, tmp_path: Path) -> None:
    name = 'ward #1/50% "a"&b?'
    state = (results / "states/s0.json").read_text()
    values = json.loads(state) | {"name": name}
    (results / "report/ward #1").mkdir()
    (results / "states/ward #1").mkdir()
    (results / f"report/{name}.html").write_bytes((results / "report/s0.html").read_bytes())
    (results / f"states/{name}.json").write_text(json.dumps(values))
    elsewhere = tmp_path / "further/one.html"
    elsewhere.parent.mkdir()
    text = write_page(results, path=elsewhere, few=1).read_text()
    assert 'href="../report/ward%20%231/50%25%20%22a%22%26b%3F.html"' in text and "Evaluation" not in text
    (results / "evaluation").mkdir()
    page = write_page(results)
    (results / "evaluation/evaluation.html").write_text("")
    link_further(results)
    assert '<a href="evaluation/evaluation.html">Evaluation</a>' in page.read_text()
    before = page.stat().st_mtime_ns
    link_further(results)
    assert page.stat().st_mtime_ns == before


def test_chosen_slides_elsewhere(results: Path, tmp_path: Path) -> None:
    page = write_page(results, ["s1"], tmp_path / "one.html")
    assert page == tmp_path / "one.html" and page.read_text().count("<tr data-status=") == 1
    with pytest.raises(ResultsError, match=r"no slide named s9; predictions\.csv lists"):
        write_page(results, ["s9"])
    with pytest.raises(ResultsError, match="no results here"):
        write_page(tmp_path / "nothing")


def test_a_damaged_part_costs_its_pictures_alone(results: Path) -> None:
    (results / "report/s1.html").write_text("{")
    text = write_page(results).read_text()
    assert text.count("<tr data-status=") == 6 and text.count("<article") == 3


def test_classify_writes_the_page_and_a_second_run_the_same(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    for seed in range(2):
        write_slide(tmp_path / f"slides/{seed}.tif", seed=seed)
    (tmp_path / "slides/broken.svs").write_bytes(b"no slide")
    out = tmp_path / "out"
    classify([tmp_path / "slides"], out, tiny)
    first = (out / "report.html").read_text()
    assert first.count("<tr data-status=") == 3 and first.count("<article") == 2
    assert first.count('class="tile" ') >= 2 and "could not be opened again" not in first
    classify([tmp_path / "slides"], out, tiny)
    again = (out / "report.html").read_text()
    assert again.partition("About this run")[0] == first.partition("About this run")[0]


def test_without_the_exporter_there_is_no_page(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    write_slide(tmp_path / "slides/0.tif")
    classify([tmp_path / "slides"], tmp_path / "out", tiny, what=["tiles"])
    assert not (tmp_path / "out/report.html").exists()


def test_what_earlier_versions_left_of_a_slide_goes_with_its_new_page(results: Path) -> None:
    (results / "report/s0.json").write_text("{}")
    (results / "report/other.json").write_text("{}")
    (results / "report/s1.json").mkdir()
    (results / "report/s1.json/deeper.html").write_text("a slide of a folder that is named so")
    list(export_again(results, "report"))
    assert sorted(path.name for path in (results / "report").glob("*.json")) == ["other.json", "s1.json"]
    assert (results / "report/s1.json/deeper.html").is_file() and (results / "report/s0.html").is_file()
