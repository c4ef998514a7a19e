"""What people say is in a CSV of their own: whole, alone, inside the results folder, there again after a restart."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import pytest

from wsi_attention.errors import InputError, ResultsError
from wsi_attention.viewer.content import Content
from wsi_attention.viewer.library import Library
from wsi_attention.viewer.reviews import COLUMNS, Review, Reviews

ABOUT = {"label": "lesion", "model": "demo", "weights_sha256": "ab" * 32, "version": "0.1.0"}
AGREE = Review("agree", "", (100.4, 200.6, 0.25))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of which no file may change."""
    made = tmp_path / "results"
    (made / "states").mkdir(parents=True)
    (made / "states/a.json").write_text("{}")
    (made / "predictions.csv").write_text("slide\n")
    return made


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_each_person_has_a_csv_and_nothing_else_is_touched(folder: Path) -> None:
    before = files_in(folder)
    reviews = Reviews(folder)
    reviews.save("Anna Ö.-2", "a", AGREE, ABOUT)
    reviews.save("Ben", "a", Review("disagree", "necrosis?", (1, 2, 3)), ABOUT)
    reviews.save("Ben", "deep/b", AGREE, ABOUT)
    after = files_in(folder)
    assert {name for name in after if name not in before} == {"reviews/Anna Ö.-2.csv", "reviews/Ben.csv"}
    assert {name: after[name] for name in before} == before
    assert Reviews(folder).people() == ["Anna Ö.-2", "Ben"]
    rows = list(csv.DictReader((folder / "reviews/Ben.csv").read_text("utf-8").splitlines()))
    assert tuple(rows[0]) == COLUMNS and [row["slide"] for row in rows] == ["a", "deep/b"]
    assert (rows[1]["x"], rows[1]["y"], rows[1]["zoom"], rows[1]["label"]) == ("100", "201", "0.25", "lesion")


def test_what_was_said_is_there_after_a_restart_and_can_be_taken_back(folder: Path) -> None:
    note = '=HYPERLINK("http://x")\nsecond line, with "quotes"\x1b'
    Reviews(folder).save("Anna", "a", Review("disagree", note, (1, 2, 3)), ABOUT)
    assert "'=HYPERLINK" in (folder / "reviews/Anna.csv").read_text()
    found = Reviews(folder).rows("anna")["a"]
    assert found["note"] == '=HYPERLINK("http://x")\nsecond line, with "quotes"\\x1b'
    Reviews(folder).save("ANNA", "b", AGREE, ABOUT)
    Reviews(folder).save("Anna", "a", Review("", "  ", (1, 2, 3)), ABOUT)
    assert Reviews(folder).people() == ["Anna"] and list(Reviews(folder).rows("Anna")) == ["b"]


NAMES = (
    *("", "../up", "a/b", "a\\b", ".hidden", "con", "NUL.x", "x" * 61, "a\0", "-dash", "dot.", "a\u202eb", "C:x"),
    *("..", "/etc/x", "a\nb"),
)


def test_names_that_are_no_file_names_are_refused(folder: Path) -> None:
    before = files_in(folder.parent)
    for name in NAMES:
        with pytest.raises(InputError, match="cannot be the name of a file; give a name of"):
            Reviews(folder).save(name, "a", AGREE, ABOUT)
    assert files_in(folder.parent) == before


def test_links_lead_nowhere(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = outside / "secret.csv"
    secret.write_text("slide\n")
    (folder / "reviews").symlink_to(outside)
    with pytest.raises(InputError, match="leads out of the results folder"):
        Reviews(folder).save("Anna", "a", AGREE, ABOUT)
    assert Reviews(folder).people() == []
    (folder / "reviews").unlink()
    (folder / "reviews").mkdir()
    (folder / "reviews/Anna.csv").symlink_to(secret)
    with pytest.raises(InputError, match="leads out of the results folder"):
        Reviews(folder).rows("Anna")
    (folder / "reviews/.tmp-Ben.csv").symlink_to(secret)
    Reviews(folder).save("Ben", "a", AGREE, ABOUT)
    assert files_in(outside) == {"secret.csv": b"slide\n"}


def test_a_csv_that_is_not_ours_stays_as_it_is(results: Path) -> None:
    path = results / "reviews/Anna.csv"
    path.parent.mkdir()
    path.write_text("slide,opinion\na,yes\n")
    with pytest.raises(InputError, match=r"Anna\.csv: column 'label' is one too many or missing; move the file away"):
        Reviews(results).save("Anna", "a", AGREE, ABOUT)
    assert path.read_text() == "slide,opinion\na,yes\n"
    said = json.loads(Content(Library(results)).said())
    assert said["people"] == {"Anna": {}} and "move the file away" in said["trouble"]["Anna"]
    with pytest.raises(InputError, match="move the file away"):
        Content(Library(results), reviewer="Anna")


def test_a_full_disk_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reviews = Reviews(folder)
    reviews.save("Anna", "a", AGREE, ABOUT)
    before = (folder / "reviews/Anna.csv").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match="the disk is full; what it held before is still there"):
        reviews.save("Anna", "b", AGREE, ABOUT)
    assert (folder / "reviews/Anna.csv").read_bytes() == before


def test_a_folder_in_the_place_of_the_csv_is_told(folder: Path) -> None:
    (folder / "reviews").write_text("")
    with pytest.raises(InputError, match="move away what has its place"):
        Reviews(folder).save("Anna", "a", AGREE, ABOUT)


def test_what_no_review_holds_is_refused() -> None:
    with pytest.raises(InputError, match="must be agree, disagree, or empty"):
        Review("maybe", "", (1, 2, 3))
    with pytest.raises(InputError, match="the note has 4001 characters; shorten it to 4000"):
        Review("agree", "x" * 4001, (1, 2, 3))
