"""Slides by number, found where they lie now; nothing outside the results and the slides given is opened."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lesion_slide import EXTENT, prediction_of, write_slide, write_state

from wsi_attention.errors import InputError, ResultsError, SlideError
from wsi_attention.viewer.library import Library


def test_the_recorded_path_is_opened(results: Path) -> None:
    library = Library(results)
    assert [state.name for state in library.states] == ["a", "b"]
    assert library.slide(0).dimensions == EXTENT
    assert library.slide(0) is library.slide(0)
    library.close()


def test_a_slide_that_moved_is_found_by_content_under_another_name(results: Path) -> None:
    slides, archive = results.parent / "slides", results.parent / "archive/2026"
    archive.mkdir(parents=True)
    write_slide(archive / "0.tif", shade=9)
    shutil.move(slides / "a.tif", archive / "renamed.tif")
    with pytest.raises(SlideError, match=r"a: not found, or not readable; give the folder .* --slides"):
        Library(results).slide(0)
    assert Path(Library(results, [archive.parent]).slide(0).path) == archive / "renamed.tif"


def test_another_slide_under_the_same_name_is_not_shown(results: Path) -> None:
    write_slide(results.parent / "slides/a.tif", shade=9)
    with pytest.raises(SlideError, match="another content than the slide that was classified"):
        Library(results).slide(0)
    with pytest.raises(SlideError, match="another content"):
        Library(results, [results.parent / "slides"]).slide(0)


def test_a_link_that_leads_out_of_the_folder_is_not_followed(results: Path) -> None:
    given = results.parent / "given"
    given.mkdir()
    (given / "a.tif").symlink_to(results.parent / "slides/a.tif")
    (given / "folder").symlink_to(results.parent / "slides")
    with pytest.raises(SlideError, match="not found"):
        Library(results, [given]).slide(0)
    (results.parent / "slides/b.tif").symlink_to(results.parent / "slides/a.tif")
    assert Library(results, [results.parent / "slides"]).slide(0)


def test_with_folders_the_recorded_path_is_not_used(results: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlideError, match="not found"):
        Library(results, [tmp_path / "empty"]).slide(0)


def test_states_and_exports_behind_links_are_not_read(results: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text((results / "states/a.json").read_text().replace('"name": "a"', '"name": "c"'))
    (results / "states/c.json").symlink_to(outside)
    library = Library(results)
    assert [state.name for state in library.states] == ["a", "b"]
    (results / "heatmaps").mkdir()
    (results / "heatmaps/a.jpg").symlink_to("/etc/passwd")
    assert library.export(0, "heatmaps/{slide}.jpg") is None


def test_a_url_is_not_fetched(results: Path) -> None:
    write_state(results, "u", Path("x"), prediction_of(Path("x"), "00"))
    path = results / "states/u.json"
    path.write_text(path.read_text().replace('"path": "x"', '"path": "http://127.0.0.1:9/x.svs"'))
    library = Library(results)
    with pytest.raises(SlideError, match="not found"):
        library.slide([state.name for state in library.states].index("u"))


def test_wrong_calls_are_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no results here"):
        Library(tmp_path)
    with pytest.raises(InputError, match="gone: no such folder"):
        Library(results, [tmp_path / "gone"])
    with pytest.raises(InputError, match="slide 2 was asked; there are 0 to 1"):
        Library(results).state(2)


def test_only_so_many_slides_stay_open(results: Path, add_named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_attention.viewer.library.KEPT", 1)
    add_named("c", 0.5)
    library = Library(results)
    first = library.slide(0)
    library.slide(2)
    with pytest.raises(SlideError, match="closed"):
        first.read((0, 0), 0, (8, 8))
    assert library.slide(0).read((0, 0), 0, (8, 8)).shape == (8, 8, 3)
