"""Whole files or none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from wsi_attention.errors import ResultsError
from wsi_attention.files import publish, remove_unfinished, results_errors, temporary, write_if_new, write_text


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new/x.json"
    write_text(path, "one")
    write_text(path, "two\udcff")
    assert path.read_text() == "two\\udcff"
    assert [file.name for file in path.parent.iterdir()] == ["x.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match=r"x\.json: cannot be written: the disk is full; what is finished is kept"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_folders_are_replaced_too(tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    for text in ("old", "new"):
        temporary(path).mkdir()
        (temporary(path) / text).touch()
        publish(path)
    assert [file.name for file in path.iterdir()] == ["new"]


def test_unfinished_files_go_and_finished_ones_stay(tmp_path: Path) -> None:
    for name in ("a/.tmp-x.json", "a/.tmp-y.zarr/c/0", "a/x.json", "a/z.zarr/.tmp-inside"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    left = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file())
    assert left == ["a/x.json", "a/z.zarr/.tmp-inside"]


def test_a_full_disk_is_seen_through_wrapping() -> None:
    with pytest.raises(ResultsError, match="the disk is full"), results_errors(Path("x.png")):
        try:
            raise OSError(errno.ENOSPC, "")
        except OSError as error:
            raise RuntimeError("encoder failed") from error
    with pytest.raises(RuntimeError, match="something else"), results_errors(Path("x.png")):
        raise RuntimeError("something else")


def test_a_file_that_says_the_same_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_if_new(path, (f"{number}\n" for number in range(3)))
    first = path.stat()
    write_if_new(path, ["0\n1\n", "2\n"])
    assert path.stat().st_mtime_ns == first.st_mtime_ns and path.read_text() == "0\n1\n2\n"
    write_if_new(path, ["0\n1\n"])
    assert path.read_text() == "0\n1\n" and [*tmp_path.iterdir()] == [path]
