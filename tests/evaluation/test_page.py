"""The folder of an evaluation: a page without a network, plots that stand alone, every figure in a table."""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from wsi_attention.errors import ResultsError
from wsi_attention.evaluation.evaluation import Evaluation, evaluate

SVG = "{http://www.w3.org/2000/svg}"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "evaluation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def everything(study, **given) -> tuple[Evaluation, Path]:  # type: ignore[no-untyped-def]
    one = study(**given)
    name = (given.get("classes") or ("normal", "tumour"))[1]
    found = evaluate(
        one.first, one.labels, by="site", against=one.second, thresholds={name: 0.4}, sensitivity={name: 0.9}
    )
    return found, found.write(one.first / "evaluation")


def test_the_page_shows_everything(study) -> None:  # type: ignore[no-untyped-def]
    found, page = everything(study, note="demonstration model: the label means nothing on real tissue")
    text = page.read_text(encoding="utf-8")
    head, body = text.split("<main>")
    assert "Demonstration model: the label means nothing on real tissue." in head
    assert "Research use only" in head
    assert "Whether some of these slides trained the model is not known" in head
    wanted = ("ROC curve", "Precision and recall", "Reliability: tumour", "Decision curve: tumour", "Operating points")
    for title in (*wanted, "Confusion", "Each class against the rest", "By site", "Against second"):
        assert f"<h2>{title}</h2>" in body
    assert body.count(f"n = {found.scores.n} slides of 30 patients") >= 8
    assert f"{found.scores.auroc:.3f}" in body
    assert "too kind" not in body


def test_the_page_needs_nothing_else(study) -> None:  # type: ignore[no-untyped-def]
    _, page = everything(study)
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=|url\(|@import|<script", text)


@pytest.mark.parametrize("classes", [("normal", "tumour"), ("a/b", "<b>&", "c.d"), ("X", "x?", "x*")])
def test_plots_stand_alone(study, classes: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    found, page = everything(study, classes=classes)
    files = sorted(page.parent.rglob("*.svg"))
    assert len(files) == (4 if len(classes) == 2 else 9)
    assert {file.parent for file in files} == {page.parent}
    for file in files:
        root = ET.fromstring(file.read_text(encoding="utf-8"))
        assert root.tag == f"{SVG}svg"
        width, height = float(root.get("width", "")), float(root.get("height", ""))
        assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
        assert f"n = {found.scores.n} slides" in str(root.findtext(f"{SVG}desc"))
        for path in root.iter(f"{SVG}path"):
            for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", path.get("d", "")):
                assert -10 <= float(x) <= width
                assert -10 <= float(y) <= height
    assert "<b>&" not in page.read_text(encoding="utf-8")


def test_a_curve_passes_where_the_figures_say(study) -> None:  # type: ignore[no-untyped-def]
    """The area under the drawn path is the AUROC."""
    found, page = everything(study)
    root = ET.fromstring((page.parent / "roc.svg").read_text(encoding="utf-8"))
    (first, other) = [
        path
        for path in root.iter(f"{SVG}path")
        if "curve" in path.get("class", "") and "M0,-4" not in path.get("d", "")
    ]
    for path, area in ((first, found.scores.auroc), (other, found.comparison.auroc.second)):  # type: ignore[union-attr]
        points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", path.get("d", ""))]
        (x0, y0), (x1, y1) = points[0], points[-1]
        drawn = sum((bx - ax) * (y0 - (ay + by) / 2) for (ax, ay), (bx, by) in pairwise(points))
        assert drawn / ((x1 - x0) * (y0 - y1)) == pytest.approx(area, abs=1e-3)


def test_every_figure_stands_in_the_table(study) -> None:  # type: ignore[no-untyped-def]
    found, page = everything(study)
    table = rows(page.parent)

    def one(measure: str, **where: str) -> dict[str, str]:
        (row,) = [row for row in table if row["measure"] == measure and all(row[k] == v for k, v in where.items())]
        return row

    area = one("AUROC", column="")
    assert [float(area[key]) for key in ("value", "low", "high")] == pytest.approx(
        [found.scores.auroc, *found.scores.auroc_interval], abs=1e-6
    )
    assert (area["slides"], area["patients"]) == (str(found.scores.n), "30")
    assert {row["group"] for row in table if row["column"] == "site"} == {"(empty)", "Graz", "Leeds"}
    given, chosen = found.points
    sensitivity = one("sensitivity", at="0.4")
    assert float(sensitivity["value"]) == pytest.approx(given.found.sensitivity.value, abs=1e-6)
    assert one("sensitivity", group=chosen.origin)["slides"] == str(chosen.found.sensitivity.slides)
    assert found.comparison is not None
    assert float(one("AUROC difference, p-value")["value"]) == pytest.approx(found.comparison.auroc.p, rel=1e-5)
    parts = [
        float(one(f"Brier score: {part}", **{"class": "tumour"})["value"])
        for part in ("reliability", "resolution", "uncertainty", "within")
    ]
    whole = float(one("Brier score", **{"class": "tumour"})["value"])
    assert whole == pytest.approx(parts[0] - parts[1] + parts[2] + parts[3], abs=1e-5)


def test_names_that_a_spreadsheet_or_a_browser_would_run(study) -> None:  # type: ignore[no-untyped-def]
    one = study()
    text = one.labels.read_text().replace("Graz", "=1+1").replace("Leeds", "<script>x</script>")
    one.labels.write_text(text)
    page = evaluate(one.first, one.labels, by="Site").write(one.first / "out")
    assert "'=1+1" in {row["group"] for row in rows(page.parent)}
    assert "<script>" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("slides", ["x", "xy"])
def test_one_class_or_one_slide_alone_has_a_page(tmp_path: Path, slides: str) -> None:
    (tmp_path / "predictions.csv").write_text("slide,prob_a,prob_b\nx,0.2,0.8\ny,0.4,0.6\n")
    (tmp_path / "labels.csv").write_text("slide,label\n" + "".join(f"{name},b\n" for name in slides))
    page = evaluate(tmp_path, tmp_path / "labels.csv", against=tmp_path).write(tmp_path / "out")
    assert f"{len(slides)} of {len(slides)} slides" in page.read_text(encoding="utf-8")
    assert "there is no AUROC to compare" in page.read_text(encoding="utf-8")
    assert "nan" not in (tmp_path / "out" / "evaluation.csv").read_text()
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page.read_text(encoding="utf-8"), flags=re.S)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("slide,prob_a,prob_b\nx,0.2,0.8\ny,0.4,0.6\n")
    (tmp_path / "labels.csv").write_text("slide,label\nx,b\ny,a\n")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ResultsError, match="out"):
        evaluate(tmp_path, tmp_path / "labels.csv").write(tmp_path / "out")
