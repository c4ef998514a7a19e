"""Many slides: each alone, resumable, the same for any number of workers."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tifffile
import torch

from wsi_attention.checkpoint import Classifier
from wsi_attention.defaults import EXPORTS, PICTURES
from wsi_attention.errors import InputError, ResultsError
from wsi_attention.export.chosen import exporter_of
from wsi_attention.export.geojson import GeoJSONExporter
from wsi_attention.inference.batch import subjects
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.batch.runners import ExecutorRunner
from wsi_attention.inference.batch.summary import Report
from wsi_attention.inference.results.export_again import export_again
from wsi_attention.inference.results.state import stored_predictions
from wsi_attention.viewer.library import Library

WHAT = ("geojson", "tiles")


def contents(folder: Path) -> dict[str, Any]:
    """Everything in a results folder but timings, run files, the page that tells of them, and hidden files."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.name.startswith((".lock", "run_", "report.html")):
            found[name] = _timeless(name, path)
    return found


def _timeless(name: str, path: Path) -> Any:
    if name == "predictions.csv":
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(path.parent).values()]
    if name.startswith("states/"):
        return _without_seconds(json.loads(path.read_text()))
    return path.read_bytes()


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_seconds(part) for key, part in value.items() if key != "seconds"}
    return value


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def run(slides: Path, results: Path, classifier: Classifier, **more: Any) -> Report:
    """In this process, which no test here is about, unless it is told otherwise."""
    return classify([slides], results, classifier, **{"what": WHAT, "in_process": True, **more})


@pytest.fixture
def slides(tmp_path: Path, write_slide) -> Path:
    folder = tmp_path / "slides"
    for number, name in enumerate(("a.tif", "b/a.tif", "c.tif")):
        write_slide(folder / name, seed=number)
    return folder


