"""`wsi-attention info`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import typer
from PIL import Image
from typer.testing import CliRunner

from wsi_attention.cli import info as module
from wsi_attention.errors import InputError
from wsi_attention.export.legend import Frame
from wsi_attention.export.tissue_picture import OUTLINE, VEIL
from wsi_attention.files import write_text
from wsi_attention.inference.results.state import RunKey, SlideKey, State, to_text

app = typer.Typer()
app.command()(module.info)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    pixels = np.full((256, 320, 3), 240, np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", pixels, tile=(64, 64), photometric="rgb")
    return tmp_path / "s.tif"


def test_a_page_for_people(slide: Path) -> None:
    ran = run(slide, "--mpp", "0.25")
    assert ran.exit_code == 0, ran.output
    rows = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines() if line and not line.startswith("level"))
    assert rows["size"] == "320 x 256 px"
    assert rows["mpp"] == "0.25 x 0.25 µm/px (from: given)"
    assert "level 0      320 x 256 px, downsample 1, stored tiles 64x64" in ran.stdout.splitlines()


def test_a_bad_slide_is_a_line_and_the_others_are_shown(slide: Path) -> None:
    ran = run(slide.with_name("gone.svs"), slide, "--json")
    assert ran.exit_code == 1
    assert (
        ran.stderr == f"wsi-attention: error: {slide.with_name('gone.svs')}: no such file or folder; check the path\n"
    )
    assert json.loads(ran.stdout)["mpp"] is None


def with_tissue(path: Path, name: str = "tissue.tif") -> Path:
    pixels = np.full((512, 640, 3), (235, 232, 205), np.uint8)
    noise = np.random.default_rng(1).integers(-40, 40, (256, 320, 1))
    pixels[128:384, 160:480] = (np.array([190, 110, 150]) + noise).clip(0, 255)
    tifffile.imwrite(path / name, pixels, tile=(64, 64), photometric="rgb")
    return path / name


def test_the_tissue_found_is_shown_over_the_slide(tmp_path: Path) -> None:
    ran = run(with_tissue(tmp_path), "--mpp", "4", "--tissue", tmp_path / "out.png")
    assert ran.exit_code == 0, ran.output
    rows = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines() if line and not line.startswith("level"))
    assert re.match(r"2[4-6]\.\d% of the slide, 1\.\d+ mm², at \d+(\.\d+)? µm/px", rows["tissue"])
    assert rows["picture"] == str(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        colours = np.asarray(picture.convert("RGB"))
    frame = Frame.around((640, 512))
    (left, top), (w, h) = frame.origin, frame.slide
    shown = colours[top : top + h, left : left + w]
    middle, corner = shown[int(h * 0.3) : int(h * 0.7), int(w * 0.3) : int(w * 0.7)], shown[5 : h // 6, 5 : w // 6]
    assert np.abs(middle.mean((0, 1)) - (190, 110, 150)).max() < 4
    assert np.abs(corner.mean((0, 1)) - (np.array((235, 232, 205)) * 0.45 + np.array(VEIL) * 0.55)).max() < 2
    line = (shown == OUTLINE).all(-1)
    assert line[h // 2, int(w * 0.2) : int(w * 0.3)].any()
    assert not line[h // 2, int(w * 0.35) : int(w * 0.65)].any()


def test_the_picture_of_a_blank_slide_and_what_cannot_be_shown(tmp_path: Path, slide: Path) -> None:
    ran = run(slide, "--mpp", "4", "--tissue", tmp_path / "out.png", "--json")
    assert json.loads(ran.stdout)["tissue"]["share"] == 0
    assert (tmp_path / "out.png").is_file()
    ran = run(slide, "--tissue", tmp_path / "other.png")
    assert ran.exit_code == 1
    assert "how large a pixel is" in ran.stderr
    ran = run(slide, slide, "--tissue", tmp_path / "out.png")
    assert isinstance(ran.exception, InputError)
    assert "one picture shows one slide" in str(ran.exception)


def test_a_mask_of_everything_is_odd(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(-40, 40, (512, 640, 1))
    pixels = (np.array([190, 110, 150]) + noise).astype(np.uint8)
    tifffile.imwrite(tmp_path / "all.tif", pixels, tile=(64, 64), photometric="rgb")
    ran = run(tmp_path / "all.tif", "--mpp", "4", "--tissue", tmp_path / "out.png")
    assert "odd          tissue is 100% of the slide: the mask may be wrong" in ran.stdout


def test_a_folder_of_slides_is_a_row_for_each(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    slide.rename(tmp_path / "sub" / "good.tif")
    (tmp_path / "bad.svs").write_bytes(b"no slide")
    (tmp_path / "notes.txt").touch()
    ran = run(tmp_path, "--mpp", "0.25")
    assert ran.exit_code == 1
    head, good, _, summary, *_ = ran.stdout.splitlines()
    assert head.split() == ["slide", "pixels", "µm/px", "levels", "reader", "odd"]
    assert good.split()[:6] == ["sub/good.tif", "320", "x", "256", "0.25", "1"]
    assert summary == f"{tmp_path}: 2 slides, 1 of them cannot be opened, 1 other file"
    assert "bad.svs" in ran.stderr
    told = run(f"{tmp_path}/sub/*.tif", "--json")
    assert told.exit_code == 0 and json.loads(told.stdout)["size"] == [320, 256]


def test_a_results_folder_tells_what_was_done(tmp_path: Path) -> None:
    key = RunKey("mine", "ab" * 32, {"classes": ["a", "b"]})
    for number, label in enumerate(("a", "a", "b", "")):
        row, status = ({"label": label}, "done") if label else ({}, "failed")
        exports = (f"geojson/{number}.geojson",) if label else ()
        state = State(str(number), f"/{number}.svs", status, "", key, SlideKey(), row, 1.0, exports)
        write_text(tmp_path / "states" / f"{number}.json", to_text(state))
    (tmp_path / "predictions.csv").touch()
    rows = dict(line.split(maxsplit=1) for line in run(tmp_path).stdout.splitlines() if line)
    assert rows["model"] == f"mine (weights {'ab' * 6})"
    assert (rows["slides"], rows["labels"], rows["exports"]) == ("3 done, 1 failed", "2 a, 1 b", "geojson")
    assert json.loads(run(tmp_path, "--json").stdout)["labels"] == {"a": 2, "b": 1}


def test_a_shipped_model_is_known_by_its_name_and_a_file_of_that_name_is_not_it(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dict(line.split(maxsplit=1) for line in run("demo").stdout.splitlines() if line)
    assert (rows["method"], rows["purpose"]) == ("ats", "demonstration")
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(slide, tmp_path / "demo")
    assert "method" not in run("demo", "--mpp", "0.25").stdout
    ran = run("dmeo")
    assert ran.exit_code == 1 and "dmeo: no such file or folder" in ran.output
