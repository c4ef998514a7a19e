"""Which reader a path gets, and what is said where it gets none."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_attention.errors import InputError, SlideOpenError
from wsi_attention.slide.opening import check_name, choose


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "link.svs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SlideOpenError, match=r"gone\.svs: no such file or folder; check the path"):
        choose(str(tmp_path / "gone.svs"))
    with pytest.raises(SlideOpenError, match=r"link\.svs: a link to something that is not there; check the path"):
        choose(str(tmp_path / "link.svs"))


def test_a_folder_that_is_no_slide_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SlideOpenError, match="neither an OME-Zarr store nor a DICOM series; give a slide file inside"):
        choose(str(tmp_path))


def test_a_file_that_is_no_slide_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "x.svs").write_bytes(b"no slide at all")
    with pytest.raises(SlideOpenError, match=r"in no format that a reader knows; copy it again .* else leave it out"):
        choose(str(tmp_path / "x.svs"))


def test_unknown_readers_are_refused() -> None:
    assert check_name("auto") == "auto"
    with pytest.raises(InputError, match=r"no reader named 'vips'; possible: auto, .*openslide"):
        check_name("vips")