def test_a_folder_becomes_results(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    (slides / "notes.txt").touch()
    report = run(slides, tmp_path / "out", tiny)
    assert (report.exit_status, report.total, dict(report.statuses)) == (0, 3, {"done": 3})
    assert report.others == (str(slides / "notes.txt"),)
    table = rows(tmp_path / "out")
    assert list(table) == ["a", "b/a", "c"]
    shares = [float(table["a"][f"prob_{name}"]) for name in tiny.classes]
    assert sum(shares) == pytest.approx(1, abs=2e-6)
    assert 0 < float(table["a"]["area_read"]) < 1
    for name in table:
        assert (tmp_path / f"out/geojson/{name}.geojson").is_file()
        assert (tmp_path / f"out/tiles/{name}.csv").is_file()
    stored = dict(stored_predictions(tmp_path / "out"))
    assert [f"{share:.6f}" for share in stored["c"].probabilities] == [table["c"][f"prob_{n}"] for n in tiny.classes]
    facts = json.loads(next((tmp_path / "out").glob("run_*.json")).read_text())
    assert (facts["ended"], facts["slides"], facts["counters"]["tiles"]) == ("complete", 3, 24)
    assert facts["model"]["weights_sha256"] == tiny.weights_sha256


def test_workers_and_order_change_nothing(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    run(slides, tmp_path / "one", tiny)
    run(slides, tmp_path / "many", tiny, workers=3, batch=3, in_process=False)
    run(slides, tmp_path / "here", tiny, workers=2)
    with ThreadPoolExecutor(2) as pool:
        run(slides, tmp_path / "elsewhere", tiny, executor=ExecutorRunner(pool, 1))
    expected = contents(tmp_path / "one")
    assert len(expected) == 3 * 3 + 1
    assert contents(tmp_path / "many") == expected
    assert contents(tmp_path / "here") == expected
    assert contents(tmp_path / "elsewhere") == expected


def test_a_second_run_does_only_what_is_missing(slides: Path, tmp_path: Path, tiny: Classifier, write_slide) -> None:
    run(slides, tmp_path / "out", tiny)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/states").rglob("*.json")}
    write_slide(slides / "c.tif", seed=9)
    (tmp_path / "out/tiles/b/a.csv").unlink()
    write_slide(slides / "d.tif", seed=10)
    report = run(slides, tmp_path / "out", tiny)
    assert (report.kept, dict(report.statuses)) == (1, {"done": 4})
    done = {
        path.name
        for path in (tmp_path / "out/states").rglob("*.json")
        if path.stat().st_mtime_ns not in before.values()
    }
    assert done == {"a.json", "c.json", "d.json"}
    assert (tmp_path / "out/states/a.json").stat().st_mtime_ns in before.values()
    run(slides, tmp_path / "fresh", tiny)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_exports_made_again_are_the_same(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    every = EXPORTS + PICTURES
    run(slides, tmp_path / "out", tiny, what=every)
    before = contents(tmp_path / "out")
    assert sum(name.startswith("heatmaps/") for name in before) > 3 * 2
    for what in every:
        assert len(list(export_again(tmp_path / "out", what))) == 3
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("in_process", [True, False])
def test_an_exporter_with_options_writes_as_it_does_by_itself(
    slides: Path, tmp_path: Path, tiny: Classifier, in_process: bool
) -> None:
    exporter = GeoJSONExporter(colours=((1, 2, 3), (4, 5, 6)), least_percentile=60, top=2, gzip=True)
    report = run(slides, tmp_path / "out", tiny, what=[exporter, "tiles"], in_process=in_process)
    assert report.exit_status == 0, report.failures
    written = tmp_path / "out/geojson/c.geojson.gz"
    before = written.read_bytes()
    found = json.loads(gzip.decompress(before))["features"]
    shown = [one["properties"] for one in found]
    assert {tuple(one["classification"]["color"]) for one in shown if one["objectType"] == "annotation"} <= {
        (1, 2, 3),
        (4, 5, 6),
    }
    tiles = [one["measurements"]["Attention percentile"] for one in shown if one["objectType"] == "tile"]
    assert tiles and min(tiles) >= 60
    assert list(export_again(tmp_path / "out", exporter, ["c"])) == [written]
    assert written.read_bytes() == before
    run(slides, tmp_path / "usual", tiny, what=["geojson"])
    usual = json.loads((tmp_path / "usual/geojson/c.geojson").read_text())["features"]
    assert sum(one["properties"]["objectType"] == "tile" for one in usual) > len(tiles)


class Hollow:
    """An exporter that cannot be pickled."""

    suffix = "hollow/{slide}.txt"

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, prediction: Any, path: Path) -> None:
        path.write_text(prediction.label)


def test_exporters_that_cannot_be_used_are_one_clear_line(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    cases: list[tuple[Any, str]] = [
        ([GeoJSONExporter], r"GeoJSONExporter is a class; give an exporter, such as GeoJSONExporter\(\)"),
        (["geojson", GeoJSONExporter(top=9)], r"two exporters write geojson/\{slide\}.geojson"),
        ([3], "3 is no exporter"),
        ([Hollow()], "exporter Hollow cannot be handed to a worker process .*in_process=True"),
    ]
    for what, message in cases:
        with pytest.raises(InputError, match=message):
            run(slides, tmp_path / "out", tiny, what=what, in_process=False)
    assert run(slides, tmp_path / "here", tiny, what=[Hollow()]).exit_status == 0
    assert run(slides / "a.tif", tmp_path / "named", tiny, what="tiles").exit_status == 0


def test_an_executor_must_be_made_a_runner(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match=r"wrap .* as ExecutorRunner\("):
        run(slides, tmp_path / "out", tiny, executor=pool)


def test_other_settings_are_refused_unless_told(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    run(slides, tmp_path / "out", tiny)
    other = replace(tiny, config={**tiny.config, "options": {"draws": 9}})
    with pytest.raises(ResultsError, match=r"options .*draws.* asked for .*--overwrite"):
        run(slides, tmp_path / "out", other)
    assert run(slides, tmp_path / "out", other, existing="overwrite").kept == 0


def test_one_slide_s_failure_touches_no_other(slides: Path, tmp_path: Path, tiny: Classifier, write_slide) -> None:
    (slides / "broken.svs").write_bytes(b"not a slide")
    write_slide(slides / "silent.tif", mpp=None)
    write_slide(slides / "white.tif", tissue=False)
    report = run(slides, tmp_path / "out", tiny, workers=2, in_process=False)
    assert report.exit_status == 1
    assert dict(report.statuses) == {"done": 3, "failed": 2, "no_tissue": 1}
    table = rows(tmp_path / "out")
    assert {name: row["status"] for name, row in table.items() if row["status"] != "done"} == {
        "broken": "failed",
        "silent": "failed",
        "white": "no_tissue",
    }
    assert "--mpp" in table["silent"]["reason"]
    assert all(row["reason"] for row in table.values() if row["status"] != "done")
    assert "Traceback" in json.loads((tmp_path / "out/states/broken.json").read_text())["traceback"]
    again = run(slides, tmp_path / "out", tiny, mpp=0.5)
    assert {name for name, _ in again.failures} == {"broken"}
    third = run(slides, tmp_path / "out", tiny, mpp=0.5)
    assert [name for name, _ in report.empty] == [name for name, _ in third.empty] == ["white"]
    assert "no tissue found; if there is some, give a mask" in third.empty[0][1]
    assert rows(tmp_path / "out")["silent"]["status"] == "done"


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("odd"), RecursionError("deep")])
def test_unexpected_errors_are_rows_too(
    slides: Path, tmp_path: Path, tiny: Classifier, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    look = subjects.look

    def sometimes(slide: Any, *rest: Any, **more: Any) -> Any:
        if slide.path.endswith("c.tif"):
            raise error
        return look(slide, *rest, **more)

    monkeypatch.setattr(subjects, "look", sometimes)
    report = run(slides, tmp_path / "out", tiny, in_process=True)
    assert report.failures == [("c", f"{type(error).__name__}: {error}")]
    assert rows(tmp_path / "out")["a"]["status"] == "done"


def test_a_slide_that_hangs_is_left_behind(
    slides: Path, tmp_path: Path, tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, release = subjects.look, threading.Event()

    def sometimes(slide: Any, *rest: Any, **more: Any) -> Any:
        if slide.path.endswith("b/a.tif"):
            release.wait(60)
        return look(slide, *rest, **more)

    monkeypatch.setattr(subjects, "look", sometimes)
    report = run(slides, tmp_path / "out", tiny, limit=5, in_process=True)
    release.set()
    assert report.threads_left
    ((name, reason),) = report.failures
    assert (name, dict(report.statuses)) == ("b/a", {"done": 2, "failed": 1})
    assert "not finished after 5 s" in reason


def test_ctrl_c_leaves_a_folder_that_can_be_resumed(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    def stop(name: str, done: int, total: int) -> None:
        assert total == 3
        if done == 1:
            raise KeyboardInterrupt

    report = run(slides, tmp_path / "out", tiny, watch=stop, in_process=False)
    assert (report.interrupted, report.exit_status) == (True, 130)
    assert 1 <= report.statuses["done"] < 3
    assert len(rows(tmp_path / "out")) == report.statuses["done"]
    again = run(slides, tmp_path / "out", tiny)
    assert (again.exit_status, again.kept) == (0, report.statuses["done"])
    run(slides, tmp_path / "fresh", tiny)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_full_disk_stops_the_batch_and_keeps_what_is_finished(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    class Full:
        def __init__(self, exporter: Any) -> None:
            self.exporter, self.suffix = exporter, exporter.suffix

        def __call__(self, prediction: Any, path: Path) -> None:
            if prediction.slide.endswith("c.tif"):
                path.write_text("half of it")
                raise OSError(errno.ENOSPC, "No space left on device")
            self.exporter(prediction, path)

    with pytest.raises(ResultsError, match="the disk is full; what is finished is kept"):
        run(slides, tmp_path / "out", tiny, what=[Full(exporter_of(name)) for name in WHAT])
    finished = len(list((tmp_path / "out/states").rglob("*.json")))
    assert finished >= 1
    assert run(slides, tmp_path / "out", tiny).kept == finished
    run(slides, tmp_path / "fresh", tiny)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_finished_result_outlives_a_slide_that_cannot_be_opened(
    slides: Path, tmp_path: Path, tiny: Classifier
) -> None:
    run(slides, tmp_path / "out", tiny)
    before = contents(tmp_path / "out")
    (slides / "c.tif").write_bytes(b"")
    report = run(slides, tmp_path / "out", tiny)
    assert report.exit_status == 1
    assert report.failures[0][1].endswith("(the earlier result is kept)")
    assert contents(tmp_path / "out") == before


def test_a_slide_list_with_mpp_and_mask(tmp_path: Path, tiny: Classifier, write_slide) -> None:
    from PIL import Image

    write_slide(tmp_path / "s/x.tif", mpp=None)
    Image.new("L", (12, 12), 255).save(tmp_path / "s/x.png")
    table = tmp_path / "s/list.csv"
    table.write_text("slide,mpp,mask\nx.tif,0.5,x.png\n")
    assert run(table, tmp_path / "out", tiny).exit_status == 0
    (state,) = (json.loads(path.read_text()) for path in (tmp_path / "out/states").glob("*.json"))
    assert state["slide"]["mpp"] == 0.5
    assert run(table, tmp_path / "out", tiny).kept == 1
    Image.new("L", (12, 12), 0).save(tmp_path / "s/x.png")
    again = run(table, tmp_path / "out", tiny)
    assert (again.kept, dict(again.statuses), again.exit_status) == (0, {"no_tissue": 1}, 1)
    assert not list((tmp_path / "out/tiles").iterdir())


def test_which_image_is_the_slide_is_asked_and_another_one_is_another_result(
    tmp_path: Path, tiny: Classifier, write_slide
) -> None:
    first, second = (tifffile.imread(write_slide(tmp_path / f"{seed}.tif", seed=seed), key=0) for seed in (1, 2))
    slide = tmp_path / "s/two.tif"
    slide.parent.mkdir()
    with tifffile.TiffWriter(slide) as file:
        for pixels in (first, second):
            file.write(pixels, tile=(128, 128), photometric="rgb", resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    asked = run(slide, tmp_path / "out", tiny)
    assert asked.exit_status == 1
    assert (
        "several images could be the slide: 0 (768×768), 1 (768×768); choose one with --series" in asked.failures[0][1]
    )
    (tmp_path / "s/list.csv").write_text("slide,series\ntwo.tif,1\n")
    assert run(tmp_path / "s/list.csv", tmp_path / "out", tiny).exit_status == 0
    one, kept = (run(slide, tmp_path / "out", tiny, series=series) for series in ("0", "0"))
    assert (one.kept, one.exit_status, kept.kept) == (0, 0, 1)
    (state,) = (json.loads(path.read_text()) for path in (tmp_path / "out/states").glob("*.json"))
    assert (state["slide"]["series"], state["record"]["provenance"]["series"]) == ("0", "0")


def test_two_images_of_one_file_have_results_side_by_side(tmp_path: Path, tiny: Classifier, write_slide) -> None:
    slide, table = tmp_path / "two.tif", tmp_path / "list.csv"
    with tifffile.TiffWriter(slide) as file:
        for seed in (1, 2):
            pixels = tifffile.imread(write_slide(tmp_path / f"{seed}.tif", seed=seed), key=0)
            file.write(pixels, tile=(128, 128), photometric="rgb", resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    table.write_text("slide,series\ntwo.tif,0\ntwo,1\ntwo.tif,a/b\n")
    first, again = (run(table, tmp_path / "out", tiny) for _ in range(2))
    assert (dict(first.statuses), dict(again.statuses), again.kept) == ({"done": 2, "failed": 1}, first.statuses, 2)
    rows = (tmp_path / "out/predictions.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["two.series-0", "two.series-1", "two.series-a_b"]
    tables = [(tmp_path / f"out/tiles/two.series-{series}.csv").read_text() for series in (0, 1)]
    library = Library(tmp_path / "out")
    for number in (0, 1):
        single = run(slide, tmp_path / f"single{number}", tiny, series=str(number))
        assert (tmp_path / f"single{number}/tiles/two.csv").read_text() == tables[number]
        assert (single.exit_status, library.slide(number).fingerprint) == (0, library.state(number).slide.fingerprint)
    alone = run(slide, tmp_path / "out", tiny, series="1")
    assert (alone.kept, len(alone.gone), (tmp_path / "out/tiles/two.csv").read_text()) == (0, 3, tables[1])
    table.write_text("slide,series\ntwo.tif,0\ntwo.tif,\n")
    with pytest.raises(InputError, match=r"two\.tif: listed 2 times; give each row a series of its own"):
        run(table, tmp_path / "out", tiny)
    with pytest.raises(InputError, match="listed 2 times"):
        run(table, tmp_path / "out", tiny, series="0")


def test_wrong_arguments(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    for wrong in ({"workers": 0}, {"limit": -1}, {"batch": 0}, {"what": ("nope",)}, {"device": "abacus"}):
        with pytest.raises(InputError):
            run(slides, tmp_path / "out", tiny, **wrong)
    assert not (tmp_path / "out").exists()


def test_number_of_torch_threads_is_the_same_in_every_slide(
    slides: Path, tmp_path: Path, tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, look = set(), subjects.look

    def noted(*given: Any, **more: Any) -> Any:
        prediction = look(*given, **more)
        seen.add(torch.get_num_threads())
        return prediction

    monkeypatch.setattr(subjects, "look", noted)
    run(slides, tmp_path / "out", tiny, workers=3, in_process=True)
    assert seen == {torch.get_num_threads()}


def test_default_exports_are_registered() -> None:
    for name in EXPORTS + PICTURES:
        assert "{slide}" in exporter_of(name).suffix
