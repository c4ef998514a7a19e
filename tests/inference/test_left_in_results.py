"""What lies in a results folder belongs to the results that its table tells of, whatever happens to it."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import InputError, ResultsError
from wsi_attention.export.geojson import GeoJSONExporter
from wsi_attention.inference.batch.classify import classify as classify_apart
from wsi_attention.inference.batch.discovery import find_slides
from wsi_attention.inference.batch.summary import Report, summary
from wsi_attention.inference.results.export_again import export_again
from wsi_attention.inference.results.folder import Results, open_results
from wsi_attention.inference.results.packed_states import PackedStates
from wsi_attention.inference.results.state import RunKey, SlideKey, State

classify = partial(classify_apart, in_process=True)
"""What is asked here is of results, however they come about: no process is needed."""


def run(slides: Path, results: Path, classifier: Classifier, **more: Any) -> Report:
    return classify([slides], results, classifier, **{"what": ("geojson", "tiles"), **more})


def statuses(folder: Path) -> dict[str, str]:
    with (folder / "predictions.csv").open(newline="") as file:
        return {row["slide"]: row["status"] for row in csv.DictReader(file)}


def files(folder: Path) -> list[str]:
    kinds = ("geojson", "tiles", "heatmaps")
    return sorted(path.relative_to(folder).as_posix() for kind in kinds for path in (folder / kind).glob("*"))


@pytest.fixture
def slides(tmp_path: Path, write_slide) -> Path:
    for number, name in enumerate("abc"):
        write_slide(tmp_path / f"slides/{name}.tif", seed=number)
    return tmp_path / "slides"


def test_one_of_a_file_and_its_compressed_twin_is_there(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    out = tmp_path / "out"
    run(slides, out, tiny)
    list(export_again(out, GeoJSONExporter(gzip=True), ["a"]))
    assert [name for name in files(out) if "/a." in name] == ["geojson/a.geojson.gz", "tiles/a.csv"]
    assert run(slides, out, tiny).kept == 3
    list(export_again(out, "geojson", ["a"]))
    assert [name for name in files(out) if "/a." in name] == ["geojson/a.geojson", "tiles/a.csv"]


def test_what_export_wrote_goes_with_the_result_it_was_made_of(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    out = tmp_path / "out"
    run(slides, out, tiny)
    for kind in (GeoJSONExporter(gzip=True), "heatmap", "heatmap-zarr"):
        list(export_again(out, kind, ["a"]))
    (out / "geojson/mine.txt").touch()
    run(slides, out, tiny, mpp=0.4)
    expected = [f"{kind}/{name}" for kind, end in (("geojson", ".geojson"), ("tiles", ".csv")) for name in
                [f"{slide}{end}" for slide in "abc"] + ["mine.txt"] * (kind == "geojson")]  # fmt: skip
    assert files(out) == expected


@pytest.mark.parametrize("what", ["all", "visible", "exports", "states"])
def test_results_removed_in_mid_run_leave_no_row(slides: Path, tmp_path: Path, tiny: Classifier, what: str) -> None:
    out = tmp_path / "out"

    def remove(name: str, done: int, total: int) -> None:
        if done == 2:
            for path in {"all": [out], "visible": out.glob("[!.]*"), "exports": [out / "geojson"]}.get(
                what, [out / "states"]
            ):
                path.rename(tmp_path / f"removed-{path.name}")  # at once, while the next slide is written

    try:
        report = run(slides, out, tiny, watch=remove)
    except ResultsError as error:
        assert "removed" in str(error) and "same command" in str(error)
    else:
        assert what != "all" and report.exit_status == 1
        assert len(report.failures) == report.statuses["failed"] >= 1 and report.statuses.total() == 3
        assert all("its files were removed" in reason for _, reason in report.failures), report.failures
    done = [name for name, status in statuses(out).items() if status == "done"] if (out / TABLE).exists() else []
    for name in done:
        assert (out / f"states/{name}.json").is_file() and (out / f"geojson/{name}.geojson").is_file()
    assert dict(run(slides, out, tiny).statuses) == {"done": 3}


TABLE = "predictions.csv"


def test_a_slide_that_stops_the_run_half_written_has_no_row(
    slides: Path, tmp_path: Path, tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(slides, out, tiny)
    import wsi_attention.inference.results.folder as module

    def full(path: Path) -> None:
        raise ResultsError(f"{path}: cannot be written: the disk is full")

    monkeypatch.setattr(module, "publish", full)
    with pytest.raises(ResultsError, match="the disk is full"):
        run(slides, out, tiny, mpp=0.4)
    gone = {"a", "b", "c"} - {path.stem for path in (out / "states").glob("[!.]*.json")}
    assert len(gone) == 1 and set(statuses(out)) == {"a", "b", "c"} - gone


@pytest.fixture
def rows_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], list[tuple[float, int]]]:
    """(slides, seconds that writing a row takes) -> (time, rows) of each table, at a slide in 0.05 s."""
    clock = [0.0]
    monkeypatch.setattr("wsi_attention.inference.results.folder.time.monotonic", lambda: clock[0])

    def after(slides: int, cost: float) -> list[tuple[float, int]]:
        key, clock[0], written = RunKey("demo", "ab" * 32, {"classes": []}), 0.0, []

        def table(states: Mapping[str, State], *columns: object) -> str:
            written.append((clock[0], len(states)))
            clock[0] += cost * len(states)
            return str(len(states))

        monkeypatch.setattr("wsi_attention.inference.results.folder.table", table)
        with open_results(tmp_path / f"out{slides}", key) as results:
            results.folder.joinpath("states").mkdir()
            monkeypatch.setattr("wsi_attention.inference.results.folder.write_text", lambda path, text: None)
            for number in range(slides):
                clock[0] += 0.05
                results.add(State(f"s{number}", f"/in/{number}.svs", "done", "", key, SlideKey("f")))
        return written

    return after


def test_the_table_costs_a_small_share_of_the_time(rows_written: Callable[..., list[tuple[float, int]]]) -> None:
    tables = rows_written(5000, 1e-4)  # as on a slow disk
    assert sum(rows for _, rows in tables) * 1e-4 < 0.03 * 5000 * 0.05


def test_each_row_is_written_as_often_in_a_large_batch(rows_written: Callable[..., list[tuple[float, int]]]) -> None:
    tables = {slides: rows_written(slides, 0.0) for slides in (1000, 5000)}
    assert all(sum(rows for _, rows in tables[slides]) < 21 * slides for slides in tables)
    for (before, _), (time, _) in pairwise(
        tables[5000]
    ):  # and who watches the table waits a second, or a twentieth of the run
        assert time - before < max(1.0, 0.05 * before) + 0.11


def test_nothing_new_writes_no_table_and_no_page(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    out = tmp_path / "out"
    run(slides, out, tiny, what=("tiles", "report"))
    before = {name: (out / name).stat().st_mtime_ns for name in (TABLE, "report.html")}
    assert run(slides, out, tiny, what=("tiles", "report")).kept == 3
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    (out / "report.html").unlink()
    run(slides, out, tiny, what=("tiles", "report"))
    assert (out / "report.html").is_file()


def test_results_are_never_slides(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    inside = slides / "deep/out"
    run(slides, inside, tiny, what=("heatmap", "heatmap-zarr"))
    for given in (inside, inside / "heatmaps"):
        with pytest.raises(InputError, match=f"no slides in {given}.*results of an earlier run: {inside}"):
            find_slides([given])
    with pytest.raises(InputError, match=r"a\.ome\.zarr: an attention map out of a results folder, not a slide"):
        find_slides([inside / "heatmaps/a.ome.zarr"])
    shutil.copytree(inside / "heatmaps", slides / "copied")
    (inside / TABLE).unlink()  # as where the run was killed
    report = run(slides, tmp_path / "out", tiny)
    assert (report.total, dict(report.statuses)) == (3, {"done": 3})
    assert report.skipped == (*(str(slides / f"copied/{name}.ome.zarr") for name in "abc"), str(inside))
    assert f"4 places with earlier results left out: {slides / 'copied/a.ome.zarr'}, " in summary(report)


def test_a_state_file_alone_is_what_lost_looks_for(tmp_path: Path) -> None:
    key = RunKey("demo", "ab" * 32, {"classes": []})
    state = State("a", "/in/a.svs", "no_tissue", "", key, SlideKey("f"))
    results = Results(tmp_path, key, PackedStates([state, State("b", "/b", "failed", "", key, SlideKey())]))
    assert results.lost(["a", "b"]) == ["a"]
