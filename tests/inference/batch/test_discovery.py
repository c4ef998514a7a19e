"""Which files of a folder are slides."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from wsi_attention.errors import InputError
from wsi_attention.inference.batch.discovery import find_slides, with_mpp
from wsi_attention.inference.batch.slides_csv import gather_slides
from wsi_attention.slide.slide import open_slide

TIFF = b"II*\0" + bytes(200)


def lay(folder: Path, *files: str) -> Path:
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"anything")
    return folder


def relatives(*inputs: str | Path, outside: Path | None = None) -> list[str]:
    return [slide.relative for slide in find_slides(inputs, outside).slides]


def test_folders_are_walked_and_other_files_counted(tmp_path: Path) -> None:
    lay(tmp_path, "b.svs", "a/c.NDPI", "a/d/e.ome.tif", "a/notes.txt", "thumb.png")
    found = find_slides([tmp_path])
    assert [slide.relative for slide in found.slides] == ["a/c.NDPI", "a/d/e.ome.tif", "b.svs"]
    assert found.others == (str(tmp_path / "a/notes.txt"), str(tmp_path / "thumb.png"))


def test_hidden_and_half_written_files_are_no_slides(tmp_path: Path) -> None:
    lay(tmp_path, "a.svs", ".b.svs", ".git/c.svs", "~$d.svs", "._a.svs")
    (tmp_path / "e.svs.part").write_bytes(TIFF)
    assert relatives(tmp_path) == ["a.svs"]


def test_slides_without_a_known_suffix_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "scan.001").write_bytes(TIFF)
    (tmp_path / "short").write_bytes(b"II")
    assert relatives(tmp_path) == ["IM0001", "scan.001"]


def test_zarr_stores_are_one_slide_and_never_walked(tmp_path: Path) -> None:
    lay(tmp_path, "a.zarr/0/0/inner.tif", "b/zarr.json", "b/c/x.tif", "v2/.zgroup", "v2/s0/y.tif")
    assert relatives(tmp_path) == ["a.zarr", "b", "v2"]
    assert relatives(tmp_path / "b") == ["b"]


def test_mrxs_companion_folder_belongs_to_its_slide(tmp_path: Path) -> None:
    lay(tmp_path, "x.mrxs", "x/Data0000.dat", "x/Index.tif", "y/z.svs")
    found = find_slides([tmp_path])
    assert [slide.relative for slide in found.slides] == ["x.mrxs", "y/z.svs"]
    assert found.others == ()


def test_files_given_by_name_are_always_tried(tmp_path: Path) -> None:
    lay(tmp_path, "odd.bin", ".hidden.svs")
    assert relatives(tmp_path / "odd.bin", tmp_path / ".hidden.svs") == [".hidden.svs", "odd.bin"]


def test_a_slide_given_twice_is_one_slide(tmp_path: Path) -> None:
    lay(tmp_path, "a/x.svs")
    assert relatives(tmp_path, tmp_path / "a", tmp_path / "a/x.svs") == ["a/x.svs"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    lay(tmp_path, "a/x.svs")
    (tmp_path / "a/loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self.svs").symlink_to(tmp_path / "self.svs")
    assert relatives(tmp_path) == ["a/x.svs", "self.svs"]


def test_links_that_lead_nowhere_are_not_passed_over(tmp_path: Path) -> None:
    for name in ("gone.svs", "gone.txt"):
        (tmp_path / name).symlink_to(tmp_path / "nothing")
    found = find_slides([tmp_path])
    assert [slide.relative for slide in found.slides] == ["gone.svs"]
    assert found.others == (str(tmp_path / "gone.txt"),)


def test_results_are_not_taken_for_slides(tmp_path: Path) -> None:
    lay(tmp_path, "x.svs", "out/heatmaps/x.ome.zarr/zarr.json", "old/predictions.csv", "old/states/x.json", "old/y.tif")
    assert relatives(tmp_path, outside=tmp_path / "out") == ["x.svs"]
    with pytest.raises(InputError, match="results cannot go into the folder of the slides itself"):
        find_slides([tmp_path], tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    lay(tmp_path, "x.svs")
    os.mkfifo(tmp_path / "pipe")
    assert relatives(tmp_path) == ["x.svs"]


def test_urls_are_taken_as_they_are() -> None:
    (slide,) = find_slides(["https://example.org/a/x.svs?v=1&token=2"] * 2).slides
    assert (slide.relative, slide.path) == ("x.svs", "https://example.org/a/x.svs?v=1&token=2")
    assert slide.key == "https://example.org/a/x.svs?v=1&token=***"
    with pytest.raises(InputError, match=r"token=\*\*\*: given twice, with different secrets"):
        find_slides(["https://example.org/a/x.svs?token=1", "https://example.org/a/x.svs?token=2"])
    assert relatives("https://example.org/a/x.dcm") == ["x.dcm"]


def test_wrong_inputs_say_what_was_found(tmp_path: Path) -> None:
    lay(tmp_path, "notes.txt")
    with pytest.raises(InputError, match=r"nowhere\.svs: no such file or folder"):
        find_slides([tmp_path / "nowhere.svs"])
    with pytest.raises(InputError, match=r"no slides in .*; other files there: 1; known suffixes: .*\.svs"):
        find_slides([tmp_path])


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="the superuser may list every folder")
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    lay(tmp_path, "x.svs", "closed/y.svs")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(InputError, match="closed: cannot be listed"):
            find_slides([tmp_path])
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_mpp_of_the_call_gives_way_to_that_of_the_table(tmp_path: Path) -> None:
    found = find_slides([lay(tmp_path, "x.svs", "y.svs")]).slides
    first, second = with_mpp((with_mpp(found[:1], 0.25)[0], found[1]), 0.5)
    assert (first.mpp, second.mpp) == (0.25, 0.5)
    with pytest.raises(InputError, match="mpp must be a number of µm per pixel from 0"):
        with_mpp(found, -1)


def test_a_dicom_series_has_the_name_of_its_folder_however_it_is_given(shared_data: Path, tmp_path: Path) -> None:
    series = shutil.copytree(shared_data / "slides/dicom/boxes", tmp_path / "slides" / "case 1.2")
    whole = [("case 1.2", str(series))]
    for given in (series.parent, series, series / "boxes_1.dcm", series / "boxes_0.dcm"):
        found = find_slides([given]).slides
        assert [(slide.relative, slide.path) for slide in found] == whole
    for row in ("case 1.2", "case 1.2/boxes_1.dcm", "case 1.2\\boxes_0.dcm"):
        (tmp_path / "slides.csv").write_text(f"slide\n{row}\n")
        found = gather_slides([series.parent], tmp_path / "slides.csv").slides
        assert [(slide.relative, slide.path) for slide in found] == whole
    with open_slide(str(series)) as one, open_slide(str(series / "boxes_1.dcm")) as other:
        assert one.fingerprint == other.fingerprint
        assert one.facts.series_id == other.facts.series_id is not None


def test_a_dicom_file_alone_has_its_own_name_unless_its_folder_is_its_own(shared_data: Path, tmp_path: Path) -> None:
    file = shutil.copy(shared_data / "slides/dicom/highdicom/sm_image.dcm", tmp_path)
    assert relatives(file) == relatives(tmp_path) == ["sm_image.dcm"]
    (tmp_path / "case").mkdir()
    shutil.move(file, tmp_path / "case")
    assert relatives(tmp_path) == ["case"]
    (tmp_path / "case" / "other.svs").touch()
    assert relatives(tmp_path) == ["case/other.svs", "case/sm_image.dcm"]


def test_instances_of_one_dicom_series_are_one_slide(shared_data: Path, tmp_path: Path) -> None:
    for name in ("boxes/boxes_0.dcm", "boxes/boxes_1.dcm", "highdicom/sm_image.dcm"):
        shutil.copy(shared_data / "slides/dicom" / name, tmp_path)
    shutil.copy(shared_data / "malformed/highdicom/sm_image_jpegls.dcm", tmp_path)
    assert relatives(tmp_path) == ["boxes_0.dcm", "sm_image.dcm", "sm_image_jpegls.dcm"]
