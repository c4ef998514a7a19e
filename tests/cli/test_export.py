"""`wsi-attention export` and `wsi-attention validate`."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from wsi_attention.cli import export as module
from wsi_attention.errors import InputError
from wsi_attention.export.record import to_record
from wsi_attention.inference.results.state import RunKey, SlideKey, State, to_text
from wsi_attention.testing.exporters import example_prediction

app = typer.Typer()
app.command()(module.export)
app.command()(module.validate)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder that remembers two slides."""
    for name, seed in (("a", 1), ("sub/b", 2)):
        run_key = RunKey("demo", "ab" * 32, {})
        record = to_record(example_prediction(seed))
        state = State(name, f"/in/{name}.svs", "partial", "", run_key, SlideKey(), record=record)
        path = tmp_path / "states" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_text(state))
    return tmp_path


def first_corner(path: Path) -> list[int]:
    raw = path.read_bytes()
    text = gzip.decompress(raw) if path.suffix == ".gz" else raw
    return json.loads(text)["features"][0]["geometry"]["coordinates"][0][0]


def test_geojson_of_all_slides(results: Path) -> None:
    ran = run("export", results)
    assert ran.exit_code == 0, ran.output
    assert ran.output.split() == [str(results / "geojson/a.geojson"), str(results / "geojson/sub/b.geojson")]
    assert run("validate", *ran.output.split()).exit_code == 0


def test_bounds_and_gzip_and_one_slide(results: Path) -> None:
    run("export", results)
    ran = run("export", results, "--qupath-bounds", "none", "--gzip", "--slide", "a")
    assert ran.output.split() == [str(results / "geojson/a.geojson.gz")]
    without = first_corner(Path(ran.output.strip()))
    assert not (results / "geojson/a.geojson").exists()
    run("export", results, "--slide", "a")
    assert not (results / "geojson/a.geojson.gz").exists()
    with_offset = first_corner(results / "geojson/a.geojson")
    assert [a - b for a, b in zip(without, with_offset, strict=True)] == list(example_prediction().bounds)


def test_several_kinds_at_once(results: Path) -> None:
    ran = run("export", results, "--what", "tiles, heatmap-zarr", "--slide", "a")
    assert [Path(line).name for line in ran.output.split()] == ["a.csv", "a.ome.zarr"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--what", "svg"],
            "no exporter named 'svg'; there are geojson, heatmap, heatmap-zarr, report, tiles, qupath-project",
        ),
        (["--what", "tiles", "--gzip"], "--gzip compresses GeoJSON"),
        (["--qupath-bounds", "off"], "possible: auto, none"),
        (["--slide", "c"], "no prediction for c"),
    ],
)
def test_wrong_calls_are_refused(results: Path, arguments: list[str], words: str) -> None:
    ran = run("export", results, *arguments)
    assert ran.exception is not None and words in str(ran.exception)
    assert not (results / "geojson").exists()


def test_validate_prints_problems_and_fails(results: Path) -> None:
    run("export", results)
    good, bad = results / "geojson/a.geojson", results / "bad.geojson"
    broken = json.loads(good.read_text())
    broken["features"][3]["properties"]["classification"].pop("color")
    bad.write_text(json.dumps(broken))
    ran = run("validate", good, bad)
    assert ran.exit_code == 1
    assert f"{bad}: feature 3: classification needs both name and color" in ran.output
    assert f"{good}: {len(broken['features'])} objects, no problems" in ran.output
    assert f"{bad}: {len(broken['features'])} objects, 1 problems" in ran.output


def test_validate_with_a_size_finds_objects_outside(results: Path) -> None:
    run("export", results)
    path = results / "geojson/a.geojson"
    assert run("validate", path, "--size", "19976x15860").exit_code == 0
    ran = run("validate", path, "--size", "100x100")
    assert ran.exit_code == 1 and "outside the 100 x 100 px image" in ran.output
    assert isinstance(run("validate", path, "--size", "big").exception, InputError)


def test_a_file_that_is_missing_is_a_wrong_call(tmp_path: Path) -> None:
    ran = run("validate", tmp_path / "gone.geojson")
    assert isinstance(ran.exception, InputError) and "gone.geojson: no such file" in str(ran.exception)


def test_validate_says_what_is_merely_old(shared_data: Path) -> None:
    old = shared_data / "annotations/qupath-0.2/histoqc-geojson_example.json"
    ran = run("validate", old)
    assert ran.exit_code == 0 and "note: " in ran.output


def test_the_commands_load_nothing_heavy_before_they_run() -> None:
    code = (
        "import sys, wsi_attention.cli.export; print({'torch', 'zarr', 'numpy', 'shapely', 'PIL'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_a_project_of_qupath_has_geojson_too(results: Path) -> None:
    (results / "in").mkdir()
    (results / "in" / "a.svs").touch()
    state = results / "states" / "a.json"
    state.write_text(state.read_text().replace("/in/a.svs", str(results / "in" / "a.svs")))
    ran = run("export", results, "--what", "qupath-project")
    assert ran.exit_code == 0, ran.output
    path, following = ran.stdout.splitlines()
    assert path == str(results / "qupath" / "project.qpproj")
    assert following.startswith(f"next: QuPath script -p {path} --save ")
    assert "sub/b: left out of the project: /in/sub/b.svs is not there any more" in ran.stderr
    assert (results / "geojson/a.geojson").is_file()


def test_all_stands_for_every_export_of_slides() -> None:
    assert module.kinds("all, heatmap") == ["geojson", "tiles", "report", "heatmap", "heatmap-zarr"]
    assert module.kinds("tiles,all")[0] == "tiles"
