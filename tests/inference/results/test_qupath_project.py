"""A results folder as a project of QuPath; QuPath's own classes read it in tests/plugins/test_qupath_extension.py."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from wsi_attention.errors import InputError, ResultsError
from wsi_attention.files import write_text
from wsi_attention.inference.results.qupath_project import FILE, GEOJSON, LABEL, SCRIPT, java_uri, write_project
from wsi_attention.inference.results.state import RunKey, SlideKey, State, to_text

KEY = RunKey("mine", "0" * 64, {"purpose": "demonstration"})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two slides with a result, one that is gone, one behind a URL."""
    folder, slides = tmp_path / "out", tmp_path / "my slides"
    slides.mkdir()
    paths = {
        "a": slides / "a.svs",
        "sub/b": slides / "b.svs",
        "gone": slides / "gone.svs",
        "far": "s3://bucket/far.svs",
    }
    for name, path in paths.items():
        row = {"label": "lesion", "prob_lesion": "0.93"} if name == "a" else {}
        state = State(name, str(path), "done" if row else "failed", "", KEY, SlideKey(fingerprint="f"), row)
        write_text(folder / "states" / f"{name}.json", to_text(state))
    for name in ("a.svs", "b.svs"):
        (slides / name).touch()
    write_text(folder / "geojson" / "a.geojson", "{}")
    return folder


def project(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_slides_labels_and_where_objects_lie(results: Path) -> None:
    written = write_project(results)
    assert written.path == results / "qupath" / FILE and written.images == 2
    assert written.left_out == {
        "gone": f"{results.parent / 'my slides' / 'gone.svs'} is not there any more",
        "far": "it lies behind a URL, and QuPath opens files",
    }
    first, second = project(written.path)["images"]
    uri = f"file:{(results.parent / 'my%20slides' / 'a.svs').as_posix()}"
    assert first["serverBuilder"] == {"builderType": "uri", "uri": uri, "args": []}
    assert first["metadata"][LABEL] == "lesion (demonstration model)"
    assert (written.path.parent / first["metadata"][GEOJSON]).resolve() == (results / "geojson/a.geojson").resolve()
    assert (second["imageName"], second["metadata"]) == ("sub/b", {"wsi-attention status": "failed"})
    assert [one["entryID"] for one in (first, second)] == [1, 2] and project(written.path)["lastID"] == 2
    assert "wsi-attention geojson" in (written.path.parent / SCRIPT).read_text(encoding="utf-8")
    before = written.path.read_bytes()
    assert write_project(results).path.read_bytes() == before


def test_a_project_that_was_worked_in_keeps_its_images_and_their_data(results: Path) -> None:
    path = write_project(results).path
    worked = project(path)
    own = {"builderType": "uri", "uri": "file:/own.svs", "args": []}
    image = {"serverBuilder": own, "entryID": 9, "imageName": "mine", "metadata": {"a": "b"}}
    turned = {"builderType": "rotated", "rotation": "ROTATE_90", "builder": worked["images"][0]["serverBuilder"]}
    worked["images"][0] |= {"serverBuilder": turned, "imageName": "renamed", "description": "seen"}
    worked |= {"lastID": 9, "images": [image, worked["images"][0]], "version": "0.6.0"}
    path.write_text(json.dumps(worked))
    (results / "geojson/a.geojson").unlink()
    with gzip.open(results / "geojson/a.geojson.gz", "wt") as file:
        file.write("{}")
    write_project(results)
    after = project(path)
    assert after["version"] == "0.6.0" and after["images"][0] == image
    kept = after["images"][1]
    assert (kept["entryID"], kept["imageName"], kept["description"]) == (1, "renamed", "seen")
    assert kept["serverBuilder"] == turned and kept["metadata"][GEOJSON] == "../geojson/a.geojson.gz"
    assert (after["images"][2]["imageName"], after["images"][2]["entryID"], after["lastID"]) == ("sub/b", 10, 10)


def test_what_is_no_project_and_results_without_slides_are_refused(results: Path, tmp_path: Path) -> None:
    write_text(results / "qupath" / FILE, "[]")
    with pytest.raises(InputError, match="is no project that QuPath wrote"):
        write_project(results)
    with pytest.raises(ResultsError, match=r"no slide for a project of QuPath: gone: .* is not there any more"):
        write_project(results, ["gone"], tmp_path / "other")
    with pytest.raises(ResultsError, match="classify has written no slide there"):
        write_project(tmp_path / "empty")


def test_uris_are_as_java_writes_them(tmp_path: Path) -> None:
    assert java_uri(Path("/a b/ü.svs")) == "file:/a%20b/%C3%BC.svs"
