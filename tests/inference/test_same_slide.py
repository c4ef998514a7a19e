"""A result stands for the slide that it was made of, asked as it was asked, and for no other."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsi_attention.checkpoint import Classifier
from wsi_attention.export.geojson import GeoJSONExporter
from wsi_attention.export.heatmap import draw
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.batch.summary import Report, summary
from wsi_attention.inference.results.export_again import export_again
from wsi_attention.inference.results.state import SlideKey, stored_predictions
from wsi_attention.slide import own_files
from wsi_attention.slide.own_files import content, written

NEW = "the file was written anew, and its whole content is not known from before (--full-hash keeps it)"


def run(slides: Path, results: Path, classifier: Classifier, **more: Any) -> Report:
    return classify([slides], results, classifier, **{"what": ("tiles",), "in_process": True, **more})


def again(report: Report) -> dict[str, str]:
    assert report.kept + len(report.again) == report.total
    return dict(report.again)


def set_mpp(path: Path, mpp: float) -> None:
    """Corrects the scale in place: the same size, and no byte of a sample at another place changed."""
    import tifffile

    with tifffile.TiffFile(path, mode="r+") as file:
        for page in file.pages:
            for name in ("XResolution", "YResolution"):
                page.tags[name].overwrite((round(1e4 / mpp * 100), 100))


def overwrite(path: Path, at: int, count: int = 40) -> None:
    """Other pixels in place, in a file whose tiles are stored as they are."""
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(count)
        file.seek(at)
        file.write(bytes(byte ^ 1 for byte in old))


def unpack(path: Path) -> None:
    """Stores the tiles without compression."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        levels = [page.asarray() for page in file.pages]
    scale = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as writer:
        for level in levels:
            writer.write(level, tile=(128, 128), photometric="rgb", **scale)


@pytest.fixture
def slides(tmp_path: Path, write_slide) -> Path:
    for number, name in enumerate("ab"):
        write_slide(tmp_path / f"slides/{name}.tif", seed=number)
    return tmp_path / "slides"


def test_a_scale_corrected_in_place_is_another_slide(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    run(slides, tmp_path / "out", tiny)
    size = (slides / "a.tif").stat().st_size
    set_mpp(slides / "a.tif", 0.25)
    assert (slides / "a.tif").stat().st_size == size
    report = run(slides, tmp_path / "out", tiny)
    assert again(report) == {"a": "the file has mpp 0.25, had 0.5"}
    assert "1 slide done again: the file has mpp 0.25, had 0.5 (a)" in summary(report)
    facts = json.loads(max((tmp_path / "out").glob("run_*.json")).read_text())
    assert facts["done_again"] == {"a": "the file has mpp 0.25, had 0.5"}
    run(slides, tmp_path / "fresh", tiny)
    assert (tmp_path / "out/tiles/a.csv").read_bytes() == (tmp_path / "fresh/tiles/a.csv").read_bytes()


@pytest.mark.parametrize("small", [True, False], ids=["hashed whole", "large"])
@pytest.mark.parametrize("times", ["new", "restored"])
def test_overwritten_pixels(
    slides: Path, tmp_path: Path, tiny: Classifier, monkeypatch: pytest.MonkeyPatch, small: bool, times: str
) -> None:
    monkeypatch.setattr("wsi_attention.slide.fingerprint.WHOLE", 2**14)  # samples, as of a large file
    monkeypatch.setattr("wsi_attention.slide.fingerprint.SAMPLE_BYTES", 2**9)
    if not small:
        monkeypatch.setattr(own_files, "SMALL", 2**14)
    path = slides / "a.tif"
    unpack(path)
    before = path.stat()
    run(slides, tmp_path / "out", tiny, full_hash=times == "restored")
    overwrite(path, 640_000)
    if times == "restored":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    report = run(slides, tmp_path / "out", tiny, full_hash=times == "restored")
    assert again(report) == {"a": "the file has other content" if small or times == "restored" else NEW}
    assert again(run(slides, tmp_path / "out", tiny)) == {}


def test_an_export_takes_no_pixels_of_a_slide_that_was_corrected(
    slides: Path, tmp_path: Path, tiny: Classifier
) -> None:
    run(slides, tmp_path / "out", tiny)
    set_mpp(slides / "a.tif", 0.4)
    told: list[str] = []
    written = [*export_again(tmp_path / "out", "heatmap", tell=told.append)]
    assert told == [
        f"{slides / 'a.tif'}: the file has mpp 0.4, had 0.5; "
        "exported without its pixels until classify has done it again"
    ]
    found = dict(stored_predictions(tmp_path / "out"))
    for path, without in zip(written, (True, False), strict=True):
        with Image.open(path) as image:
            drawn = np.asarray(draw(found[path.stem]), np.int16)
            assert bool(np.abs(np.asarray(image, np.int16) - drawn).mean() < 3) == without
    run(slides, tmp_path / "out", tiny)
    assert [*export_again(tmp_path / "out", "heatmap", tell=told.append)] == written and len(told) == 1


def test_a_touched_or_moved_slide_is_kept(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    run(slides, tmp_path / "out", tiny)
    old = json.loads((tmp_path / "out/states/a.json").read_text())
    (slides / "a.tif").touch()
    report = run(slides, tmp_path / "out", tiny)
    assert again(report) == {}
    new = json.loads((tmp_path / "out/states/a.json").read_text())
    assert new.pop("slide")["written"] != old.pop("slide")["written"]
    assert new == old
    slides.rename(tmp_path / "moved")
    assert again(run(tmp_path / "moved", tmp_path / "out", tiny)) == {}
    assert json.loads((tmp_path / "out/states/a.json").read_text())["path"] == str(tmp_path / "moved/a.tif")
    shutil.copytree(tmp_path / "moved", tmp_path / "copied", copy_function=shutil.copy)
    shutil.rmtree(tmp_path / "moved")
    assert again(run(tmp_path / "copied", tmp_path / "out", tiny)) == {}


def test_a_slide_that_nobody_touched_is_not_even_opened(
    slides: Path, tmp_path: Path, tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(slides, tmp_path / "out", tiny)
    monkeypatch.setattr(
        "wsi_attention.inference.batch.subjects.open_slide", lambda *given, **more: pytest.fail("opened")
    )
    assert run(slides, tmp_path / "out", tiny).kept == 2


def test_another_mpp_is_told(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    run(slides, tmp_path / "out", tiny, mpp=0.5)
    report = run(slides, tmp_path / "out", tiny, mpp=0.4)
    assert "2 slides done again: --mpp 0.4, was 0.5 (a, b)" in summary(report)
    assert set(again(run(slides, tmp_path / "out", tiny)).values()) == {"no --mpp, was 0.4"}
    assert set(again(run(slides, tmp_path / "out", tiny, mpp=0.4)).values()) == {"--mpp 0.4, was none"}


def test_more_exports_and_lost_ones_are_told(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    run(slides, tmp_path / "out", tiny)
    (tmp_path / "out/tiles/b.csv").unlink()
    assert again(run(slides, tmp_path / "out", tiny)) == {"b": "its files are gone: tiles"}
    report = run(slides, tmp_path / "out", tiny, what=("tiles", "geojson"))
    assert set(again(report).values()) == {"--what asks for geojson as well"}
    assert again(run(slides, tmp_path / "out", tiny)) == {}


def test_other_options_of_an_export_are_told(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    run(slides, tmp_path / "out", tiny, what="geojson")
    few = GeoJSONExporter(top=1)
    report = run(slides, tmp_path / "out", tiny, what=few)
    assert set(again(report).values()) == {"other options are asked for: geojson"}
    features = json.loads((tmp_path / "out/geojson/a.geojson").read_text())["features"]
    assert sum(one["properties"].get("name", "").startswith("Attention rank") for one in features) == 1
    assert again(run(slides, tmp_path / "out", tiny, what=few)) == {}
    assert set(again(run(slides, tmp_path / "out", tiny, what="geojson")).values()) == {
        "other options are asked for: geojson"
    }


def test_a_slide_that_is_not_asked_for_any_more_is_told(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    run(slides, tmp_path / "out", tiny)
    (slides / "a.tif").unlink()
    report = run(slides, tmp_path / "out", tiny)
    assert (report.gone, report.kept) == (("a",), 1)
    assert "1 slide of earlier runs not asked for now, rows and files stay: a; --overwrite removes them" in summary(
        report
    )


def test_results_of_format_1_are_done_again(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    run(slides, tmp_path / "out", tiny)
    for path in (tmp_path / "out/states").glob("*.json"):
        values = json.loads(path.read_text())
        values["slide"] = {name: values["slide"][name] for name in ("fingerprint", "mpp", "mask_sha256")}
        path.write_text(json.dumps({**values, "format": 1}))
    report = run(slides, tmp_path / "out", tiny)
    assert set(again(report).values()) == {
        "its result is of an earlier version, which did not record what the file was like"
    }
    assert again(run(slides, tmp_path / "out", tiny)) == {}


def test_one_chunk_of_a_store_is_noticed(tmp_path: Path) -> None:
    store = tmp_path / "s.ome.zarr"
    for name in (".zattrs", "0/0/0", "0/0/1"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text("x")
    times, whole = written(str(store)), content(str(store))
    assert written(str(store)) == times
    (store / "0/0/1").write_text("y")
    assert written(str(store))[0] != times[0] and content(str(store)) != whole
    (store / "0/0/1").write_text("x")
    assert content(str(store)) == whole
    (store / "0/0/2").write_text("x")
    assert content(str(store)) != whole


def test_what_belongs_to_a_slide(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for name in ("m.mrxs", "m/Data0000.dat", "other.txt"):
        (tmp_path / name).write_text("x")
    before = written(str(tmp_path / "m.mrxs"))
    (tmp_path / "other.txt").write_text("y")
    assert written(str(tmp_path / "m.mrxs")) == before
    (tmp_path / "m/Data0000.dat").write_text("y")
    assert written(str(tmp_path / "m.mrxs")) != before


def dicom(path: Path, series: str, text: str = "") -> Path:
    """The start of a DICOM file as far as its series."""
    value = series.encode() + b"\0" * (len(series) % 2)
    tag = b"\x20\x00\x0e\x00UI" + len(value).to_bytes(2, "little")
    path.write_bytes(bytes(128) + b"DICM" + tag + value + b"\x20\x00\x10\x00SH" + text.encode())
    return path


def test_all_files_of_a_dicom_series_belong_to_its_slide(tmp_path: Path) -> None:
    one, two, other = (dicom(tmp_path / f"{n}.dcm", series) for n, series in enumerate(("1.2.3", "1.2.3", "1.2.4")))
    before, whole = written(str(one)), content(str(one))
    dicom(other, "1.2.4", "changed")
    assert (written(str(one)), content(str(one))) == (before, whole)
    dicom(two, "1.2.3", "changed")
    assert written(str(one)) != before and content(str(one)) != whole


def test_files_that_are_not_there_say_nothing(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.svs")
    assert (written(gone), content(gone)) == (("", ""), None)
    os.mkfifo(tmp_path / "fifo.dcm")
    assert (written(str(tmp_path / "fifo.dcm")), content(str(tmp_path / "fifo.dcm"))) == (("", ""), None)


def test_keys_without_a_look_at_the_files_are_never_untouched() -> None:
    assert not SlideKey("f").untouched(SlideKey("f"))
    seen = SlideKey("f", seen={"mpp": "0.5"}, changed="1 2 3")
    assert seen.untouched(SlideKey(changed="1 2 3"))
    assert not seen.untouched(SlideKey(changed="1 2 4")) and not seen.untouched(SlideKey(changed=""))
    assert seen.difference(SlideKey("f", seen={"mpp": "0.25"})) == "the file has mpp 0.25, had 0.5"
